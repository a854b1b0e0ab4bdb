"""A source photo of which no more is decoded than an output needs."""

import cv2
import numpy as np

from .errors import BadSampleError
from .images import MAX_PIXELS, MAX_SIDE, Array, decode_photo, needs_turning
from .jpeg import JpegError, JpegHeader, decode_region, read_header
from .transforms.geometry import Geometry, Size
from .transforms.sampling import Region, plan_sampling, resample, shows_frame

Colour = tuple[int, int, int]


class Photo:
    """A photo, (H, W, 3) uint8 RGB once decoded, from the bytes of a file or from pixels.

    Levels are taken as they are stored (no colour profiles), and so are rows, which is what annotations are drawn
    on; ``upright`` turns the photo as its EXIF orientation says. ``reused`` says that several outputs will be made
    of it: it is then decoded once, whole. That changes no pixel, but finds damage wherever it is.
    """

    def __init__(self, data: bytes, name: str, *, upright: bool = False, reused: bool = False) -> None:
        """Read the header; raises `BadSampleError` for what is no photo or too large."""
        self._data, self._name, self._reused = data, name, reused
        self._whole: dict[int, Array] = {}
        self._header: JpegHeader | None = None
        if not (upright and needs_turning(data)):
            self._header = read_header(data)
        if self._header is None:
            self._whole[1] = decode_photo(data, name, upright=upright)
            return
        height, width = self.size
        if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE:
            raise BadSampleError(f"{name}: {width}×{height} pixels are too many")

    @classmethod
    def from_pixels(cls, pixels: Array) -> "Photo":
        """A photo that is there already."""
        photo = cls.__new__(cls)
        photo._data, photo._name, photo._reused, photo._header = b"", "", True, None
        photo._whole = {1: pixels}
        return photo

    @property
    def size(self) -> Size:
        """(height, width) in pixels."""
        if self._header is not None:
            return self._header.height, self._header.width
        return self._whole[1].shape[0], self._whole[1].shape[1]

    def pixels(self) -> Array:
        """The whole photo."""
        height, width = self.size
        return self._region(Region(0, 0, width, height), 1, keep=True)

    def warp(self, geometry: Geometry, *, border: int = cv2.BORDER_REFLECT, fill: Colour = (0, 0, 0)) -> Array:
        """The photo through ``geometry``, filtered where that shrinks; raises `BadSampleError` for damaged data.

        ``border`` is OpenCV's. With `cv2.BORDER_CONSTANT` all is ``fill`` whose centre is outside of the frame, as
        a mask is 0 there; the photo does not fade towards it.
        """
        mirrored = border != cv2.BORDER_CONSTANT
        sampling = plan_sampling(geometry, self.size, dct=self._header is not None, mirrored=mirrored)
        region = self._region(sampling.region, sampling.dct_scale, keep=self._reused)
        if mirrored:
            return resample(region, sampling, geometry, border)
        output = resample(region, sampling, geometry, cv2.BORDER_REPLICATE).copy()
        _fill_beside(output, geometry, self.size, fill)
        return output

    def thumbnail(self, side: int) -> Array:
        """The photo in grey (ITU-R BT.601), (H, W) uint8, as small as it decodes with ``side`` pixels on both sides."""
        height, width = self.size
        scales = (8, 4, 2) if self._header is not None else ()
        scale = next((scale for scale in scales if min(height, width) // scale >= side), 1)
        small = self._region(Region(0, 0, width, height), scale, keep=False)
        return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)

    def _region(self, region: Region, scale: int, *, keep: bool) -> Array:
        header = self._header
        if keep and scale not in self._whole and header is not None:
            self._whole[scale] = self._decode(Region(0, 0, header.width, header.height), scale)
        if scale in self._whole:
            left, top = region.left // scale, region.top // scale
            return self._whole[scale][top : -(-region.bottom // scale), left : -(-region.right // scale)]
        return self._decode(region, scale)

    def _decode(self, region: Region, scale: int) -> Array:
        assert self._header is not None
        try:
            return decode_region(self._data, self._header, region.left, region.top, region.right, region.bottom, scale)
        except JpegError as error:
            raise BadSampleError(f"{self._name}: cannot be decoded ({error})") from error


def _fill_beside(output: Array, geometry: Geometry, source: Size, fill: Colour) -> None:
    """Make ``fill`` of all in ``output`` that `shows_frame` tells to be outside of the frame."""
    (a, b, c), (d, e, f), (g, h, i) = geometry.back.tolist()
    if (b, d, g, h) != (0, 0, 0, 0):
        output[~shows_frame(geometry, source)] = fill
        return
    # Without rotation the frame is a rectangle; four slices are filled in a tenth of the time.
    rows, columns = (
        np.flatnonzero((place >= 0) & (place < length))
        for place, length in (
            ((e * (np.arange(geometry.size[0]) + 0.5) + f) / i, source[0]),
            ((a * (np.arange(geometry.size[1]) + 0.5) + c) / i, source[1]),
        )
    )
    if not rows.size or not columns.size:
        output[:] = fill
        return
    output[: rows[0]], output[rows[-1] + 1 :] = fill, fill
    output[:, : columns[0]], output[:, columns[-1] + 1 :] = fill, fill
