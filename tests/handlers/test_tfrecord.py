"""Framing: known bytes, and no damage goes unseen."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_handlers.errors import CorruptShardError
from dataset_handlers.tfrecord import frame, masked_crc32c, read_records


def crc32c_bit_by_bit(data):
    """CRC-32C by its definition (RFC 3720, appendix B.4): reflected polynomial 0x82f63b78."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(crc):
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32


def test_the_reference_agrees_with_the_standard():
    # RFC 3720, B.4
    assert crc32c_bit_by_bit(bytes(32)) == 0x8A9136AA
    assert crc32c_bit_by_bit(b"\xff" * 32) == 0x62A8AB43
    assert crc32c_bit_by_bit(b"123456789") == 0xE3069283


@pytest.mark.parametrize("data", [b"", b"\0", b"123456789", bytes(32), b"\xff" * 32, bytes(range(256)) * 3])
def test_frame_is_what_the_format_says(data):
    length = struct.pack("<Q", len(data))
    expected = length + struct.pack("<I", masked(crc32c_bit_by_bit(length)))
    expected += data + struct.pack("<I", masked(crc32c_bit_by_bit(data)))
    assert frame(data) == expected


@given(st.binary(max_size=300))
def test_the_mask_can_be_undone(data):
    rotated = (masked_crc32c(data) - 0xA282EAD8) % 2**32
    assert (rotated >> 17 | rotated << 15 & 0xFFFFFFFF) == crc32c_bit_by_bit(data)


def read(path, data):
    path.write_bytes(data)
    return list(read_records(path))


def test_records_come_back(tmp_path):
    records = [b"", b"a", bytes(1000), b"end"]
    assert read(tmp_path / "x", b"".join(map(frame, records))) == records
    assert read(tmp_path / "x", b"") == []


def test_every_truncation_is_detected(tmp_path):
    records = [b"first", b"", b"the third record"]
    data = b"".join(map(frame, records))
    ends = [0, len(frame(records[0])), len(frame(records[0])) + len(frame(records[1])), len(data)]
    for length in range(len(data) + 1):
        if length in ends:  # indistinguishable from a shorter file: the manifest's counts and sha256 are for that
            assert read(tmp_path / "x", data[:length]) == records[: ends.index(length)]
        else:
            with pytest.raises(CorruptShardError, match="damaged"):
                read(tmp_path / "x", data[:length])


def test_every_flipped_bit_is_detected(tmp_path):
    data = bytearray(frame(b"first") + frame(b"") + frame(b"the third"))
    for bit in range(len(data) * 8):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptShardError):
            read(tmp_path / "x", bytes(data))
        data[bit // 8] ^= 1 << bit % 8


def test_what_was_read_before_the_damage_counts_and_nothing_after(tmp_path):
    data = bytearray(frame(b"first") + frame(b"second") + frame(b"third"))
    data[len(frame(b"first")) + 13] ^= 1
    (tmp_path / "x").write_bytes(data)
    reader = read_records(tmp_path / "x")
    assert next(reader) == b"first"
    with pytest.raises(CorruptShardError, match=f"at byte {len(frame(b'first'))}"):
        next(reader)


def test_an_absurd_length_is_refused_before_it_is_allocated(tmp_path):
    length = struct.pack("<Q", 1 << 60)
    with pytest.raises(CorruptShardError, match="1152921504606846976"):
        read(tmp_path / "x", length + struct.pack("<I", masked_crc32c(length)))
