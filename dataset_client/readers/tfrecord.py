"""The TFRecord file format. A file is a sequence of records, with nothing before, between or after:

=======  ==========================================================
bytes    what
=======  ==========================================================
8        length of the data, uint64 little-endian
4        masked CRC-32C of those 8 bytes, uint32 little-endian
length   data
4        masked CRC-32C of the data, uint32 little-endian
=======  ==========================================================

``masked(crc) = ((crc >> 15 | crc << 17) + 0xa282ead8) mod 2**32``: a CRC over data that itself holds CRCs
is weak, so the stored ones are disguised. CRC-32C is the one with the Castagnoli polynomial (RFC 3720,
B.4).
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from dataset_client.errors import IntegrityError

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


@dataclass(frozen=True)
class Record:
    """One record's data, and the offset in its file at which its header starts."""

    offset: int
    data: bytes


def masked(crc: int) -> int:
    """The stored form of a CRC-32C."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """The CRC-32C of some bytes."""
    crc: int = google_crc32c.value(data)
    return crc


def read_records(path: Path) -> Iterator[Record]:
    """The records of a file in order; raises `IntegrityError` with file and offset where it is damaged."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error.strerror}") from error
    with file:
        size, offset = os.fstat(file.fileno()).st_size, 0
        while header := file.read(_HEADER.size):
            if len(header) < _HEADER.size:
                raise damage(path, offset, "ends within a record's header")
            length, length_crc = _HEADER.unpack(header)
            if masked(crc32c(header[:8])) != length_crc:
                raise damage(path, offset, "has a wrong checksum over a record's length")
            # compared before reading, so that no damage makes us allocate what the file does not have
            end = offset + _HEADER.size + length + _FOOTER.size
            if end > size:
                raise damage(path, offset, f"ends within a record of {length} bytes")
            data = file.read(length)
            footer = file.read(_FOOTER.size)
            if len(data) < length or len(footer) < _FOOTER.size:
                raise damage(path, offset, f"ends within a record of {length} bytes")
            if masked(crc32c(data)) != _FOOTER.unpack(footer)[0]:
                raise damage(path, offset, "has a wrong checksum over a record's data")
            yield Record(offset, data)
            offset = end


def damage(path: Path, offset: int, what: str) -> IntegrityError:
    """The error that ``what`` is wrong with a file from ``offset`` on."""
    return IntegrityError(f"{path}, offset {offset}: the file {what}", remedy=f"Remove {path.parent} and ask again.")
