"""User clicks simulated from a mask, and the distance maps a network is given of them.

After Xu, Price, Cohen, Yang, Huang, "Deep Interactive Object Selection", CVPR 2016 (arXiv:1603.04042), section 3.1.
Positive clicks fall on the object. Negative clicks are placed by one of three strategies:

- ``band``: at random on the background around the object, its *band*;
- ``objects``: at random on the other objects; where there are none, as ``band``;
- ``boundary``: all around the object. The first is drawn from the band, each further one is the pixel of the band
  that is farthest from the clicks so far (ties: the topmost, then the leftmost). The paper also counts the distance
  to what is not the band; that never exceeds half of the band's width, so that wide objects would not be covered.

The paper asks each user click to keep away from the edge of what it is on (``margin``) and from the others of its
kind (``step``). Distances are Euclidean, from pixel centre to pixel centre. The frame of the picture is no edge.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from .trimap import disc, grow

Array = npt.NDArray[np.uint8]
Points = npt.NDArray[np.int32]
Strategy = Literal["band", "objects", "boundary"]

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

#: Height times width of a usual photo of PASCAL VOC, which the paper's distances were chosen for.
_REFERENCE_AREA = 375 * 500


@dataclass(frozen=True)
class ClickRules:
    """How many clicks, and where they may be; the defaults are the usual ones for the paper's training.

    Distances are in pixels of a 500 × 375 photo, and scaled with the square root of the picture's area: the same
    photo at half its size is clicked alike. Raises `ValueError` for numbers that make no sense.
    """

    #: Positive clicks: 1 to this many, drawn uniformly. N_pos of the paper.
    positive: int = 5
    #: Negative clicks of strategy ``band``: 0 to this many, drawn uniformly. N_neg1.
    band: int = 10
    #: Negative clicks of strategy ``objects``: 0 to this many on all the other objects together. N_neg2 of the
    #: paper is for each of them, which makes dozens in a crowd; no user clicks so often.
    objects: int = 5
    #: Negative clicks of strategy ``boundary``: always this many. N_neg3.
    boundary: int = 10
    #: Least distance between two clicks of a kind. d_step.
    step: float = 10.0
    #: Least distance from a click to the nearest pixel that is not of what it is on. d_margin.
    margin: float = 5.0
    #: Greatest distance from a pixel of the band to the nearest one of the object. d.
    band_width: float = 40.0

    def __post_init__(self) -> None:
        if self.positive < 1 or min(self.band, self.objects, self.boundary) < 0:
            raise ValueError("there is at least one positive click, and no fewer than 0 negative ones")
        if not all(math.isfinite(value) and value >= 0 for value in (self.step, self.margin, self.band_width)):
            raise ValueError("distances are finite and not negative")


@dataclass(frozen=True, eq=False)
class Clicks:
    """Clicked pixels as (x, y): column and row, counted from 0. In coordinates, their centres are half a pixel on."""

    #: On the object, (N, 2) int32.
    positive: Points
    #: Not on the object, (M, 2) int32.
    negative: Points


def simulate_clicks(
    mask: Array,
    others: Array | None,
    strategy: Strategy,
    random: np.random.Generator,
    rules: ClickRules = ClickRules(),
) -> Clicks:
    """Clicks of a user who selects the object ``mask``, (H, W) uint8 of 0 and 255.

    ``others`` is the union of the other objects in the same form, or None; what it shares with the object is the
    object's. Where a margin leaves no pixel to click on, it is halved until one is left. Where steps leave no room,
    there are fewer clicks than were drawn. So a mask that is not empty has a positive click, an empty one has none,
    and a full one has no negative ones. The band is at least a pixel wide, however small the picture.

    Raises `ValueError` for another dtype or shape, an empty picture, and an unknown strategy.
    """
    for region in (mask,) if others is None else (mask, others):
        if region.dtype != np.uint8 or region.shape != mask.shape or region.ndim != 2 or not region.size:
            raise ValueError(f"masks are (H, W) uint8, alike and not empty, not {region.shape} {region.dtype}")
    if strategy not in STRATEGIES:
        raise ValueError(f"the strategies are {', '.join(STRATEGIES)}, not {strategy}")
    scale = math.sqrt(mask.size / _REFERENCE_AREA)
    margin, step = rules.margin * scale, _below(rules.step * scale)
    count = int(random.integers(1, rules.positive, endpoint=True))
    positive = _scatter(_inside(mask, margin), count, step, random)

    if strategy == "objects" and others is not None:
        free = cv2.bitwise_and(others, cv2.bitwise_not(mask))
        if cv2.countNonZero(free):
            count = int(random.integers(0, rules.objects, endpoint=True))
            return Clicks(positive, _scatter(_inside(np.asarray(free, np.uint8), margin), count, step, random))
    band = _band(mask, margin, max(1.0, rules.band_width * scale))
    if strategy == "boundary":
        return Clicks(positive, _cover(band, rules.boundary, step, random))
    return Clicks(positive, _scatter(band, int(random.integers(0, rules.band, endpoint=True)), step, random))


def distance_map(points: Points, size: tuple[int, int], limit: int = 255) -> Array:
    """How far each pixel is from the nearest of ``points``, as (H, W) uint8 for the (height, width) ``size``.

    ``points`` is (N, 2) whole numbers (x, y); they may lie outside of the picture. Distances are Euclidean, in
    pixels, rounded to the nearest whole number (a square root of one is never half way between two), and cut at
    ``limit``, 1 to 255, which is also what all pixels have where there are no points. A clicked pixel is 0.

    Raises `ValueError` for points of another shape or kind, and a limit outside its range.
    """
    if points.ndim != 2 or points.shape[1] != 2 or not np.issubdtype(points.dtype, np.integer):
        raise ValueError(f"points are (N, 2) whole numbers, not {points.shape} {points.dtype}")
    if not 1 <= limit <= 255:
        raise ValueError(f"the limit is 1 to 255, not {limit}")
    # Squares are exact in float32 below 2**24, and whatever is above ``limit`` squared is cut.
    columns = np.arange(size[1], dtype=np.float32)
    rows = np.arange(size[0], dtype=np.float32)[:, None]
    nearest = np.full(size, limit * limit, np.float32)
    squares = np.empty_like(nearest)
    for x, y in points.tolist():
        np.add(np.square(rows - np.float32(y)), np.square(columns - np.float32(x)), out=squares)
        np.minimum(nearest, squares, out=nearest)
    return np.asarray(cv2.convertScaleAbs(cv2.sqrt(nearest)), np.uint8)  # it rounds


def _below(distance: float) -> int:
    """The greatest squared distance of pixels that are nearer than ``distance``; 0 for those that are the same."""
    return max(0, math.ceil(distance * distance) - 1)


def _inside(region: Array, margin: float) -> Array:
    """The pixels of ``region`` at least ``margin`` from what is not of it; the margin is halved until there are some.

    A fresh array of 0 and 255, empty only for an empty region.
    """
    outside = np.asarray(cv2.bitwise_not(region), np.uint8)
    while margin > 1:
        inside = cv2.bitwise_not(grow(outside, _below(margin)))
        if cv2.countNonZero(inside):
            return np.asarray(inside, np.uint8)
        margin /= 2
    return region.copy()


def _band(mask: Array, margin: float, width: float) -> Array:
    """The pixels whose distance to the object is at least ``margin`` and at most ``width``, as 0 and 255.

    The margin is halved until there are some; there are none only where the mask is empty or full.
    """
    band = np.zeros_like(mask)
    x, y, w, h = cv2.boundingRect(mask)
    if not (w and h):
        return band
    reach = math.floor(width)
    window = np.s_[max(0, y - reach) : y + h + reach, max(0, x - reach) : x + w + reach]
    mask = np.ascontiguousarray(mask[window])
    near = grow(mask, math.floor(width * width))
    while True:
        taken = grow(mask, _below(margin))
        found = cv2.bitwise_and(near, cv2.bitwise_not(taken))
        if cv2.countNonZero(found) or margin <= 1:
            band[window] = found
            return band
        margin /= 2


def _scatter(region: Array, count: int, step: int, random: np.random.Generator) -> Points:
    """Up to ``count`` random pixels of ``region``, no two with ``dx² + dy² <= step``. Clears what is no longer free."""
    points = np.empty((count, 2), np.int32)
    height, width = region.shape
    taken = disc(min(step, height * height + width * width)) - np.uint8(1)  # 0 on the disc, 255 around it
    radius = len(taken) // 2
    for number in range(count):
        ends = np.cumsum(cv2.reduce(region, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[:, 0] // 255)
        if ends[-1] == 0:
            return points[:number]
        # Of all free pixels, row by row, the one with the drawn number: each is as likely.
        drawn = int(random.integers(ends[-1]))
        y = int(np.searchsorted(ends, drawn, side="right"))
        x = int(np.flatnonzero(region[y])[drawn - int(ends[y])])  # counted from the end of the row
        points[number] = x, y
        top, left = max(0, y - radius), max(0, x - radius)
        window = region[top : y + radius + 1, left : x + radius + 1]
        window &= taken[top - y + radius :, left - x + radius :][: window.shape[0], : window.shape[1]]
    return points


def _cover(band: Array, count: int, step: int, random: np.random.Generator) -> Points:
    """A random pixel of ``band``, then up to ``count`` in all, each the farthest from those before it.

    Stops where none is left that keeps the step.
    """
    left, top, width, height = cv2.boundingRect(band)
    points = [(int(x) - left, int(y) - top) for x, y in _scatter(band.copy(), min(count, 1), 0, random)]
    # Squared distances, whole numbers below 2**24 for pictures up to 2,896 × 2,896, which float32 holds exactly;
    # beyond, where the farthest pixel is thousands of pixels away, it may be another that is as good.
    columns, rows = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    inside = band[top : top + height, left : left + width]
    nearest = np.where(inside, np.float32(np.inf), np.float32(-1))
    squares = np.empty_like(nearest)
    while points and len(points) < count:
        x, y = points[-1]
        np.add(np.square(rows - np.float32(y)), np.square(columns - np.float32(x)), out=squares)
        np.minimum(nearest, squares, out=nearest)
        y, x = divmod(int(np.argmax(nearest)), width)
        if nearest[y, x] <= step:
            break
        points.append((x, y))
    return np.array(points, np.int32).reshape(-1, 2) + np.array([left, top], np.int32)
