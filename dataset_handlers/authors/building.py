"""Datasets made for a person: planned without being told, and a few samples made just to look at."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..commands import COMMANDS, Emit, check_request, effective_config
from ..contract import HANDLER_API
from ..errors import RequestError
from ..plan import Plan
from ..registry import load_handler
from ..sample_handler import SampleHandler
from ..shards import WorkFolder
from .dataset import BuiltDataset, open_dataset

#: Share of the samples that a publisher's smallest split is taken to have.
_PUBLISHED = 0.1


def plan_and_build(request: Mapping[str, Any], emit: Emit) -> None:
    """Build a dataset; plan it first unless that was done. Raises `RequestError` if the folder holds another one."""
    work = WorkFolder(Path(request["work_dir"]))
    if (work.plan / "plan.json").exists():
        planned_of, raw_root = _raw_root_file(work), str(Path(request["raw_root"]).resolve())
        if planned_of.exists() and (planned := planned_of.read_text().rstrip("\n")) != raw_root:
            raise RequestError(
                f"{work.root} holds a dataset of the raw root {planned}, not of {raw_root}; name another --work-dir, "
                "or remove that folder"
            )
        made = Plan.load(work.plan)
        wanted = effective_config(load_handler(request["dataset"]), request["config"])
        if (made.dataset, made.config) != (request["dataset"], wanted):
            raise RequestError(
                f"{work.root} holds a dataset '{made.dataset}' of another config; name another --work-dir, "
                "or remove that folder"
            )
    else:
        plan(request, emit)
    COMMANDS["build"](request, emit)


def plan(request: Mapping[str, Any], emit: Emit) -> None:
    """Plan a dataset, and note of which raw root. That is no part of plan or dataset, which name no machine's paths."""
    work = WorkFolder(Path(request["work_dir"]))
    _raw_root_file(work).unlink(missing_ok=True)
    COMMANDS["plan"](request, emit)
    _raw_root_file(work).write_text(f"{Path(request['raw_root']).resolve()}\n")


def _raw_root_file(work: WorkFolder) -> Path:
    return work.root / "raw_root.txt"


def build_a_few(dataset: str, config: Mapping[str, Any], raw_root: str, count: int, folder: Path) -> BuiltDataset:
    """Make a dataset of ``count`` samples in ``folder``, or so many that each split of ``config`` has what it needs.

    Whole-contract handlers make all they have.
    """
    config = dict(config)
    handler = load_handler(dataset)
    if issubclass(handler, SampleHandler):
        wanted = max(count, _least_samples(effective_config(handler, config)))
        config["limit"] = min(wanted, config.get("limit") or wanted)
    request = {"handler_api": HANDLER_API, "dataset": dataset, "config": config}
    request |= {"raw_root": raw_root, "work_dir": str(folder)}
    plan_and_build(check_request(request), lambda _event: None)
    return open_dataset(folder)


def _least_samples(config: Mapping[str, Any]) -> int:
    """How many samples fill the smallest split, also where several of them are in a picture (`CompositeConfig`)."""
    several = config.get("subjects_per_picture")
    in_a_picture = int(several[1]) if isinstance(several, list) else 1
    # The publisher's splits are not known yet. One that gets none is left out; one that gets too few is refused.
    published = _PUBLISHED if in_a_picture > 1 else 1.0
    smallest = float(min((config["splits"] or {"": published}).values()))
    return math.floor(in_a_picture / smallest) + 1
