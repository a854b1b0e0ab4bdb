"""How the pixels of a picture are resampled: which of them are needed, filtered how, and one warp.

Where a geometry shrinks, detail finer than the output's pixels must go before it is sampled, or it aliases. It goes in
three steps, each only as far as needed: JPEGs decode at a DCT scale of 1/2, 1/4 or 1/8; whole blocks are averaged; a
Gaussian takes the rest, less than a factor of two. Then one bilinear warp. On real photos the mean difference to the
exact integral over each output pixel's footprint is 1 level of 255 where they shrink by 1.1, 2 by 1.5, 4 by 4 and 6
by 12, and less aliases than in areas averaged exactly (tests/handlers/test_sampling.py).

Only the region an output can see is decoded and filtered, which changes no pixel. Outside its frame a picture is
mirrored at its edges. The edge, unlike the centre of the outermost pixel, stays where it is while a picture shrinks,
so that photo and mask agree out there too.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from .geometry import Geometry, Size, compose, scaling, transform_point, translation

Image = npt.NDArray[np.uint8]
Pair = tuple[float, float]

#: Shrinking by less than this is left to the bilinear warp.
_NEGLIGIBLE = 1.05

_DCT_SCALES = (8, 4, 2)
#: Smaller photos are decoded as they are: their scaled sizes do not tell one scale from another.
_SMALLEST_SCALED = 16

#: Filters in whole numbers, not by whatever library is quickest on a processor.
_EXACT = cv2.ALGO_HINT_ACCURATE

# OpenCV counts from pixel centres.
_TO_CENTRES, _FROM_CENTRES = translation(-0.5, -0.5), translation(0.5, 0.5)


@dataclass(frozen=True)
class Region:
    """Whole source pixels: columns [left, right) and rows [top, bottom)."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.bottom - self.top, self.right - self.left

    def of(self, image: Image) -> Image:
        """These pixels of a picture, a view."""
        return image[self.top : self.bottom, self.left : self.right]


@dataclass(frozen=True)
class Sampling:
    """What is done to a picture before the warp, in this order; pairs are for x and y."""

    region: Region  # in source pixels, on multiples of `dct_scale` × `blocks`, or up to the frame
    dct_scale: int  # the decode is smaller by this factor
    blocks: tuple[int, int]  # then this many pixels are averaged into one
    sigma: tuple[float, float]  # then a Gaussian, in pixels of what is left


def plan_sampling(geometry: Geometry, source: Size, *, dct: bool, mirrored: bool = True) -> Sampling:
    """Decide what of a picture (height, width) is needed for an output, and how much to filter it.

    ``dct`` says that the picture is a JPEG still to be decoded; ``mirrored`` that it goes on beyond its frame.
    Raises `ValueError` for a geometry whose output looks behind the picture's horizon.
    """
    seen = geometry.seen_corners
    factors = _shrink_factors(geometry, seen)
    extents = [(min(values), max(values)) for values in zip(*seen, strict=True)]
    lengths = (source[1], source[0])
    scale, blocks, sigma = 1, (1, 1), (0.0, 0.0)
    if max(factors) > _NEGLIGIBLE:
        scale, blocks, sigma = _filters(factors, extents, lengths, dct, mirrored)
    spans = []
    for axis in (0, 1):
        step = scale * blocks[axis]
        margin = step * (3 + _radius(sigma[axis]))
        spans.append(_span(*extents[axis], lengths[axis], margin, step))
    (left, right), (top, bottom) = spans
    return Sampling(Region(left, top, right, bottom), scale, blocks, sigma)


def _filters(
    factors: Pair, extents: list[Pair], lengths: tuple[int, int], dct: bool, mirrored: bool
) -> tuple[int, tuple[int, int], Pair]:
    """DCT scale, blocks and sigma of a `Sampling` that shrinks by ``factors``; all else is for x and y, too."""
    # Averages would mirror at the last whole block, not at the frame: where that shows, only the Gaussian filters.
    # (The inverse of a plain resize ends a last bit beyond the frame, as often as not.)
    allowed = [high <= length + 1e-6 or not mirrored for (_, high), length in zip(extents, lengths, strict=True)]

    def whole(axis: int, factor: int) -> bool:
        return allowed[axis] or lengths[axis] % factor == 0

    scale = 1
    if dct and min(lengths) >= _SMALLEST_SCALED:
        fitting = (s for s in _DCT_SCALES if s <= min(factors) and whole(0, s) and whole(1, s))
        scale = next(fitting, 1)
    counts = [int(factor / scale) for factor in factors]
    x_block, y_block = (count if whole(axis, count * scale) else 1 for axis, count in enumerate(counts))
    rest = factors[0] / scale / x_block, factors[1] / scale / y_block
    # With the warp's interpolation, a sixth of a pixel squared, the variance of a triangle two output pixels wide.
    x_sigma, y_sigma = (math.sqrt((factor * factor - 1) / 6) if factor > _NEGLIGIBLE else 0.0 for factor in rest)
    return scale, (x_block, y_block), (x_sigma, y_sigma)


def _shrink_factors(geometry: Geometry, seen: list[Pair]) -> Pair:
    """How many source pixels, along x and along y, fall on one output pixel; where this varies, the least."""
    (a, b, _), (d, e, _), (g, h, i) = geometry.matrix.tolist()
    if geometry.is_affine:
        lengths = (math.hypot(a, d), math.hypot(b, e))
    else:
        found = []
        for x, y in seen:
            u, v = transform_point(geometry.matrix, x, y)
            w = g * x + h * y + i
            # The columns of the Jacobian at this point.
            found.append((math.hypot(a - u * g, d - v * g) / abs(w), math.hypot(b - u * h, e - v * h) / abs(w)))
        lengths = (max(x for x, _ in found), max(y for _, y in found))
    # A sixth is a sixth, however the last bit was rounded.
    x, y = (max(1.0, 1 / max(length, 1e-9) + 1e-6) for length in lengths)
    return x, y


def _span(low: float, high: float, length: int, margin: int, step: int) -> tuple[int, int]:
    """First and last pixel needed on a side of ``length`` pixels, with what is seen mirrored, on multiples of step."""
    low, high = low - margin, high + margin
    if low < 0:
        high = max(high, -low)
    if high > length:
        low = min(low, 2 * length - high)
    first = max(0, math.floor(low)) // step * step
    last = min(length, -(-math.ceil(high) // step) * step)
    # A window far outside sees the picture only mirrored, more than once.
    return (first, last) if last > first else (0, length)


def _radius(sigma: float) -> int:
    return math.ceil(2.5 * sigma)


def resample(image: Image, sampling: Sampling, geometry: Geometry, border: int, fill: int = 0) -> Image:
    """Filter and warp ``image``: the pixels of the sampling's region, already at its DCT scale.

    Returns the output, (height, width[, channels]) of the geometry.
    """
    x_blocks, y_blocks = sampling.blocks
    if sampling.blocks != (1, 1):
        image = _average_blocks(image, x_blocks, y_blocks, border, fill)
    if sampling.sigma != (0.0, 0.0):
        kernel = [2 * _radius(sigma) + 1 for sigma in sampling.sigma]
        x_sigma, y_sigma = (sigma or 1.0 for sigma in sampling.sigma)  # a kernel of one pixel does nothing
        image = _image(
            cv2.GaussianBlur(image, kernel, x_sigma, sigmaY=y_sigma, borderType=cv2.BORDER_REFLECT, hint=_EXACT)
        )
    matrix = compose(geometry.matrix, translation(sampling.region.left, sampling.region.top))
    if (step := (sampling.dct_scale * x_blocks, sampling.dct_scale * y_blocks)) != (1, 1):
        matrix = compose(matrix, scaling(*step))
    return _warp(image, Geometry(matrix, geometry.size), cv2.INTER_LINEAR, border, fill)


def shows_frame(geometry: Geometry, source: Size) -> npt.NDArray[np.bool_]:
    """Which output pixels (height, width) have their centre inside of the frame of a picture of size ``source``."""
    (a, b, c), (d, e, f), (g, h, i) = geometry.back.tolist()
    x = np.arange(geometry.size[1]) + 0.5
    y = np.arange(geometry.size[0])[:, None] + 0.5
    depth = g * x + h * y + i
    column, row = (a * x + b * y + c) / depth, (d * x + e * y + f) / depth
    inside: npt.NDArray[np.bool_] = (column >= 0) & (column < source[1]) & (row >= 0) & (row < source[0])
    return inside


def _average_blocks(image: Image, x: int, y: int, border: int, fill: int) -> Image:
    height, width = image.shape[:2]
    bottom, right = -height % y, -width % x
    if bottom or right:
        beyond = cv2.BORDER_CONSTANT if border == cv2.BORDER_CONSTANT else cv2.BORDER_REPLICATE
        image = _image(cv2.copyMakeBorder(image, 0, bottom, 0, right, beyond, value=(fill, fill, fill)))
        height, width = image.shape[:2]
    return _image(cv2.resize(image, (width // x, height // y), interpolation=cv2.INTER_AREA))


def _warp(image: Image, geometry: Geometry, flags: int, border: int, fill: int) -> Image:
    if (direct := _without_interpolation(image, geometry)) is not None:
        return direct
    height, width = geometry.size
    centred = compose(_TO_CENTRES, geometry.matrix, _FROM_CENTRES)
    options: dict[str, Any] = {"flags": flags, "borderMode": border, "borderValue": (fill, fill, fill)}
    if geometry.is_affine:
        return _image(cv2.warpAffine(image, centred[:2], (width, height), **options))
    return _image(cv2.warpPerspective(image, centred, (width, height), **options))


def _without_interpolation(image: Image, geometry: Geometry) -> Image | None:
    """The output where it is a window of the picture, mirrored perhaps; None where it is not."""
    (a, b, x), (d, e, y), _ = geometry.matrix.tolist()
    if b or d or abs(a) != 1 or abs(e) != 1 or not geometry.is_affine or x != int(x) or y != int(y):
        return None
    height, width = geometry.size
    left = int(-x) if a > 0 else int(x) - width
    top = int(-y) if e > 0 else int(y) - height
    if left < 0 or top < 0 or left + width > image.shape[1] or top + height > image.shape[0]:
        return None
    window = image[top : top + height, left : left + width]
    if a > 0 and e > 0:
        return window
    return _image(cv2.flip(window, -1 if a < 0 and e < 0 else 1 if a < 0 else 0))


def _image(array: Any) -> Image:
    return np.asarray(array, np.uint8)


def warp(
    image: Image, geometry: Geometry, *, nearest: bool = False, border: int = cv2.BORDER_REFLECT, fill: int = 0
) -> Image:
    """Resample ``image`` (H, W[, C]) uint8 through ``geometry``; filtered, or by nearest neighbour for masks.

    A window of the picture, mirrored or not, is returned untouched. ``border`` is OpenCV's; ``fill`` is the level
    outside the picture where it is `cv2.BORDER_CONSTANT`. Raises `ValueError` as `plan_sampling` does.
    """
    if nearest:
        geometry.check()
        return _warp(image, geometry, cv2.INTER_NEAREST, border, fill)
    mirrored = border != cv2.BORDER_CONSTANT  # as for photos, with which alphas go together
    sampling = plan_sampling(geometry, (image.shape[0], image.shape[1]), dct=False, mirrored=mirrored)
    return resample(sampling.region.of(image), sampling, geometry, border, fill)
