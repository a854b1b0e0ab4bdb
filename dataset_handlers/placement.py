"""Subjects cut out of their photos, put on a canvas one over another.

The mask is exact by construction: subjects with a mask are where their mask is after the very warp that placed them;
subjects with an alpha matte are where all opacities together reach one half.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .errors import BadSampleError
from .labels.shapes import Box, Matte, Raster, Shape, bounding_box
from .rgba import Cutout, premultiplied, straight
from .scene import Instance, Scene
from .transforms.blending import decontaminate, feathered, match_light, over
from .transforms.geometry import Geometry, Size, compose, scaling, transform_point, translation
from .transforms.sampling import warp

Image = npt.NDArray[np.uint8]
Window = tuple[slice, slice]

#: Opacity from which on a pixel belongs to a subject.
_HALF = 128
#: Pixels of the old background, around a subject, that its colours are told from.
_SURROUNDINGS = 44


@dataclass(frozen=True)
class Finish:
    """How subjects are fitted into a picture; see `CompositeConfig`."""

    feather: float = 0.0
    decontaminate: bool = False
    match_light: float = 0.0


@dataclass(frozen=True)
class Layer:
    """A subject as it lies on a canvas; its arrays are those of the window (rows, columns) around it."""

    window: Window
    local: Geometry  # from the subject's photo into the window
    colours: Image  # (H, W, 3)
    opacity: Image  # (H, W)
    mask: Image  # (H, W), 255 where it is solid and 0 elsewhere
    has_alpha: bool


@dataclass(frozen=True)
class Composite:
    """A picture of several subjects: ``photo`` (H, W, 3), ``alpha`` and ``mask`` (H, W) of all of them together."""

    photo: Image
    alpha: Image
    mask: Image


def place(
    box: Box | None, canvas: Size, scales: tuple[float, float], random: np.random.Generator, overhang: float = 0.0
) -> Geometry:
    """Scale the subject within ``box`` and put it anywhere on ``canvas`` (height, width).

    Its longer extent, relative to the canvas' height or width, is drawn from ``scales``. It lies wholly on the canvas,
    but for a share of ``overhang`` of its own height and width that may be beyond the edge. Raises `BadSampleError`
    for an empty mask.
    """
    if box is None:
        raise BadSampleError("the mask is empty: there is no subject to cut out")
    x, y, width, height = box[0], box[1], box[2] - box[0], box[3] - box[1]
    share, u, v = random.random(3).tolist()
    wanted = scales[0] + (scales[1] - scales[0]) * share
    scale = wanted * min(canvas[0] / height, canvas[1] / width)
    left = _between(-overhang * width * scale, canvas[1] - (1 - overhang) * width * scale, u)
    top = _between(-overhang * height * scale, canvas[0] - (1 - overhang) * height * scale, v)
    return Geometry(compose(translation(left, top), scaling(scale, scale), translation(-x, -y)), canvas)


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def cut_out(subject: Scene, placed: Geometry, finish: Finish) -> Layer:
    """The subject of a scene through ``placed``, in the smallest window that holds it and what its finish looks at.

    Raises `BadSampleError` for a subject of which nothing is left, or that is too thin for its feather.
    """
    soft = subject.alpha
    window = _window(_extent(soft or subject.mask), placed, finish, soft is not None)
    rows, columns = window
    size = (rows.stop - rows.start, columns.stop - columns.start)
    if min(size) < 1:
        raise BadSampleError("nothing is left of the subject at this scale and place")
    local = Geometry(compose(translation(-columns.start, -rows.start), placed.matrix), size)
    if soft is None:
        mask = subject.mask.draw(local, cv2.BORDER_CONSTANT)
        opacity = feathered(mask, finish.feather)
        colours = subject.photo.warp(local, border=cv2.BORDER_REPLICATE)
    elif finish.decontaminate:
        opacity = soft.draw(local, cv2.BORDER_CONSTANT)
        colours = decontaminate(subject.photo.warp(local, border=cv2.BORDER_REPLICATE), opacity)
        mask = _solid(opacity)
    else:
        colours, opacity = _warped_straight(subject.photo.pixels(), soft, local)
        mask = _solid(opacity)
    if not cv2.countNonZero(mask):
        raise BadSampleError("nothing is left of the subject at this scale and place")
    return Layer(window, local, colours, opacity, mask, soft is not None)


def _extent(shape: Shape) -> Box | None:
    """Where a shape leaves anything behind: a matte's own box is that of what is half opaque."""
    return bounding_box(shape.alpha) if isinstance(shape, Matte) else shape.box()


def _window(box: Box | None, placed: Geometry, finish: Finish, soft: bool) -> Window:
    """Rows and columns of the canvas that hold ``box``, and what filters and the finish look at around it.

    Colours and opacity hang on the window by a few levels, for OpenCV counts 32nds of a pixel from its corner; hard
    masks do not.
    """
    x0, y0, x1, y1 = box or (0.0, 0.0, 0.0, 0.0)
    (left, top), (right, bottom) = (transform_point(placed.matrix, x, y) for x, y in ((x0, y0), (x1, y1)))
    scale = float(placed.matrix[0, 0])
    margin = 4 + math.ceil(scale)  # filtering and interpolation soften what is resampled
    if not soft:
        margin = max(margin, math.ceil(4 * finish.feather) + 2)
    elif finish.decontaminate:
        margin = max(margin, _SURROUNDINGS)
    if finish.match_light:
        margin += math.ceil(max(right - left, bottom - top) / 2) + 1
    height, width = placed.size
    first_row, first_column = max(0, math.floor(top) - margin), max(0, math.floor(left) - margin)
    return (
        slice(first_row, max(first_row, min(height, math.ceil(bottom) + margin))),
        slice(first_column, max(first_column, min(width, math.ceil(right) + margin))),
    )


def _solid(opacity: Image) -> Image:
    return np.asarray(cv2.threshold(opacity, _HALF - 1, 255, cv2.THRESH_BINARY)[1], np.uint8)


def _warped_straight(photo: Image, alpha: Shape, geometry: Geometry) -> tuple[Image, Image]:
    """Colours and opacity of a cutout, whose file says nothing of colours where it is transparent.

    They are resampled premultiplied by alpha, so that none of what the file holds there gets into the edge (Porter and
    Duff 1984; Blinn, "Compositing, Part 1: Theory", 1994).
    """
    opacity = alpha.draw(Geometry(np.eye(3), alpha.size))
    source = np.asarray(cv2.merge([premultiplied(Cutout(photo, opacity)), opacity]), np.uint8)
    moved = warp(source, geometry, border=cv2.BORDER_CONSTANT)
    return straight(np.asarray(moved, np.uint8))


def lay(background: Image, layers: Sequence[Layer], strength: float) -> Composite:
    """``layers`` over ``background`` (H, W, 3), later ones over earlier, their light matched to it by ``strength``."""
    photo = background.copy()
    alpha, mask = np.zeros(photo.shape[:2], np.uint8), np.zeros(photo.shape[:2], np.uint8)
    for layer in layers:
        window = layer.window
        colours = match_light(layer.colours, layer.opacity, background[window], strength)
        photo[window] = over(photo[window], colours, layer.opacity)
        alpha[window] = together(alpha[window], layer.opacity)
        mask[window] |= layer.mask
    if any(layer.has_alpha for layer in layers):
        mask = _solid(alpha)
    return Composite(photo, alpha, mask)


def together(below: Image, above: Image) -> Image:
    """The opacity of two layers, a + b·(255 − a) / 255, rounded to the nearest."""
    # No product of two bytes lies half-way between two multiples of 255: float arithmetic rounds it as exact one would.
    shining = cv2.multiply(below, cv2.bitwise_not(above), scale=1 / 255)
    return np.asarray(cv2.add(above, shining), np.uint8)


def visible(shape: Image, layers: Sequence[Layer], number: int) -> Image:
    """What is seen of ``shape``, (H, W) of layer ``number``'s window, under the layers above it."""
    seen = shape.copy()
    window = layers[number].window
    for above in layers[number + 1 :]:
        common = _overlap(window[0], above.window[0]), _overlap(window[1], above.window[1])
        seen[_within(window, common)][above.mask[_within(above.window, common)] > 0] = 0
    return seen


def _overlap(one: slice, other: slice) -> slice:
    start = max(one.start, other.start)
    return slice(start, max(start, min(one.stop, other.stop)))


def _within(window: Window, part: Window) -> Window:
    """``part``, counted from where ``window`` starts."""
    (rows, columns), (top, left) = part, (window[0].start, window[1].start)
    return slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)


def seen_instances(subjects: Sequence[Scene], layers: Sequence[Layer], size: Size) -> Iterator[Instance]:
    """What is seen, on a canvas of ``size``, of the instances of each subject."""
    for number, (subject, layer) in enumerate(zip(subjects, layers, strict=True)):
        for instance in subject.instances or (Instance(subject.mask),):
            shape = layer.mask
            if len(subject.instances) > 1:
                shape = np.bitwise_and(shape, instance.shape.draw(layer.local, cv2.BORDER_CONSTANT))
            seen = np.zeros(size, np.uint8)
            seen[layer.window] = visible(shape, layers, number)
            if cv2.countNonZero(seen):
                yield Instance(Raster(seen), instance.category)
