"""Writing a zip whose members are stored, with fixed times and without going back: what is written is final.

The layout (APPNOTE.TXT 6.3, 4.3 and 4.5.3), all numbers little-endian::

    for each member   local header  "PK\\3\\4", version needed, flags 0, method 0 (stored), time, date, CRC-32,
                                    size, size, length of name, length of extra, name, extra
                      its bytes
    for each member   central header  "PK\\1\\2", version made by (Unix), version needed, flags, method, time, date,
                                    CRC-32, size, size, lengths of name, extra and comment, disk 0, internal
                                    attributes 0, external attributes (mode 0644), offset of its local header, name,
                                    extra
    end               "PK\\6\\6" and "PK\\6\\7" (Zip64) where a number does not fit, then "PK\\5\\6"

Numbers above 2**31 - 1 stand in a Zip64 extra field, as Python's `zipfile` does it: the bytes are equal to those of
`zipfile`, which earlier servers used. It writes a member's CRC-32 after its bytes, though, into the header before
them, so that nobody can hash what it writes while it is written. Here the CRC-32 is known first.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

_LIMIT = (1 << 31) - 1
_DATE = 1 << 5 | 1  # 1 January 1980, midnight
_UNIX = 3
_MODE = 0o644 << 16
_PLAIN, _ZIP64 = 20, 45  # version 2.0, and 4.5 for Zip64
_FULL = 0xFFFFFFFF


@dataclass(frozen=True)
class Member:
    """A file in the zip: ``header_at`` is where its local header starts. The name is ASCII."""

    name: str
    size: int
    crc32: int
    header_at: int

    def local_header(self) -> bytes:
        """What comes before its bytes."""
        name, extra, size, version = self.name.encode("ascii"), b"", self.size, _PLAIN
        if self.size > _LIMIT:
            extra, size, version = struct.pack("<HHQQ", 1, 16, self.size, self.size), _FULL, _ZIP64
        fixed = struct.pack(
            "<4s2B4HL2L2H", b"PK\3\4", version, 0, 0, 0, 0, _DATE, self.crc32, size, size, len(name), len(extra)
        )
        return fixed + name + extra

    def central_header(self) -> bytes:
        """Its entry at the end."""
        name, size, header_at, large = self.name.encode("ascii"), self.size, self.header_at, []
        if self.size > _LIMIT:
            large += [self.size, self.size]
            size = _FULL
        if self.header_at > _LIMIT:
            large.append(self.header_at)
            header_at = _FULL
        extra = struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        version = _ZIP64 if large else _PLAIN
        return (
            struct.pack(
                "<4s4B4HL2L5H2L",
                *(b"PK\1\2", version, _UNIX, version, 0, 0, 0, 0, _DATE, self.crc32, size, size),
                *(len(name), len(extra), 0, 0, 0, _MODE, header_at),
            )
            + name
            + extra
        )


class StoredZip:
    """A zip that is being written through ``write``, from its first byte to its last."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._members: list[Member] = []
        self.size = 0

    def begin(self, name: str, size: int, crc32: int) -> int:
        """Write the header of the next member, whose ``size`` bytes go to `add` now; return where these start."""
        member = Member(name, size, crc32, self.size)
        self._members.append(member)
        self.add(member.local_header())
        return self.size

    def add(self, data: bytes) -> None:
        """Write bytes of the current member."""
        self._write(data)
        self.size += len(data)

    def finish(self) -> None:
        """Write what comes after the last member."""
        start = self.size
        for member in self._members:
            self.add(member.central_header())
        self.add(end_records(len(self._members), self.size - start, start))


def end_records(count: int, size: int, start: int) -> bytes:
    """The end of a zip of ``count`` members whose central directory has ``size`` bytes from ``start`` on."""
    records = b""
    if count > 0xFFFF or start > _LIMIT or size > _LIMIT:
        records += struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
        records += struct.pack("<4sLQL", b"PK\6\7", 0, start + size, 1)
        count, size, start = min(count, 0xFFFF), min(size, _FULL), min(start, _FULL)
    return records + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, start, 0)
