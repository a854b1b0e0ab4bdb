"""How fast datasets are made, and what the engine around the handler costs.

Work: 320×240 photos with drawn subjects (or the COCO photos of --raw-root) → 224×224, random crop around the subject,
flip, rotation, exposure; JPEG 95 and one-bit PNG; TFRecord. Compared, interleaved, medians over --runs:

* ``loop``: the handler's own ``examples()`` in one process, serialised and written, no plan, shards or pool;
* ``build, N workers``: the ``build`` command, process start to last shard, with N workers.

Writes ``benchmarks/results/builds.md`` with the machine's description.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dataset_handlers.coco import CocoHandler
from dataset_handlers.features import serialize
from dataset_handlers.plan import Sample
from dataset_handlers.rng import SampleRandom
from dataset_handlers.tfrecord import frame
from examples.demo_data import make_raw_data

RESULTS = Path(__file__).parent / "results"


def config(categories: list[str], variations: int) -> dict:
    return {
        "categories": categories,
        "image_size": [256, 256],
        "crop_size": [224, 224],
        "random_crop_centered": True,
        "flip_horizontal": 0.5,
        "rotation": [-10, 10],
        "exposure": [-0.5, 0.5],
        "variations_per_sample": variations,
    }


def loop(raw_root: Path, options: dict, target: Path) -> tuple[int, float]:
    """Examples and seconds of the bare loop."""
    handler = CocoHandler(options, str(raw_root))
    samples = [item for item in handler.samples() if isinstance(item, Sample)]
    features, count = handler.features(), 0
    started = time.perf_counter()
    with target.open("wb") as file:
        for sample in samples:
            for example in handler.examples(sample, SampleRandom(0, sample.key)):
                file.write(frame(serialize(features, example)))
                count += 1
    return count, time.perf_counter() - started


def build(raw_root: Path, options: dict, folder: Path, workers: int) -> tuple[int, float]:
    """Examples and seconds of the ``build`` command; the plan is made before the clock starts."""
    request = {"handler_api": 1, "dataset": "coco", "config": options, "raw_root": str(raw_root)}
    request |= {"work_dir": str(folder), "workers": workers}
    file = folder / "request.json"
    folder.mkdir()
    file.write_text(json.dumps(request))
    command = [sys.executable, "-I", "-m", "dataset_handlers"]
    subprocess.run([*command, "plan", str(file)], check=True, capture_output=True)
    started = time.perf_counter()
    subprocess.run([*command, "build", str(file)], check=True, capture_output=True)
    seconds = time.perf_counter() - started
    manifest = json.loads((folder / "dataset" / "manifest.json").read_bytes())
    return sum(split["examples"] for split in manifest["splits"].values()), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw-root", type=Path, help="real photos: a folder with coco (category person)")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        if options.raw_root:
            raw_root, work = options.raw_root, config(["person"], 12)
        else:
            raw_root, work = root / "raw", config(["figure"], 3)
            make_raw_data(raw_root)
        rates: dict[str, list[float]] = {}
        for run in range(options.runs):
            trials = {"loop": lambda: loop(raw_root, work, root / "loop.tfrecord")}
            for workers in (1, 2):
                folder = root / f"run-{run}-{workers}"
                trials[f"build, {workers} workers"] = lambda f=folder, w=workers: build(raw_root, work, f, w)
            for name, trial in trials.items():
                count, seconds = trial()
                rates.setdefault(name, []).append(count / seconds)
    photos = "real COCO photos" if options.raw_root else "self-made photos"
    machine = (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {photos}, "
        f"{count} examples a run, {options.runs} interleaved runs; `python -m benchmarks.builds`."
    )
    lines = [
        "# Building",
        "",
        machine,
        "",
        "| | examples/s, median | lowest | highest | ratio to the loop |",
        "|---|---|---|---|---|",
    ]
    base = statistics.median(rates["loop"])
    for name, seen in rates.items():
        middle = statistics.median(seen)
        lines.append(f"| {name} | {middle:.0f} | {min(seen):.0f} | {max(seen):.0f} | {middle / base:.2f} |")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "builds.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
