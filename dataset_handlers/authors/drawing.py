"""One example as a row of small pictures: the photo, the mask laid over it, and whatever else it has."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageOps

Array = npt.NDArray[np.uint8]

#: Tints of labels: the first is the subject's.
COLOURS = np.array(
    [
        [235, 60, 120], [40, 140, 240], [70, 180, 80], [240, 160, 30], [150, 90, 220], [20, 180, 180], [230, 90, 50],
        [130, 130, 30], [250, 120, 200], [160, 200, 60], [120, 90, 60], [120, 200, 250],
    ],
    np.float64,
)  # fmt: skip
_PAPER = (236, 236, 236)
_BOX = (255, 220, 0)
#: Fields that are drawn; all others of a short kind go into the caption.
_DRAWN = ("image", "mask", "alpha", "trimap", "positive_clicks", "negative_clicks", "boxes")
_MOST_CLASSES = 100
_GLOW = 6.0  # sigma of a click's glow, in pixels of the example


def overlay(photo: Array, mask: Array, classes: Collection[int] = ()) -> Array:
    """``photo`` (H, W, 3) with what ``mask`` (H, W, 1) marks tinted, and everything else dimmed.

    A mask of 0 and 255, or of grey levels, is one subject; one whose levels all are small numbers holds classes, each
    of a colour of its own. Where ``classes`` are named, they are what a mask marks, 0 perhaps among them.
    """
    levels = mask[..., 0]
    present = levels[levels != 255]
    if classes:
        inside = np.isin(levels, list(classes)).astype(np.float64)[..., None]
        colours = COLOURS[(levels.astype(np.int64) - 1) % len(COLOURS)]
    elif present.size and 0 < present.max() <= _MOST_CLASSES:
        inside = ((levels > 0) & (levels != 255)).astype(np.float64)[..., None]
        colours = COLOURS[(levels.astype(np.int64) - 1) % len(COLOURS)]
    else:
        inside, colours = mask.astype(np.float64) / 255, COLOURS[0]
    tinted = photo * 0.55 + colours * 0.45
    return np.asarray(np.rint(tinted * inside + photo * 0.45 * (1 - inside)), np.uint8)


def panels(example: Mapping[str, Any], size: tuple[int, int], classes: Collection[int] = ()) -> list[Image.Image]:
    """The pictures of one example, each fitted into ``size`` (width, height); ``classes`` as for `overlay`."""
    return [_fit(picture, size) for picture in _pictures(example, classes)]


def caption(example: Mapping[str, Any]) -> str:
    """What the fields that are not drawn say, the sample's key first."""
    words = [str(example["source_id"])] if "source_id" in example else []
    for name, value in example.items():
        if name in _DRAWN or name == "source_id":
            continue
        if isinstance(value, str | int | float):
            words.append(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}")
        elif isinstance(value, list) and value and all(isinstance(item, bytes) for item in value):
            counted = Counter(item.decode(errors="replace") for item in value)
            words.append(", ".join(text if count == 1 else f"{count} {text}" for text, count in counted.items()))
    return " · ".join(words)


def _pictures(example: Mapping[str, Any], classes: Collection[int]) -> Iterator[Image.Image]:
    found = {name: value for name, value in example.items() if _is_picture(value)}
    photo, mask = found.get("image"), found.get("mask")
    if photo is not None:
        photo = _rgb(photo)
        yield _with_boxes(photo, example.get("boxes"))
    if mask is not None:
        over = photo is not None and photo.shape[:2] == mask.shape[:2]
        yield Image.fromarray(overlay(photo, mask[..., :1], classes) if photo is not None and over else _rgb(mask))
    for name in ("alpha", "trimap"):
        if name in found:
            yield Image.fromarray(_rgb(found[name]))
    if "positive_clicks" in found and "negative_clicks" in found:
        yield Image.fromarray(_clicks(photo, found["positive_clicks"], found["negative_clicks"]))
    for name, value in found.items():
        if name not in _DRAWN:
            yield Image.fromarray(_rgb(value))


def _is_picture(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 3 and value.shape[2] in (1, 3, 4) and value.size > 0


def _rgb(picture: Array) -> Array:
    """Three channels of 0 to 255, whatever came in; an alpha channel is laid over paper."""
    if picture.dtype != np.uint8:
        span = float(picture.max() - picture.min()) or 1.0
        picture = np.rint((picture - picture.min()) / span * 255).astype(np.uint8)
    if picture.shape[2] == 4:
        opacity = picture[..., 3:].astype(np.float64) / 255
        return np.asarray(np.rint(picture[..., :3] * opacity + np.array(_PAPER) * (1 - opacity)), np.uint8)
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture


def _clicks(photo: Array | None, positive: Array, negative: Array) -> Array:
    """Clicks as glowing points on the darkened photo, positive ones green, negative ones red.

    ``positive`` and ``negative`` (H, W, 1) uint8 are distances to the nearest click in pixels.
    """
    near, far = (np.exp(-(distances.astype(np.float64) ** 2) / (2 * _GLOW**2)) for distances in (positive, negative))
    ground = np.zeros((*positive.shape[:2], 3)) if photo is None or photo.shape[:2] != positive.shape[:2] else photo
    glow = far * np.array([255, 50, 50]) + near * np.array([60, 255, 90])
    return np.asarray(np.rint(np.clip(ground * 0.35 * (1 - np.maximum(near, far)) + glow, 0, 255)), np.uint8)


def _with_boxes(photo: Array, boxes: Any) -> Image.Image:
    """The photo with boxes (N, 4), [ymin, xmin, ymax, xmax] as shares of its height and width."""
    picture = Image.fromarray(photo)
    if isinstance(boxes, np.ndarray) and boxes.ndim == 2 and boxes.shape[1:] == (4,):
        draw = ImageDraw.Draw(picture)
        line = max(1, round(max(picture.size) / 100))
        for top, left, bottom, right in boxes * (picture.height, picture.width, picture.height, picture.width):
            draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=_BOX, width=line)
    return picture


def _fit(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return ImageOps.pad(picture, size, color=_PAPER)
