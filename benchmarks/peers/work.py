"""What the peers share: the sample functions of both flavours and the command line.

``usual`` is what a user of Albumentations writes: https://albumentations.ai/docs/3-basic-usage/semantic-segmentation/
(OpenCV reads and writes, pycocotools draws the mask at the photo's size). ``tight`` is `benchmarks.tight`.

    python -m benchmarks.peers.NAME SAMPLES.jsonl OUT --processes 2 --flavour usual
    python -m benchmarks.peers.NAME SAMPLES.jsonl OUT --check
"""

import argparse
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.update(NO_ALBUMENTATIONS_UPDATE="1", HF_HUB_OFFLINE="1", TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0")

import cv2
import numpy as np
from pycocotools import mask as rle

from benchmarks.clock import check, start_clock
from benchmarks.tight import QUALITY, SIZE, STOPS, read_samples, tight

cv2.setNumThreads(0)  # the processes are the parallelism

#: Bytes of a shard, for builders that ask.
SHARD_BYTES = 64 << 20

Pair = tuple[bytes, bytes]


@functools.cache
def augmentation():
    """The Albumentations pipeline, one in each process. Without brightness, contrast is a gain: an exposure."""
    import albumentations as A  # noqa: N812 - its documentation's name

    return A.Compose(
        [
            A.RandomCrop(height=SIZE, width=SIZE),
            A.HorizontalFlip(p=0.5),
            A.Rotate(limit=10, border_mode=cv2.BORDER_REFLECT_101, p=1),
            A.RandomBrightnessContrast(brightness_limit=0, contrast_limit=(2**-STOPS - 1, 2**STOPS - 1), p=1),
        ]
    )


def draw_mask(polygons: list, height: int, width: int) -> np.ndarray:
    """What pycocotools' ``COCO.annToMask`` does: 0 and 1, (height, width) uint8."""
    return rle.decode(rle.merge(rle.frPyObjects(polygons, height, width)))


def augmented(sample: dict) -> tuple[np.ndarray, np.ndarray]:
    """Photo (RGB) and mask (0 and 255) of a sample, by OpenCV, pycocotools and Albumentations."""
    photo = cv2.cvtColor(cv2.imread(sample["photo"]), cv2.COLOR_BGR2RGB)
    mask = draw_mask(sample["polygons"], sample["height"], sample["width"])
    result = augmentation()(image=photo, mask=mask)
    return result["image"], result["mask"] * 255


def usual(sample: dict) -> Pair:
    """The JPEG and the PNG of a sample, both written by OpenCV."""
    photo, mask = augmented(sample)
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(photo, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    _, png = cv2.imencode(".png", mask)
    return jpeg.tobytes(), png.tobytes()


FLAVOURS: dict[str, Callable[[dict], Pair]] = {"usual": usual, "tight": tight}


def slices(samples: list[dict], count: int) -> list[list[dict]]:
    """``count`` runs of neighbours of nearly one length."""
    return [part.tolist() for part in np.array_split(np.array(samples, object), count)]


def main(
    build: Callable[[list[dict], Path, int, str], None],
    read: Callable[[Path], Iterator[Pair]],
    *,
    albumentations: bool = True,
) -> None:
    """The command line of a peer.

    ``build(samples, out, processes, flavour)`` writes, ``read(out)`` gives back the pairs; ``albumentations`` says
    whether the usual flavour imports it, which it then does before the clock starts.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("samples", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--flavour", choices=FLAVOURS, default="usual")
    parser.add_argument("--check", action="store_true", help="read what was written")
    options = parser.parse_args()
    if options.check:
        check(read(options.out))
        return
    samples = read_samples(options.samples)
    if albumentations and options.flavour == "usual":
        augmentation()
    options.out.mkdir(parents=True)
    start_clock()
    build(samples, options.out, options.processes, options.flavour)
