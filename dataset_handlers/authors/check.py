"""Holds a handler to its contract on a raw folder: describe, plan, build, in the ways a server does and may have to.

Everything a handler does is done by processes of its own, in a temporary folder; this process never imports it.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..errors import RawDataError, RequestError, UnknownDatasetError
from .check_builds import Bench, check_builds, check_plans
from .check_config import check_description
from .raw_files import changes, snapshot
from .runs import run_command
from .verdict import TITLES, Verdict, judge, skip

#: Samples a check looks at by default.
LIMIT = 24
#: Several shards, so that several workers have something to do.
_SHARDS = 6
#: Processes at a time; most of their life is starting Python.
_AT_A_TIME = 3


def check_handler(
    dataset: str,
    raw_root: Path,
    config: Mapping[str, Any] | None = None,
    *,
    limit: int = LIMIT,
    python: str | None = None,
    tell: Callable[[Verdict], None] = lambda _: None,
) -> list[Verdict]:
    """Check the handler ``dataset`` on ``limit`` samples of ``raw_root``; a verdict for each check in `TITLES`.

    ``tell`` hears of each as it is decided. ``python`` is the interpreter that has the handler, ours by default.
    Raises `RawDataError` if there is no such folder, `RequestError` for a limit below 1, `UnknownDatasetError`.
    """
    raw_root = raw_root.absolute()
    if not raw_root.is_dir():
        raise RawDataError(f"there is no raw root at {raw_root}; name the folder that holds the raw folders")
    if limit < 1:
        raise RequestError("a check needs one sample or more")
    before = snapshot(raw_root)
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="dataset-check-") as folder, ThreadPoolExecutor(_AT_A_TIME) as pool:
        for verdict in _verdicts(dataset, raw_root, dict(config or {}), limit, python, Path(folder), pool):
            verdicts.append(verdict)
            tell(verdict)
    last = judge("raw-untouched", changes(before, snapshot(raw_root)), f"{len(before)} files and folders")
    tell(last)
    return [*verdicts, last]


def succeeded(verdicts: list[Verdict]) -> bool:
    """Whether nothing failed."""
    return all(verdict.state != "failed" for verdict in verdicts)


def summary(verdicts: list[Verdict]) -> str:
    """How many checks ended how."""
    counts = {state: sum(verdict.state == state for verdict in verdicts) for state in ("ok", "failed", "skipped")}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def as_json(dataset: str, verdicts: list[Verdict]) -> str:
    """All verdicts for machines."""
    checks = [verdict.to_json() for verdict in verdicts]
    return json.dumps({"dataset": dataset, "ok": succeeded(verdicts), "checks": checks}, ensure_ascii=False, indent=1)


def _verdicts(
    dataset: str,
    raw_root: Path,
    config: dict[str, Any],
    limit: int,
    python: str | None,
    folder: Path,
    pool: ThreadPoolExecutor,
) -> Iterator[Verdict]:
    request = {"dataset": dataset, "config": config}
    probing = run_command(
        "describe", request, folder / "describe", python=python, module="dataset_handlers.authors.probe"
    )
    if probing.code == UnknownDatasetError.code:
        raise UnknownDatasetError(probing.of("error")[-1]["message"])
    yield from check_description(probing)
    answers = probing.of("probed")
    if not probing.of("described") or not answers or "effective_config" not in answers[0]["base"]:
        names = list(TITLES)
        yield from skip(names[names.index("plan") : -1], "nothing can be planned without a valid config")
        return
    by_sample = "schema" in probing.of("described")[0]
    if by_sample:
        config = limited(config, limit)
    bench = Bench(dataset, raw_root, config, by_sample, python, folder, pool)
    planned = yield from check_plans(bench)
    if planned is None:
        names = list(TITLES)
        yield from skip(names[names.index("build") : -1], "there is no plan to rely on")
        return
    yield from check_builds(bench, planned)


def limited(config: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """``config`` with at most ``limit`` samples, in several shards."""
    wanted = min(limit, config.get("limit") or limit)
    variations = config.get("variations_per_sample", 1)
    per_shard = -(-wanted // _SHARDS) * variations
    return {
        **config,
        "limit": wanted,
        "examples_per_shard": min(per_shard, config.get("examples_per_shard", per_shard)),
    }
