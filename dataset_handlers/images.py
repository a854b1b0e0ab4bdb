"""Reading raw photos and masks, and encoding what goes into examples.

Whatever cannot be read raises `BadSampleError` with a reason for the manifest; nothing half-decoded is returned.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable
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
_PNG = b"\x89PNG\r\n\x1a\n"
#: Bits to a level and colour type, as a PNG's header has them at byte 24: grey of fewer bits than eight.
_NARROW_GREY = (b"\x01\x00", b"\x02\x00", b"\x04\x00")

#: What raw pictures may be, whatever they are called. Pillow knows more, among it formats that start other programs.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")


def read_raw(path: Path) -> bytes:
    """The bytes of a raw file; a missing or unreadable one is a bad sample."""
    try:
        with path.open("rb", buffering=0) as file:
            return file.read()
    except OSError as error:
        raise BadSampleError(f"{path.name}: {error.strerror or error}") from error
    except ValueError as error:  # a name with a NUL in it
        raise BadSampleError(f"{path.name!r}: {error}") from error


def decode_photo(data: bytes, name: str, *, upright: bool = False) -> Array:
    """Decode a photo as RGB, (H, W, 3) uint8. Grey, palette, CMYK and 16-bit pictures are converted.

    Levels are taken as they are stored: colour profiles are not applied. So are rows, which is what annotations are
    drawn on; ``upright`` turns the picture as its EXIF orientation says.
    """
    return decode(data, name, "RGB", upright=upright)


def decode_mask(data: bytes, name: str) -> Array:
    """Decode a mask as grey levels, (H, W) uint8, rows as they are stored."""
    return decode(data, name, "L", upright=False)


def decode_labels(data: bytes, name: str) -> Array:
    """Decode a mask whose levels are class numbers, (H, W) uint8: grey levels of 8 bits, or places in a palette.

    Nothing is converted, for the luma of a colour is no class: other pictures are bad samples. So are grey PNGs of
    fewer bits, whose levels a reader spreads over 0 to 255.
    """
    if data.startswith(_PNG) and data[24:26] in _NARROW_GREY:
        raise BadSampleError(f"{name}: its grey levels have {data[24]} bits; write class numbers as 8-bit grey levels")

    def numbers(picture: Image.Image) -> Array:
        if picture.mode not in ("L", "P"):
            raise BadSampleError(
                f"{name}: its pixels ({picture.mode}) are no class numbers; write these as 8-bit grey levels"
            )
        return np.asarray(picture)

    return _decoded(data, name, numbers, upright=False)


def decode(data: bytes, name: str, mode: str, *, upright: bool) -> Array:
    """Decode a picture in one of Pillow's 8-bit modes, (H, W[, channels]) uint8; raises `BadSampleError`."""

    def converted(picture: Image.Image) -> Array:
        if picture.mode.startswith("I;16"):
            picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        return np.asarray(picture if picture.mode == mode else picture.convert(mode))

    return _decoded(data, name, converted, upright=upright)


def _decoded(data: bytes, name: str, pixels: Callable[[Image.Image], Array], *, upright: bool) -> Array:
    """What ``pixels`` makes of the picture in ``data``, whatever Pillow raises as `BadSampleError`."""
    if not data:
        raise BadSampleError(f"{name}: the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            _refuse_huge(opened, name)
            picture: Image.Image = opened
            if upright and opened.getexif().get(_ORIENTATION, 1) != 1:
                picture = ImageOps.exif_transpose(opened)
            _refuse_wide(opened, name)
            return pixels(picture)
    except (BadSampleError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise BadSampleError(f"{name}: is none of {', '.join(FORMATS)}") from error
    except Exception as error:  # the boundary: on damaged files Pillow raises whatever it stumbles over
        # Reasons go into the manifest, which must be the same each time: without addresses of objects.
        reason = re.sub(r"0x[0-9a-fA-F]+", "0x…", str(error))
        raise BadSampleError(f"{name}: cannot be decoded ({reason})") from error


def _refuse_wide(picture: Image.Image, name: str) -> None:
    """Levels of 32 bits have no range that the file tells; PNG's 16 bits, which Pillow reads as such, have."""
    if picture.mode in ("I", "F") and picture.format != "PNG":
        raise BadSampleError(f"{name}: its levels have 32 bits; convert it to 8 or 16")


def _refuse_huge(picture: Image.Image, name: str) -> None:
    if picture.width * picture.height > MAX_PIXELS or max(picture.size) > MAX_SIDE:
        raise BadSampleError(f"{name}: {picture.width}×{picture.height} pixels are too many")


def needs_turning(data: bytes) -> bool:
    """Whether a JPEG is stored otherwise than it is to be seen (EXIF orientation); False if it cannot be read."""
    if b"Exif\0\0" not in data[:65_536]:
        return False
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            return bool(opened.getexif().get(_ORIENTATION, 1) != 1)
    except Exception:  # the boundary: it will be told when the picture is decoded
        return False


def encode_jpeg(picture: Array, quality: int) -> bytes:
    """Encode (H, W, 3) uint8 RGB or (H, W[, 1]) grey as baseline JPEG, 4:2:0, by the accurate DCT."""
    return _encode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])


def encode_png(picture: Array) -> bytes:
    """Encode (H, W, 3) uint8 RGB or (H, W[, 1]) grey as PNG, exactly; one bit per pixel where all are 0 or 255."""
    if picture.ndim == 2 or picture.shape[2] == 1:
        plane = picture.reshape(picture.shape[:2])
        if plane.size and has_two_levels(plane):
            return _encode_bits(plane)
    return _encode(".png", picture, [])


def has_two_levels(plane: Array) -> bool:
    """Whether all levels of a plane (H, W) uint8 are 0 or 255."""
    return bool(cv2.sumElems(plane)[0] == 255 * cv2.countNonZero(plane))


def _encode_bits(plane: Array) -> bytes:
    """A plane of 0 and 255 as PNG of one bit a pixel (PNG specification, third edition); thrice as fast as OpenCV."""
    height, width = plane.shape
    rows = np.zeros((height, 1 + (width + 7) // 8), np.uint8)  # each begins with its filter: none
    rows[:, 1:] = np.packbits(plane, axis=1)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(rows.tobytes(), 1)
    return b"".join((b"\x89PNG\r\n\x1a\n", _chunk(b"IHDR", header), _chunk(b"IDAT", pixels), _PNG_END))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return b"".join(
        (struct.pack(">I", len(content)), kind, content, struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))
    )


_PNG_END = _chunk(b"IEND", b"")


def _encode(kind: str, picture: Array, flags: list[int]) -> bytes:
    if picture.ndim == 3 and picture.shape[2] == 3:
        picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), np.uint8)
    written, encoded = cv2.imencode(kind, picture, flags)
    if not written:
        raise BadSampleError(f"a picture of {picture.shape[1]}×{picture.shape[0]} pixels cannot be written as {kind}")
    return encoded.tobytes()
