"""TFRecord files without TensorFlow.

A file is a sequence of records, nothing else::

    uint64  length of data, little-endian
    uint32  masked CRC-32C of the eight length bytes
    bytes   data
    uint32  masked CRC-32C of data

``masked(crc) = rotate_right(crc, 15) + 0xa282ead8`` modulo 2**32.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c

from .errors import CorruptShardError

_MAX_RECORD = 1 << 31


def masked_crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), rotated and offset as the format wants it."""
    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """One record around ``data``."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", masked_crc32c(length)), data, struct.pack("<I", masked_crc32c(data))))


def read_records(path: Path) -> Iterator[bytes]:
    """Yield the data of each record in order; raises `CorruptShardError` at the first damaged byte."""
    with path.open("rb") as file:
        while header := file.read(12):
            offset = file.tell() - len(header)
            if len(header) < 12 or struct.unpack("<I", header[8:])[0] != masked_crc32c(header[:8]):
                raise CorruptShardError(f"{path.name}: the record header at byte {offset} is damaged")
            (length,) = struct.unpack("<Q", header[:8])
            if length > _MAX_RECORD:
                raise CorruptShardError(f"{path.name}: a record of {length} bytes at byte {offset}")
            data, checksum = file.read(length), file.read(4)
            if len(checksum) < 4 or struct.unpack("<I", checksum)[0] != masked_crc32c(data):
                raise CorruptShardError(f"{path.name}: the record at byte {offset} is damaged")
            yield data
