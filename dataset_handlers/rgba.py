"""Pictures with an opacity of their own: RGBA, grey with alpha, palettes with transparency.

Colours are straight (not premultiplied): PNG and WebP store them so, and a TIFF that says its colours are
premultiplied is divided by its alpha while it is decoded. A picture that is premultiplied and does not say so cannot be
told from a dark one. Of 16 bits the upper 8 are kept. The EXIF orientation is applied: photo and alpha turn together.
Unlike a JPEG such a picture is decoded whole, at some 12 bytes a pixel, so larger ones are refused than 50 megapixels.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from .errors import BadSampleError
from .images import FORMATS, Array, decode

#: From this opacity on, a pixel belongs to the subject.
THRESHOLD = 128
#: What is larger is refused by its header.
MAX_CUTOUT_PIXELS = 50_000_000


@dataclass(frozen=True)
class Cutout:
    """A subject cut out: ``photo`` (H, W, 3) uint8 RGB, of any colour where ``alpha`` (H, W) uint8 is 0."""

    photo: Array
    alpha: Array

    @property
    def subject(self) -> Array:
        """Where the subject is: (H, W) uint8, 255 from an opacity of `THRESHOLD` on and 0 elsewhere."""
        return subject_of(self.alpha)


def subject_of(alpha: Array) -> Array:
    """255 where ``alpha`` (H, W) uint8 is `THRESHOLD` or more, 0 elsewhere."""
    return np.asarray(cv2.threshold(alpha, THRESHOLD - 1, 255, cv2.THRESH_BINARY)[1], np.uint8)


def decode_cutout(data: bytes, name: str, min_subject_pixels: int = 1) -> Cutout:
    """Decode a picture with alpha; raises `BadSampleError` for what is no cut-out, or cannot be decoded.

    Of its pixels, ``min_subject_pixels`` or more have an opacity of `THRESHOLD` or more, but not all.
    """
    _refuse_by_header(data, name)
    rgba = decode(data, name, "RGBA", upright=True)
    alpha = np.asarray(cv2.extractChannel(rgba, 3), np.uint8)
    opaque = int(np.count_nonzero(alpha >= THRESHOLD))
    if opaque == alpha.size:
        raise BadSampleError(f"{name}: is opaque everywhere, nothing is cut out")
    if not alpha.any():
        raise BadSampleError(f"{name}: is transparent everywhere, there is no subject")
    if opaque < min_subject_pixels:
        raise BadSampleError(
            f"{name}: {opaque} pixels are opaque (level {THRESHOLD} or more), fewer than {min_subject_pixels}"
        )
    return Cutout(np.asarray(cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), np.uint8), alpha)


def _refuse_by_header(data: bytes, name: str) -> None:
    frames, has_alpha, width, height = 1, True, 0, 0
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            frames, has_alpha = getattr(opened, "n_frames", 1), opened.has_transparency_data
            width, height = opened.size
    except Exception:  # the boundary: it will be told when the picture is decoded
        return
    if width * height > MAX_CUTOUT_PIXELS:
        raise BadSampleError(
            f"{name}: {width}×{height} pixels are too many for a cut-out, {MAX_CUTOUT_PIXELS:,} are allowed"
        )
    if frames > 1:
        raise BadSampleError(f"{name}: is animated or has several pages ({frames}); a cut-out is one picture")
    if not has_alpha:
        raise BadSampleError(f"{name}: has no alpha channel")


def extended(cutout: Cutout) -> Array:
    """The photo with the colour of the nearest visible pixel where it is transparent, (H, W, 3) uint8 RGB.

    Whatever colours were hidden there are gone, so that they cannot show at edges when photo and alpha are resampled
    apart. Raises ValueError where nothing is visible. Distances are OpenCV's 5 x 5 approximation.
    """
    visible = cutout.alpha > 0
    if not visible.any():
        raise ValueError("nothing is visible")
    if visible.all():
        return cutout.photo
    hidden = (~visible).astype(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(hidden, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    # Four bytes in one number: NumPy picks numbers several times as fast as rows of three.
    packed = np.asarray(cv2.cvtColor(cutout.photo, cv2.COLOR_RGB2RGBA), np.uint8).view(np.uint32)[..., 0]
    filled = packed[visible][nearest - 1]  # labels count visible pixels, row by row, from 1
    return np.asarray(cv2.cvtColor(filled.view(np.uint8).reshape(*filled.shape, 4), cv2.COLOR_RGBA2RGB), np.uint8)


def premultiplied(cutout: Cutout) -> Array:
    """Each colour times its opacity, rounded to the nearest: (H, W, 3) uint8."""
    alpha = cv2.merge([cutout.alpha, cutout.alpha, cutout.alpha])
    # No product of two bytes lies half-way between two multiples of 255: float arithmetic rounds it as exact one would.
    return np.asarray(cv2.multiply(cutout.photo, alpha, scale=1 / 255), np.uint8)


def plain(size: tuple[int, ...], colour: Sequence[int]) -> Array:
    """One colour, (H, W, 3) uint8; NumPy is slow to broadcast along so short an axis."""
    return np.asarray(cv2.merge([np.full(size, level, np.uint8) for level in colour]), np.uint8)


def straight(pixels: Array) -> tuple[Array, Array]:
    """Colours (H, W, 3) and opacity (H, W) of pixels (H, W, 4) whose colours are multiplied by their opacity."""
    colours = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), np.uint8)
    opacity = np.asarray(cv2.extractChannel(pixels, 3), np.uint8)
    mixed = (opacity > 0) & (opacity < 255)
    divisor = opacity[mixed].astype(np.int32)[:, None]
    colours[mixed] = np.minimum((colours[mixed] * np.int32(255) + divisor // 2) // divisor, 255)
    return colours, opacity
