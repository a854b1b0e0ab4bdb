"""Our own builder, as the server starts it; what it imports is imported before the clock starts, as for everybody.

python -m benchmarks.ours REQUEST.json       # after `python -m dataset_handlers plan REQUEST.json`
python -m benchmarks.ours WORK_DIR --check
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CONFIG = {
    "crop_size": [320, 320],
    "flip_horizontal": 0.5,
    "rotation": [-10, 10],
    "exposure": [-0.5, 0.5],
    "categories": ["person"],
    "include_crowds": False,
}
COMMAND = [sys.executable, "-I", "-m", "dataset_handlers"]


def write_request(raw_root: Path, folder: Path, workers: int, **config) -> Path:
    """A request of the benchmark's work in a new ``folder``."""
    folder.mkdir(parents=True)
    file = folder / "request.json"
    request = {"handler_api": 1, "dataset": "coco", "config": CONFIG | config, "raw_root": str(raw_root)}
    file.write_text(json.dumps(request | {"work_dir": str(folder), "workers": workers}))
    return file


def plan(request: Path) -> None:
    subprocess.run([*COMMAND, "plan", str(request)], check=True, capture_output=True)


def read_shards(files: list[Path]) -> Iterator[tuple[bytes, bytes]]:
    """JPEG and PNG of each example in TFRecord files."""
    from dataset_handlers.example_proto import decode_example
    from dataset_handlers.tfrecord import read_records

    for file in files:
        for record in read_records(file):
            example = decode_example(record)
            yield example["image"][0], example["mask"][0]


def read(folder: Path) -> Iterator[tuple[bytes, bytes]]:
    """The examples of a finished build: the shards that its manifest names."""
    manifest = json.loads((folder / "dataset" / "manifest.json").read_bytes())
    names = {shard["file"] for shard in manifest["shards"]}
    yield from read_shards([folder / "dataset" / name for name in sorted(names)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    from benchmarks.clock import check, start_clock

    if options.check:
        check(read(options.path))
        return
    import dataset_handlers.coco
    import dataset_handlers.commands
    from dataset_handlers.__main__ import main as dataset_handlers

    start_clock()
    sys.exit(dataset_handlers(["build", str(options.path)]))


if __name__ == "__main__":
    main()
