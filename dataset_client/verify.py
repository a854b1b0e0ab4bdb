"""Which part of a damaged file is damaged, as far as the file itself can tell.

TFRecord files have a checksum in each record (the layout is in `readers.tfrecord`), which is weaker than sha256 but
says where the damage is, so that only that is fetched again.
"""

import os
import struct

import google_crc32c

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


def broken_records(descriptor: int, size: int) -> list[tuple[int, int]]:
    """The spans of the records of an open TFRecord file whose checksums do not hold; [] if all do.

    Where a record's length is damaged, nothing after it can be found: the last span is then that header, and the rest
    is to be looked at again once that is mended.
    """
    broken, offset = list[tuple[int, int]](), 0
    while offset < size:
        header = os.pread(descriptor, _HEADER.size, offset)
        length, checksum = _HEADER.unpack(header) if len(header) == _HEADER.size else (size, 0)
        end = offset + _HEADER.size + length + _FOOTER.size
        if end > size or _masked(header[:8]) != checksum:
            return [*broken, (offset, min(offset + _HEADER.size, size))]
        data = os.pread(descriptor, length + _FOOTER.size, offset + _HEADER.size)
        view = data[:length]
        if _FOOTER.unpack(data[length:]) != (_masked(view),):
            broken.append((offset, end))
        offset = end
    return broken


def _masked(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
