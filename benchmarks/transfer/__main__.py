"""How fast and how safely archives reach the client.

    python -m benchmarks.transfer [--parts loopback link faults] [--quick]

``loopback`` is against curl from nginx; ``link`` over an emulated link of 50 ms and 1 Gbit/s, which takes root, `ip`
and a C compiler; ``faults`` through a proxy that does wrong. Archives are made by a real server, and each one that is
fetched is compared with it. Tables go to ``benchmarks/results/transfer.md``, numbers to ``transfer.json``. ``--quick``
sees that everything runs, and says little about speed.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine
from benchmarks.transfer import faults, link, loopback, wire

RESULTS = Path(__file__).parent.parent / "results"


@dataclass(frozen=True)
class Part:
    """A part of the benchmark: ``quick`` and ``whole`` measure in an empty folder."""

    title: str
    quick: Callable[[Path], dict]
    whole: Callable[[Path], dict]
    report: Callable[[dict], list[str]]
    lacking: Callable[[], str]


def _programs(*names: str) -> str:
    missing = [name for name in names if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


PARTS = {
    "loopback": Part(
        "Loopback",
        lambda folder: loopback.run(folder, 32, 1),
        lambda folder: loopback.run(folder, 1000, 5),
        loopback.report,
        lambda: _programs("nginx", "curl"),
    ),
    "link": Part(
        "50 ms and 1 Gbit/s",
        lambda folder: wire.run(folder, 16, 1, 1),
        lambda folder: wire.run(folder, 1000, 3, 15),
        wire.report,
        lambda: _programs("nginx", "curl") or link.lacking(),
    ),
    "faults": Part(
        "One fault in a hundred",
        lambda folder: faults.run(folder, 64, 1, 0.2),
        lambda folder: faults.run(folder, 1000, 5, 0.01),
        faults.report,
        lambda: _programs("nginx"),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.transfer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    file = options.results / "transfer.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    for name in options.parts:
        part = PARTS[name]
        if why := part.lacking():
            print(f"{name} is left out: {why}", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = (part.quick if options.quick else part.whole)(Path(folder))
        known[name] = {"machine": machine.describe(sys.executable, None), "quick": options.quick, "found": found}
        print("\n".join(part.report(found)), flush=True)
    options.results.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(known, indent=1) + "\n")
    lines = ["# The transfer", "", "`python -m benchmarks.transfer`"]
    for name, part in PARTS.items():
        if name in known:
            quick = ["", "A quick run, which says little about speed."] if known[name]["quick"] else []
            lines += ["", f"## {part.title}", *quick, "", *part.report(known[name]["found"])]
            lines += ["", machine.sentence(known[name]["machine"])]
    (options.results / "transfer.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
