"""Request → one trained epoch: streamed, against build, zip, download, unzip, train."""

import os
import statistics
from pathlib import Path

from benchmarks.end_to_end.client import MODEL, TRAINED_BATCH
from benchmarks.end_to_end.place import Raw, run_client, serving
from tests.support import VERSION

PHOTOS = 8000
HOWS = ("sequence", "streamed")
CROP = [64, 64]


def run(folder: Path, raw: Raw, rounds: int) -> dict:
    """Seconds of each, in turns: with both cores for whoever wants them, and with a core for the server and another
    for the training, as on two machines.
    """
    cores = sorted(os.sched_getaffinity(0))
    settings = {"shared": (2, None, None)}
    if len(cores) > 1:
        settings["apart"] = (1, {cores[0]}, [cores[1]])
    found: dict = {"photos": raw.told, "cores": len(cores), "rows": {}}
    seed = 0
    for name, (workers, servers, clients) in settings.items():
        rows = found["rows"][name] = {how: [] for how in HOWS}
        with serving(folder / name, raw, workers=workers, cores=servers) as server:
            for turn in range(rounds):
                for how in HOWS if turn % 2 == 0 else reversed(HOWS):
                    seed += 1
                    config = raw.config | {"seed": seed, "crop_size": CROP}
                    rows[how].append(run_client(how, server, config, folder / "cache", version=VERSION, cores=clients))
    return found


def report(found: dict) -> list[str]:
    """The table: medians, and how far apart the runs are."""
    told = {
        "shared": "all cores for both",
        "apart": "one core for the server, another for the training",
    }
    lines = [
        "| cores | | ready | downloaded | unzipped | first step | trained | lowest–highest | ratio (aim: ≥ 1.5) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in found["rows"].items():
        middle = {how: statistics.median(row["trained"] for row in rows[how]) for how in HOWS}
        for how in HOWS:
            marks = ("ready", "downloaded", "unzipped", "first step", "trained")
            times = [
                f"{statistics.median(row[mark] for row in rows[how]):.1f}" if mark in rows[how][0] else ""
                for mark in marks
            ]
            ends = sorted(row["trained"] for row in rows[how])
            ratio = f"**{middle['sequence'] / middle['streamed']:.2f}**" if how == "streamed" else ""
            lines.append(f"| {told[name]} | {how} | {' | '.join(times)} | {ends[0]:.1f}–{ends[-1]:.1f} | {ratio} |")
    count = next(iter(found["rows"].values()))["streamed"][0]["examples"]
    model = ", ".join(f"{key} {value}" for key, value in MODEL.items())
    what = (
        f"{found['photos']}, {count} examples of {CROP[0]}×{CROP[1]}; one epoch of a U-Net ({model}) in batches of "
        f"{TRAINED_BATCH} on Keras with TensorFlow; seconds since the request, medians. *sequence* waits for the build "
        "and the zip, downloads it, unzips it, and trains; *streamed* trains on shards as they are sealed."
    )
    told = (
        f"Server and training run on one machine of {found['cores']} cores. Where both use all of them, a build that "
        "keeps them busy leaves the training nothing to use meanwhile, and the sum of the work decides; with a core "
        "for each, as with a data server and a training machine, build and training overlap."
    )
    return [what, "", *lines, "", told]
