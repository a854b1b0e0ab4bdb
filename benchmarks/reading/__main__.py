"""Reading and decoding, per core, and single examples by number.

    python -m benchmarks.reading --raw-root RAW --peers .venv-peers/bin/python

Work: what `benchmarks.preparation` makes (320 × 320, JPEG 95 and one-bit PNG) is read shuffled, decoded and batched by
16. RAW holds COCO folders. The environment of the peers needs this project's own dependencies, too, for our torch
reader (or name another with ``--torch``). Rounds are interleaved. On one core everything runs in one process, or in its
threads, held to that core; on two cores with two threads or two worker processes. Results go to ``benchmarks/results``.
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
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine, ours
from benchmarks.measure import REPOSITORY, events
from benchmarks.photos import prepare
from benchmarks.reading.ours import open_dataset

RESULTS = Path(__file__).parent.parent / "results"
PEERS = {"tfdata": "tf.data", "webdataset": "WebDataset", "litdata": "LitData", "mosaicml": "MosaicML Streaming"}
FORMS = ("numpy", "torch", "tf")


@dataclass(frozen=True)
class Contender:
    """One reader: its name, what it gives, how it decodes, and its command without options."""

    name: str
    form: str
    flavour: str
    command: tuple[str, ...]


def contenders(dataset: Path, packed: Path, peers: str | None, torch: str | None) -> list[Contender]:
    module = ("-W", "ignore", "-m", "benchmarks.reading.ours")
    found = [
        Contender("ours", form, "ours", (python, *module, form, str(dataset)))
        for form, python in (("numpy", sys.executable), ("torch", torch), ("tf", sys.executable))
        if python
    ]
    for peer, name in PEERS.items() if peers else ():
        for form in ("tf",) if peer == "tfdata" else ("numpy", "torch"):
            for flavour in ("usual", "tight"):
                options = () if form == "tf" else ("--form", form)
                command = (peers, "-W", "ignore", "-m", "benchmarks.reading.peers", peer, "read", str(packed / peer))
                found.append(Contender(name, form, flavour, (*command, "--flavour", flavour, *options)))
    return found


def once(contender: Contender, cores: int, epochs: int, expected: int) -> dict[str, float]:
    """One run on some cores: photos/s, and CPU milliseconds per photo of the process and the workers it has ended."""
    workers = 0 if cores == 1 else cores
    command = [*contender.command, "--workers", str(workers), "--epochs", str(epochs)]
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    run = subprocess.run(
        ["taskset", "-c", ",".join(map(str, allowed)), *command], cwd=REPOSITORY, capture_output=True, text=True
    )
    if run.returncode:
        raise SystemExit(f"{' '.join(command)} exited with {run.returncode}\n{run.stderr[-3000:]}")
    read = next(events(run.stdout, "read"))
    if read["examples"] != expected:
        raise SystemExit(f"{contender.name} read {read['examples']} of {expected} examples")
    return {"rate": read["examples"] / read["seconds"], "cpu_ms": read["cpu"] / read["examples"] * 1000}


def by_number(dataset: Path) -> dict[str, float]:
    """Milliseconds of one example by its number, of that what is not decoding, and of indexing 100,000 records."""
    examples = open_dataset(dataset).examples("train")
    started = time.perf_counter()
    records = examples._records
    for number in range(len(examples)):
        records.read(number)
    indexing = time.perf_counter() - started
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
        "first_pass_ms": indexing / len(examples) * 1000,
    }


def report(rows: list[dict], single: dict[str, float]) -> list[str]:
    lines = ["| reader | gives | decoder | cores | photos/s | lowest–highest | CPU ms per photo | ours / it |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    mine = {(row["form"], row["cores"]): row for row in rows if row["name"] == "ours"}
    for row in rows:
        rates = sorted(run["rate"] for run in row["runs"])
        own = mine.get((row["form"], row["cores"]))
        ratio = f"{own['rate'] / row['rate']:.2f}" if own and row is not own else ""
        lines.append(
            f"| {row['name']} | {row['form']} | {row['flavour']} | {row['cores']} | {row['rate']:.0f} "
            f"| {rates[0]:.0f}–{rates[-1]:.0f} | {row['cpu_ms']:.2f} | {ratio} |"
        )
    notes = (
        "`usual` decodes with Pillow (tf.data: with its default, inexact inverse DCT), `tight` with simplejpeg and "
        "OpenCV (tf.data: with the exact DCT that ours has). CPU time of worker processes counts only where they end "
        "with the run."
    )
    number = (
        f"One example by its number, in random order: {single['whole_ms']:.2f} ms, of which "
        f"{single['without_decoding_ms']:.3f} ms are not decoding (medians)."
    )
    return [*lines, "", notes, "", number]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--raw-root", type=Path, help="a folder with COCO folders in it")
    source.add_argument("--dataset", type=Path, help="a dataset that is made already")
    parser.add_argument("--peers", help="the Python of the peers' environment; without it there are no peers")
    parser.add_argument("--torch", help="a Python with torch and our dependencies (default: the peers')")
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        dataset = options.dataset or _make(options.raw_root, scratch, options.photos)
        count = open_dataset(dataset).splits["train"]
        for peer in PEERS if options.peers else ():
            command = [options.peers, "-W", "ignore", "-m", "benchmarks.reading.peers", peer, "pack"]
            subprocess.run([*command, str(dataset), str(scratch / peer)], check=True, cwd=REPOSITORY)
        everybody = contenders(dataset, scratch, options.peers, options.torch or options.peers)
        everybody = [one for one in everybody if one.form in options.forms]
        rows = [
            {"name": one.name, "form": one.form, "flavour": one.flavour, "cores": cores, "runs": []}
            for one in everybody
            for cores in options.cores
        ]
        for number in range(options.rounds):
            for row, (one, cores) in zip(
                rows, ((one, cores) for one in everybody for cores in options.cores), strict=True
            ):
                row["runs"].append(once(one, cores, options.epochs, options.epochs * count))
                told = f"{row['runs'][-1]['rate']:.0f} photos/s, {row['runs'][-1]['cpu_ms']:.2f} ms of CPU"
                print(f"round {number + 1}: {one.name}, {one.form}, {one.flavour}, {cores}: {told}", file=sys.stderr)
        for row in rows:
            row["rate"] = statistics.median(run["rate"] for run in row["runs"])
            row["cpu_ms"] = statistics.median(run["cpu_ms"] for run in row["runs"])
        single = by_number(dataset)
    described = machine.describe(sys.executable, options.peers)
    setting = (
        f"{count} photos of 320 × 320, {options.epochs} epochs a run, {options.rounds} interleaved rounds, medians."
    )
    text = ["# Reading and decoding", "", setting, "", machine.sentence(described), "", *report(rows, single)]
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "reading.md").write_text("\n".join(text) + "\n")
    raw = {"machine": described, "setting": setting, "results": rows, "by_number": single}
    (options.results / "reading.json").write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n")
    print("\n".join(text))


def _make(raw_root: Path, scratch: Path, photos: int) -> Path:
    """The dataset of `benchmarks.preparation`."""
    prepare(raw_root, scratch / "photos", photos)
    request = ours.write_request(scratch / "photos" / "raw", scratch / "made", len(os.sched_getaffinity(0)))
    ours.plan(request)
    subprocess.run([*ours.COMMAND, "build", str(request)], check=True, capture_output=True)
    return scratch / "made" / "dataset"


if __name__ == "__main__":
    main()
