"""The three commands a server, a laptop or a cluster worker makes datasets with.

``python -I -m dataset_handlers COMMAND REQUEST.json`` reads one JSON object and writes JSON lines to standard output;
everything a handler prints goes to standard error. Requests, all with ``handler_api: 1``, ``dataset``
(the name in shard files) and, where the entry point is called otherwise, ``handler``::

    describe  {config?, die_with_parent?}                  -> described
    plan      {config, raw_root, work_dir, workers?, die_with_parent?}
                                                           -> planned
    build     {config, raw_root, work_dir, shards?, workers?, die_with_parent?}
                                                           -> progress*, shard*, finished?

``build`` makes the shards with the given numbers (all by default); what is sealed already is announced, not made
again. When every shard of the plan is sealed it writes the metadata and says ``finished``. Events::

    {"event": "described", "handler_api", "options", "schema", "effective_config"?}
    {"event": "planned", "samples", "shards", "rejected"}
    {"event": "progress", "done", "total"}                 samples
    {"event": "shard", "number", "file", "split", "examples", "bytes", "sha256"}
    {"event": "finished", "files": [...], "quarantined"}
    {"event": "error", "code", "message", "faults"?}       the last line of a run that failed; exit status 1
"""

import gc
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from .config import check_config
from .contract import HANDLER_API, DatasetHandler
from .errors import EmptySelectionError, RawDataError, RequestError, TooManyBadSamplesError
from .external import build_external, check_options, effective, plan_external
from .metadata import write_features, write_metadata
from .plan import Plan
from .pool import die_with_parent, make_shards
from .registry import load_handler
from .sample_handler import SampleHandler
from .shards import SealedShard, WorkFolder

Emit = Callable[[dict[str, Any]], None]

_KINDS: dict[type, str] = {str: "a string", dict: "an object", list: "a list", int: "a whole number"}
_FIELDS: dict[str, type] = {
    "handler": str,
    "config": dict,
    "raw_root": str,
    "work_dir": str,
    "shards": list,
    "workers": int,
    "die_with_parent": int,
}


def check_request(request: Any) -> dict[str, Any]:
    """The request, if it is one of this version; raises `RequestError`."""
    if not isinstance(request, dict) or not isinstance(request.get("dataset"), str):
        raise RequestError("a request is a JSON object that names its dataset")
    if request.get("handler_api") != HANDLER_API:
        raise RequestError(
            f"this package speaks handler_api {HANDLER_API}, the request {request.get('handler_api')!r}; "
            "use versions of server and handler that agree"
        )
    for name, kind in _FIELDS.items():
        value = request.get(name)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise RequestError(f"'{name}' of a request is {_KINDS[kind]}, not {value!r:.80}")
    if request.get("workers") is not None and request["workers"] < 1:
        raise RequestError("a build needs one worker or more")
    return request


def _required(request: Mapping[str, Any], *names: str) -> list[Any]:
    """The values of these fields; raises `RequestError` for those that lack."""
    if missing := [name for name in names if request.get(name) is None]:
        raise RequestError(f"the request lacks {', '.join(missing)}")
    return [request[name] for name in names]


def effective_config(handler: type[DatasetHandler], config: Mapping[str, Any]) -> dict[str, Any]:
    """Check a config; raises `ConfigRefusedError` with all its faults."""
    if issubclass(handler, SampleHandler):
        return check_config(handler.Config, dict(config)).effective()
    return effective(handler, config)


def describe(request: Mapping[str, Any], emit: Emit) -> None:
    """Say which options a handler has, and what a config means to it."""
    if parent := request.get("die_with_parent"):
        die_with_parent(parent)
    handler = load_handler(request.get("handler") or request["dataset"])
    event: dict[str, Any] = {
        "event": "described",
        "handler_api": HANDLER_API,
        "options": handler.config_options(),
    }
    event["doc"] = (handler.__doc__ or "").strip()
    if issubclass(handler, SampleHandler):
        event["schema"] = handler.Config.model_json_schema()
    if request.get("config") is not None:
        event["effective_config"] = effective_config(handler, request["config"])
    emit(event)


def plan(request: Mapping[str, Any], emit: Emit) -> None:
    """Decide what goes where; nothing of the dataset itself is written."""
    gc.set_threshold(50_000)  # lists of a hundred thousand samples stay: looking through them for garbage is in vain
    handler, work = _open(request)
    work.create()
    if isinstance(handler, SampleHandler):
        made = handler.plan(request["dataset"], work, request.get("workers") or os.cpu_count() or 1)
        _refuse_too_many(handler, made, 0, ())
    else:
        made = plan_external(request["dataset"], type(handler), request["config"], work)
    emit(
        {
            "event": "planned",
            "samples": made.samples,
            "shards": len(made.shards),
            "rejected": len(made.rejected),
        }
    )


def build(request: Mapping[str, Any], emit: Emit) -> None:
    """Make shards of a plan, and the metadata once all are sealed."""
    handler, work = _open(request)
    work.remove_partial()
    made = Plan.load(work.plan)
    if (made.dataset, made.config) != (request["dataset"], effective_config(type(handler), request["config"])):
        raise RequestError(f"the plan in {work.plan} is for another dataset or config; plan again")
    if isinstance(handler, SampleHandler):
        write_features(work, made)
        sealed = _build_shards(request, handler, work, made, emit)
        if len(sealed) < len(made.shards):
            return
    else:
        made, sealed = build_external(made, handler, work)
        for record in sealed:
            emit({"event": "shard", **record.announcement()})
    _refuse_empty_splits(sealed)
    files = write_metadata(work, made, sealed)
    quarantined = len(made.rejected) + sum(len(record.quarantine) for record in sealed)
    emit({"event": "finished", "files": files, "quarantined": quarantined})


def _build_shards(
    request: Mapping[str, Any], handler: SampleHandler, work: WorkFolder, made: Plan, emit: Emit
) -> list[SealedShard]:
    """Make what is asked for; return all that is sealed of the plan so far, in order."""
    sealed: dict[int, SealedShard] = {}
    for shard in made.shards:
        if record := work.read_sealed(shard):
            sealed[shard.number] = record
    asked = request.get("shards")
    planned = {shard.number for shard in made.shards}
    if unknown := [number for number in asked or () if not isinstance(number, int) or number not in planned]:
        raise RequestError(f"the plan has no shards {unknown}")
    numbers = planned if asked is None else set(asked)
    missing = [shard for shard in made.shards if shard.number in numbers and shard.number not in sealed]
    resumed = {number: made.shards[number].samples for number in sealed}
    done, bad = sum(resumed.values()), sum(len(record.quarantine) for record in sealed.values())
    for number in sorted(numbers & sealed.keys()):
        emit({"event": "shard", **sealed[number].announcement()})

    def progress(samples: int, unusable: int) -> None:
        nonlocal done, bad
        done, bad = done + samples, bad + unusable
        if samples:
            emit({"event": "progress", "done": done, "total": made.samples})

    emit({"event": "progress", "done": done, "total": made.samples})
    _refuse_too_many(handler, made, bad, sealed.values())
    workers = request.get("workers") or os.cpu_count() or 1
    for record in make_shards(handler, work, missing, workers, progress):
        sealed[record.number] = record
        emit({"event": "shard", **record.announcement()})
        _refuse_too_many(handler, made, bad, sealed.values())
    return [sealed[number] for number in sorted(sealed)]


def _refuse_empty_splits(sealed: Iterable[SealedShard]) -> None:
    """Raise `EmptySelectionError` for a split of which nothing is left."""
    examples: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    for record in sealed:
        examples[record.split] += record.examples
        for _, reason in record.quarantine:
            reasons.setdefault(record.split, reason)
    for split, count in examples.items():
        if not count:
            why = f"; the first reason: {reasons[split]}" if split in reasons else ""
            raise EmptySelectionError(f"no example is left of split '{split}'{why}")


def _refuse_too_many(handler: SampleHandler, made: Plan, bad: int, sealed: Iterable[SealedShard]) -> None:
    """Raise `TooManyBadSamplesError` if ``bad`` samples, with those rejected while planning, are too many.

    Where ``limit`` leaves only some of the samples, only as large a part of the rejected ones counts.
    """
    allowed = handler.options.max_quarantined_share
    rejected = len(made.rejected) * made.samples / made.found
    share = (rejected + bad) / (rejected + made.samples)
    if share > allowed:
        reasons = [item.reason for item in made.rejected]
        reasons += [reason for record in sealed for _, reason in record.quarantine]
        raise TooManyBadSamplesError(
            f"{share:.1%} of the samples cannot be used, more than max_quarantined_share = {allowed:g} allows; "
            f"the first: {reasons[0] if reasons else 'see the log'}"
        )


def _open(request: Mapping[str, Any]) -> tuple[DatasetHandler, WorkFolder]:
    if parent := request.get("die_with_parent"):
        die_with_parent(parent)
    config, raw_root, work_dir = _required(request, "config", "raw_root", "work_dir")
    work = WorkFolder(Path(work_dir))
    handler_class = load_handler(request.get("handler") or request["dataset"])
    if not issubclass(handler_class, SampleHandler):
        config = check_options(handler_class, config)
    handler = handler_class(config, raw_root)
    if not handler.raw_data_path().is_dir():
        raise RawDataError(
            f"the raw folder '{handler.raw_data_path().name}' is not there; put the raw data under the raw root"
        )
    return handler, work


COMMANDS = {"describe": describe, "plan": plan, "build": build}
