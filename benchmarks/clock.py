"""When the work of a benchmarked process starts, and whether what it wrote is right."""

import json
import resource
import time
from collections.abc import Iterator

import cv2
import numpy as np

from benchmarks.tight import SIZE


def start_clock() -> None:
    """Print that all is imported and the work starts: the time, and the CPU seconds used so far."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in used)
    print(json.dumps({"event": "clock", "monotonic": time.monotonic(), "cpu": cpu}), flush=True)


def check(pairs: Iterator[tuple[bytes, bytes]]) -> None:
    """Print how many (JPEG, PNG) there are; each must decode to SIZE × SIZE, the mask to two levels at most."""
    count = 0
    for jpeg, png in pairs:
        if not jpeg.startswith(b"\xff\xd8") or not png.startswith(b"\x89PNG"):
            raise SystemExit(f"example {count} is no JPEG with a PNG")
        photo = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_UNCHANGED)
        mask = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
        if photo is None or mask is None:
            raise SystemExit(f"example {count} does not decode")
        if photo.shape != (SIZE, SIZE, 3) or mask.shape != (SIZE, SIZE):
            raise SystemExit(f"example {count} is a photo of {photo.shape} with a mask of {mask.shape}")
        if np.setdiff1d(mask, (0, 255)).size:
            raise SystemExit(f"example {count} has a mask of grey levels")
        count += 1
    print(json.dumps({"event": "checked", "examples": count}))
