"""What an example holds: a schema that encodes values for `tf.train.Example` and describes itself as TFDS does.

``features.json`` follows TensorFlow Datasets' ``FeaturesDict`` JSON, so that ``tfds.builder_from_directory`` (and the
client's readers) know how to decode every field.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from .errors import HandlerError
from .example_proto import Values, encode_example
from .images import encode_jpeg, encode_png

_PACKAGE = "tensorflow_datasets.core.features."


class Feature(Protocol):
    """One field of an example."""

    def encode(self, value: Any) -> Values:
        """The value as the list an Example stores."""
        ...

    def to_tfds(self) -> dict[str, Any]:
        """The field's entry in ``features.json``."""
        ...


def _shape(shape: tuple[int | None, ...]) -> dict[str, Any]:
    # Protocol buffers' JSON: 64-bit integers are strings, empty lists are left out.
    return {"dimensions": [str(-1 if size is None else size) for size in shape]} if shape else {}


@dataclass(frozen=True)
class ImageFeature:
    """A picture, (H, W, channels) or (H, W) uint8; None in ``shape`` is a size that varies."""

    shape: tuple[int | None, int | None, int]
    encoding: Literal["jpeg", "png"]
    quality: int = 95

    def encode(self, value: Any) -> list[bytes]:
        """Check the picture against ``shape`` and encode it; raises `HandlerError` if it does not fit."""
        picture = np.asarray(value)
        actual = picture.shape if picture.ndim == 3 else (*picture.shape, 1)
        fits = len(actual) == 3 and all(
            size is None or size == got for size, got in zip(self.shape, actual, strict=True)
        )
        if picture.dtype != np.uint8 or not fits:
            raise HandlerError(f"a picture of shape {actual} {picture.dtype} where {self.shape} uint8 was declared")
        return [encode_jpeg(picture, self.quality) if self.encoding == "jpeg" else encode_png(picture)]

    def to_tfds(self) -> dict[str, Any]:
        """The field's entry in ``features.json``."""
        image = {"shape": _shape(self.shape), "dtype": "uint8", "encodingFormat": self.encoding}
        return {"pythonClassName": f"{_PACKAGE}image_feature.Image", "image": image}


@dataclass(frozen=True)
class TextFeature:
    """A string, stored as UTF-8."""

    def encode(self, value: Any) -> list[bytes]:
        """The string's bytes."""
        return [str(value).encode()]

    def to_tfds(self) -> dict[str, Any]:
        """The field's entry in ``features.json``."""
        return {"pythonClassName": f"{_PACKAGE}text_feature.Text", "text": {}}


@dataclass(frozen=True)
class TensorFeature:
    """Numbers of one shape; at most the first dimension varies (None). ``()`` is a scalar.

    ``uint8`` is stored as one byte string, in C order. Raises `ValueError` for a shape that could not be told from
    the count of numbers.
    """

    shape: tuple[int | None, ...] = ()
    dtype: Literal["int64", "float32", "uint8"] = "int64"

    def __post_init__(self) -> None:
        if None in self.shape[1:]:
            raise ValueError(f"the shape {self.shape} varies beyond its first dimension")

    def encode(self, value: Any) -> Values:
        """Check the numbers against ``shape`` and flatten them; raises `HandlerError` if they do not fit."""
        array = np.asarray(value)
        # A float32 may round; a whole number of another width would wrap around.
        casting: Literal["same_kind", "safe"] = "same_kind" if self.dtype == "float32" else "safe"
        if array.size and not np.can_cast(array.dtype, self.dtype, casting):
            raise HandlerError(
                f"{array.dtype} where {self.dtype} was declared; convert it, the conversion loses something"
            )
        array = array.astype(self.dtype, copy=False)
        if array.ndim != len(self.shape) or any(
            size not in (None, got) for size, got in zip(self.shape, array.shape, strict=True)
        ):
            raise HandlerError(f"numbers of shape {array.shape} where {self.shape} was declared")
        if self.dtype == "uint8":
            return [array.tobytes()]
        flat: list[int] | list[float] = array.ravel().tolist()
        return flat

    def to_tfds(self) -> dict[str, Any]:
        """The field's entry in ``features.json``."""
        encoding = "bytes" if self.dtype == "uint8" else "none"
        # TFDS' Scalar knows no encoding.
        kind = "scalar.Scalar" if (self.shape, encoding) == ((), "none") else "tensor_feature.Tensor"
        tensor = {"shape": _shape(self.shape), "dtype": self.dtype, "encoding": encoding}
        return {"pythonClassName": _PACKAGE + kind, "tensor": tensor}


@dataclass(frozen=True)
class TextListFeature:
    """Any number of strings, stored as UTF-8."""

    def encode(self, value: Any) -> list[bytes]:
        """Each string's bytes."""
        return [str(text).encode() for text in value]

    def to_tfds(self) -> dict[str, Any]:
        """The field's entry in ``features.json``."""
        sequence = {"feature": TextFeature().to_tfds(), "length": "-1"}
        return {"pythonClassName": f"{_PACKAGE}sequence_feature.Sequence", "sequence": sequence}


@dataclass(frozen=True)
class BytesFeature:
    """A byte string, as it is."""

    def encode(self, value: Any) -> list[bytes]:
        """The bytes."""
        return [bytes(value)]

    def to_tfds(self) -> dict[str, Any]:
        """The field's entry in ``features.json``."""
        tensor: dict[str, Any] = {"shape": {}, "dtype": "string", "encoding": "none"}
        return {"pythonClassName": f"{_PACKAGE}tensor_feature.Tensor", "tensor": tensor}


def serialize(features: Mapping[str, Feature], example: Mapping[str, Any]) -> bytes:
    """One example as a serialised `tf.train.Example`; raises `HandlerError` where it does not fit its schema."""
    if example.keys() != features.keys():
        raise HandlerError(f"an example with {sorted(example)} where {sorted(features)} was declared")
    return encode_example({name: feature.encode(example[name]) for name, feature in features.items()})


def features_json(features: Mapping[str, Feature]) -> dict[str, Any]:
    """The whole schema as ``features.json`` holds it."""
    return {
        "pythonClassName": f"{_PACKAGE}features_dict.FeaturesDict",
        "featuresDict": {"features": {name: features[name].to_tfds() for name in sorted(features)}},
    }
