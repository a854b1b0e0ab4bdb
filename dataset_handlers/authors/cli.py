"""The commands as people run them: text on ``out``, faults raised. What handlers print goes to standard error."""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from ..errors import RequestError

Load = Callable[[], Any]


def describe(_options: argparse.Namespace, load: Load, out: IO[str]) -> int:
    """Show a handler's options."""
    from ..commands import COMMANDS, check_request
    from .describing import render

    request = check_request(load())
    COMMANDS["describe"](request, lambda event: _write(out, render(request["dataset"], event)))
    return 0


def plan(_options: argparse.Namespace, load: Load, out: IO[str]) -> int:
    """Plan a dataset."""
    from ..commands import check_request
    from .building import plan as plan_for_a_person
    from .progress import ProgressLine

    request = check_request(load())
    plan_for_a_person(request, ProgressLine(request["dataset"], out))
    return 0


def build(_options: argparse.Namespace, load: Load, out: IO[str]) -> int:
    """Plan where that was not done, build, and say where the dataset is."""
    from ..commands import check_request
    from .building import plan_and_build
    from .progress import ProgressLine

    request = check_request(load())
    progress = ProgressLine(request["dataset"], out)
    try:
        plan_and_build(request, progress)
    finally:
        progress.close()
    _write(out, f"the dataset is in {Path(request['work_dir']) / 'dataset'}\n")
    return 0


def stats(options: argparse.Namespace, _load: Load, out: IO[str]) -> int:
    """Show a dataset's statistics."""
    from .dataset import open_dataset
    from .stats import render, statistics

    manifest = open_dataset(options.folder).manifest
    if options.json:
        _write(out, json.dumps(statistics(manifest), ensure_ascii=False, indent=1) + "\n")
    else:
        _write(out, render(manifest))
    return 0


def preview(options: argparse.Namespace, load: Load, out: IO[str]) -> int:
    """Draw a contact sheet of a dataset, or of a few samples that are made for it."""
    from .building import build_a_few
    from .dataset import BuiltDataset, open_dataset
    from .preview import contact_sheet

    def draw(dataset: BuiltDataset) -> None:
        sheet = contact_sheet(dataset, options.split, options.count, options.columns)
        try:
            sheet.save(options.output)
        except (OSError, ValueError) as error:
            raise RequestError(f"{options.output} cannot be written: {error}; name a .png file in a folder") from error

    if (options.folder is None) == (options.dataset is None):
        raise RequestError("give the folder of a dataset, or --dataset with --raw-root to make a few samples")
    if options.folder is not None:
        draw(open_dataset(options.folder))
    else:
        if options.raw_root is None:
            raise RequestError("samples of a handler are made from raw data; name it with --raw-root")
        if options.count < 1:
            raise RequestError("a sheet shows one example or more")
        config = load_config(load)
        with tempfile.TemporaryDirectory(prefix="dataset-preview-") as folder:
            draw(build_a_few(options.dataset, config, options.raw_root, options.count, Path(folder)))
    _write(out, f"{options.output}\n")
    return 0


def check(options: argparse.Namespace, load: Load, out: IO[str]) -> int:
    """Hold a handler to its contract; status 1 if it breaks it."""
    from .check import as_json, check_handler, succeeded, summary
    from .verdict import Verdict

    def tell(verdict: Verdict) -> None:
        if not options.json:
            _write(out, verdict.render() + "\n")

    config = load_config(load)
    verdicts = check_handler(options.dataset, Path(options.raw_root), config, limit=options.limit, tell=tell)
    _write(out, as_json(options.dataset, verdicts) + "\n" if options.json else f"{summary(verdicts)}\n")
    return 0 if succeeded(verdicts) else 1


def new(options: argparse.Namespace, _load: Load, out: IO[str]) -> int:
    """Write the package of a new handler, and say what to do next."""
    from .new import create_package

    folder = options.directory or Path(options.name)
    for path in create_package(options.name, folder):
        _write(out, f"wrote {path}\n")
    _write(out, f"next: pip install --editable {folder} && python -m pytest {folder}\n")
    return 0


def load_config(load: Load) -> dict[str, Any]:
    """The config file, which must be an object; raises `RequestError`."""
    from ..commands import check_request

    config: dict[str, Any] = check_request(load())["config"]
    return config


def _write(out: IO[str], text: str) -> None:
    out.write(text)
    out.flush()


COMMANDS: dict[str, Callable[[argparse.Namespace, Load, IO[str]], int]] = {
    "describe": describe,
    "plan": plan,
    "build": build,
    "stats": stats,
    "preview": preview,
    "check": check,
    "new": new,
}
