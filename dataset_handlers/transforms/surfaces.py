"""Set a logo or an object on a surface of a photo, in perspective.

In the spirit of Gupta, Vedaldi and Zisserman, "Synthetic Data for Text Localisation in Natural Images" (CVPR 2016):
choose a segment of even colour, take its plane from depth or draw one, and project the logo through a pinhole camera.

Camera coordinates: x to the right, y down, z away from the camera; the optical axis goes through the picture's centre.
The focal length is ``focal`` × the longer side: 1 sees 53 degrees along that side, as a wide-angle lens of 36 mm does.
Normals are unit vectors towards the camera. Coordinates in pictures are continuous: pixel (i, j) covers [i, i + 1) ×
[j, j + 1).
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import BadSampleError
from .geometry import Matrix, compose, translation

Image = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]
Vector = tuple[float, float, float]
# Three numbers, or three arrays of them.
Triple = tuple[Any, Any, Any]

FOCAL = 1.0
# `segments` works on a picture of this longer side.
_SEGMENT_SIDE = 160
# `fit_plane` looks at this many pixels, and tries this many planes.
_POINTS, _TRIALS = 1024, 128
# A plane seen at a flatter angle than this (sine) holds nothing that could be recognised.
_GRAZING = 0.15


@dataclass(frozen=True)
class Plane:
    """All points p (camera coordinates, in units of the depth map) with ``normal`` · p = ``offset``, below 0.

    ``inliers`` is the share of the points that lie on it.
    """

    normal: Vector
    offset: float
    inliers: float


def segments(photo: Image, *, contrast: int = 12, least_share: float = 0.02) -> Labels:
    """Regions of even colour in ``photo`` (H, W, 3): labels (H, W) int32 from 1 on, 0 on edges and busy texture.

    The picture is shrunk to 160 pixels and smoothed by a median; pixels belong together where the range of no channel
    of 8-bit CIELAB within 3 × 3 of them reaches ``contrast``. Regions smaller than ``least_share`` of the picture are
    left out. The edges of regions are a few pixels inside the true ones.
    """
    height, width = photo.shape[:2]
    shrink = min(1.0, _SEGMENT_SIDE / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    small = cv2.cvtColor(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2Lab)
    smooth = cv2.medianBlur(small, 5)
    block = np.ones((3, 3), np.uint8)
    lightness, a, b = cv2.split(cv2.subtract(cv2.dilate(smooth, block), cv2.erode(smooth, block)))
    flat = (cv2.max(cv2.max(lightness, a), b) < contrast).astype(np.uint8)
    # Fills pinholes, and cuts bridges that are a pixel wide.
    _, found, statistics, _ = cv2.connectedComponentsWithStats(cv2.medianBlur(flat, 3), connectivity=4)
    large = statistics[:, cv2.CC_STAT_AREA] >= least_share * found.size
    large[0] = False
    numbers = np.where(large, np.cumsum(large), 0).astype(np.int32)
    # OpenCV resizes no int32; there are at most 1 / least_share regions.
    labels = numbers[found].astype(np.uint16)
    return np.asarray(cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.int32)


def choose_segment(labels: Labels, u: float) -> int:
    """A label above 0, with a probability in proportion to its area; ``u`` in [0, 1).

    Raises `BadSampleError` if there is none.
    """
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    total = int(areas.sum())
    if not total:
        raise BadSampleError("the background has no even surface to put anything on")
    return int(np.searchsorted(np.cumsum(areas), min(int(u * total), total - 1), side="right"))


def choose_point(segment: Image, u: float) -> tuple[float, float]:
    """The centre (x, y) of a pixel well inside ``segment`` (H, W), not 0 on it; ``u`` in [0, 1).

    Uniform among the pixels at least half as far from the segment's edge, or the picture's, as the innermost one.
    Raises `ValueError` for an empty segment.
    """
    if not segment.any():
        raise ValueError("an empty segment has no inside")
    framed = cv2.copyMakeBorder((segment != 0).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    # City-block distances are whole numbers.
    depth = cv2.distanceTransform(framed, cv2.DIST_L1, 3)[1:-1, 1:-1]
    inner = np.flatnonzero(2 * depth >= depth.max())
    row, column = divmod(int(inner[min(int(u * len(inner)), len(inner) - 1)]), segment.shape[1])
    return column + 0.5, row + 0.5


def fit_plane(
    depth: npt.NDArray[Any],
    mask: Image,
    random: np.random.Generator,
    *,
    tolerance: float = 0.02,
    least_inliers: float = 0.5,
    focal: float = FOCAL,
) -> Plane | None:
    """The plane of most points of ``depth`` (H, W) where ``mask`` (H, W) is not 0; None if there is no such plane.

    Depth is along z, larger is farther, in any unit: float or uint16; what is not above 0 and finite is missing. RANSAC
    (Fischler and Bolles, CACM 1981) over 128 planes through three points each of up to 1024: an inlier is no farther
    from the plane than ``tolerance`` times its own depth. Then least squares over the inliers, twice. None also where
    fewer than ``least_inliers`` of the points are inliers, or fewer than 16 points have a depth.
    """
    rows, columns = np.nonzero((mask != 0) & np.isfinite(depth) & (depth > 0))
    if len(rows) < 16:
        return None
    if len(rows) > _POINTS:
        chosen = np.sort(random.choice(len(rows), _POINTS, replace=False))
        rows, columns = rows[chosen], columns[chosen]
    height, width = depth.shape
    z = depth[rows, columns].astype(np.float64)
    unit = float(np.sort(z)[len(z) // 2])
    z = z / unit
    length = focal * max(height, width)
    points = ((columns + 0.5 - width / 2) / length * z, (rows + 0.5 - height / 2) / length * z, z)
    tries = random.integers(0, len(z), (3, _TRIALS, 1))
    p, q, r = ((points[0][index], points[1][index], points[2][index]) for index in tries)
    normals = _cross(_minus(q, p), _minus(r, p))
    inliers = _near(normals, _dot(normals, p), points, tolerance)
    kept = inliers[np.argmax(np.count_nonzero(inliers, axis=1))]
    inverse = (0.0, 0.0, 0.0)
    for _ in range(2):
        fitted = _least_squares((points[0][kept], points[1][kept], points[2][kept]))
        if fitted is None:
            return None
        inverse = fitted
        kept = _near(inverse, 1.0, points, tolerance)
    share = int(np.count_nonzero(kept)) / len(z)
    if share < least_inliers:
        return None
    size = math.sqrt(_dot(inverse, inverse))
    return Plane((-inverse[0] / size, -inverse[1] / size, -inverse[2] / size), -unit / size, share)


def random_plane(random: np.random.Generator, max_tilt: float) -> Vector:
    """A unit normal at most ``max_tilt`` degrees (0 to 90) off the line to the camera, uniform on that cap."""
    if not 0 <= max_tilt < 90:
        raise ValueError(f"a tilt of {max_tilt:g} degrees is not within 0 and 90")
    u, turn = random.random(2)
    cos = 1 - u * (1 - math.cos(math.radians(max_tilt)))
    sin = math.sqrt(max(0.0, 1 - cos * cos))
    return sin * math.cos(2 * math.pi * turn), sin * math.sin(2 * math.pi * turn), -cos


def plane_homography(
    logo_size: tuple[int, int],
    plane_normal: Vector,
    centre_xy: tuple[float, float],
    width_px: float,
    in_plane_rotation: float,
    image_size: tuple[int, int],
    focal: float = FOCAL,
) -> Matrix:
    """The matrix (3, 3) from a logo's pixels to the picture's, both continuous, as a pinhole camera sees the logo.

    Sizes are (height, width). The logo lies on a plane of ``plane_normal``, its centre is seen at ``centre_xy``, and
    its left and right edges' middles are seen ``width_px`` apart. It stands upright: its lines run level on floors and
    ceilings, its sides upright on walls; ``in_plane_rotation`` turns it, in degrees counter-clockwise. A plane that
    faces the camera gives a similarity. Raises `BadSampleError` if the plane is seen from behind or at too flat an
    angle, or if the logo on it would reach to a third of its centre's distance from the camera.
    """
    (height, width), (x, y) = logo_size, centre_xy
    length = focal * max(image_size)
    ray = ((x - image_size[1] / 2) / length, (y - image_size[0] / 2) / length, 1.0)
    if -_dot(plane_normal, ray) < _GRAZING * math.sqrt(_dot(ray, ray)):
        raise BadSampleError("the surface is seen from behind, or at too flat an angle")
    right, down = _axes(plane_normal, in_plane_rotation)
    # The plane goes through the ray at depth 1. Half a logo's width k along `right` is seen as
    # 2 k L |q| / (1 - k² right_z²), q being how the picture moves along `right` at the centre; solve for k.
    speed = length * math.hypot(right[0] - ray[0] * right[2], right[1] - ray[1] * right[2])
    half = width_px / (speed + math.sqrt(speed * speed + (width_px * right[2]) ** 2))
    step = 2 * half / width
    nearest = 1 - half * abs(right[2]) - half * height / width * abs(down[2])
    if nearest < 1 / 3:
        raise BadSampleError("the surface is too steep for a logo of this size")
    camera = np.array([[length, 0, image_size[1] / 2], [0, length, image_size[0] / 2], [0, 0, 1]], np.float64)
    surface = np.array([[right[i] * step, down[i] * step, ray[i]] for i in range(3)], np.float64)
    matrix = compose(camera, surface, translation(-width / 2, -height / 2))
    return np.asarray(matrix / matrix[2, 2], np.float64)


def fits(matrix: Matrix, logo_size: tuple[int, int], segment: npt.NDArray[Any]) -> float:
    """Share of the logo's area that ``matrix`` sets inside ``segment`` (H, W), not 0 on it; 0 to 1.

    Asked at 24 × 24 points of the logo (height, width); what lies outside of the picture is not inside.
    """
    u, v = np.meshgrid((np.arange(24) + 0.5) / 24 * logo_size[1], (np.arange(24) + 0.5) / 24 * logo_size[0])
    x, y, w = (row[0] * u + row[1] * v + row[2] for row in matrix.tolist())
    column, row = np.floor(x / w), np.floor(y / w)
    seen = (w > 0) & (column >= 0) & (row >= 0) & (column < segment.shape[1]) & (row < segment.shape[0])
    hits = segment[row[seen].astype(np.intp), column[seen].astype(np.intp)] != 0
    return int(np.count_nonzero(hits)) / u.size


def _axes(normal: Vector, degrees: float) -> tuple[Vector, Vector]:
    """Unit vectors on the plane along the logo's rows and columns."""
    if abs(normal[0]) <= abs(normal[1]):
        right = _unit((1 - normal[0] ** 2, -normal[0] * normal[1], -normal[0] * normal[2]))
        down = _cross(right, normal)
    else:
        down = _unit((-normal[1] * normal[0], 1 - normal[1] ** 2, -normal[1] * normal[2]))
        right = _cross(normal, down)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned = [(cos * r - sin * d, sin * r + cos * d) for r, d in zip(right, down, strict=True)]
    return (turned[0][0], turned[1][0], turned[2][0]), (turned[0][1], turned[1][1], turned[2][1])


def _near(normal: Triple, offset: Any, points: Triple, tolerance: float) -> npt.NDArray[np.bool_]:
    """Which points are closer to the plane ``normal`` · p = ``offset`` than ``tolerance`` × depth; none if it is 0."""
    size = np.sqrt(_dot(normal, normal))
    return np.asarray(np.abs(_dot(normal, points) - offset) < tolerance * points[2] * size)


def _least_squares(points: Triple) -> Vector | None:
    """The m of m · p = 1 with the least squares over ``points``; None if they lie on a line.

    By exact sums and Cramer's rule: a library's solver rounds as the processor likes.
    """
    x, y, z = points
    xx, xy, xz, yy, yz, zz = (math.fsum(a * b) for a, b in ((x, x), (x, y), (x, z), (y, y), (y, z), (z, z)))
    rows = ((xx, xy, xz), (xy, yy, yz), (xz, yz, zz))
    sums = (math.fsum(x), math.fsum(y), math.fsum(z))
    determinant = _dot(rows[0], _cross(rows[1], rows[2]))
    if determinant <= 1e-12 * xx * yy * zz:
        return None
    # The matrix is symmetric: its rows are its columns.
    return (
        _dot(sums, _cross(rows[1], rows[2])) / determinant,
        _dot(rows[0], _cross(sums, rows[2])) / determinant,
        _dot(rows[0], _cross(rows[1], sums)) / determinant,
    )


def _dot(a: Triple, b: Triple) -> Any:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _minus(a: Triple, b: Triple) -> Triple:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def _cross(a: Triple, b: Triple) -> Triple:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _unit(a: Vector) -> Vector:
    size = math.sqrt(_dot(a, a))
    return a[0] / size, a[1] / size, a[2] / size
