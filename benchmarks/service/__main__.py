"""The server under load: cached requests, many sockets, downloads, a large catalogue.

    python -m benchmarks.service [--parts cached sockets downloads catalogue]

Every part starts real servers, checks what they answer, and puts its table into ``benchmarks/results/service.md``;
numbers are in ``service.json``. Downloads are compared with nginx, which must be installed.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks import machine
from benchmarks.service import cached, catalogue, downloads, sockets

RESULTS = Path(__file__).parent.parent / "results"
PARTS = {
    "cached": ("A cached request", lambda folder: cached.run(folder, 5, 3.0), cached.report),
    "sockets": ("Subscribers", sockets.run, sockets.report),
    "downloads": ("Downloads", lambda folder: downloads.run(folder, 256, 5), downloads.report),
    "catalogue": ("A catalogue of 100,000 datasets", lambda folder: catalogue.run(folder, 200), catalogue.report),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.service", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    file = options.results / "service.json"
    before = json.loads(file.read_text()) if file.is_file() else {"parts": {}}
    known = before["parts"]
    machines = before["machines"] if "machines" in before else dict.fromkeys(known, before["machine"])
    for part in options.parts:
        _, run, report = PARTS[part]
        with tempfile.TemporaryDirectory() as folder:
            known[part] = run(Path(folder))
        machines[part] = machine.describe(sys.executable, None)
        print("\n".join(report(known[part])), flush=True)
    file.write_text(json.dumps({"machines": machines, "parts": known}, indent=1) + "\n")
    lines = ["# The server under load", "", "`python -m benchmarks.service`"]
    for part, (title, _, report) in PARTS.items():
        if part in known:
            lines += ["", f"## {title}", "", *report(known[part]), "", machine.sentence(machines[part])]
    (options.results / "service.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
