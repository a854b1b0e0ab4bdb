"""Datasets made for a person: planned without being told, and a few samples made just to look at."""

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


def plan_and_build(request: Mapping[str, Any], emit: Emit) -> None:
    """Build a dataset; plan it first unless that was done. Raises `RequestError` if the folder holds another one."""
    work = WorkFolder(Path(request["work_dir"]))
    if (work.plan / "plan.json").exists():
        made = Plan.load(work.plan)
        wanted = effective_config(load_handler(request["dataset"]), request["config"])
        if (made.dataset, made.config) != (request["dataset"], wanted):
            raise RequestError(
                f"{work.root} holds a dataset '{made.dataset}' of another config; name another --work-dir, "
                "or remove that folder"
            )
    else:
        COMMANDS["plan"](request, emit)
    COMMANDS["build"](request, emit)


def build_a_few(dataset: str, config: Mapping[str, Any], raw_root: str, count: int, folder: Path) -> BuiltDataset:
    """Make a dataset of at most ``count`` samples in ``folder``; whole-contract handlers make all they have."""
    config = dict(config)
    if issubclass(load_handler(dataset), SampleHandler):
        config["limit"] = min(count, config.get("limit") or count)
    request = {"handler_api": HANDLER_API, "dataset": dataset, "config": config}
    request |= {"raw_root": raw_root, "work_dir": str(folder)}
    plan_and_build(check_request(request), lambda _event: None)
    return open_dataset(folder)
