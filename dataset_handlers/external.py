"""Handlers that implement the whole contract themselves: their config is checked, their shards are taken in.

They run in one process and start over after a crash; what they write is read back record by record before it counts.
"""

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .contract import DatasetHandler
from .environment import describe_environment
from .errors import ConfigRefusedError, HandlerError
from .example_proto import decode_example
from .features import BytesFeature, Feature, TensorFeature, features_json
from .files import atomic_file
from .plan import Plan
from .shards import SealedShard, WorkFolder, split_of_file
from .tfrecord import read_records

_TYPES: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def check_options(handler: type[DatasetHandler], config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` with defaults filled in; raises `ConfigRefusedError` for unknown, missing and mistyped options.

    An option's type is checked where it is a JSON Schema with a simple ``type``.
    """
    options = handler.config_options()
    faults = [
        {"path": f"/{name}", "reason": f"no such option; the options are {', '.join(sorted(options))}"}
        for name in config
        if name not in options
    ]
    checked: dict[str, Any] = {}
    for name, option in options.items():
        if name not in config:
            if "default" in option:
                checked[name] = option["default"]
            else:
                faults.append({"path": f"/{name}", "reason": "is required"})
            continue
        kind = option.get("type")
        kind = kind.get("type") if isinstance(kind, Mapping) else kind
        allowed = _TYPES.get(kind) if isinstance(kind, str) else None
        value = config[name]
        if allowed and (not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed)):
            faults.append({"path": f"/{name}", "reason": f"is not of type {kind}"})
        checked[name] = value
    if faults:
        raise ConfigRefusedError(faults)
    return checked


def effective(handler: type[DatasetHandler], config: Mapping[str, Any]) -> dict[str, Any]:
    """The checked config without the options that only readers use."""
    options = handler.config_options()
    checked = check_options(handler, config)
    return {name: value for name, value in checked.items() if not options[name].get("reader_only")}


def plan_external(dataset: str, handler: type[DatasetHandler], config: Mapping[str, Any], work: WorkFolder) -> Plan:
    """A plan without samples: only the handler knows what it will write."""
    plan = Plan(dataset, effective(handler, config), {}, 0, (), (), (), describe_environment())
    plan.save(work.plan)
    return plan


def build_external(plan: Plan, handler: DatasetHandler, work: WorkFolder) -> tuple[Plan, list[SealedShard]]:
    """Run ``as_tfrecord`` in a fresh folder, check every record, and take the shards in under TFDS' names.

    Returns the plan with its features, read off the first example. Raises `HandlerError` for shards that are missing
    or hold no Example, `CorruptShardError` for damaged ones.
    """
    scratch = work.root / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    back = Path.cwd()
    os.chdir(scratch)
    try:
        files = [Path(file).absolute() for file in handler.as_tfrecord()]
    finally:
        os.chdir(back)
    if not files:
        raise HandlerError("as_tfrecord returned no shard")
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(split_of_file(file.name), []).append(file)
    features: dict[str, Feature] = {}
    sealed: list[SealedShard] = []
    for split, paths in by_split.items():
        for index, path in enumerate(paths):
            name = f"{plan.dataset}-{split}.tfrecord-{index:05}-of-{len(paths):05}"
            sealed.append(_take_in(path, work.dataset / name, split, len(sealed), features))
    shutil.rmtree(scratch, ignore_errors=True)
    schema = features_json(features)
    return dataclasses.replace(plan, features=schema), sealed


def _take_in(path: Path, target: Path, split: str, number: int, features: dict[str, Feature]) -> SealedShard:
    if not path.is_file():
        raise HandlerError(f"as_tfrecord named {path.name}, which does not exist")
    examples = 0
    for record in read_records(path):
        example = decode_example(record)
        if not features:
            features.update(_infer(example))
        if _infer(example) != features:
            raise HandlerError(
                f"{path.name}: example {examples} holds other fields, or of other lengths, than the first"
            )
        examples += 1
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as source, atomic_file(target) as file:
        while chunk := source.read(1 << 20):
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    return SealedShard(number, target.name, split, examples, size, digest.hexdigest(), "")


def _infer(example: Mapping[str, list[Any]]) -> dict[str, Feature]:
    """A schema that reads ``example``: bytes as they are, numbers by the length they have here."""
    inferred: dict[str, Feature] = {}
    for name, values in example.items():
        if values and isinstance(values[0], bytes):
            inferred[name] = BytesFeature()
        else:
            shape = () if len(values) == 1 else (len(values),)
            inferred[name] = TensorFeature(shape, "float32" if values and isinstance(values[0], float) else "int64")
    return inferred
