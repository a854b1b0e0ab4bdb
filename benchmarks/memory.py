"""Memory of our build's workers: does it grow with the number of samples, and what does a giant photo take?"""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from benchmarks import ours
from benchmarks.measure import children, events, resident_mb
from benchmarks.photos import PART, prepare

GIANT = 16_384
_SAMPLE_SECONDS = 0.2


def _private_mb(pid: int) -> float:
    """Memory that is a process's own, not shared with the one it was forked from."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024 / 1e6


def watch(request: Path) -> dict:
    """Build, and look at every process five times a second: lists of MB by process, the first is the coordinator."""
    series: dict[int, dict[str, list[float]]] = {}
    process = subprocess.Popen([*ours.COMMAND, "build", str(request)], stdout=subprocess.PIPE, text=True)
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            for pid in (process.pid, *children(process.pid)):
                if resident := resident_mb(pid):
                    seen = series.setdefault(pid, {"resident": [], "private": []})
                    seen["resident"].append(resident)
                    seen["private"].append(_private_mb(pid))

    thread = threading.Thread(target=look)
    thread.start()
    output, _ = process.communicate()
    ended.set()
    thread.join()
    if process.returncode:
        raise SystemExit(f"the build exited with {process.returncode}: {output[-2000:]}")
    finished = next(events(output, "finished"))
    coordinator = series.pop(process.pid)
    return {"coordinator": coordinator, "workers": list(series.values()), "quarantined": finished["quarantined"]}


def _thinned(values: list[float]) -> list[float]:
    """Some fifty of a series, in whole MB, among them the first and the highest."""
    step = len(values) // 48 + 1
    kept = {*range(0, len(values), step), values.index(max(values))}
    return [round(values[index]) for index in sorted(kept)]


def _peak(watched: dict, what: str) -> float:
    return max(max(worker[what]) for worker in watched["workers"])


def _end(watched: dict, what: str) -> float:
    """The lowest of a worker's last quarter, of the worker with most: where memory has settled."""
    return max(min(worker[what][-(len(worker[what]) // 4 + 1) :]) for worker in watched["workers"])


def add_giant(folder: Path, kind: str) -> None:
    """A photo of 16,384 × 16,384, "jpg" or "png", tiled of the set's first photo, at the end of the set."""
    import cv2
    import numpy as np

    file = folder / "raw" / "coco" / "annotations" / f"instances_{PART}.json"
    coco = json.loads(file.read_bytes())
    photos = file.parent.parent / PART
    tile = cv2.imread(str(photos / coco["images"][0]["file_name"]))
    height, width = tile.shape[:2]
    giant = np.tile(tile, (GIANT // height + 1, GIANT // width + 1, 1))[:GIANT, :GIANT]
    side = GIANT // 2
    square = [side, side, side + 999, side, side + 999, side + 999, side, side + 999]
    name, number = f"giant.{kind}", len(coco["images"])
    cv2.imwrite(str(photos / name), giant, [cv2.IMWRITE_PNG_COMPRESSION, 1] if kind == "png" else [])
    coco["images"].append({"id": number, "file_name": name, "height": GIANT, "width": GIANT})
    annotation = {"id": number + 1, "image_id": number, "category_id": 1, "iscrowd": 0, "area": 1e6}
    coco["annotations"].append(annotation | {"bbox": [side, side, 999, 999], "segmentation": [square]})
    file.write_text(json.dumps(coco))


def run(raw_root: Path, scratch: Path, workers: int, few: int, many: int) -> dict:
    """The builds, one after the other; the giants in sets of 20 photos."""
    cases = {f"{few:,} photos": (few, None), f"{many:,} photos": (many, None)}
    cases |= {f"20 photos, and a {kind} of {GIANT:,} × {GIANT:,}": (20, kind) for kind in ("jpg", "png")}
    results: dict[str, dict] = {}
    for name, (count, giant) in cases.items():
        folder = scratch / "memory"
        shutil.rmtree(folder, ignore_errors=True)
        prepare(raw_root, folder, count)
        if giant:
            add_giant(folder, giant)
        request = ours.write_request(folder / "raw", folder / "work", workers)
        ours.plan(request)
        results[name] = watch(request)
        shutil.rmtree(folder)
        print(f"memory, {name}: worker peak {_peak(results[name], 'resident'):.0f} MB", file=sys.stderr)
    return results


def raw(results: dict) -> dict:
    """The series, thinned out to what is worth keeping."""

    def thinned(seen: dict[str, list[float]]) -> dict[str, list[float]]:
        return {what: _thinned(values) for what, values in seen.items()}

    return {
        name: watched
        | {"coordinator": thinned(watched["coordinator"]), "workers": [thinned(seen) for seen in watched["workers"]]}
        for name, watched in results.items()
    }


def report(results: dict) -> list[str]:
    """The table, in Markdown."""
    lines = [
        *(
            "## Memory",
            "",
            "| | worker, peak MB | its own | settled MB | its own | coordinator, peak MB | quarantined |",
        ),
        "|---|---|---|---|---|---|---|",
    ]
    for name, watched in results.items():
        lines.append(
            f"| {name} | {_peak(watched, 'resident'):.0f} | {_peak(watched, 'private'):.0f} "
            f"| {_end(watched, 'resident'):.0f} | {_end(watched, 'private'):.0f} "
            f"| {max(watched['coordinator']['resident']):.0f} | {watched['quarantined']} |"
        )
    few, many = list(results.values())[:2]
    resident, private = (_peak(many, what) / _peak(few, what) for what in ("resident", "private"))
    told = (
        f"Peak of a worker, many photos through few: {resident:.2f} resident, {private:.2f} its own (not "
        "shared with the process it was forked from). Looked at five times a second; settled: the lowest of the last "
        "quarter."
    )
    return [*lines, "", told]
