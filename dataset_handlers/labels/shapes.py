"""Where subjects are in a picture: rasters, alpha mattes, COCO's polygons and runs; each drawn through a geometry.

Polygons are moved by their vertices and drawn once, at the output's size: sharper than a raster resampled, and
quicker. Drawn through no geometry they are what pycocotools draws, to the pixel.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as rle

from ..errors import BadSampleError
from ..transforms.geometry import (
    Geometry,
    Matrix,
    Size,
    compose,
    scaling,
    transform_points,
    translation,
)
from ..transforms.sampling import warp

Mask = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]
#: x0, y0, x1, y1 in continuous pixels.
Box = tuple[float, float, float, float]

_IDENTITY = np.eye(3)

#: The level of a `LabelMap` that is no class: pixels that nothing is known of.
VOID = 255

#: Polygons may leave a picture, but by no more than this many times its longer side.
_FAR = 16
#: Characters of a run in COCO's encoding that 64 bits have room for.
_LONGEST_RUN = 12


class Shape(Protocol):
    """Something with a place in a source picture."""

    @property
    def size(self) -> Size:
        """(height, width) of the picture it is in."""
        ...

    def draw(self, geometry: Geometry, border: int = cv2.BORDER_REFLECT) -> Mask:
        """It as (height, width) uint8 of the geometry's size; outside the picture as `border` says."""
        ...

    def box(self) -> Box | None:
        """Its extent in the source picture; None if there is nothing of it."""
        ...


@dataclass(frozen=True)
class Raster:
    """A mask (H, W) uint8 of any labels, 0 where there is nothing; resampled by nearest neighbour."""

    mask: Mask

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.mask.shape[0], self.mask.shape[1]

    def draw(self, geometry: Geometry, border: int = cv2.BORDER_REFLECT) -> Mask:
        """The mask through ``geometry``."""
        return warp(self.mask, geometry, nearest=True, border=border)

    def box(self) -> Box | None:
        """The extent of what is not 0."""
        return bounding_box(self.mask)


@dataclass(frozen=True)
class LabelMap:
    """A class number for each pixel, (H, W) uint8, resampled by nearest neighbour; `VOID` where none is known."""

    labels: Mask

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.labels.shape[0], self.labels.shape[1]

    def draw(self, geometry: Geometry, border: int = cv2.BORDER_REFLECT) -> Mask:
        """The class numbers through ``geometry``; where nothing is mirrored, what is beside the picture is void."""
        return warp(self.labels, geometry, nearest=True, border=border, fill=VOID)

    def box(self) -> Box | None:
        """The extent of what has a class."""
        return bounding_box(np.asarray(cv2.inRange(self.labels, 0, VOID - 1), np.uint8))


@dataclass(frozen=True)
class Matte:
    """An alpha matte (H, W) uint8, resampled linearly and filtered as photos are."""

    alpha: Mask

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.alpha.shape[0], self.alpha.shape[1]

    def draw(self, geometry: Geometry, border: int = cv2.BORDER_REFLECT) -> Mask:
        """The matte through ``geometry``."""
        return warp(self.alpha, geometry, border=border)

    def box(self) -> Box | None:
        """The extent of what is at least half opaque."""
        return bounding_box(np.asarray(cv2.inRange(self.alpha, 128, 255), np.uint8))


@dataclass(frozen=True)
class Polygons:
    """The union of COCO annotations; their ``segmentation`` is a list of polygons, or run-length encoded (crowds)."""

    annotations: tuple[Mapping[str, Any], ...]
    size: Size

    def draw(self, geometry: Geometry, border: int = cv2.BORDER_REFLECT) -> Mask:
        """The union through ``geometry``, 0 and 255; raises `BadSampleError` for what cannot be drawn."""
        polygons, runs = self._parts
        moved = None if runs else _moved(polygons, self.size, geometry, border)
        if moved is None:
            return warp(_drawn(self._encoded()), geometry, nearest=True, border=border)
        return _drawn(_union(_runs_of(moved, geometry.size)))

    def box(self) -> Box | None:
        """The extent of all polygons and runs, within the picture."""
        polygons, runs = self._parts
        boxes = [_extent(polygon, self.size) for polygon in polygons]
        boxes += [bounding_box(_drawn(code)) for code in runs]
        found = [box for box in boxes if box is not None]
        return _around(found)

    def box_through(self, geometry: Geometry) -> Box | None:
        """The extent of all polygons after ``geometry``, within its output; runs are drawn for it."""
        polygons, runs = self._parts
        moved = None if runs else _moved(polygons, self.size, geometry, cv2.BORDER_CONSTANT)
        if moved is None:
            return bounding_box(self.draw(geometry, cv2.BORDER_CONSTANT))
        return _around([box for points in moved if (box := _extent(points, geometry.size)) is not None])

    def area(self) -> int:
        """Pixels of the picture it covers; raises `BadSampleError` for what cannot be drawn."""
        return int(rle.area(self._encoded()))

    @functools.cached_property
    def _parts(self) -> tuple[list[Points], list[Any]]:
        """Polygons as (N, 2) points, and encoded runs; raises `BadSampleError` for what is neither."""
        polygons: list[Points] = []
        runs: list[Any] = []
        for annotation in self.annotations:
            segmentation = annotation["segmentation"]
            try:
                if isinstance(segmentation, list):
                    polygons += _polygons(segmentation, self.size)
                else:
                    runs.append(_encoded_runs(segmentation, self.size))
            except Exception as error:  # the boundary: what stands in annotation files is anyone's guess
                raise BadSampleError(f"annotation {annotation.get('id')} cannot be drawn: {error}") from error
        return polygons, runs

    def _encoded(self) -> Any:
        polygons, runs = self._parts
        return _union([*(_runs_of(polygons, self.size) if polygons else []), *runs])


@dataclass(frozen=True)
class Classes:
    """Shapes with a label each, 1 to 255, drawn over one another in their order; 0 is left for the background."""

    labelled: tuple[tuple[int, Shape], ...]
    size: Size

    def draw(self, geometry: Geometry, border: int = cv2.BORDER_REFLECT) -> Mask:
        """The labels through ``geometry``."""
        drawn = np.zeros(geometry.size, np.uint8)
        for label, shape in self.labelled:
            drawn[shape.draw(geometry, border) > 0] = label
        return drawn

    def box(self) -> Box | None:
        """The extent of all shapes."""
        return _around([box for _, shape in self.labelled if (box := shape.box()) is not None])


def box_through(shape: Shape, geometry: Geometry) -> Box | None:
    """The extent of ``shape`` after ``geometry``, within its output and without what is mirrored there."""
    if isinstance(shape, Polygons):
        return shape.box_through(geometry)
    if isinstance(shape, Matte):  # as it is drawn, opacity is blurred a pixel or two beyond its edge
        drawn = warp(shape.alpha, geometry, nearest=True, border=cv2.BORDER_CONSTANT)
        return bounding_box(np.asarray(cv2.inRange(drawn, 128, 255), np.uint8))
    return bounding_box(shape.draw(geometry, cv2.BORDER_CONSTANT))


def bounding_box(mask: Mask) -> Box | None:
    """The extent of what is not 0 in ``mask``; None if all is."""
    x, y, width, height = cv2.boundingRect(mask)
    return (x, y, x + width, y + height) if width and height else None


def _runs_of(polygons: Sequence[Points], size: Size) -> Any:
    """Each polygon drawn as pycocotools draws it, encoded."""
    return rle.frPyObjects([points.ravel() for points in polygons], *size)


def _union(codes: Sequence[Any]) -> Any:
    """One encoded mask of all."""
    return codes[0] if len(codes) == 1 else rle.merge(codes)


def _extent(points: Points, size: Size) -> Box | None:
    """The extent of the part of a polygon that is within a picture: by its vertices, or of its pixels if it leaves."""
    x0, y0, x1, y1 = ends = _ends(points)
    if _leaves(ends, size):
        x, y, width, height = rle.toBbox(_runs_of([points], size))[0].tolist()
        return (x, y, x + width, y + height) if width and height else None
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def _around(boxes: Sequence[Box]) -> Box | None:
    if not boxes:
        return None
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)


def _moved(polygons: Sequence[Points], size: Size, geometry: Geometry, border: int) -> list[Points] | None:
    """The vertices of all polygons of a picture in an output, those of its mirror images with them.

    None where a raster must be warped instead: where the picture is mirrored more than once, where a polygon leaves
    a picture of which the frame may show, and where vertices come near a horizon.
    """
    tiles = _mirror_tiles(geometry, size, border)
    framed = border != cv2.BORDER_REFLECT or (tiles is not None and len(tiles) > 1)
    if tiles is None or (framed and any(_leaves(_ends(polygon), size) for polygon in polygons)):
        return None
    moved = []
    for tile in tiles:
        matrix = geometry.matrix if tile is _IDENTITY else compose(geometry.matrix, tile)
        for polygon in polygons:
            if not geometry.is_affine and not _is_in_front(polygon, matrix):
                return None
            points = transform_points(matrix, polygon)
            if not (np.abs(points) <= _FAR * max(*geometry.size, *size)).all():
                return None
            moved.append(points)
    return moved


def _is_in_front(points: Points, matrix: Matrix) -> bool:
    """Whether all points are on the camera's side of the horizon."""
    g, h, i = matrix[2].tolist()
    return bool((g * points[:, 0] + h * points[:, 1] + i > 0).all())


def _ends(points: Points) -> Box:
    """The least and the greatest coordinates of points."""
    (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return x0, y0, x1, y1


def _leaves(ends: Box, size: Size) -> bool:
    x0, y0, x1, y1 = ends
    return x0 < 0 or y0 < 0 or x1 > size[1] or y1 > size[0]


def _mirror_tiles(geometry: Geometry, size: Size, border: int) -> list[Matrix] | None:
    """The mirrorings of the picture that an output sees, the picture itself first; None for more than next-door."""
    height, width = size
    if border != cv2.BORDER_REFLECT:
        return [_IDENTITY]
    (left, right), (top, bottom) = ((min(values), max(values)) for values in zip(*geometry.seen_corners, strict=True))
    if left < -width or right > 2 * width or top < -height or bottom > 2 * height:
        return None
    if left >= 0 and right <= width and top >= 0 and bottom <= height:
        return [_IDENTITY]
    columns = [_IDENTITY]
    rows = [_IDENTITY]
    if left < 0:
        columns.append(scaling(-1, 1))
    if right > width:
        columns.append(compose(translation(2 * width, 0), scaling(-1, 1)))
    if top < 0:
        rows.append(scaling(1, -1))
    if bottom > height:
        rows.append(compose(translation(0, 2 * height), scaling(1, -1)))
    return [compose(row, column) for row in rows for column in columns]


def _polygons(segmentation: list[Any], size: Size) -> Iterator[Points]:
    """The polygons of three points or more; raises `ValueError` if there is none.

    Coordinates that are no numbers, or far away, end pycocotools by a segmentation fault.
    """
    flat = [np.asarray(polygon, np.float64) for polygon in segmentation if len(polygon) >= 6]
    found = [polygon.reshape(-1, 2) for polygon in flat if polygon.ndim == 1]
    if len(found) < len(flat):
        raise ValueError("a polygon is no list of numbers")
    if not found:
        raise ValueError("it has no polygon of three points or more")
    far = _FAR * max(size)
    if not all(bool((np.abs(polygon) <= far).all()) for polygon in found):  # not so for NaN either
        raise ValueError("a polygon has points that are no numbers or far outside the photo")
    yield from found


def _encoded_runs(segmentation: Any, size: Size) -> Any:
    """A run-length encoding as pycocotools takes it; raises whatever fits for one that cannot be drawn.

    Runs that do not cover the picture make pycocotools hang or return uninitialised memory.
    """
    height, width = size
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"it is a mask of {segmentation['size']}, the photo is [{height}, {width}]")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        if not all(isinstance(run, int) for run in counts):
            raise ValueError("its runs are no whole numbers")
        runs = counts
    else:
        runs = _runs(counts.encode("ascii")).tolist()
    if sum(runs) != height * width or min(runs) < 0:
        raise ValueError(f"its runs cover {sum(runs)} pixels, the photo has {height * width}")
    return rle.frPyObjects(segmentation, height, width) if isinstance(counts, list) else segmentation


def _runs(counts: bytes) -> npt.NDArray[np.int64]:
    """The runs of a compressed RLE; raises `ValueError` for what is none.

    COCO's format (``rleToString`` in pycocotools' maskApi.c): five bits a character, offset 48, bit 5 says that
    more follow; two's complement; from the fourth on, runs are differences to the run before the last.
    """
    bits = np.frombuffer(counts, np.uint8) - np.uint8(48)
    if not bits.size:
        return np.zeros(0, np.int64)
    if bits.max() > 63:
        raise ValueError("its runs hold a character that means nothing there")
    last = np.flatnonzero(bits < 32)
    if not last.size or last[-1] != bits.size - 1:
        raise ValueError("its last run is cut off")
    first = np.zeros_like(last)
    first[1:] = last[:-1] + 1
    lengths = last - first + 1
    if lengths.max() > _LONGEST_RUN:
        raise ValueError("it has a run longer than any photo")
    bits = bits.astype(np.int64)
    place = np.arange(bits.size) - np.repeat(first, lengths)
    runs = np.add.reduceat((bits & 31) << 5 * place, first)
    runs -= (bits[last] >> 4) << 5 * lengths
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs


def _drawn(code: Any) -> Mask:
    """An encoded mask as 0 and 255; by NumPy, for pycocotools writes pixel by pixel and NumPy run by run."""
    height, width = code["size"]
    counts = code["counts"]
    runs = _runs(counts.encode("ascii") if isinstance(counts, str) else counts)
    levels = np.zeros(len(runs), np.uint8)
    levels[1::2] = 255
    columns = np.repeat(levels, runs).reshape(width, height)  # runs go down the columns
    return np.asarray(cv2.transpose(columns), np.uint8)
