"""Resize, flip, rotate and crop as one matrix and one warp per output.

Coordinates are continuous: pixel (column i, row j) covers [i, i+1) × [j, j+1), so that sizes scale exactly and the
same matrix serves photos, masks and points. Matrices map source to output, column vectors (x, y, 1).
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Geometry:
    """Where each source pixel goes: ``matrix`` (3, 3), affine, and the output's ``size`` (height, width)."""

    matrix: Matrix
    size: tuple[int, int]


def translation(x: float, y: float) -> Matrix:
    """Shift by (x, y) pixels."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def scaling(x: float, y: float) -> Matrix:
    """Scale by x and y about the origin."""
    return np.array([[x, 0, 0], [0, y, 0], [0, 0, 1]], np.float64)


def rotation(degrees: float) -> Matrix:
    """Rotate about the origin, counter-clockwise as seen (rows grow downwards)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]], np.float64)


def compose(*matrices: Matrix) -> Matrix:
    """The product of ``matrices``; the last is applied first.

    Not by ``@``: BLAS fuses products with sums on some processors, and a last bit can move a pixel.
    """
    product = np.eye(3).tolist()
    for matrix in matrices:
        columns = list(zip(*matrix.tolist(), strict=True))
        product = [[row[0] * a + row[1] * b + row[2] * c for a, b, c in columns] for row in product]
    return np.array(product, np.float64)


def about(matrix: Matrix, x: float, y: float) -> Matrix:
    """``matrix`` with (x, y) as its fixed point instead of the origin."""
    return compose(translation(x, y), matrix, translation(-x, -y))


def transform_point(matrix: Matrix, x: float, y: float) -> tuple[float, float]:
    """Map one point, source to output."""
    (a, b, c), (d, e, f), _ = matrix.tolist()
    return a * x + b * y + c, d * x + e * y + f


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
    source_size: tuple[int, int],
    *,
    image_size: tuple[int, int] | None,
    crop_size: tuple[int, int] | None,
    mirror: tuple[bool, bool],
    degrees: float,
    crop_position: tuple[float, float],
    subject_centre: tuple[float, float] | None,
) -> Geometry:
    """Compose stretch to ``image_size``, mirroring (horizontal, vertical), rotation about the centre, and crop.

    Sizes are (height, width). ``crop_position`` is two numbers in [0, 1) for x and y; ``subject_centre`` (x, y) in
    source pixels draws the crop towards it, None crops anywhere. Raises `ValueError` if the crop does not fit.
    """
    height, width = image_size or source_size
    matrix = scaling(width / source_size[1], height / source_size[0])
    if mirror[0] or mirror[1]:
        flip = scaling(-1 if mirror[0] else 1, -1 if mirror[1] else 1)
        matrix = compose(about(flip, width / 2, height / 2), matrix)
    if degrees:
        matrix = compose(about(rotation(degrees), width / 2, height / 2), matrix)
    if crop_size is None:
        return Geometry(matrix, (height, width))
    if crop_size[0] > height or crop_size[1] > width:
        raise ValueError(f"a crop of {crop_size[1]}×{crop_size[0]} does not fit into {width}×{height} pixels")
    centre = transform_point(matrix, *subject_centre) if subject_centre else (None, None)
    x = crop_offset(width, crop_size[1], crop_position[0], centre[0])
    y = crop_offset(height, crop_size[0], crop_position[1], centre[1])
    return Geometry(compose(translation(-x, -y), matrix), crop_size)


def warp(image: Image, geometry: Geometry, *, nearest: bool = False, border: int = cv2.BORDER_REFLECT) -> Image:
    """Resample ``image`` (H, W[, C]) uint8 through ``geometry``; bilinear, or by nearest neighbour for masks.

    Where more than one source pixel falls on each output pixel, a bilinear warp first averages whole blocks (area
    filter), so that detail does not alias. An identity returns ``image`` itself, untouched. Outside the source the
    picture is mirrored at its edges (``border``), photo and mask alike: the edge, unlike the centre of the outermost
    pixel, is in the same place before and after that average.
    """
    matrix = geometry.matrix
    if not nearest:
        image, matrix = _shrink(image, matrix)
    height, width = geometry.size
    if image.shape[:2] == geometry.size and np.array_equal(matrix, np.eye(3)):
        return image
    # OpenCV counts from pixel centres.
    centred = compose(translation(-0.5, -0.5), matrix, translation(0.5, 0.5))
    flags = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    warped = cv2.warpAffine(image, centred[:2], (width, height), flags=flags, borderMode=border)
    return np.asarray(warped, np.uint8)


def _shrink(image: Image, matrix: Matrix) -> tuple[Image, Matrix]:
    """Average whole blocks of source pixels where the matrix shrinks by two or more."""
    lengths = [max(math.hypot(matrix[0, axis], matrix[1, axis]), 1e-6) for axis in (0, 1)]
    # A sixth is a sixth, however the last bit was rounded.
    factors = [max(1, int(1 / length + 1e-6)) for length in lengths]
    if factors == [1, 1]:
        return image, matrix
    height, width = image.shape[:2]
    new_width, new_height = max(1, round(width / factors[0])), max(1, round(height / factors[1]))
    small = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), compose(matrix, scaling(width / new_width, height / new_height))
