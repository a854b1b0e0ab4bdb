"""``tf.train.Example`` in Protocol Buffers' wire format, read by hand.

::

    Example   { Features features = 1; }
    Features  { map<string, Feature> feature = 1; }    on the wire: repeated { string key = 1; Feature value = 2; }
    Feature   { oneof { BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3; } }
    BytesList { repeated bytes value = 1; }
    FloatList { repeated float value = 1; }               packed (one chunk of 4-byte numbers) or one by one
    Int64List { repeated int64 value = 1; }               packed (one chunk of varints) or one by one

    message = (tag payload)*       tag = varint of field number << 3 | wire type
    payload = varint                           wire type 0
            | 8 bytes                          wire type 1
            | varint length, then the bytes    wire type 2
            | 4 bytes                          wire type 5
    varint  = 7 bits per byte, lowest first, top bit set in all but the last; at most 10 bytes

As the format demands: unknown fields are skipped, of a map's equal keys the last wins, of a oneof's
different members the last wins, and equal members are merged. Wire types 3 and 4 (groups) do not occur and
are refused.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_VARINT, _FIXED64, _CHUNK, _FIXED32 = 0, 1, 2, 5
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3
_MAX_VARINT_BYTES = 10
_MAX_FIELD_NUMBER = (1 << 29) - 1


@dataclass(frozen=True)
class BytesList:
    """Byte strings."""

    values: tuple[bytes, ...]


@dataclass(frozen=True)
class FloatList:
    """Numbers of float32 precision."""

    values: tuple[float, ...]


@dataclass(frozen=True)
class Int64List:
    """Integers in [-2**63, 2**63 - 1]."""

    values: tuple[int, ...]


Values = BytesList | FloatList | Int64List


def decode_example(data: bytes) -> dict[str, Values | None]:
    """The features of a serialised Example by name, None for one that holds no list; raises `ValueError` if
    it is malformed.
    """
    view = memoryview(data)
    features: dict[str, Values | None] = {}
    for number, payload in _fields(view):
        if number == 1:
            for entry_number, entry in _fields(_chunk(payload)):
                if entry_number == 1:
                    name, values = _map_entry(_chunk(entry))
                    features[name] = values
    return features


def _map_entry(view: memoryview) -> tuple[str, Values | None]:
    name, parts = "", []
    for number, payload in _fields(view):
        if number == 1:
            name = str(_chunk(payload), "utf-8")
        elif number == 2:
            parts.append(_chunk(payload))
    return name, _feature(parts)


def _feature(parts: list[memoryview]) -> Values | None:
    """A Feature whose message came in ``parts``, which mean the same as all of them joined."""
    kind, lists = 0, list[memoryview]()
    for part in parts:
        for number, payload in _fields(part):
            if number in {_BYTES_LIST, _FLOAT_LIST, _INT64_LIST}:
                if number != kind:
                    kind, lists = number, []
                lists.append(_chunk(payload))
    match kind:
        case 1:
            return BytesList(tuple(bytes(_chunk(item)) for item in _values(lists)))
        case 2:
            return FloatList(tuple(number for item in _values(lists) for number in _floats(item)))
        case 3:
            return Int64List(tuple(number for item in _values(lists) for number in _integers(item)))
        case _:
            return None


def _values(lists: list[memoryview]) -> "Iterator[memoryview | int]":
    """The payloads of field 1 of all ``lists``."""
    for view in lists:
        for number, payload in _fields(view):
            if number == 1:
                yield payload


def _floats(payload: "memoryview | int") -> tuple[float, ...]:
    chunk = _chunk(payload)  # a single number has 4 bytes as well, and reads the same
    if len(chunk) % 4:
        raise ValueError(f"{len(chunk)} bytes are no packed floats")
    return struct.unpack(f"<{len(chunk) // 4}f", chunk)


def _integers(payload: "memoryview | int") -> Iterator[int]:
    if isinstance(payload, int):
        yield _signed(payload)
        return
    yield from packed_integers(payload)


def packed_integers(payload: memoryview) -> Iterator[int]:
    """The numbers of a packed Int64List; raises `ValueError` if it is cut off."""
    position = 0
    while position < len(payload):
        number, position = _varint(payload, position)
        yield _signed(number)


def _signed(number: int) -> int:
    number &= 0xFFFFFFFFFFFFFFFF
    return number - (1 << 64) if number >> 63 else number


def _fields(view: memoryview) -> "Iterator[tuple[int, memoryview | int]]":
    """Field numbers and payloads: an int for a varint, the bytes for all others."""
    position = 0
    while position < len(view):
        tag, position = _varint(view, position)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number <= _MAX_FIELD_NUMBER:
            raise ValueError(f"field number {number}")
        if wire_type == _VARINT:
            value, position = _varint(view, position)
            yield number, value
            continue
        if wire_type == _CHUNK:
            length, position = _varint(view, position)
        elif wire_type in {_FIXED64, _FIXED32}:
            length = 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire_type}")
        if length > len(view) - position:
            raise ValueError("the message is cut off")
        yield number, view[position : position + length]
        position += length


def _chunk(payload: "memoryview | int") -> memoryview:
    if isinstance(payload, int):
        raise ValueError("a number where a message should be")  # noqa: TRY004 - the data is wrong, not the caller
    return payload


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    """The varint at ``position``, and the position after it."""
    result = 0
    for index in range(_MAX_VARINT_BYTES):
        if position + index >= len(view):
            raise ValueError("the message is cut off within a number")
        byte = view[position + index]
        result |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return result, position + index + 1
    raise ValueError("a number has more than 10 bytes")
