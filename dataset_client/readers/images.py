"""JPEG and PNG to pixels: by libjpeg-turbo and our own reader of one-bit masks where they give what Pillow
gives, else by Pillow.

libjpeg-turbo's accurate inverse DCT and its smooth ("fancy") upsampling are what Pillow uses, and TensorFlow with
``dct_method="INTEGER_ACCURATE"``: all three give equal pixels. Whatever libjpeg-turbo complains about is left to
Pillow, which decides whether it is an error.
"""

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

from dataset_client.readers.features import ImageFeature
from dataset_client.readers.png import plane_size, read_plane

if TYPE_CHECKING:
    import numpy as np

    Pixels = np.ndarray[Any, np.dtype[np.uint8]]

#: What decoding needs of the extra ``readers``.
MODULES = ("numpy", "PIL.Image", "simplejpeg")
#: What handlers write at most. Not left to Pillow, whose limit is the whole process' and may be switched off.
_MAX_PIXELS = 16_384 * 16_384
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
#: What libjpeg-turbo converts as Pillow does: (channels, colour space of the file) → what it is asked for.
_JPEG_COLOURS = {(3, "YCbCr"): "RGB", (3, "RGB"): "RGB", (3, "Gray"): "RGB", (1, "Gray"): "GRAY"}


def decode_image(data: "bytes | memoryview", feature: ImageFeature, out: "Pixels | None" = None) -> "Pixels":
    """Decode a JPEG or PNG to uint8 (H, W, C); raises `ValueError` for what is not one of that shape.

    ``out`` is where the pixels may go; it is returned if they went there, which they do not if its shape is another,
    or if Pillow decoded them. Its former content is lost in any case.
    """
    view = memoryview(data)
    pixels = None
    if feature.encoding != "png" and bytes(view[:2]) == b"\xff\xd8":
        pixels = _jpeg(view, feature, out)
    elif feature.encoding != "jpeg":
        pixels = _png(view, feature, out)
    return _by_pillow(view, feature) if pixels is None else pixels


def _jpeg(data: memoryview, feature: ImageFeature, out: "Pixels | None") -> "Pixels | None":
    import simplejpeg

    try:
        height, width, stored, _ = simplejpeg.decode_jpeg_header(data)
        colours = _JPEG_COLOURS.get((feature.shape[2], stored))
        if colours is None:
            return None
        pixels = _room(height, width, feature, out)
        simplejpeg.decode_jpeg(data, colours, buffer=pixels)
    except _SizeError:
        raise
    except ValueError:  # a complaint; some of them are harmless
        return None
    return pixels


def _png(data: memoryview, feature: ImageFeature, out: "Pixels | None") -> "Pixels | None":
    size = plane_size(data) if feature.shape[2] == 1 else None
    if size is None:
        return None
    pixels = _room(*size, feature, out)
    return pixels if read_plane(data, pixels) else None


def _room(height: int, width: int, feature: ImageFeature, out: "Pixels | None") -> "Pixels":
    """Where to decode to: ``out`` if it fits, else a new array."""
    import numpy as np

    _refuse_other_sizes(height, width, feature)
    shape = height, width, feature.shape[2]
    return out if out is not None and out.shape == shape else np.empty(shape, np.uint8)


class _SizeError(ValueError):
    """The header tells a size that cannot be."""


def _by_pillow(data: memoryview, feature: ImageFeature) -> "Pixels":
    import numpy as np
    from PIL import Image

    formats: list[str] = [feature.encoding] if feature.encoding else ["jpeg", "png"]
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            _refuse_other_sizes(image.height, image.width, feature)
            pixels = np.array(image.convert(_MODES[feature.shape[2]]), dtype=np.uint8)
    except (OSError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError) as error:
        raise ValueError(f"the image cannot be decoded: {error}") from error  # Pillow's parsers leak theirs
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _refuse_other_sizes(height: int, width: int, feature: ImageFeature) -> None:
    """By the header, before memory is taken for what damage, or somebody, made of it."""
    for expected, side in zip(feature.shape, (height, width), strict=False):
        if expected not in {None, side}:
            raise _SizeError(f"the image has {width} × {height} pixels, not shape {feature.shape}")
    if height * width > _MAX_PIXELS:
        raise _SizeError(f"the image cannot be decoded: {width} × {height} pixels are more than any example has")
