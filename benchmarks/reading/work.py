"""What all readers share: decoders, batches, and the process that reads an epoch each time it is told to.

``usual`` decodes with Pillow, as the decoders that come with the peers do; ``tight`` with simplejpeg and OpenCV, the
fastest exact ones. Needs numpy, Pillow, simplejpeg and OpenCV, and runs in our environment and in the peers'.
"""

import io
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from benchmarks.measure import children

BATCH = 16
SEED = 5
_TICKS = os.sysconf("SC_CLK_TCK")

Pair = tuple[np.ndarray, np.ndarray]


def usual(jpeg: bytes, png: bytes) -> Pair:
    from PIL import Image

    photo = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
    return photo, np.asarray(Image.open(io.BytesIO(png)).convert("L"))[..., None]


def tight(jpeg: bytes, png: bytes) -> Pair:
    import cv2
    import simplejpeg

    return simplejpeg.decode_jpeg(jpeg), cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)[..., None]


DECODERS: dict[str, Callable[[bytes, bytes], Pair]] = {"usual": usual, "tight": tight}


def stacked(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Batches (B, 320, 320, 3) and (B, 320, 320, 1) of numpy arrays."""
    photos, masks = [], []
    for photo, mask in pairs:
        photos.append(photo)
        masks.append(mask)
        if len(photos) == BATCH:
            yield np.stack(photos), np.stack(masks)
            photos, masks = [], []
    if photos:
        yield np.stack(photos), np.stack(masks)


def _cpu() -> float:
    """CPU seconds of this process and of those that it has started and that still live."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in children(os.getpid())]
    return own.ru_utime + own.ru_stime + sum(int(field[11]) + int(field[12]) for field in fields) / _TICKS


def _count(batches: Iterable) -> int:
    """The number of examples; lazy readers must do their work, so each batch's first pair is looked at."""
    count = 0
    for photos, masks in batches:
        if len(photos) != len(masks) or 0 in photos.shape:
            raise SystemExit(f"a batch of {photos.shape} and {masks.shape}")
        _ = np.asarray(photos[0]).max(), np.asarray(masks[0]).max()
        count += len(photos)
    return count


def serve(epochs: Callable[[int], Iterable]) -> None:
    """Read epoch 0 to warm up, then one more for each line of the input; print how each went."""
    for epoch, _ in enumerate(chain(["warm up"], sys.stdin)):
        started, cpu = time.monotonic(), _cpu()
        count = _count(epochs(epoch))
        took = {"seconds": time.monotonic() - started, "cpu": _cpu() - cpu}
        print(json.dumps({"event": "read", "examples": count} | took), flush=True)
