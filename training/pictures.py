"""What a model sees, drawn pixel by pixel: photo | truth | prediction | overlay. Pillow and numpy alone."""

import numpy as np
from PIL import Image

from training.metrics import VOID

#: Of the overlay: a pixel found, one that is none, one that was missed. Distinct without red and green.
HIT, FALSE, MISSED = (38, 166, 154), (255, 160, 0), (216, 27, 136)
_GAP = 4  # pixels between tiles
_TILE = 160  # pixels, the longer side of a photo on a sheet


def class_colors(classes: int) -> np.ndarray:
    """A colour for each class, uint8 (256, 3); void is black. Neighbouring numbers are far apart on the wheel."""
    colors = np.zeros((256, 3), np.uint8)
    for number in range(classes):
        hue = (0.58 + number * 0.618034) % 1.0  # the golden angle: any number of classes stays apart
        light, saturation = (0.95, 0.75, 0.55)[number % 3], (0.75, 0.95, 0.6)[number % 3]
        sector, rest = divmod(hue * 6, 1)
        low, falling, rising = (
            light * (1 - saturation),
            light * (1 - saturation * rest),
            light * (1 - saturation * (1 - rest)),
        )
        rgb = (
            (light, rising, low),
            (falling, light, low),
            (low, light, rising),
            (low, falling, light),
            (rising, low, light),
            (light, low, falling),
        )[int(sector) % 6]
        colors[number] = np.rint(np.array(rgb) * 255)
    return colors


def tiles(photo: np.ndarray, truth: np.ndarray, probability: np.ndarray) -> list[np.ndarray]:
    """Photo, truth, prediction and overlay as uint8 (H, W, 3).

    ``photo`` uint8 (H, W, 3); ``truth`` uint8 (H, W), levels of one subject or class numbers; ``probability`` float
    in [0, 1] (H, W, classes).
    """
    classes = probability.shape[2]
    if classes == 1:
        grey = np.rint(probability.clip(0, 1) * 255).astype(np.uint8)
        planes = [np.repeat(plane.reshape(*truth.shape, 1), 3, axis=2) for plane in (truth, grey)]
        return [photo, *planes, overlay(photo, truth, probability[:, :, 0])]
    colors = class_colors(classes)
    predicted = probability.argmax(axis=2)
    blended = np.rint(0.4 * photo + 0.6 * colors[predicted]).astype(np.uint8)
    blended[(predicted != truth) & (truth != VOID)] = MISSED
    return [photo, colors[truth], colors[predicted], blended]


def overlay(image: np.ndarray, truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The photo in grey, with colour where the mask is: found, too much, missed.

    ``image`` uint8 (H, W, 3), ``truth`` uint8 (H, W), ``probability`` float in [0, 1] (H, W); gives uint8
    (H, W, 3).
    """
    true, predicted = truth >= 127.5, probability >= 0.5
    grey = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
    drawn = np.repeat((0.75 * grey + 48)[:, :, None], 3, axis=2)
    for where, color in ((true & predicted, HIT), (~true & predicted, FALSE), (true & ~predicted, MISSED)):
        drawn[where] = 0.45 * drawn[where] + 0.55 * np.array(color, np.float32)
    pixels: np.ndarray = np.rint(drawn.clip(0, 255)).astype(np.uint8)
    return pixels


def sheet(photos: np.ndarray, truths: np.ndarray, probabilities: np.ndarray) -> Image.Image:
    """A row of four small tiles for each photo; shapes as in `tiles` with N in front, N ≥ 1."""
    height, width = photos.shape[1:3]
    scale = min(1.0, _TILE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    drawn = Image.new("RGB", (4 * (size[0] + _GAP) + _GAP, len(photos) * (size[1] + _GAP) + _GAP), "white")
    for row, (photo, truth, probability) in enumerate(zip(photos, truths, probabilities, strict=True)):
        for column, tile in enumerate(tiles(photo, truth, probability)):
            place = _GAP + column * (size[0] + _GAP), _GAP + row * (size[1] + _GAP)
            drawn.paste(Image.fromarray(tile).resize(size, Image.Resampling.BILINEAR), place)
    return drawn
