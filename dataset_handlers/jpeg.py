"""Decoding parts of JPEG photos, smaller if that is all that is needed; by libjpeg-turbo.

Where TurboJPEG 3 is at hand, rows and columns outside the region skip the inverse DCT, the upsampling and the colour
conversion; elsewhere the whole photo is decoded and cut. The pixels are the same: what a decoder's upsampling sees
beside a region is decoded with it. Damage below a region, though, is seen only where the whole is decoded.
"""

import ctypes
import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg

Array = npt.NDArray[np.uint8]

# From turbojpeg.h, TurboJPEG 3.0; numbers of an ABI that does not change.
_INIT_DECOMPRESS = 1
_STOP_ON_WARNING, _SUBSAMPLING, _WIDTH, _HEIGHT, _PRECISION, _COLOURS = 0, 4, 5, 6, 7, 8
_RGB_PIXELS = 0
_COLOUR_SPACES = {0: "RGB", 1: "YCbCr", 2: "Gray"}  # CMYK and YCCK need an interpretation that is Pillow's
#: Columns of a minimum coded unit, by subsampling 4:4:4, 4:2:2, 4:2:0, grey, 4:4:0, 4:1:1, 4:4:1.
_UNIT_WIDTHS = (8, 16, 16, 8, 8, 32, 8)
#: Pixels beside a region, before scaling, that upsampling may look at.
_CONTEXT = 2


#: The one complaint that says nothing about pixels: cameras leave bytes behind the last coded block.
_HARMLESS = "extraneous bytes before marker"


class _ScalingFactor(ctypes.Structure):
    _fields_ = [("num", ctypes.c_int), ("denom", ctypes.c_int)]


class _Region(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_int), ("w", ctypes.c_int), ("h", ctypes.c_int)]


_EVERYWHERE = _Region(0, 0, 0, 0)
_SCALES = {scale: _ScalingFactor(1, scale) for scale in (1, 2, 4, 8)}


@dataclass(frozen=True)
class JpegHeader:
    """What decides how a JPEG is decoded: size in pixels, and the columns of a minimum coded unit."""

    height: int
    width: int
    unit_width: int


class JpegError(ValueError):
    """These bytes are no JPEG that decodes without a complaint; the message is libjpeg-turbo's."""


def read_header(data: bytes) -> JpegHeader | None:
    """The header of an 8-bit grey, YCbCr or RGB JPEG that is complete; None for all else, which is left to Pillow.

    Complete means that the end marker is there: a region is decoded without a look at what comes after it.
    """
    if b"\xff\xd9" not in data[-64:] or not _has_frame(data):
        return None
    if (turbo := _turbojpeg()) is not None:
        return turbo.read_header(data)
    try:
        height, width, colours, sampling = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    known = str(colours) in _COLOUR_SPACES.values() and sampling != "unknown"
    return JpegHeader(int(height), int(width), 16) if known else None


def _has_frame(data: bytes) -> bool:
    """Whether a frame header (SOF) is among the segments at the start: tables alone have none.

    TurboJPEG takes tables for a header, and then tells the size of the photo before.
    """
    if data[:2] != b"\xff\xd8":
        return False
    place = 2
    while data[place : place + 1] == b"\xff" and place + 4 <= len(data):
        marker = data[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # those are tables, and one reserved
            return True
        # A marker may be padded with 0xFF.
        place += 1 if marker == 0xFF else 2 + int.from_bytes(data[place + 2 : place + 4])
    return False


def decode_region(
    data: bytes, header: JpegHeader, left: int, top: int, right: int, bottom: int, scale: int = 1
) -> Array:
    """Columns [left, right) and rows [top, bottom) of a photo as RGB, (ceil(h / scale), ceil(w / scale), 3) uint8.

    ``scale`` is 1, 2, 4 or 8; left and top are multiples of it. Raises `JpegError` for damaged data.
    """
    left, top = left // scale, top // scale
    right, bottom = -(-right // scale), -(-bottom // scale)
    turbo = _turbojpeg()
    if turbo is None:
        return _decode_whole(data, header, scale)[top:bottom, left:right]
    try:
        return _decode_part(turbo, data, header, left, top, right, bottom, scale)
    except JpegError as error:
        if _HARMLESS not in str(error):
            raise
        return _decode_whole(data, header, scale)[top:bottom, left:right]


def _decode_part(
    turbo: "_TurboJpeg", data: bytes, header: JpegHeader, left: int, top: int, right: int, bottom: int, scale: int
) -> Array:
    """A region in pixels after scaling, decoded with what its upsampling looks at beside it."""
    height, width = -(-header.height // scale), -(-header.width // scale)
    unit = header.unit_width // scale or 1
    # From one whole unit more on the left, up to what upsampling sees on the other sides.
    first = max(0, left - _CONTEXT) // unit * unit
    above = max(0, top - _CONTEXT)
    last, below = min(width, right + _CONTEXT), min(height, bottom + _CONTEXT)
    part = turbo.decode(data, scale, first, above, last - first, below - above)
    return part[top - above : bottom - above, left - first : right - first]


def _decode_whole(data: bytes, header: JpegHeader, scale: int) -> Array:
    height, width = -(-header.height // scale), -(-header.width // scale)
    size = {"min_height": height, "min_width": width}
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, "RGB", **size), np.uint8)
    except ValueError as error:
        if _HARMLESS not in str(error):
            raise JpegError(str(error)) from error
    return np.asarray(simplejpeg.decode_jpeg(data, "RGB", strict=False, **size), np.uint8)


class _TurboJpeg:
    """A decompressor of the TurboJPEG 3 C API; one for each process, used by one thread."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._header: tuple[bytes, JpegHeader | None] = b"", None
        library.tj3Init.restype = ctypes.c_void_p
        library.tj3GetErrorStr.restype = ctypes.c_char_p
        library.tj3GetErrorStr.argtypes = [ctypes.c_void_p]
        library.tj3Get.argtypes = [ctypes.c_void_p, ctypes.c_int]
        library.tj3Set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
        library.tj3DecompressHeader.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
        library.tj3SetScalingFactor.argtypes = [ctypes.c_void_p, _ScalingFactor]
        library.tj3SetCroppingRegion.argtypes = [ctypes.c_void_p, _Region]
        library.tj3Decompress8.argtypes = [
            *(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t),
            *(ctypes.c_void_p, ctypes.c_int, ctypes.c_int),
        ]
        library.tj3Destroy.argtypes = [ctypes.c_void_p]
        self._handle: int | None = None
        self._start_anew()

    def _start_anew(self) -> None:
        """What fails in the middle of a header leaves a decompressor that refuses the photos after it."""
        self._library.tj3Destroy(self._handle)
        self._handle = self._library.tj3Init(_INIT_DECOMPRESS)
        self._library.tj3Set(self._handle, _STOP_ON_WARNING, 1)
        self._header = b"", None

    def read_header(self, data: bytes) -> JpegHeader | None:
        """The header of ``data``, which is then ready to be decoded."""
        if self._header[0] is not data:
            self._header = data, self._read_header(data)
        return self._header[1]

    def _read_header(self, data: bytes) -> JpegHeader | None:
        # A region that is still set is checked against the next photo's size.
        self._library.tj3SetCroppingRegion(self._handle, _EVERYWHERE)
        self._library.tj3SetScalingFactor(self._handle, _SCALES[1])
        if self._library.tj3DecompressHeader(self._handle, data, len(data)):
            self._start_anew()
            return None
        subsampling, width, height, precision, colours = [
            self._library.tj3Get(self._handle, what) for what in (_SUBSAMPLING, _WIDTH, _HEIGHT, _PRECISION, _COLOURS)
        ]
        if precision != 8 or colours not in _COLOUR_SPACES or not 0 <= subsampling < len(_UNIT_WIDTHS):
            return None
        return JpegHeader(height, width, _UNIT_WIDTHS[subsampling])

    def decode(self, data: bytes, scale: int, x: int, y: int, width: int, height: int) -> Array:
        self.read_header(data)
        self._check(self._library.tj3SetScalingFactor(self._handle, _SCALES[scale]))
        self._check(self._library.tj3SetCroppingRegion(self._handle, _Region(x, y, width, height)))
        pixels = np.empty((height, width, 3), np.uint8)
        self._check(
            self._library.tj3Decompress8(
                self._handle, data, len(data), pixels.ctypes.data, pixels.strides[0], _RGB_PIXELS
            )
        )
        return pixels

    def _check(self, status: int) -> None:
        if status:
            reason = self._library.tj3GetErrorStr(self._handle).decode(errors="replace")
            self._start_anew()
            raise JpegError(reason)


@functools.cache
def _turbojpeg() -> _TurboJpeg | None:
    """The decompressor, if the `turbojpeg` distribution brought a library of TurboJPEG 3."""
    found: Any = importlib.util.find_spec("turbojpeg")
    if found is None or found.origin is None:
        return None
    for path in sorted((Path(found.origin).parent / "turbojpeg.libs").glob("libturbojpeg*.so*")):
        try:
            return _TurboJpeg(ctypes.CDLL(str(path)))
        except (OSError, AttributeError):  # another platform's, or an older API
            continue
    return None
