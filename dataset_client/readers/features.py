"""What examples hold, read from the ``features.json`` that TensorFlow Datasets 4.9 writes.

::

    {"pythonClassName": "….FeaturesDict", "featuresDict": {"features": {name: feature, …}}}

    feature = {"pythonClassName": "….Image",  "image": {"shape": shape, "dtype": "uint8", "encodingFormat": format}}
            | {"pythonClassName": "….Text",   "text": {}}
            | {"pythonClassName": "….Scalar", "tensor": {"shape": {}, "dtype": dtype, "encoding": "none"}}
            | {"pythonClassName": "….Tensor", "tensor": {"shape": shape, "dtype": dtype, "encoding": encoding}}
            | {"pythonClassName": "….Sequence", "sequence": {"feature": text, "length": "-1"}}    text = a "….Text"
    encoding = "none" (a list of numbers) | "bytes" (one byte string, little-endian, in C order)
    format  = "jpeg" | "png" | absent
    shape   = {"dimensions": ["-1" for any, or a number in decimal, …]} | {} for ()
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dataset_client.errors import UnsupportedFeatureError

_INTEGERS = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
_FLOATS = ("float16", "float32", "float64")
#: What tensors of each encoding may be; TensorFlow's ``decode_raw`` knows no wide unsigned integers.
_KINDS = {
    "none": {*_INTEGERS, *_FLOATS},
    "bytes": {*_INTEGERS, *_FLOATS} - {"uint32", "uint64"},
}


@dataclass(frozen=True)
class ImageFeature:
    """An encoded image that decodes to uint8 ``shape`` = (H, W, C); None for a side that differs between
    examples.
    """

    shape: tuple[int | None, int | None, int]
    encoding: Literal["jpeg", "png", ""]


@dataclass(frozen=True)
class TextFeature:
    """UTF-8 text."""


@dataclass(frozen=True)
class TextListFeature:
    """Any number of UTF-8 texts."""


@dataclass(frozen=True)
class BytesFeature:
    """One byte string, as it is."""


@dataclass(frozen=True)
class TensorFeature:
    """Numbers of ``dtype`` and ``shape``, () for a scalar; at most one dimension may differ between
    examples (None).

    ``encoding`` is how they are stored: as a list of numbers ("none"), or as one byte string ("bytes").
    """

    shape: tuple[int | None, ...]
    dtype: str
    encoding: Literal["none", "bytes"] = "none"

    @property
    def is_float(self) -> bool:
        """Whether a list of them is stored as floats (float32), not as integers (int64)."""
        return self.dtype in _FLOATS

    def resolve_shape(self, count: int) -> tuple[int, ...] | None:
        """The shape of ``count`` numbers; None if there is no such shape."""
        known = math.prod(side for side in self.shape if side is not None)
        if None not in self.shape:
            return tuple(side or 0 for side in self.shape) if count == known else None
        if known == 0 or count % known:
            return None
        return tuple(count // known if side is None else side for side in self.shape)


Feature = ImageFeature | TextFeature | TextListFeature | BytesFeature | TensorFeature


def is_picture(feature: Feature | None) -> bool:
    """Whether it decodes to uint8 (H, W, C): an encoded image, or raw pixels."""
    match feature:
        case ImageFeature():
            return True
        case TensorFeature():
            return feature.dtype == "uint8" and len(feature.shape) == 3
        case _:
            return False


def is_list(feature: Feature | None) -> bool:
    """Whether the number of its values may differ between examples."""
    return isinstance(feature, TextListFeature) or (isinstance(feature, TensorFeature) and None in feature.shape)


def parse_features(document: Mapping[str, Any]) -> dict[str, Feature]:
    """Read a whole ``features.json``; raises `UnsupportedFeatureError` for what these readers cannot
    decode.
    """
    try:
        features = document["featuresDict"]["features"]
        return {str(name): _feature(str(name), feature) for name, feature in features.items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UnsupportedFeatureError(f"features.json has an unknown form: {type(error).__name__}: {error}") from error


def _feature(name: str, feature: Mapping[str, Any]) -> Feature:
    kind = str(feature["pythonClassName"]).rpartition(".")[2]
    match kind:
        case "Image":
            return _image(name, feature["image"])
        case "Text":
            return TextFeature()
        case "Scalar" | "Tensor":
            return _tensor(name, feature["tensor"])
        case "Sequence":
            return _sequence(name, feature["sequence"])
        case _:
            raise UnsupportedFeatureError(
                f"feature {name!r} is of kind {kind!r}; known are Image, Text, Scalar, Tensor and Sequence of Text"
            )


def _image(name: str, image: Mapping[str, Any]) -> ImageFeature:
    shape, dtype, encoding = _shape(image), image.get("dtype", "uint8"), image.get("encodingFormat", "")
    if len(shape) != 3 or shape[2] not in {1, 3, 4} or dtype != "uint8" or encoding not in {"jpeg", "png", ""}:
        raise UnsupportedFeatureError(
            f"image {name!r} is {dtype} {shape} {encoding!r}; known is uint8 (H, W, 1 | 3 | 4) as jpeg or png"
        )
    return ImageFeature((shape[0], shape[1], shape[2]), encoding)


def _tensor(name: str, tensor: Mapping[str, Any]) -> TensorFeature | BytesFeature:
    shape, dtype, encoding = _shape(tensor), str(tensor["dtype"]), tensor.get("encoding", "none")
    if (dtype, shape, encoding) == ("string", (), "none"):
        return BytesFeature()
    if dtype not in _KINDS.get(encoding, ()) or shape.count(None) > 1:
        raise UnsupportedFeatureError(
            f"tensor {name!r} is {dtype} {shape}, encoding {encoding!r}; known are one byte string, and numbers with "
            "at most one open dimension, plain or as bytes"
        )
    return TensorFeature(shape, dtype, encoding)


def _sequence(name: str, sequence: Mapping[str, Any]) -> TextListFeature:
    kind, length = str(sequence["feature"]["pythonClassName"]).rpartition(".")[2], int(sequence["length"])
    if kind != "Text" or length != -1:
        raise UnsupportedFeatureError(
            f"feature {name!r} is a sequence of {kind!r}, length {length}; known are Texts of any number (-1)"
        )
    return TextListFeature()


def _shape(field: Mapping[str, Any]) -> tuple[int | None, ...]:
    """A shape in Python's form: None where the file says -1."""
    sides = [int(side) for side in field.get("shape", {}).get("dimensions", [])]
    return tuple(None if side < 0 else side for side in sides)
