"""Examples as our handlers, and TensorFlow's writers, lay them out: found without a walk over every field.

::

    Example  = 0A length Entry*
    Entry    = 0A length (0A length name) (12 length Feature)
    Feature  = nothing | 0A length BytesList | 12 length FloatList | 1A length Int64List
    BytesList = (0A length bytes)*        FloatList, Int64List = nothing | 0A length numbers

Lengths are varints. Other orders and forms, which the format allows as well, are left to `example_proto`, which reads
all of them; so no message that is refused here is an error yet.
"""

from typing import NamedTuple

NOTHING, BYTES, FLOATS, INTEGERS = 0, 0x0A, 0x12, 0x1A
_ITEM, _VALUE = 0x0A, 0x12
_KINDS = frozenset({BYTES, FLOATS, INTEGERS})


class OtherFormError(Exception):
    """The message is laid out in another way, or malformed; never leaves the readers."""


class Spot(NamedTuple):
    """Where the list of a feature lies in its record: ``kind``, and the positions ``begin`` ≤ ``end``."""

    kind: int
    begin: int
    end: int


def locate(data: bytes) -> dict[bytes, Spot]:
    """The lists of an Example by name, UTF-8 as it is; raises `OtherFormError`."""
    spots: dict[bytes, Spot] = {}
    try:
        position, stop = _chunk(data, 0, _ITEM, len(data))
        if stop != len(data):
            raise OtherFormError
        while position < stop:
            position, after = _chunk(data, position, _ITEM, stop)
            name, position = _chunk(data, position, _ITEM, after)
            key = data[name:position]
            begin, end = _chunk(data, position, _VALUE, after)
            kind = NOTHING
            if begin < end:
                kind = data[begin]
                begin, inner = _chunk(data, begin, kind, end)
                if inner != end or kind not in _KINDS:
                    raise OtherFormError
            if end != after or key in spots:
                raise OtherFormError
            spots[key] = Spot(kind, begin, end)
            position = after
    except IndexError:
        raise OtherFormError from None
    return spots


def strings(data: bytes, spot: Spot) -> list[tuple[int, int]]:
    """Begin and end of each byte string of a BytesList, or of nothing; raises `OtherFormError`."""
    if spot.kind not in {BYTES, NOTHING}:
        raise OtherFormError
    found, position = [], spot.begin
    try:
        while position < spot.end:
            begin, position = _chunk(data, position, _ITEM, spot.end)
            found.append((begin, position))
    except IndexError:
        raise OtherFormError from None
    return found


def packed(data: bytes, spot: Spot, kind: int) -> tuple[int, int]:
    """Begin and end of the packed numbers of a FloatList or an Int64List (``kind``), or of nothing; raises
    `OtherFormError`.
    """
    if spot.begin == spot.end and spot.kind in {kind, NOTHING}:
        return spot.begin, spot.begin
    if spot.kind != kind:
        raise OtherFormError
    try:
        begin, end = _chunk(data, spot.begin, _ITEM, spot.end)
    except IndexError:
        raise OtherFormError from None
    if end != spot.end:
        raise OtherFormError
    return begin, end


def _chunk(data: bytes, position: int, tag: int, limit: int) -> tuple[int, int]:
    """Begin and end of the payload after ``tag`` and its length; `IndexError` past the last byte."""
    if data[position] != tag:
        raise OtherFormError
    length = data[position + 1]
    position += 2
    if length > 0x7F:
        length &= 0x7F
        for shift in range(7, 63, 7):
            byte = data[position]
            position += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        else:
            raise OtherFormError
    if position + length > limit:
        raise OtherFormError
    return position, position + length
