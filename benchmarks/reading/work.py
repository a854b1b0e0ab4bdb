"""What all readers share: decoders, batches, and the count that shows that each did the whole work.

``usual`` decodes with Pillow, as the decoders that come with the peers do; ``tight`` with simplejpeg and OpenCV, the
fastest exact ones. Needs numpy, Pillow, simplejpeg and OpenCV, and runs in our environment and in the peers'.
"""

import io
import json
import resource
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np

BATCH = 16
SEED = 5

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


def _now() -> tuple[float, float]:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.monotonic(), sum(usage.ru_utime + usage.ru_stime for usage in used)


def run(epochs: Callable[[int], Iterable], number: int) -> None:
    """Read ``number`` epochs of batches (photos, masks), after one batch to warm up; print how it went.

    A batch of each epoch is looked at, so that lazy readers do their work; only its first photo's pixels are summed.
    """
    for photos, _ in epochs(0):
        int(np.asarray(photos[0]).sum())
        break
    started, cpu = _now()
    count = 0
    for epoch in range(number):
        for photos, masks in epochs(epoch):
            if len(photos) != len(masks) or 0 in photos.shape:
                raise SystemExit(f"a batch of {photos.shape} and {masks.shape}")
            count += len(photos)
    ended, used = _now()
    print(json.dumps({"event": "read", "examples": count, "seconds": ended - started, "cpu": used - cpu}), flush=True)
