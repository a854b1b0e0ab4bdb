"""How soon data is where it is needed: the first batch, a trained epoch, and what the client costs before that.

    python -m benchmarks.end_to_end [--raw-root DIR] [--parts first epoch client] [--rounds 3]

``--raw-root`` holds COCO folders (see `benchmarks.photos`); without it the demo's self-made photos are used. Servers
are real; what each part compares runs in turns, in processes of its own, and medians are shown. Tables go into
``benchmarks/results/end_to_end.md``, numbers into ``end_to_end.json``.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks import machine
from benchmarks.end_to_end import client_costs, first_batch, trained_epoch
from benchmarks.end_to_end.place import make_raw

RESULTS = Path(__file__).parent.parent / "results"
PARTS = {
    "first": ("The first batch of a dataset that must be built", first_batch),
    "epoch": ("From the request to one trained epoch", trained_epoch),
    "client": ("What the client costs", client_costs),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.end_to_end",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--raw-root", type=Path, help="a folder with COCO folders in it")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    file = options.results / "end_to_end.json"
    known = json.loads(file.read_text()) if file.is_file() else {"machines": {}, "parts": {}}
    for part in options.parts:
        _, module = PARTS[part]
        with tempfile.TemporaryDirectory() as folder:
            raw = make_raw(Path(folder), options.raw_root, module.PHOTOS) if module.PHOTOS else None
            known["parts"][part] = module.run(Path(folder), raw, options.rounds)
        known["machines"][part] = machine.describe(sys.executable, None)
        print("\n".join(module.report(known["parts"][part])), flush=True)
    options.results.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(known, indent=1) + "\n")
    lines = ["# From the request to the training", "", "`python -m benchmarks.end_to_end --raw-root DIR`"]
    for part, (title, module) in PARTS.items():
        if part in known["parts"]:
            lines += ["", f"## {title}", "", *module.report(known["parts"][part])]
            lines += ["", machine.sentence(known["machines"][part])]
    (options.results / "end_to_end.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
