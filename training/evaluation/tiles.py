"""Pictures inside the page: small, and as ``data:`` addresses, so that the page is one file."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from training.pictures import class_colors

_SIDE = 320  # pixels, the longer one at most


@dataclass(frozen=True)
class Tile:
    """A picture with what it shows: ``caption`` for people, ``uri`` a ``data:`` address."""

    caption: str
    uri: str


def photo_tile(pixels: np.ndarray, caption: str) -> Tile:
    """Anything like a photo, uint8 (H, W, 3): as JPEG."""
    return Tile(caption, _encoded(pixels, Image.Resampling.LANCZOS, "jpeg", quality=85))


def label_tile(pixels: np.ndarray, caption: str) -> Tile:
    """Anything of few colours, uint8 (H, W, 3): as PNG, which keeps edges."""
    return Tile(caption, _encoded(pixels, Image.Resampling.NEAREST, "png", optimize=True))


def class_color(number: int, classes: int) -> str:
    """The colour of a class, for a page."""
    red, green, blue = class_colors(classes)[number]
    return f"rgb({red} {green} {blue})"


def _encoded(pixels: np.ndarray, resampling: Image.Resampling, kind: str, **options: object) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((_SIDE, _SIDE), resampling)
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
