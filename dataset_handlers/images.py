"""Reading raw photos and masks, and encoding what goes into examples.

Whatever cannot be read raises `BadSampleError` with a reason for the manifest; nothing half-decoded is returned.
"""

import io
import re
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import BadSampleError

Array = npt.NDArray[np.uint8]

#: 16,384 × 16,384: larger pictures are refused by their header, before a pixel is decoded.
MAX_PIXELS = 16_384 * 16_384
#: OpenCV's warps count columns and rows in 16 bits.
MAX_SIDE = 32_766
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


def decode_photo(data: bytes, name: str, *, upright: bool = False) -> Array:
    """Decode a photo as RGB, (H, W, 3) uint8. Grey, palette, CMYK and 16-bit pictures are converted.

    Levels are taken as they are stored: colour profiles are not applied. So are rows, which is what annotations are
    drawn on; ``upright`` turns the picture as its EXIF orientation says.
    """
    return _decode(data, name, "RGB", upright=upright)


def decode_mask(data: bytes, name: str) -> Array:
    """Decode a mask as grey levels, (H, W) uint8, rows as they are stored."""
    return _decode(data, name, "L", upright=False)


def _decode(data: bytes, name: str, mode: str, *, upright: bool) -> Array:
    if not data:
        raise BadSampleError(f"{name}: the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            _refuse_huge(opened, name)
            picture: Image.Image = opened
            if upright and opened.getexif().get(_ORIENTATION, 1) != 1:
                picture = ImageOps.exif_transpose(opened)
            if picture.mode.startswith("I;16"):
                picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
            return np.asarray(picture if picture.mode == mode else picture.convert(mode))
    except (BadSampleError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise BadSampleError(f"{name}: is none of {', '.join(_FORMATS)}") from error
    except Exception as error:  # the boundary: on damaged files Pillow raises whatever it stumbles over
        # Reasons go into the manifest, which must be the same each time: without addresses of objects.
        reason = re.sub(r"0x[0-9a-fA-F]+", "0x…", str(error))
        raise BadSampleError(f"{name}: cannot be decoded ({reason})") from error


def _refuse_huge(picture: Image.Image, name: str) -> None:
    if picture.width * picture.height > MAX_PIXELS or max(picture.size) > MAX_SIDE:
        raise BadSampleError(f"{name}: {picture.width}×{picture.height} pixels are too many")


def encode_jpeg(picture: Array, quality: int) -> bytes:
    """Encode (H, W, 3) uint8 RGB or (H, W[, 1]) grey as baseline JPEG, 4:2:0."""
    return _encode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])


def encode_png(picture: Array) -> bytes:
    """Encode (H, W, 3) uint8 RGB or (H, W[, 1]) grey as PNG, exactly; one bit per pixel where all are 0 or 255."""
    flags = []
    if picture.ndim == 2 or picture.shape[2] == 1:
        two_levels = cv2.countNonZero(picture) == int(np.count_nonzero(picture == 255))
        flags = [cv2.IMWRITE_PNG_BILEVEL, 1] if two_levels else []
    return _encode(".png", picture, flags)


def _encode(kind: str, picture: Array, flags: list[int]) -> bytes:
    if picture.ndim == 3 and picture.shape[2] == 3:
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), np.uint8)
    written, encoded = cv2.imencode(kind, picture, flags)
    if not written:
        raise BadSampleError(f"a picture of {picture.shape[1]}×{picture.shape[0]} pixels cannot be written as {kind}")
    return encoded.tobytes()
