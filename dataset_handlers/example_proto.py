"""``tf.train.Example`` in protocol buffer wire format, without protobuf.

::

    Example   { 1: Features }
    Features  { 1: repeated entry { 1: name, 2: Feature } }
    Feature   { 1: BytesList | 2: FloatList | 3: Int64List }
    BytesList { 1: repeated bytes }    FloatList { 1: packed float32 }    Int64List { 1: packed varint }

Names are written in sorted order, so that equal examples are equal bytes.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence

from .errors import CorruptShardError

Values = Sequence[bytes] | Sequence[int] | Sequence[float]

_BYTES, _FLOAT, _INT64 = 1, 2, 3
_MASK = 0xFFFFFFFFFFFFFFFF


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, parts: Sequence[bytes]) -> list[bytes]:
    """A field around the ``parts`` of its payload: they are joined once, at the end, for photos are long."""
    return [bytes((number << 3 | 2,)), _varint(sum(map(len, parts))), *parts]


def _feature(values: Values) -> list[bytes]:
    if not values:
        return []
    if isinstance(values[0], bytes):
        return _field(_BYTES, [part for value in values for part in _field(1, (value,))])  # type: ignore[arg-type]
    if isinstance(values[0], float):
        return _field(_FLOAT, _field(1, (struct.pack(f"<{len(values)}f", *values),)))
    return _field(_INT64, _field(1, [_varint(int(value) & _MASK) for value in values]))


def encode_example(features: Mapping[str, Values]) -> bytes:
    """Serialise lists of bytes, floats (stored as float32) or integers (int64) by name. An empty list has no kind."""
    entries: list[bytes] = []
    for name in sorted(features):
        entries += _field(1, [*_field(1, (name.encode(),)), *_field(2, _feature(features[name]))])
    return b"".join(_field(1, entries))


def decode_example(data: bytes) -> dict[str, list[bytes] | list[float] | list[int]]:
    """Read a serialised Example, packed or not; raises `CorruptShardError` for anything else."""
    try:
        decoded: dict[str, list[bytes] | list[float] | list[int]] = {}
        for _, features in _fields(data):
            for _, entry in _fields(_message(features)):
                parts = dict(_fields(_message(entry)))
                decoded[_message(parts[1]).decode()] = _decode_feature(_message(parts.get(2, b"")))
    except (IndexError, KeyError, ValueError, struct.error) as error:
        raise CorruptShardError(f"not a tf.train.Example: {error}") from error
    return decoded


def _decode_feature(data: bytes) -> list[bytes] | list[float] | list[int]:
    for kind, payload in _fields(data):
        items = [value for _, value in _fields(_message(payload))]
        if kind == _BYTES:
            return [_message(item) for item in items]
        if kind == _FLOAT:
            packed = b"".join(item if isinstance(item, bytes) else struct.pack("<I", item) for item in items)
            return list(struct.unpack(f"<{len(packed) // 4}f", packed))
        if kind == _INT64:
            return [
                value - (1 << 64) if value >> 63 else value
                for item in items
                for value in (_varints(item) if isinstance(item, bytes) else (item,))
            ]
        raise ValueError(f"a feature of kind {kind}")
    return []


def _message(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where a message belongs")  # noqa: TRY004 - bytes are wrong, not a call
    return value


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value & _MASK, position
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than ten bytes")


def _varints(data: bytes) -> Iterator[int]:
    position = 0
    while position < len(data):
        value, position = _read_varint(data, position)
        yield value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers with their payload: bytes, or the bare number of a varint or 32-bit field."""
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = _read_varint(data, position)
            yield number, value
        elif wire == 5:
            yield number, struct.unpack_from("<I", data, position)[0]
            position += 4
        elif wire == 2:
            length, position = _read_varint(data, position)
            if position + length > len(data):
                raise ValueError("a field longer than its message")
            yield number, data[position : position + length]
            position += length
        else:
            raise ValueError(f"wire type {wire}")
