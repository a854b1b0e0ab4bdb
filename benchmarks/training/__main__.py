"""Steps of training against plain PyTorch, and how long they wait for data.

    python -m benchmarks.training --torch .venv-frameworks/bin/python --raw-root RAW

Each model takes steps of `training`'s own on Keras' backend (KERAS_BACKEND) and, in the environment of ``--torch``,
which needs torch and numpy, those of its reference in plain PyTorch. RAW holds COCO folders; without it, waiting is not
measured. Results go to ``benchmarks/results``.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from benchmarks import machine
from benchmarks.training import report, waiting
from benchmarks.training.sides import compare
from benchmarks.training.works import WORKS

RESULTS = Path(__file__).parent.parent / "results"
PACKAGES = ("keras", "tensorflow-cpu", "tensorflow", "jax", "torch", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", help="the Python of an environment with torch; without it there is no comparison")
    parser.add_argument("--models", nargs="+", choices=sorted({work.name for work in WORKS}), help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="of each side in a round")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--jit", choices=("auto", "yes", "no"), default="auto", help="XLA; auto: what training does")
    parser.add_argument("--raw-root", type=Path, help="a folder with COCO folders in it, to measure waiting")
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument(
        "--quick", action="store_true", help="photos of 32 × 32, one round: whether it runs, not how fast"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.steps, options.photos = 1, 1, 40
    rows = []
    for number, work in enumerate(WORKS):
        if options.models and work.name not in options.models:
            continue
        row = compare(
            number,
            options.torch,
            size=32 if options.quick else None,
            rounds=options.rounds,
            steps=options.steps,
            threads=options.threads,
            jit=options.jit,
        )
        rows.append(row)
        told = {name: f"{side['seconds']:.3f} s" for name, side in row["sides"].items()}
        print(row["model"], told, file=sys.stderr)
    shares = _waiting(options.raw_root, options.photos, quick=options.quick) if options.raw_root else {}
    _write(options, rows, shares)


def _waiting(raw_root: Path, photos: int, *, quick: bool) -> dict[str, float]:
    """The share of the time that is waited, by what is trained."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = waiting.make_dataset(raw_root, Path(folder), photos)
        shares = {"U²-Net-lite on this machine": waiting.trained(dataset, "u2net-lite", 4)} if not quick else {}
        for rate in waiting.RATES[:1] if quick else waiting.RATES:
            share = waiting.at_rate(dataset, rate, 8, 2 if quick else 20)
            shares[f"a device of {rate} photos/s, read by this machine"] = share
    return shares


def _write(options: argparse.Namespace, rows: list[dict], shares: dict[str, float]) -> None:
    described = machine.describe(sys.executable, None)
    described["ours"] = machine.versions(sys.executable, PACKAGES)
    if options.torch:
        described["peers"] = machine.versions(options.torch, ("torch", "numpy"))
    setting = (
        f"{options.rounds} rounds of {options.steps} steps on each side, {options.threads} threads, float32, Adam, "
        "binary cross-entropy; medians."
    )
    lines = ["# Training", "", setting, "", machine.sentence(described), "", *report.table(rows), "", report.NOTES]
    if shares:
        lines += ["", "## Waiting for data", "", *report.waiting(shares, waiting.AIM)]
    text = "\n".join(lines)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "training.md").write_text(text + "\n")
    raw = {"machine": described, "setting": setting, "results": rows, "waiting": shares}
    (options.results / "training.json").write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n")
    print(text)


if __name__ == "__main__":
    main()
