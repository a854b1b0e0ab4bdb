"""`tf.train.Example` by hand: what goes in comes out, and garbage is called so."""

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_handlers.errors import CorruptShardError
from dataset_handlers.example_proto import decode_example, encode_example

INT64 = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, -1, 1, 127, 128, 2**63 - 1, -(2**63), 2**32])
FLOAT32 = st.floats(width=32, allow_nan=False)
VALUES = st.lists(st.binary(max_size=200), max_size=5) | st.lists(INT64, max_size=8) | st.lists(FLOAT32, max_size=8)


@given(st.dictionaries(st.text(max_size=20), VALUES, max_size=6))
def test_round_trip(features):
    assert decode_example(encode_example(features)) == features


@given(st.lists(st.floats(width=32), min_size=1))
def test_floats_keep_their_bits(values):
    decoded = decode_example(encode_example({"x": values}))["x"]
    assert [math.isnan(value) for value in decoded] == [math.isnan(value) for value in values]
    kept = [struct.pack("<f", value) for value in decoded if not math.isnan(value)]
    assert kept == [struct.pack("<f", value) for value in values if not math.isnan(value)]


def test_bytes_written_out_by_hand():
    # Example{1: Features{1: entry{1: "a", 2: Feature{3: Int64List{1: packed [1, -1]}}}}}
    minus_one = b"\xff" * 9 + b"\x01"
    packed = b"\x0a\x0b\x01" + minus_one
    feature = b"\x1a" + bytes([len(packed)]) + packed
    entry = b"\x0a\x01a" + b"\x12" + bytes([len(feature)]) + feature
    features = b"\x0a" + bytes([len(entry)]) + entry
    expected = b"\x0a" + bytes([len(features)]) + features
    assert encode_example({"a": [1, -1]}) == expected
    assert decode_example(expected) == {"a": [1, -1]}


def test_names_are_sorted_so_that_equal_examples_are_equal_bytes():
    assert encode_example({"b": [1], "a": [b"x"]}) == encode_example({"a": [b"x"], "b": [1]})


def test_values_of_one_example_may_be_of_all_kinds():
    boxes = [0.0, 0.25, 1.0, 0.5] * 3
    example = {"boxes": boxes, "category": [b"dog", b"", "grün".encode()], "cluster": [-7], "raw": [bytes(300)]}
    assert decode_example(encode_example(example)) == example
    assert decode_example(encode_example(example | {"boxes": [], "category": []})) == example | {
        "boxes": [],
        "category": [],
    }


def nested(kind, payload):
    def field(number, data):
        return bytes([number << 3 | 2, len(data)]) + data

    return field(1, field(1, field(1, b"x") + field(2, field(kind, payload))))


def test_unpacked_lists_are_read():
    minus_one = b"\xff" * 9 + b"\x01"
    assert decode_example(nested(3, b"\x08\x05" + b"\x08" + minus_one + b"\x08\x80\x01")) == {"x": [5, -1, 128]}
    floats = b"".join(b"\x0d" + struct.pack("<f", value) for value in (1.5, -2.0))
    assert decode_example(nested(2, floats)) == {"x": [1.5, -2.0]}
    mixed = b"\x08\x05" + b"\x0a\x02\x06\x07"  # packed and unpacked in one list are allowed
    assert decode_example(nested(3, mixed)) == {"x": [5, 6, 7]}


def test_empty_lists_and_examples():
    assert (
        decode_example(nested(1, b"")) == decode_example(nested(2, b"")) == decode_example(nested(3, b"")) == {"x": []}
    )
    assert decode_example(encode_example({"x": []})) == {"x": []}
    assert decode_example(b"") == decode_example(encode_example({})) == {}


def test_a_varint_beyond_64_bits_stays_an_int64():
    (value,) = decode_example(nested(3, b"\x08" + b"\xff" * 9 + b"\x7f"))["x"]
    assert value == -1  # as protocol buffers do: what is above 64 bits is dropped
    with pytest.raises(CorruptShardError, match="ten bytes"):
        decode_example(nested(3, b"\x08" + b"\xff" * 10 + b"\x01"))


def check_garbage(data):
    try:
        decoded = decode_example(data)
    except CorruptShardError:
        return
    for values in decoded.values():
        assert all(isinstance(value, bytes | float) or -(2**63) <= value < 2**63 for value in values)


@given(st.binary(max_size=200))
def test_garbage_is_nothing_but_a_corrupt_shard(data):
    check_garbage(data)


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_example_is_nothing_but_a_corrupt_shard(data):
    whole = bytearray(encode_example({"a": [b"bytes", b""], "b": [1, -1, 2**62], "c": [0.5, -1.0]}))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    check_garbage(bytes(whole[: data.draw(st.integers(0, len(whole)))]))


@pytest.mark.parametrize("kind", [1, 2, 3])
@given(payload=st.binary(max_size=60))
def test_damaged_lists_are_nothing_but_a_corrupt_shard(kind, payload):
    check_garbage(nested(kind, payload))


def test_every_truncation_of_an_example_is_an_error_or_fewer_features():
    whole = encode_example({"a": [b"xyz"], "b": [7]})
    for length in range(1, len(whole)):
        with pytest.raises(CorruptShardError):
            decode_example(whole[:length])
