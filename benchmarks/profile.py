"""Where the milliseconds of a photo go: our handler's loop beside the limit's, in this process, by cProfile.

    python -m benchmarks.profile --raw-root RAW

Own time of each function in ms per photo. cProfile makes Python code slower than it is, and C calls hardly, so read
the C calls as times and the rest as hints; the line above each table is the loop's CPU time without the profiler.
"""

import argparse
import cProfile
import pstats
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2

from benchmarks import limit
from benchmarks.ours import CONFIG
from benchmarks.photos import prepare
from benchmarks.tight import read_samples
from dataset_handlers.coco import CocoHandler
from dataset_handlers.features import serialize
from dataset_handlers.plan import Sample
from dataset_handlers.rng import SampleRandom
from dataset_handlers.tfrecord import frame


def our_loop(raw_root: Path, file: Path) -> Callable[[], None]:
    """What a worker does for each sample, without the engine around it."""
    handler = CocoHandler(CONFIG, str(raw_root))
    samples = [item for item in handler.samples() if isinstance(item, Sample)]
    features = handler.features()

    def loop() -> None:
        with file.open("wb") as out:
            for sample in samples:
                for example in handler.examples(sample, SampleRandom(0, sample.key)):
                    out.write(frame(serialize(features, example)))

    return loop


def show(name: str, loop: Callable[[], None], photos: int, rows: int) -> None:
    loop()  # tables, lazily imported modules
    started = time.process_time()
    loop()
    print(f"\n{name}: {(time.process_time() - started) / photos * 1000:.2f} ms of CPU per photo")
    profile = cProfile.Profile(time.process_time)  # of CPU time: others may be using the machine
    profile.runcall(loop)
    entries = pstats.Stats(profile).stats.items()
    for (file, line, function), (_, calls, own, total, _) in sorted(entries, key=lambda item: -item[1][2])[:rows]:
        place = f"{Path(file).parent.name}/{Path(file).name}:{line} {function}" if line else function
        print(f"{own / photos * 1000:7.3f}  {total / photos * 1000:7.3f} in all  {calls / photos:6.1f} calls  {place}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw-root", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--rows", type=int, default=25)
    options = parser.parse_args()
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        prepare(options.raw_root, scratch / "photos", options.photos)
        samples = read_samples(scratch / "photos" / "samples.jsonl")
        out = scratch / "out.tfrecord"
        show("ours", our_loop(scratch / "photos" / "raw", out), options.photos, options.rows)
        for decode in ("whole", "region"):
            loop = lambda decode=decode: limit.work(samples, decode, out)  # noqa: E731
            show(f"the limit, {decode} decode", loop, options.photos, options.rows)


if __name__ == "__main__":
    main()
