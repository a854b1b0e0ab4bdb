"""Logos set on the surfaces of a photo, each on the plane of its surface, none over another.

The mask is exact by construction: it is where the logo's opacity, after the very warp that set it on its surface, is
one half or more.
"""

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from .errors import BadSampleError
from .rgba import Cutout, premultiplied, straight, subject_of
from .transforms import effects, photometry
from .transforms.blending import bounding_box, match_light, over
from .transforms.geometry import Geometry, Matrix, Size, compose, corners, scaling, transform_point, translation
from .transforms.poisson import poisson
from .transforms.sampling import warp
from .transforms.surfaces import (
    FOCAL,
    Plane,
    Vector,
    choose_point,
    choose_segment,
    fit_plane,
    fits,
    plane_homography,
    random_plane,
    segments,
)

Image = npt.NDArray[np.uint8]
Depth = npt.NDArray[np.float64]

#: Places tried for a logo.
_TRIES = 12
#: `segments` shrinks what is larger to this longer side.
_SIDE = 160
#: Share of a logo that must lie on its surface; the surfaces found end a few pixels inside the true ones.
_LEAST_FIT = 0.9
#: Pixels between two logos, at least.
_GAP = 4
#: Pixels around a logo that are solved for by Poisson's equation, too.
_RING = 2
#: As `fit_plane`: a pixel is on a plane if it is no farther from it than this times its depth.
_TOLERANCE = 0.02
#: What a jitter of 1 is: a shift of brightness as a share of full white, and a turn of hue in degrees.
_BRIGHTNESS, _HUE = 0.5, 30.0


@dataclass(frozen=True)
class Style:
    """How logos are set on surfaces; see `LogosConfig`."""

    scale: tuple[float, float]
    rotation: tuple[float, float]
    max_tilt: float
    blur: tuple[float, float]
    noise: tuple[float, float]
    jitter: float
    match_light: float
    blend: Literal["alpha", "poisson"]


@dataclass(frozen=True)
class Projected:
    """A logo as the camera sees it, of the picture's size: ``colours`` (H, W, 3), straight, and ``alpha`` (H, W)."""

    colours: Image
    alpha: Image
    matrix: Matrix  # from the pixels of `Logo.size` to the picture's

    @property
    def mask(self) -> Image:
        """Where it is, (H, W) uint8: 255 from an opacity of one half on, 0 elsewhere."""
        return subject_of(self.alpha)


@dataclass(frozen=True)
class Spot:
    """A place on a surface: its ``centre`` (x, y) in the picture, the ``normal`` there, what is free around it."""

    centre: tuple[float, float]
    normal: Vector
    segment: Image  # of `working_size`, 255 where it is free


def working_size(size: Size) -> Size:
    """The size (height, width) at which surfaces of a picture are looked for: `segments` sees no finer ones."""
    shrink = min(1.0, _SIDE / max(size))
    return max(1, round(size[0] * shrink)), max(1, round(size[1] * shrink))


class Surfaces:
    """The surfaces of a picture (H, W, 3) uint8 RGB with room on them, and the planes they are on.

    ``photo_size`` is the size (height, width) of the whole photo in pixels of the picture, which may be its middle
    alone; the camera sees the longer side of that at 53 degrees (`surfaces.FOCAL`). Where there is ``depth``, of
    `working_size`, a surface without a plane in it is none; elsewhere planes are drawn, at most ``max_tilt`` degrees
    off. With ``anywhere`` the whole picture is one surface.
    """

    def __init__(
        self,
        picture: Image,
        photo_size: tuple[float, float],
        depth: Depth | None,
        max_tilt: float,
        random: np.random.Generator,
        *,
        anywhere: bool = False,
    ) -> None:
        """Find the segments; planes are found when they are needed."""
        self.size: Size = (picture.shape[0], picture.shape[1])
        self.focal = FOCAL * max(photo_size) / max(self.size)
        self.taken = np.zeros(self.size, np.uint8)  # 255 where there is a logo, or near one
        self._working = working_size(self.size)
        self._scales = self._working[1] / self.size[1], self._working[0] / self.size[0]
        small = cv2.resize(picture, self._working[::-1], interpolation=cv2.INTER_AREA)
        self._labels = np.ones(self._working, np.int32) if anywhere else segments(np.asarray(small, np.uint8))
        self._depth, self._max_tilt, self._random = depth, max_tilt, random
        self._normals: dict[int, Vector] = {}

    def choose(self, u: float, v: float) -> Spot:
        """A spot on a surface by its free area, well inside; ``u`` and ``v`` in [0, 1).

        Raises `BadSampleError` if there is none.
        """
        while True:
            label = choose_segment(self._labels, u)
            if label not in self._normals:
                self._find_plane(label)
            segment = np.asarray(cv2.inRange(self._labels, label, label), np.uint8)
            if label in self._normals and segment.any():
                x, y = choose_point(segment, v)
                return Spot((x / self._scales[0], y / self._scales[1]), self._normals[label], segment)

    def share_on(self, spot: Spot, matrix: Matrix, logo_size: Size) -> float:
        """How much of a logo (height, width), from 0 to 1, ``matrix`` sets on the surface of a spot."""
        return fits(compose(scaling(*self._scales), matrix), logo_size, spot.segment)

    def take(self, alpha: Image) -> None:
        """Leave what is not transparent in ``alpha`` (H, W), and `_GAP` pixels around it, to the logo there."""
        self.taken |= _grown(alpha, _GAP)
        small = cv2.resize(self.taken, self._working[::-1], interpolation=cv2.INTER_AREA)
        self._labels[small > 0] = 0

    def _find_plane(self, label: int) -> None:
        """The plane of a segment, to which the segment is trimmed where depth tells it; without one, it goes."""
        if self._depth is None:
            self._normals[label] = random_plane(self._random, self._max_tilt)
            return
        inside = self._labels == label
        plane = fit_plane(self._depth, inside.astype(np.uint8), self._random, tolerance=_TOLERANCE, focal=self.focal)
        if plane is None:
            self._labels[inside] = 0
            return
        self._normals[label] = plane.normal
        self._labels[inside & ~_on_plane(self._depth, plane, self.focal)] = 0


def _on_plane(depth: Depth, plane: Plane, focal: float) -> npt.NDArray[np.bool_]:
    """Which pixels of ``depth`` (H, W) are on a plane, as `fit_plane` counts them."""
    height, width = depth.shape
    length = focal * max(height, width)
    x = (np.arange(width) + 0.5 - width / 2) / length
    y = (np.arange(height) + 0.5 - height / 2)[:, None] / length
    known = np.where(np.isfinite(depth), depth, 0)
    distance = known * (plane.normal[0] * x + plane.normal[1] * y + plane.normal[2]) - plane.offset
    return np.asarray(np.abs(distance) < _TOLERANCE * known)


@dataclass(frozen=True)
class Logo:
    """A logo ready to be warped.

    ``pixels`` (H, W, 4) uint8 are colours times opacity, and opacity. They are those of what is not transparent,
    ``size`` (height, width), with ``margin`` transparent pixels before it, shrunk by ``block``.
    """

    pixels: Image
    size: Size
    margin: int
    block: int


def prepare_logo(cutout: Cutout, apparent: tuple[float, float]) -> Logo:
    """Cut a logo to what is not transparent, for pictures that show its longer side with [least, most] pixels.

    It is shrunk to at most three times the most, and has a margin two pixels wide even where it is shown with the
    least, so that its edges are filtered as all the rest.
    """
    box = bounding_box(cutout.alpha)
    window = Cutout(cutout.photo[box], cutout.alpha[box])
    height, width = window.alpha.shape
    longer = max(height, width)
    block = max(1, int(longer / (1.5 * apparent[1])))
    margin = math.ceil(2 * max(1.0, longer / apparent[0]) / block) * block
    pixels = cv2.copyMakeBorder(
        cv2.merge([premultiplied(window), window.alpha]),
        *(margin, margin + -height % block, margin, margin + -width % block),
        cv2.BORDER_CONSTANT,
        value=(0, 0, 0, 0),
    )
    if block > 1:
        shrunk = pixels.shape[1] // block, pixels.shape[0] // block
        pixels = cv2.resize(pixels, shrunk, interpolation=cv2.INTER_AREA)
    return Logo(np.asarray(pixels, np.uint8), (height, width), margin, block)


def project(logo: Logo, surfaces: Surfaces, style: Style, random: np.random.Generator) -> Projected:
    """Set a logo on a surface that has room for all of it, and take the room.

    Up to 12 places are tried, with sizes drawn from a range whose upper end sinks. Raises `BadSampleError` if it
    fits nowhere, or nothing is left of it.
    """
    sigma = _between(style.blur, random.random())
    for attempt in range(_TRIES):
        chosen, place, share, turn = random.random(4).tolist()
        spot = surfaces.choose(chosen, place)
        wanted = _between(style.scale, share * (1 - attempt / _TRIES)) * min(surfaces.size)
        matrix = _matrix(logo.size, surfaces, spot, wanted, _between(style.rotation, turn))
        projected = None if matrix is None else _warped(logo, matrix, surfaces.size, sigma)
        # What is opaque of a logo may be nothing but lines that are too thin.
        if projected is None or not projected.mask.any() or cv2.bitwise_and(projected.alpha, surfaces.taken).any():
            continue
        surfaces.take(projected.alpha)
        return projected
    raise BadSampleError(f"no surface has room for it, tried {_TRIES} times; lower logo_scale")


def _matrix(size: Size, surfaces: Surfaces, spot: Spot, extent: float, degrees: float) -> Matrix | None:
    """The homography that sets a logo of ``size`` on a spot, its longer side about ``extent`` pixels, if it fits."""
    wide = extent * size[1] / max(size)
    try:
        matrix = plane_homography(size, spot.normal, spot.centre, wide, degrees, surfaces.size, surfaces.focal)
    except BadSampleError:
        return None
    inside = all(  # by a pixel, so that its soft edge is not cut
        1 <= x <= surfaces.size[1] - 1 and 1 <= y <= surfaces.size[0] - 1
        for x, y in (transform_point(matrix, *corner) for corner in corners(size))
    )
    return matrix if inside and surfaces.share_on(spot, matrix, size) >= _LEAST_FIT else None


def _warped(logo: Logo, matrix: Matrix, size: Size, sigma: float) -> Projected | None:
    """A logo through ``matrix``, blurred; None where the camera would see it from behind."""
    height, width = size
    margin = 3 + math.ceil(4 * sigma)
    ends = [transform_point(matrix, *corner) for corner in corners(logo.size)]
    left, top = (max(0, math.floor(min(end[axis] for end in ends)) - margin) for axis in (0, 1))
    right, bottom = (
        min(length, math.ceil(max(end[axis] for end in ends)) + margin) for axis, length in ((0, width), (1, height))
    )
    to_logo = compose(translation(-logo.margin, -logo.margin), scaling(logo.block, logo.block))
    local = compose(translation(-left, -top), matrix, to_logo)
    try:
        seen = warp(logo.pixels, Geometry(local, (bottom - top, right - left)), border=cv2.BORDER_CONSTANT)
    except ValueError:
        return None
    seen = effects.blur(seen, sigma)
    colours, alpha = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
    colours[top:bottom, left:right], alpha[top:bottom, left:right] = straight(seen)
    return Projected(colours, alpha, matrix)


def lay(photo: Image, logo: Projected, style: Style, random: np.random.Generator) -> Image:
    """``photo`` (H, W, 3) with a logo on it, its colours changed as if it had been photographed there."""
    brightness, contrast, saturation, hue, noise, seed = random.random(6).tolist()
    jitter = (-style.jitter, style.jitter)
    window = bounding_box(logo.alpha)
    table = photometry.tone_table(
        brightness=_BRIGHTNESS * _between(jitter, brightness), contrast=1 + _between(jitter, contrast)
    )
    changed = photometry.apply_table(np.ascontiguousarray(logo.colours[window]), table)
    changed = photometry.adjust_saturation(changed, 1 + _between(jitter, saturation))
    changed = photometry.rotate_hue(changed, _HUE * _between(jitter, hue))
    colours = np.zeros_like(photo)
    colours[window] = changed
    colours = match_light(colours, logo.alpha, photo, style.match_light)
    grain = np.random.Generator(np.random.PCG64(int(seed * 2**53)))
    noisy = effects.add_noise(np.ascontiguousarray(colours[window]), _between(style.noise, noise), grain)
    colours = np.zeros_like(photo)
    colours[window] = noisy
    if style.blend == "alpha":
        return over(photo, colours, logo.alpha)
    region = _grown(logo.alpha, _RING)
    mean = np.rint(cv2.mean(photo, region)[:3]).astype(np.uint8)
    return poisson(photo, over(np.full_like(photo, mean), colours, logo.alpha), region, mixed=True)


def _grown(alpha: Image, pixels: int) -> Image:
    """255 where ``alpha`` is not 0, or that is near: within a square of ``pixels`` to each side."""
    some = np.asarray(cv2.threshold(alpha, 0, 255, cv2.THRESH_BINARY)[1], np.uint8)
    return np.asarray(cv2.dilate(some, np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)), np.uint8)


def _between(limits: tuple[float, float], share: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * share
