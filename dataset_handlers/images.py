"""Reading raw photos and masks, and encoding what goes into examples.

Whatever cannot be read raises `BadSampleError` with a reason for the manifest; nothing half-decoded is returned.
"""

import io
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from .errors import BadSampleError

Array = npt.NDArray[np.uint8]

#: 16,384 × 16,384: larger pictures are refused by their header, before a pixel is decoded.
MAX_PIXELS = 16_384 * 16_384
# Ours is the check that counts; Pillow's own would only warn, in the middle of a build.
Image.MAX_IMAGE_PIXELS = None

_ORIENTATION = 0x0112

#: What raw pictures may be, whatever they are called. Pillow knows more, among it formats that start other programs.
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")


def read_raw(path: Path) -> bytes:
    """The bytes of a raw file; a missing or unreadable one is a bad sample."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadSampleError(f"{path.name}: {error.strerror or error}") from error


def decode_photo(data: bytes, name: str) -> Array:
    """Decode a photo upright as sRGB, (H, W, 3) uint8. Grey, palette, CMYK and 16-bit pictures are converted."""
    return _decode(data, name, "RGB")


def decode_mask(data: bytes, name: str) -> Array:
    """Decode a mask as grey levels, (H, W) uint8."""
    return _decode(data, name, "L")


def _decode(data: bytes, name: str, mode: str) -> Array:
    if not data:
        raise BadSampleError(f"{name}: the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            _refuse_huge(picture, name)
            upright: Image.Image = picture
            if picture.getexif().get(_ORIENTATION, 1) != 1:
                upright = ImageOps.exif_transpose(picture)
            if upright.mode.startswith("I;16"):
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            return np.asarray(upright if upright.mode == mode else upright.convert(mode))
    except (BadSampleError, MemoryError):
        raise
    except Exception as error:  # the boundary: on damaged files Pillow raises whatever it stumbles over
        raise BadSampleError(f"{name}: cannot be decoded ({error})") from error


def _refuse_huge(picture: Image.Image, name: str) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise BadSampleError(f"{name}: {picture.width}×{picture.height} pixels are too many")


def encode_jpeg(photo: Array, quality: int) -> bytes:
    """Encode (H, W, 3) uint8 RGB as baseline JPEG, 4:2:0."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(photo, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes()


def encode_png(picture: Array) -> bytes:
    """Encode (H, W) or (H, W, 1 or 3) uint8 as PNG, exactly; one bit per pixel where there is only 0 and 255."""
    if picture.ndim == 3 and picture.shape[2] == 3:
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), np.uint8)
        flags = []
    else:
        two_levels = cv2.countNonZero(picture) == int(np.count_nonzero(picture == 255))
        flags = [cv2.IMWRITE_PNG_BILEVEL, 1] if two_levels else []
    _, encoded = cv2.imencode(".png", picture, flags)
    return encoded.tobytes()
