"""Seconds from a request that must build until the first batch, against the whole build."""

import statistics
from pathlib import Path

from benchmarks.end_to_end.client import BATCH
from benchmarks.end_to_end.place import Raw, run_client, serving
from tests.support import VERSION

PHOTOS = 20_000
STEPS = ("planning", "building", "shard", "first batch", "ready", "all here")


def run(folder: Path, raw: Raw, rounds: int) -> dict:
    """One row for each round: a build of its own, by its seed."""
    with serving(folder, raw, workers=2) as server:
        rows = [
            run_client("first", server, raw.config | {"seed": seed}, folder / "cache", version=VERSION)
            for seed in range(1, rounds + 1)
        ]
    return {"photos": raw.told, "rows": rows}


def report(found: dict) -> list[str]:
    """The table, and where the time goes."""
    rows = found["rows"]
    lines = [f"| {' | '.join(['run', *STEPS, 'first batch / ready'])} |", f"|{'---|' * (len(STEPS) + 2)}"]
    for number, row in enumerate(rows, 1):
        cells = [str(number), *(f"{row[step]:.2f}" for step in STEPS), f"{row['first batch'] / row['ready']:.1%}"]
        lines.append(f"| {' | '.join(cells)} |")
    middle = {step: statistics.median(row[step] for row in rows) for step in STEPS}
    share = statistics.median(row["first batch"] / row["ready"] for row in rows)
    parts = {
        "until planning begins": middle["planning"],
        "planning": middle["building"] - middle["planning"],
        "the first shard": middle["shard"] - middle["building"],
        "its way to us, and decoding": middle["first batch"] - middle["shard"],
    }
    told = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in parts.items())
    what = (
        f"{found['photos']}; {rows[0]['examples']} examples; batches of {BATCH}; seconds since the request. The "
        "handler's environment was installed before; building and reading share the machine."
    )
    return [
        what,
        "",
        *lines,
        "",
        f"Median: the first batch after **{share:.1%}** of the build (aim: 10 % at the most). Where it goes: {told}.",
    ]
