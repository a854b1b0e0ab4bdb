"""From the bytes of an Example to arrays and texts, by the features of its dataset.

An Example is located first (`canonical`), and each value is made straight from the record's bytes. One of another form
is walked field by field (`example_proto`), which gives the same values, or says what is wrong with it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dataset_client.readers import canonical
from dataset_client.readers.canonical import Spot
from dataset_client.readers.example_proto import (
    BytesList,
    FloatList,
    Int64List,
    Values,
    decode_example,
    packed_integers,
)
from dataset_client.readers.features import (
    BytesFeature,
    Feature,
    ImageFeature,
    TensorFeature,
    TextFeature,
    TextListFeature,
    is_picture,
)
from dataset_client.readers.images import MODULES, decode_image
from dataset_client.readers.optional import require

if TYPE_CHECKING:
    import numpy as np

    from dataset_client.readers.images import Pixels

    Value = np.ndarray[Any, Any] | np.generic | str | bytes | list[str]


class ExampleDecoder:
    """Decodes the Examples of one dataset; raises `MissingDependencyError` without the extra ``readers``."""

    def __init__(self, features: Mapping[str, Feature]) -> None:
        for module in MODULES:  # asked for now, not at the first example
            require(module, extra="readers")
        self.features = dict(features)
        self._keys = [(name.encode(), name, feature) for name, feature in features.items()]

    def __call__(self, data: bytes, out: "Mapping[str, Pixels] | None" = None) -> "dict[str, Value]":
        """The values of one Example; raises `ValueError` or `OverflowError` for what does not fit the features.

        ``out`` are arrays that images may be decoded into, by name (see `decode_image`).
        """
        room = out or {}
        try:
            spots = canonical.locate(data)
            return {
                name: _located(name, feature, data, spots.get(key, _NOWHERE), room) for key, name, feature in self._keys
            }
        except canonical.OtherFormError:
            stored = decode_example(data)
            return {name: _value(name, feature, stored.get(name)) for name, feature in self.features.items()}


_NOWHERE = Spot(canonical.NOTHING, 0, 0)


def _located(name: str, feature: Feature, data: bytes, spot: Spot, room: "Mapping[str, Pixels]") -> "Value":
    match feature:
        case ImageFeature():
            begin, end = _one_string(data, spot)
            return decode_image(memoryview(data)[begin:end], feature, room.get(name))
        case BytesFeature():
            begin, end = _one_string(data, spot)
            return data[begin:end]
        case TextFeature():
            begin, end = _one_string(data, spot)
            return data[begin:end].decode("utf-8")
        case TextListFeature():
            return [data[begin:end].decode("utf-8") for begin, end in canonical.strings(data, spot)]
        case TensorFeature(encoding="bytes"):
            begin, end = _one_string(data, spot)
            return _raw_tensor(name, feature, data[begin:end])
        case TensorFeature():
            return _located_tensor(name, feature, data, spot)


def _one_string(data: bytes, spot: Spot) -> tuple[int, int]:
    found = canonical.strings(data, spot)
    if len(found) != 1:
        raise canonical.OtherFormError
    return found[0]


def _located_tensor(name: str, feature: TensorFeature, data: bytes, spot: Spot) -> "Value":
    import numpy as np

    begin, end = canonical.packed(data, spot, canonical.FLOATS if feature.is_float else canonical.INTEGERS)
    wire: np.ndarray[Any, Any]
    if feature.is_float:
        if (end - begin) % 4:
            raise canonical.OtherFormError
        wire = np.frombuffer(data, "<f4", (end - begin) // 4, begin)
    else:
        wire = np.fromiter(packed_integers(memoryview(data)[begin:end]), np.int64)
    return _shaped(name, feature, wire)


def _value(name: str, feature: Feature, stored: Values | None) -> "Value":
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


def _tensor(name: str, feature: TensorFeature, stored: Values | None) -> "np.ndarray[Any, Any] | np.generic":
    import numpy as np

    # protobuf's writers leave out a list without values altogether
    empty: Values = FloatList(()) if feature.is_float else Int64List(())
    values = stored or empty
    if type(values) is not type(empty):
        raise ValueError(f"feature {name!r} is stored as {type(values).__name__}, not {type(empty).__name__}")
    return _shaped(name, feature, np.asarray(values.values, dtype=np.float32 if feature.is_float else np.int64))


def _shaped(name: str, feature: TensorFeature, wire: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any] | np.generic":
    """Numbers as stored → an array of the feature's dtype and shape."""
    shape = feature.resolve_shape(len(wire))
    if shape is None:
        raise ValueError(f"feature {name!r} has {len(wire)} numbers, which have not shape {feature.shape}")
    array = wire.astype(feature.dtype).reshape(shape)
    return array[()] if shape == () else array


def _raw_tensor(name: str, feature: TensorFeature, data: bytes) -> "np.ndarray[Any, Any] | np.generic":
    """A tensor stored as bytes; the array is a view of them, and so read-only, unless it is a picture's."""
    import numpy as np

    dtype = np.dtype(feature.dtype).newbyteorder("<")
    count, rest = divmod(len(data), dtype.itemsize)
    shape = None if rest else feature.resolve_shape(count)
    if shape is None:
        raise ValueError(f"feature {name!r} has {len(data)} bytes, which are no {dtype} of shape {feature.shape}")
    array = np.frombuffer(bytearray(data) if is_picture(feature) else data, dtype).reshape(shape)
    return array[()] if shape == () else array
