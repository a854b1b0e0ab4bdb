"""Trimaps: which pixels of a matte are surely foreground, surely background, or to be worked out.

The levels are those of alphamatting.com (Rhemann et al., "A Perceptually Motivated Online Benchmark for Image
Matting", CVPR 2009): 0 background, 128 unknown, 255 foreground.

Distances are Euclidean, from pixel centre to pixel centre, so that direct neighbours are 1 apart. Between pixels of
one picture their squares are whole numbers, and those are what is compared: nothing here is rounded. What
lies outside of the picture is unknown to it, so the frame is never an edge.
"""

import math

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.uint8]

BACKGROUND, UNKNOWN, FOREGROUND = 0, 128, 255

#: Discs up to this radius are quicker to dilate with pixel by pixel, whatever the picture's size.
_LARGEST_DISC = 7


def trimap(alpha: Array, inner: float, outer: float, tolerance: int = 0) -> Array:
    """The trimap of ``alpha``, (H, W) uint8, as (H, W) uint8 of 0, 128 and 255.

    Unknown is every pixel

    - of fractional alpha, 1 to 254,
    - of alpha 255 whose nearest pixel below 255 is at most ``inner`` pixels away,
    - of alpha 0 whose nearest pixel above 0 is at most ``outer`` pixels away,

    where alpha within ``tolerance`` levels of 0 or 255 (0 to 127) counts as these: mattes that were measured are
    seldom quite opaque.

    Widths are 0 or more, and may be fractional: 1 adds the four neighbours of the edge, 1.5 the eight; below 1 adds
    nothing, so a mask of 0 and 255 has no unknown at 0, 0. Raises `ValueError` for another dtype or shape, for an
    empty picture, and for widths that are negative or not finite.
    """
    if alpha.dtype != np.uint8 or alpha.ndim != 2 or not alpha.size:
        raise ValueError(f"alpha is (H, W) uint8 and not empty, not {alpha.shape} {alpha.dtype}")
    for name, width in (("inner", inner), ("outer", outer)):
        if not (math.isfinite(width) and width >= 0):
            raise ValueError(f"{name} is a width in pixels, 0 or more, not {width}")
    if not 0 <= tolerance <= 127:
        raise ValueError(f"the tolerance is 0 to 127 levels, not {tolerance}")
    not_background = grow(_binary(alpha > tolerance), math.floor(outer * outer))
    not_foreground = grow(_binary(alpha < 255 - tolerance), math.floor(inner * inner))
    # Foreground is never background: its 255 covers the 128 that it has of the first.
    return np.asarray(not_background & UNKNOWN | ~not_foreground, np.uint8)


def grow(region: Array, squared_radius: int) -> Array:
    """What lies within a distance of ``region``: all pixels with ``dx² + dy² <= squared_radius`` to one of its own.

    ``region`` is (H, W) uint8 of 0 and 255, and so is the result, which shares no memory with it. Exact.
    """
    height, width = region.shape
    squared_radius = min(squared_radius, (height - 1) ** 2 + (width - 1) ** 2)
    if squared_radius < 1:
        return region.copy()
    if math.isqrt(squared_radius) <= _LARGEST_DISC:
        return np.asarray(cv2.dilate(region, disc(squared_radius)), np.uint8)
    return _grow_wide(region, squared_radius)


def _grow_wide(region: Array, squared_radius: int) -> Array:
    """`grow` with 64 pixels to a word: time grows with the radius, not with its square.

    A disc is a pile of rows, the farther from its centre the shorter. From the top of the pile to its middle, the
    region is widened sideways to the next row's length, and laid down that far above and below.
    """
    height, width = region.shape
    radius = math.isqrt(squared_radius)
    words = -(-(width + radius) // 64)  # so much is free behind each row that none widens into another
    padded = np.zeros((height, words * 64), np.uint8)
    padded[:, :width] = region
    bits = np.packbits(padded, axis=1, bitorder="little").view("<u8").reshape(-1)
    grown = np.zeros((height, words), np.uint64)
    reach = 0
    for distance in range(radius, -1, -1):
        while (missing := math.isqrt(squared_radius - distance * distance) - reach) > 0:
            # Every run is 2 * reach + 1 long at least: moved by no more than that, it leaves no gap.
            step = min(missing, 2 * reach + 1, 63)
            bits = _widen(bits, step)
            reach += step
        rows = bits.reshape(height, words)
        if distance < height:
            grown[distance:] |= rows[: height - distance]
            grown[: height - distance] |= rows[distance:]
    return np.negative(np.unpackbits(grown.view(np.uint8), axis=1, count=width, bitorder="little"))  # 1 -> 255


def _widen(bits: npt.NDArray[np.uint64], step: int) -> npt.NDArray[np.uint64]:
    """A row of pixels, the first in the lowest bit, joined with itself moved by ``step`` (1 to 63) to either side."""
    there, back = np.uint64(step), np.uint64(64 - step)
    wider: npt.NDArray[np.uint64] = bits | bits << there | bits >> there
    wider[1:] |= bits[:-1] >> back
    wider[:-1] |= bits[1:] << back
    return wider


def disc(squared_radius: int) -> Array:
    """The offsets with ``dx² + dy² <= squared_radius`` as ones in a square of zeros, uint8, (0, 0) in its middle."""
    radius = math.isqrt(squared_radius)
    offsets = np.arange(-radius, radius + 1) ** 2
    return (offsets[:, None] + offsets <= squared_radius).astype(np.uint8)


def _binary(chosen: npt.NDArray[np.bool_]) -> Array:
    """255 where true, 0 elsewhere."""
    return np.negative(chosen.view(np.uint8))
