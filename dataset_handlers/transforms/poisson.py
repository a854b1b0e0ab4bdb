"""Seamless cloning by Poisson's equation, solved by multigrid.

All arithmetic is float32 element by element: no sum whose order, and no product whose rounding, depends on the
processor.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import BadSampleError
from .blending import Image, bounding_box

Plane = npt.NDArray[np.float32]

# `poisson`: V-cycles, and the dampings of the sweeps before and after each correction.
_CYCLES, _DAMPINGS = 5, (1.389, 0.5616)


def poisson(background: Image, subject: Image, mask: Image, *, mixed: bool = False) -> Image:
    """``background`` with ``subject``'s gradients where ``mask`` is not 0: no seam, the background's light.

    Pérez, Gangnet and Blake, "Poisson Image Editing" (SIGGRAPH 2003), equation 7; with ``mixed`` the stronger of the
    two gradients counts between each two pixels (equation 12), so that the background's texture stays visible. All
    arguments are of one size and nothing moves. Where the mask touches the picture's edge, the background is taken to
    go on beyond it. Solved by multigrid; measured within one level of the exact solution up to 320 × 320. Raises
    `BadSampleError` for an empty mask.

    ``subject`` counts to one pixel beyond the mask. A cut-out, which is nothing there, is first laid `over` an even
    colour, such as the mean of the background beneath it, and the mask drawn a few pixels wider: otherwise the step
    at its edge bleaches or blackens all of it.

    Not by `cv2.seamlessClone`: its Fourier transform gives other bytes on other processors, it leaves the pixels along
    the mask's edge out, and it solves over the whole bounding box.
    """
    window = bounding_box(mask)
    if not mask[window].size:
        raise BadSampleError("the mask is empty: there is nothing to blend")
    rows, columns = bounding_box(mask, margin=1)
    top, bottom, left, right = (
        int(rows.start == window[0].start),
        int(rows.stop == window[0].stop),
        int(columns.start == window[1].start),
        int(columns.stop == window[1].stop),
    )
    edge = (top, bottom, left, right)
    beneath, above = (
        cv2.copyMakeBorder(image[rows, columns], *edge, cv2.BORDER_REPLICATE) for image in (background, subject)
    )
    unknown = cv2.copyMakeBorder(mask[rows, columns], *edge, cv2.BORDER_CONSTANT, value=0) > 0
    base, patch = (np.ascontiguousarray(np.moveaxis(image, 2, 0), np.float32) for image in (beneath, above))
    # Solve for what is to be added to the subject: smooth where gradients are not mixed, thus soon found.
    offset = (base - patch) * ~unknown
    source = _mixed_source(base, patch) if mixed else np.zeros_like(base)
    solution = patch + _solve(offset, source, unknown)
    blended = background.copy()
    inner = np.moveaxis(np.clip(np.rint(solution[:, 1:-1, 1:-1]), 0, 255), 0, 2).astype(np.uint8)
    np.copyto(blended[window], inner, where=unknown[1:-1, 1:-1, None])
    return blended


def _mixed_source(base: Plane, patch: Plane) -> Plane:
    """Divergence, times −1, of (stronger gradient − the patch's) inside the outermost pixels; (3, H, W)."""
    source = np.zeros_like(base)
    for axis in (1, 2):
        of_base, of_patch = np.diff(base, axis=axis), np.diff(patch, axis=axis)
        excess = np.where(np.abs(of_base) > np.abs(of_patch), of_base - of_patch, np.float32(0))
        first, last = [slice(None)] * 3, [slice(None)] * 3
        first[axis], last[axis] = slice(0, -1), slice(1, None)
        source[tuple(first)] -= excess
        source[tuple(last)] += excess
    return source


@dataclass(frozen=True)
class _Level:
    """A grid of the multigrid solver: cells of 2^level pixels, and how they hang together.

    ``across`` (H, W − 1) and ``down`` (H − 1, W) couple a cell to its right and lower neighbour; on the finest level
    all couplings are 1 (None). ``diagonal`` (H, W) is the sum of a cell's couplings, those to known pixels included,
    and 0 where nothing is unknown; ``steps`` is each of `_DAMPINGS` over it. Values are 0 where nothing is unknown.
    """

    across: Plane | None
    down: Plane | None
    diagonal: Plane
    steps: tuple[Plane, ...]


def _levels(unknown: npt.NDArray[np.bool_]) -> list[_Level]:
    """Finite volumes: a coupling is the pixel faces that two cells share, over the distance of the cells' centres."""
    plane = unknown.astype(np.float32)
    across, down = plane[:, :-1] * plane[:, 1:], plane[:-1] * plane[1:]
    known = plane * 4 - _neighbours(np.ones((1, *plane.shape), np.float32), across, down)[0]
    levels: list[_Level] = []
    spacing = 1
    while True:
        # Through faces, a cell is as deep as its unknown area over their number; a known pixel is one pixel deep.
        a = _coupling(across, plane[:, :-1], plane[:, 1:], spacing)
        d = _coupling(down, plane[:-1], plane[1:], spacing)
        to_known = _coupling(known, plane, known, spacing)
        diagonal = to_known + _neighbours(np.ones((1, *plane.shape), np.float32), a, d)[0]
        inverse = np.divide(np.float32(1), diagonal, out=np.zeros_like(diagonal), where=diagonal > 0)
        steps = tuple(np.float32(damping) * inverse for damping in _DAMPINGS)
        levels.append(_Level(a, d, diagonal, steps) if levels else _Level(None, None, diagonal, steps))
        if max(known.shape) <= 4:
            return levels
        known, plane = _quarter(known), _quarter(plane)
        height, width = known.shape
        across = _halve(across[:, 1::2])[:, : width - 1]
        down = _halve(down[1::2].T).T[: height - 1]
        spacing *= 2


def _coupling(faces: Plane, area: Plane, other: Plane, spacing: int) -> Plane:
    """Number of ``faces`` between cells, over the distance of the cells' centres: half of the sum of their depths."""
    count = np.maximum(faces, 1)
    depths = np.clip(area / count, 1, spacing) + np.clip(other / count, 1, spacing)
    return np.asarray(faces * np.float32(2) / depths, np.float32)


def _solve(value: Plane, source: Plane, unknown: npt.NDArray[np.bool_]) -> Plane:
    """4u − Σ neighbours = ``source`` for u (3, H, W) where ``unknown``, ``value`` elsewhere, as on the whole rim."""
    levels = _levels(unknown)
    # The known neighbours' values move to the right-hand side: from here on they count as 0.
    right = (source + _neighbours(value * ~unknown, None, None)) * unknown
    solution = np.zeros_like(value)
    for _ in range(_CYCLES):
        _cycle(solution, right, levels)
    return np.asarray(solution + value * ~unknown, np.float32)


def _cycle(value: Plane, right: Plane, levels: list[_Level]) -> None:
    """One V-cycle (Briggs, Henson and McCormick, "A Multigrid Tutorial", 2000, chapter 3) on ``value``, in place."""
    level, *coarser = levels
    _relax(value, right, level)
    if not coarser:
        return
    residual = _neighbours(value, level.across, level.down)
    residual += right
    residual -= level.diagonal * value
    if level.across is None:
        residual *= level.diagonal > 0
    below = _quarter(residual)
    correction = np.zeros_like(below)
    _cycle(correction, below, coarser)
    value += _spread(correction, value.shape[1:]) * (level.diagonal > 0)
    _relax(value, right, level)


def _relax(value: Plane, right: Plane, level: _Level) -> None:
    """Jacobi sweeps, in place, whose dampings together damp all waves shorter than four cells best (Chebyshev)."""
    for damping, step in zip(_DAMPINGS, level.steps, strict=True):
        wanted = _neighbours(value, level.across, level.down)
        wanted += right
        wanted *= step
        value *= np.float32(1 - damping)
        value += wanted


def _neighbours(value: Plane, across: Plane | None, down: Plane | None) -> Plane:
    """The sum of the four neighbours of each cell of (C, H, W), weighted by couplings."""
    total = np.zeros_like(value)
    total[:, :, 1:] = value[:, :, :-1] if across is None else value[:, :, :-1] * across
    total[:, :, :-1] += value[:, :, 1:] if across is None else value[:, :, 1:] * across
    total[:, 1:] += value[:, :-1] if down is None else value[:, :-1] * down
    total[:, :-1] += value[:, 1:] if down is None else value[:, 1:] * down
    return total


def _halve(image: Plane) -> Plane:
    """Sums of two rows (last axis but one); a last one without a second stands alone."""
    halved = image[..., ::2, :].copy()
    second = image[..., 1::2, :]
    halved[..., : second.shape[-2], :] += second
    return halved


def _quarter(image: Plane) -> Plane:
    """Sums over blocks of 2 × 2."""
    return np.swapaxes(_halve(np.swapaxes(_halve(image), -1, -2)), -1, -2)


def _spread(image: Plane, size: tuple[int, ...]) -> Plane:
    """Twice as large, bilinear between the cells' centres, cut to ``size`` (height, width)."""
    for axis, length in ((1, size[0]), (2, size[1])):
        image = np.moveaxis(image, axis, 0)
        near = image * np.float32(0.75)
        far = image * np.float32(0.25)
        grown = np.empty((2 * len(image), *image.shape[1:]), np.float32)
        grown[::2], grown[1::2] = near, near
        grown[2::2] += far[:-1]
        grown[1:-1:2] += far[1:]
        grown[0] += far[0]
        grown[-1] += far[-1]
        image = np.moveaxis(grown[:length], 0, axis)
    return image
