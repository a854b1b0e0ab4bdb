"""Raw data, a server, and clients in processes of their own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from benchmarks import photos
from benchmarks.measure import REPOSITORY
from benchmarks.ours import CONFIG
from examples.demo_data import make_raw_data
from tests.support import VERSION, Server

_SELF_MADE = 400


@dataclass(frozen=True)
class Raw:
    """A raw root, and the config that makes ``photos`` examples of it."""

    root: Path
    config: dict
    told: str


def make_raw(folder: Path, raw_root: Path | None, count: int) -> Raw:
    """``count`` photos: real ones if there are some, else self-made ones, each used several times."""
    common = CONFIG | {"splits": {"train": 1.0}}
    if raw_root is not None:
        made = photos.prepare(raw_root, folder / "photos", count)
        told = f"{count} COCO photos of 640 × 480 ({made['different']} different ones)"
        return Raw(folder / "photos" / "raw", common, told)
    make_raw_data(folder / "raw", train=_SELF_MADE, held_out=8, folders=("coco",))
    variations = -(-count // _SELF_MADE)
    more = {"categories": ["figure"], "crop_size": [192, 192], "variations_per_sample": variations}
    return Raw(folder / "raw", common | more, f"{_SELF_MADE} self-made photos of 320 × 240, {variations} times each")


@contextmanager
def serving(folder: Path, raw: Raw, *, workers: int, cores: set[int] | None = None) -> Iterator[Server]:
    """A server with the handler's environment installed, on some ``cores`` only if so wished."""
    mine = os.sched_getaffinity(0)
    server = Server(
        raw_root=raw.root,
        data_dir=folder / "data",
        environments_dir=folder.parent / "environments",
        settings={"workers": workers},
    )
    try:
        os.sched_setaffinity(0, cores or mine)  # inherited
        server.start()
    finally:
        os.sched_setaffinity(0, mine)
    try:
        made = server.make("coco", raw.config | {"limit": 2}, VERSION)
        if made["kind"] != "ready":
            raise SystemExit(f"no dataset: {made}")
        yield server
    finally:
        server.stop()


def run_client(how: str, server: Server, config: dict, cache: Path, **options) -> dict:
    """What `benchmarks.end_to_end.client` measured in a new process; the dataset is forgotten on both sides."""
    asked = {"how": how, "url": server.url, "config": config, "cache": str(cache), **options}
    command = [sys.executable, "-m", "benchmarks.end_to_end.client", json.dumps(asked)]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env=os.environ | quiet, check=False)
    if run.returncode:
        raise SystemExit(f"{how} ended with {run.returncode}\n{run.stdout[-2000:]}\n{run.stderr[-4000:]}")
    result = json.loads(run.stdout.splitlines()[-1])
    requests.delete(f"{server.api}/datasets/{result['dataset_id']}", timeout=60).raise_for_status()
    shutil.rmtree(cache)
    return result
