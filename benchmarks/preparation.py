"""How fast datasets are made, in how much memory, and how soon the first sample is there.

    python -m benchmarks.preparation --raw-root RAW --peers .venv-peers/bin/python

Work: COCO photos of 640 × 480 → random crop of 320 × 320, flip, rotation within ±10°, exposure within ±0.5 stops; JPEG
95 and PNG mask of one person. RAW holds COCO folders (``*/annotations/instances_<part>.json``); `benchmarks.photos`
chooses from them. Our `build` command is compared with a tight loop over the C libraries (`benchmarks.limit`) and with
other projects' builders (`benchmarks.peers`), in interleaved runs, each output checked.

Everybody's clock starts when everything is imported and the list of photos is read, and stops when the last process has
ended. Our build has its plan by then, as the peers have their list. Results go to ``benchmarks/results``.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks import machine, memory, speed, startup
from benchmarks.photos import prepare

RESULTS = Path(__file__).parent / "results"
PARTS = ("speed", "memory", "startup")


def save(folder: Path, part: str, described: dict, setting: str, results: object, lines: list[str]) -> None:
    """Markdown to read, and the raw numbers beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    text = [f"# Preparation: {part}", "", setting, "", machine.sentence(described), "", *lines]
    (folder / f"preparation-{part}.md").write_text("\n".join(text) + "\n")
    raw = {"machine": described, "setting": setting, "results": results}
    (folder / f"preparation-{part}.json").write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n")
    print("\n".join(text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw-root", type=Path, required=True, help="a folder with COCO folders in it")
    parser.add_argument("--peers", help="the Python of the peers' environment; without it there are no peers")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--many", type=int, default=20_000, help="photos of the long run for memory")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", type=Path, help="where photos and outputs go (default: the temporary folder)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    peers = str(Path(options.peers).absolute()) if options.peers else None
    described = machine.describe(sys.executable, peers)
    processes, workers = tuple(options.processes), max(options.processes)
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        scratch = Path(folder)
        photos = scratch / "photos"
        made = prepare(options.raw_root, photos, options.photos)
        setting = (
            f"{made['photos']:,} COCO photos ({made['different']} different ones), `python -m benchmarks.preparation`"
        )
        if "speed" in options.parts:
            rows = speed.run(photos, options.photos, scratch, peers, processes, options.rounds)
            told = f"{setting}, {options.rounds} interleaved rounds, medians."
            save(options.results, "speed", described, told, rows, speed.report(rows))
        if "memory" in options.parts:
            seen = memory.run(options.raw_root, scratch, workers, options.photos, options.many)
            save(
                options.results,
                "memory",
                described,
                f"{setting}, {workers} workers.",
                memory.raw(seen),
                memory.report(seen),
            )
        if "startup" in options.parts:
            times = startup.run(photos, scratch, workers, 10)
            told = f"{setting}, {workers} workers, 10 runs."
            save(options.results, "startup", described, told, times, startup.report(times))


if __name__ == "__main__":
    main()
