"""Examples as numpy arrays: CRC-checked records, decoded by Pillow. Needs the extra ``readers``."""

import io
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_client.errors import IntegrityError
from dataset_client.readers.example_proto import BytesList, FloatList, Int64List, Values, decode_example
from dataset_client.readers.features import (
    BytesFeature,
    Feature,
    ImageFeature,
    TensorFeature,
    TextFeature,
    TextListFeature,
)
from dataset_client.readers.optional import require
from dataset_client.readers.tfrecord import crc32c_function, read_records

if TYPE_CHECKING:
    import numpy as np

#: What handlers write at most. Not left to Pillow, whose limit is the whole process' and may be switched off.
_MAX_PIXELS = 16_384 * 16_384
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def read_examples(
    files: Sequence[Path], features: Mapping[str, Feature]
) -> "Iterator[dict[str, np.ndarray[Any, Any] | np.generic | str | bytes | list[str]]]":
    """The examples of ``files`` in order; `Dataset.as_numpy_iterator` says what they hold and what is
    raised.
    """
    for module in ("numpy", "PIL.Image"):  # asked for now, not at the first example
        require(module, extra="readers")
    crc32c_function()
    return _examples(files, features)


def _examples(
    files: Sequence[Path], features: Mapping[str, Feature]
) -> "Iterator[dict[str, np.ndarray[Any, Any] | np.generic | str | bytes | list[str]]]":
    for path in files:
        for record in read_records(path):
            try:
                stored = decode_example(record.data)
                example = {name: _value(name, feature, stored.get(name)) for name, feature in features.items()}
            except (ValueError, OverflowError) as error:
                raise IntegrityError(
                    f"{path}, offset {record.offset}: the example cannot be decoded: {error}",
                    remedy="If dataset.verify() finds nothing, the handler wrote it so; "
                    f"else remove {path.parent} and ask again.",
                ) from error
            yield example


def _value(
    name: str, feature: Feature, stored: Values | None
) -> "np.ndarray[Any, Any] | np.generic | str | bytes | list[str]":
    match feature:
        case ImageFeature():
            return decode_image(_only(name, stored), feature)
        case BytesFeature():
            return _only(name, stored)
        case TextFeature():
            return _only(name, stored).decode("utf-8")
        case TextListFeature():
            return _texts(name, stored)
        case TensorFeature(encoding="bytes"):
            return _raw_tensor(name, feature, _only(name, stored))
        case TensorFeature():
            return _tensor(name, feature, stored)


def _only(name: str, stored: Values | None) -> bytes:
    if not isinstance(stored, BytesList) or len(stored.values) != 1:
        raise ValueError(f"feature {name!r} is not one byte string")
    return stored.values[0]


def _texts(name: str, stored: Values | None) -> list[str]:
    values = stored or BytesList(())  # as for tensors, a list without values may be left out
    if not isinstance(values, BytesList):
        raise ValueError(f"feature {name!r} is stored as {type(values).__name__}, not BytesList")  # noqa: TRY004 - data
    return [text.decode("utf-8") for text in values.values]


def decode_image(data: bytes, feature: ImageFeature) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Decode a JPEG or PNG to uint8 (H, W, C); raises `ValueError` for what is not one of that shape."""
    import numpy as np
    from PIL import Image

    formats: list[str] = [feature.encoding] if feature.encoding else ["jpeg", "png"]
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            _refuse_other_sizes(image.height, image.width, feature)
            pixels = np.asarray(image.convert(_MODES[feature.shape[2]]), dtype=np.uint8)
    except (OSError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError) as error:
        raise ValueError(f"the image cannot be decoded: {error}") from error  # Pillow's parsers leak theirs
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _refuse_other_sizes(height: int, width: int, feature: ImageFeature) -> None:
    """By the header, before memory is taken for what damage, or somebody, made of it."""
    for expected, side in zip(feature.shape, (height, width), strict=False):
        if expected not in {None, side}:
            raise ValueError(f"the image has {width} × {height} pixels, not shape {feature.shape}")
    if height * width > _MAX_PIXELS:
        raise ValueError(f"the image cannot be decoded: {width} × {height} pixels are more than any example has")


def _tensor(name: str, feature: TensorFeature, stored: Values | None) -> "np.ndarray[Any, Any] | np.generic":
    import numpy as np

    # protobuf's writers leave out a list without values altogether
    empty: Values = FloatList(()) if feature.is_float else Int64List(())
    values = stored or empty
    if type(values) is not type(empty):
        raise ValueError(f"feature {name!r} is stored as {type(values).__name__}, not {type(empty).__name__}")
    shape = feature.resolve_shape(len(values.values))
    if shape is None:
        raise ValueError(f"feature {name!r} has {len(values.values)} numbers, which have not shape {feature.shape}")
    wire = np.asarray(values.values, dtype=np.float32 if feature.is_float else np.int64)
    array = wire.astype(feature.dtype).reshape(shape)
    return array[()] if shape == () else array


def _raw_tensor(name: str, feature: TensorFeature, data: bytes) -> "np.ndarray[Any, Any] | np.generic":
    """A tensor stored as bytes; the array is a view of them, and so read-only."""
    import numpy as np

    dtype = np.dtype(feature.dtype).newbyteorder("<")
    count, rest = divmod(len(data), dtype.itemsize)
    shape = None if rest else feature.resolve_shape(count)
    if shape is None:
        raise ValueError(f"feature {name!r} has {len(data)} bytes, which are no {dtype} of shape {feature.shape}")
    array = np.frombuffer(data, dtype).reshape(shape)
    return array[()] if shape == () else array
