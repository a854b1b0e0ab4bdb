"""Resize, crop, mirror, scale, shear, rotate and tilt as one matrix.

Coordinates are continuous: pixel (column i, row j) covers [i, i+1) × [j, j+1), so that sizes scale exactly and the
same matrix serves photos, masks and points. Matrices map source to output, column vectors (x, y, 1). Nothing here
goes through BLAS or LAPACK, which round differently on different processors: a last bit can move a pixel.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Size = tuple[int, int]

ResizeMode = Literal["stretch", "fit", "cover"]


@dataclass(frozen=True)
class Geometry:
    """Where each source pixel goes: ``matrix`` (3, 3), affine or projective, and the output's ``size``."""

    matrix: Matrix
    size: Size  # (height, width)

    @functools.cached_property
    def back(self) -> Matrix:
        """The inverse of ``matrix``: where in the source each point of the output comes from."""
        return inverse(self.matrix)

    @functools.cached_property
    def seen_corners(self) -> list[tuple[float, float]]:
        """Where in the source the output's corners (x, y) come from, clockwise from the top left.

        Raises `ValueError` for a geometry whose output looks behind the picture's horizon: no camera sees that.
        """
        (a, b, c), (d, e, f), (g, h, i) = self.back.tolist()
        k, m, n = self.matrix[2].tolist()
        seen = []
        for x, y in corners(self.size):
            depth = g * x + h * y + i
            if depth > 1e-6:
                u, v = (a * x + b * y + c) / depth, (d * x + e * y + f) / depth
                if k * u + m * v + n > 0:
                    seen.append((u, v))
                    continue
            raise ValueError("this perspective is too strong: the output would show what is behind the camera")
        return seen

    def check(self) -> None:
        """Raise `ValueError` for a geometry that no camera could see; see `seen_corners`."""
        _ = self.seen_corners

    @functools.cached_property
    def is_affine(self) -> bool:
        """Whether parallel lines stay parallel."""
        g, h, i = self.matrix[2].tolist()
        return bool(g == 0 and h == 0 and i == 1)


def translation(x: float, y: float) -> Matrix:
    """Shift by (x, y) pixels."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def scaling(x: float, y: float) -> Matrix:
    """Scale by x and y about the origin."""
    return np.array([[x, 0, 0], [0, y, 0], [0, 0, 1]], np.float64)


def rotation(degrees: float) -> Matrix:
    """Rotate about the origin, counter-clockwise as seen (rows grow downwards)."""
    cos, sin = _rounded(math.cos(math.radians(degrees))), _rounded(math.sin(math.radians(degrees)))
    return np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]], np.float64)


def shearing(degrees: float) -> Matrix:
    """Slant upright lines by an angle in (-90, 90); positive leans what is above the origin to the right."""
    return np.array([[1, -_rounded(math.tan(math.radians(degrees))), 0], [0, 1, 0], [0, 0, 1]], np.float64)


def _rounded(number: float) -> float:
    """What C libraries agree on: the last bits of sines differ with a processor's fused multiplication."""
    return round(number, 12)


def compose(*matrices: Matrix) -> Matrix:
    """The product of ``matrices``; the last is applied first."""
    if not matrices:
        return np.eye(3)
    # Entry by entry: a loop over rows takes twice as long, and this runs ten times for a photo.
    (a, b, c), (d, e, f), (g, h, i) = matrices[0].tolist()
    for matrix in matrices[1:]:
        (j, k, m), (n, o, p), (q, r, s) = matrix.tolist()
        a, b, c = a * j + b * n + c * q, a * k + b * o + c * r, a * m + b * p + c * s
        d, e, f = d * j + e * n + f * q, d * k + e * o + f * r, d * m + e * p + f * s
        g, h, i = g * j + h * n + i * q, g * k + h * o + i * r, g * m + h * p + i * s
    return np.array(((a, b, c), (d, e, f), (g, h, i)), np.float64)


def inverse(matrix: Matrix) -> Matrix:
    """The inverse by cofactors, scaled so that its last entry is 1; raises `ValueError` for a singular matrix."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    cofactors = [
        [e * i - f * h, c * h - b * i, b * f - c * e],
        [f * g - d * i, a * i - c * g, c * d - a * f],
        [d * h - e * g, b * g - a * h, a * e - b * d],
    ]
    determinant = a * cofactors[0][0] + b * cofactors[1][0] + c * cofactors[2][0]
    if not abs(determinant) > 1e-12 or cofactors[2][2] == 0:
        raise ValueError("this geometry flattens the picture to a line")
    last = cofactors[2][2]
    return np.array([[value / last for value in row] for row in cofactors], np.float64)


def about(matrix: Matrix, x: float, y: float) -> Matrix:
    """``matrix`` with (x, y) as its fixed point instead of the origin."""
    return compose(translation(x, y), matrix, translation(-x, -y))


def square_to_quad(corners: Sequence[tuple[float, float]]) -> Matrix:
    """Map the unit square's corners (0, 0), (1, 0), (1, 1), (0, 1) to four points, (x, y) each.

    Heckbert, "Fundamentals of Texture Mapping and Image Warping" (1989), section 2.2.3. Raises `ValueError` for
    corners of no area.
    """
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners
    dx1, dx2, sx = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, sy = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    area = dx1 * dy2 - dx2 * dy1
    if area == 0:
        raise ValueError("these corners span no area")
    g, h = (sx * dy2 - dx2 * sy) / area, (dx1 * sy - sx * dy1) / area
    return np.array(
        [[x1 - x0 + g * x1, x3 - x0 + h * x3, x0], [y1 - y0 + g * y1, y3 - y0 + h * y3, y0], [g, h, 1]], np.float64
    )


def perspective(size: Size, shifts: Sequence[float]) -> Matrix:
    """Move the four corners of a picture (height, width); a mild tilt of the camera.

    ``shifts`` are eight numbers, x and y of the corners clockwise from the top left, as shares of width and height.
    """
    height, width = size
    square = ((0, 0), (1, 0), (1, 1), (0, 1))
    corners = [
        ((x + shifts[2 * index]) * width, (y + shifts[2 * index + 1]) * height) for index, (x, y) in enumerate(square)
    ]
    return compose(square_to_quad(corners), scaling(1 / width, 1 / height))


def transform_point(matrix: Matrix, x: float, y: float) -> tuple[float, float]:
    """Map one point, source to output."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    w = g * x + h * y + i
    return (a * x + b * y + c) / w, (d * x + e * y + f) / w


def transform_points(matrix: Matrix, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Map (N, 2) points (x, y), source to output."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    x, y = points[:, 0], points[:, 1]
    mapped = np.empty_like(points)
    mapped[:, 0] = a * x + b * y + c
    mapped[:, 1] = d * x + e * y + f
    if (g, h, i) != (0, 0, 1):
        mapped /= (g * x + h * y + i)[:, None]
    return mapped


def corners(size: Size) -> list[tuple[float, float]]:
    """The corners (x, y) of a picture, clockwise from the top left."""
    height, width = size
    return [(0.0, 0.0), (float(width), 0.0), (float(width), float(height)), (0.0, float(height))]


def resizing(source: Size, target: Size, mode: ResizeMode) -> Matrix:
    """Bring a picture to the size ``target``.

    ``stretch`` fills it whatever the proportions; ``fit`` keeps them and leaves room beside the picture; ``cover``
    keeps them and lets the picture stick out. Both of these centre it.
    """
    scales = target[1] / source[1], target[0] / source[0]
    if mode == "stretch":
        return scaling(*scales)
    scale = min(scales) if mode == "fit" else max(scales)
    shift = translation((target[1] - source[1] * scale) / 2, (target[0] - source[0] * scale) / 2)
    return compose(shift, scaling(scale, scale))


def crop_offset(canvas: int, crop: int, u: float, centre: float | None) -> int:
    """First row or column of a window of ``crop`` pixels on a side of ``canvas`` pixels.

    ``u`` in [0, 1) places it uniformly over all positions, or, around ``centre``, within an eighth of the window;
    the window never leaves the canvas.
    """
    if centre is None:
        return min(int(u * (canvas - crop + 1)), canvas - crop)
    wanted = centre - crop / 2 + (u - 0.5) * crop / 4
    return min(max(round(wanted), 0), canvas - crop)


def augmentation(
    source_size: Size,
    *,
    image_size: Size | None,
    crop_size: Size | None,
    resize_mode: ResizeMode = "stretch",
    mirror: tuple[bool, bool] = (False, False),
    scale: float = 1.0,
    shear: float = 0.0,
    degrees: float = 0.0,
    tilt: Sequence[float] | None = None,
    crop_position: tuple[float, float] = (0.5, 0.5),
    crop_centre: tuple[float, float] | None = None,
) -> Geometry:
    """Compose, in this order: resize, mirror (horizontal, vertical), scale, shear, rotate, tilt, crop.

    All but resize and crop turn about the centre of the picture. Sizes are (height, width); angles are degrees;
    ``tilt`` is as `perspective` takes it. ``crop_position`` is two numbers in [0, 1) for x and y; ``crop_centre``
    (x, y) in source pixels draws the window towards it, None crops anywhere. Raises `ValueError` if the crop does
    not fit.
    """
    height, width = image_size or source_size
    matrix = resizing(source_size, (height, width), resize_mode)
    steps = []
    if mirror[0] or mirror[1]:
        steps.append(scaling(-1 if mirror[0] else 1, -1 if mirror[1] else 1))
    if scale != 1:
        steps.append(scaling(scale, scale))
    if shear:
        steps.append(shearing(shear))
    if degrees:
        steps.append(rotation(degrees))
    if steps:
        there, back = translation(width / 2, height / 2), translation(-width / 2, -height / 2)
        for step in steps:
            matrix = compose(there, step, back, matrix)
    if tilt is not None:
        matrix = compose(perspective((height, width), tilt), matrix)
    if crop_size is None:
        return Geometry(matrix, (height, width))
    if crop_size[0] > height or crop_size[1] > width:
        raise ValueError(f"a crop of {crop_size[1]}×{crop_size[0]} does not fit into {width}×{height} pixels")
    centre = transform_point(matrix, *crop_centre) if crop_centre else (None, None)
    x = crop_offset(width, crop_size[1], crop_position[0], centre[0])
    y = crop_offset(height, crop_size[0], crop_position[1], centre[1])
    return Geometry(compose(translation(-x, -y), matrix), crop_size)
