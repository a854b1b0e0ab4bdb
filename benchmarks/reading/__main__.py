"""Reading and decoding, per core, and single examples by number.

    python -m benchmarks.reading --raw-root RAW --peers .venv-peers/bin/python

Work: what `benchmarks.preparation` makes (320 × 320, JPEG 95 and one-bit PNG) is read shuffled, decoded and batched by
16. RAW holds COCO folders. The environment of the peers has what our torch reader needs, too (or name another with
``--torch``). The readers that are compared run at the same time, as processes that take turns: in each round each of
them reads one epoch. On one core everything runs in one process, held to that core; on two cores with two worker
processes or two threads. Results go to ``benchmarks/results``.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from benchmarks import machine, ours
from benchmarks.measure import REPOSITORY
from benchmarks.photos import prepare
from benchmarks.reading import report
from benchmarks.reading.ours import open_dataset
from benchmarks.reading.readers import GROUPS, PEERS, Contender, contenders, reader

RESULTS = Path(__file__).parent.parent / "results"


def compare(group: list[Contender], rounds: int, examples: int) -> list[dict]:
    """A row for each contender: rates in photos/s and CPU milliseconds per photo, of each round and their medians."""
    rows = [{name: value for name, value in asdict(one).items() if name != "command"} | {"runs": []} for one in group]
    with ExitStack() as stack:
        epochs = [stack.enter_context(reader(one, examples)) for one in group]
        for _ in range(rounds):
            for row, epoch in zip(rows, epochs, strict=True):
                row["runs"].append(epoch())
    for row in rows:
        for name in ("rate", "cpu_ms"):
            row[name] = statistics.median(run[name] for run in row["runs"])
        told = f"{row['rate']:.0f} photos/s, {row['cpu_ms']:.2f} ms of CPU a photo"
        print(f"{row['name']}, {row['form']}, {row['flavour']}, {row['cores']}: {told}", file=sys.stderr)
    return rows


def by_number(dataset: Path) -> dict[str, float]:
    """Milliseconds of one example by its number, and of that what is not decoding: medians of examples drawn by chance;
    and the latter as the mean of the first time, all in a row, when the indexes are made.
    """
    examples = open_dataset(dataset).examples("train")
    started = time.perf_counter()
    records = examples._records
    for number in range(len(examples)):
        records.read(number)
    first_pass = time.perf_counter() - started
    numbers = random.Random(1).choices(range(len(examples)), k=500)
    whole, reading = [], []
    for number in numbers:
        started = time.perf_counter()
        records.read(number)
        reading.append(time.perf_counter() - started)
        started = time.perf_counter()
        examples[number]
        whole.append(time.perf_counter() - started)
    return {
        "whole_ms": statistics.median(whole) * 1000,
        "without_decoding_ms": statistics.median(reading) * 1000,
        "first_pass_ms": first_pass / len(examples) * 1000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--raw-root", type=Path, help="a folder with COCO folders in it")
    source.add_argument("--dataset", type=Path, help="a dataset that is made already")
    parser.add_argument("--peers", help="the Python of the peers' environment; without it there are no peers")
    parser.add_argument("--torch", help="a Python with torch and our dependencies (default: the peers')")
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--forms", nargs="+", choices=sorted({form for form, _ in GROUPS}), default=["numpy", "torch", "tf"]
    )
    parser.add_argument(
        "--quick", action="store_true", help="64 photos, one round, one core: whether it runs, not how fast"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.quick:
        options.photos, options.rounds, options.cores = 64, 1, [1]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        dataset = options.dataset or _make(options.raw_root, scratch, options.photos)
        count = open_dataset(dataset).splits["train"]
        for peer in PEERS if options.peers else ():
            command = [options.peers, "-W", "ignore", "-m", "benchmarks.reading.peers", peer, "pack"]
            subprocess.run([*command, str(dataset), str(scratch / peer)], check=True, cwd=REPOSITORY)
        rows = []
        for form, cores in GROUPS:
            if form in options.forms and cores in options.cores:
                group = contenders(form, cores, dataset, scratch, options.peers, options.torch or options.peers)
                rows += compare(group, options.rounds, count)
        single = by_number(dataset)
    report.ratios(rows)
    described = machine.describe(sys.executable, options.peers)
    setting = f"{count} photos of 320 × 320, an epoch a round, {options.rounds} rounds, medians."
    lines = ["# Reading and decoding", "", setting, "", machine.sentence(described), "", *report.aims(rows, single)]
    text = "\n".join([*lines, "", *report.table(rows), "", report.NOTES])
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "reading.md").write_text(text + "\n")
    raw = {"machine": described, "setting": setting, "results": rows, "by_number": single}
    (options.results / "reading.json").write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n")
    print(text)


def _make(raw_root: Path, scratch: Path, photos: int) -> Path:
    """The dataset of `benchmarks.preparation`."""
    prepare(raw_root, scratch / "photos", photos)
    request = ours.write_request(scratch / "photos" / "raw", scratch / "made", len(os.sched_getaffinity(0)))
    ours.plan(request)
    subprocess.run([*ours.COMMAND, "build", str(request)], check=True, capture_output=True)
    return scratch / "made" / "dataset"


if __name__ == "__main__":
    main()
