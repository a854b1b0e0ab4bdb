"""One sample over the C libraries and nothing else: what the limit and the peers' second flavour do.

Crop, flip and rotation are one matrix and one bilinear warp, exposure is one table; polygons are drawn by COCO's rule
where their transformed vertices fall; the mask is a one-bit PNG of packed bits. It needs numpy, OpenCV, simplejpeg
and pycocotools, and runs in our environment and in the peers'.
"""

import json
import math
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from pycocotools import mask as rle

SIZE = 320
QUALITY = 95
DEGREES = 10.0
STOPS = 0.5

_LEVELS = np.arange(256) / 255

# Pixels (H, W, 3) of at least the box (left, top, right, bottom), and where their first pixel lies in the photo.
Decode = Callable[[bytes, tuple[int, int, int, int]], tuple[np.ndarray, tuple[int, int]]]


def read_samples(file: Path) -> list[dict]:
    """The photos that `benchmarks.photos` wrote, each with its number."""
    return [{"number": number, **json.loads(line)} for number, line in enumerate(file.open())]


def decode_whole(data: bytes, _box: tuple[int, int, int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """The whole photo, by simplejpeg."""
    return simplejpeg.decode_jpeg(data), (0, 0)


def tight(sample: dict, decode: Decode = decode_whole) -> tuple[bytes, bytes]:
    """The photo as JPEG and the mask as one-bit PNG, augmented as the sample's number says."""
    draw = random.Random(sample["number"])
    height, width = sample["height"], sample["width"]
    left, top = draw.randint(0, width - SIZE), draw.randint(0, height - SIZE)
    mirror = -1.0 if draw.random() < 0.5 else 1.0
    angle = math.radians(draw.uniform(-DEGREES, DEGREES))
    gain = 2 ** draw.uniform(-STOPS, STOPS)

    # From output to photo, continuous coordinates: photo = turn @ (output - SIZE / 2) + centre.
    cos, sin = math.cos(angle), math.sin(angle)
    centre_x, centre_y = left + SIZE / 2, top + SIZE / 2
    reach = SIZE / 2 * (abs(cos) + abs(sin)) + 1
    box = (
        max(0, math.floor(centre_x - reach)),
        max(0, math.floor(centre_y - reach)),
        min(width, math.ceil(centre_x + reach)),
        min(height, math.ceil(centre_y + reach)),
    )
    photo, (first_x, first_y) = decode(Path(sample["photo"]).read_bytes(), box)
    turn = ((cos * mirror, -sin), (sin * mirror, cos))
    half = SIZE / 2 - 0.5  # warpAffine counts from pixel centres
    matrix = np.array(
        [
            (*turn[0], centre_x - 0.5 - first_x - (turn[0][0] + turn[0][1]) * half),
            (*turn[1], centre_y - 0.5 - first_y - (turn[1][0] + turn[1][1]) * half),
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    picture = cv2.warpAffine(photo, matrix, (SIZE, SIZE), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    table = np.minimum(_LEVELS * (gain * 255) + 0.5, 255).astype(np.uint8)
    picture = cv2.LUT(picture, table)

    polygons = []
    for polygon in sample["polygons"]:
        points = np.array(polygon) - (centre_x, centre_y) * (len(polygon) // 2)
        placed = np.empty_like(points)
        placed[0::2] = (cos * points[0::2] + sin * points[1::2]) * mirror + SIZE / 2
        placed[1::2] = cos * points[1::2] - sin * points[0::2] + SIZE / 2
        polygons.append(placed.tolist())
    mask = rle.decode(rle.merge(rle.frPyObjects(polygons, SIZE, SIZE)))
    jpeg = simplejpeg.encode_jpeg(picture, quality=QUALITY, colorsubsampling="420")
    return jpeg, _one_bit_png(mask)


def _one_bit_png(mask: np.ndarray) -> bytes:
    """A mask of 0 and 1 as PNG, one bit a pixel; rows start with filter type 0."""
    rows = np.zeros((SIZE, 1 + SIZE // 8), np.uint8)
    rows[:, 1:] = np.packbits(mask, axis=1)
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body
