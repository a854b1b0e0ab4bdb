"""From the start of a build's process to its first sample."""

import json
import shutil
import statistics
import subprocess
import time
from pathlib import Path

from benchmarks import ours


def _first_sample(request: Path) -> float:
    """Seconds until the first event that tells of a finished sample; the build is then ended."""
    started = time.monotonic()
    with subprocess.Popen([*ours.COMMAND, "build", str(request)], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            event = json.loads(line)
            if event.get("event") == "progress" and event["done"] >= 1:
                seconds = time.monotonic() - started
                process.terminate()
                return seconds
    raise SystemExit("a build that told of no sample")


def run(photos: Path, scratch: Path, workers: int, runs: int) -> dict[str, list[float]]:
    """Seconds by case: all photos of the set, and one photo."""
    results = {}
    for name, config in (("all photos", {}), ("one photo", {"limit": 1})):
        times = results[name] = []
        for _ in range(runs):
            folder = scratch / "startup"
            shutil.rmtree(folder, ignore_errors=True)
            request = ours.write_request(photos / "raw", folder, workers, **config)
            ours.plan(request)
            times.append(_first_sample(request))
    return results


def report(results: dict[str, list[float]]) -> list[str]:
    """The table, in Markdown."""
    lines = ["## Start-up", "", "| | seconds, median | lowest | highest |", "|---|---|---|---|"]
    for name, times in results.items():
        lines.append(f"| {name} | {statistics.median(times):.2f} | {min(times):.2f} | {max(times):.2f} |")
    told = (
        "From starting `python -m dataset_handlers build` to its first `progress` event with a finished sample. With "
        "all photos a worker tells of its first samples 0.2 s after it began, which is an upper bound; one photo is a "
        "shard of its own, and is told of at once."
    )
    return [*lines, "", told]
