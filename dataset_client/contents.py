"""What an archive holds and where, read from its end alone: nothing is unpacked, and no name or size is believed that
could do harm.

An archive is a zip of stored members, shards first, then what describes them, the manifest last. A member's bytes end
where the next local header begins, or the central directory, so its place follows from the central directory. What is
at that place is trusted once its sha256 is the manifest's, and the manifest once it has the sha256 that the server
announced.
"""

import hashlib
import io
import mmap
import stat
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dataset_client.errors import IntegrityError
from dataset_client.manifest import MANIFEST_FILE, REQUIRED_FILES, SAFE_NAME, files_of, parse_manifest, shards_of

_ENCRYPTED, _SIZES_FOLLOW = 0x1, 0x8
_LOCAL_HEADER = 30
#: Bytes between a member's name and its content: none, or what Zip64 has there. An archive has no other, so that damage
#: of its directory, which no sha256 is over, shows at once.
_EXTRAS = (0, 20)
#: What a manifest and a central directory may have together.
_MAX_TAIL = 320 << 20


@dataclass(frozen=True)
class Wanted:
    """A file that is to come out of an archive: ``at`` is where its bytes start there.

    ``sha256`` in hex; None for the small files of archives whose manifest does not list them: then ``crc32``, the
    zip's own checksum, decides.
    """

    file: str
    bytes: int
    sha256: str | None
    crc32: int
    at: int


@dataclass(frozen=True)
class Contents:
    """What an archive holds; ``manifest_bytes`` are the manifest as it is in there, and ``wanted`` all other files."""

    manifest: dict[str, Any]
    manifest_bytes: bytes
    wanted: tuple[Wanted, ...]


class Tail(io.RawIOBase):
    """An archive as a file of which the end is in memory; who reads before that has more of it fetched.

    ``fetch(start, stop)`` returns the bytes from ``start`` to ``stop``; ``data`` is what is known of the end.
    """

    def __init__(
        self, size: int, fetch: Callable[[int, int], bytes], *, first: int, data: bytes | mmap.mmap = b""
    ) -> None:
        super().__init__()
        self.size = size
        self.data = data
        self._fetch = fetch
        self._first = first
        self._position = 0

    @property
    def start(self) -> int:
        """The first byte of the archive that is in memory."""
        return self.size - len(self.data)

    def between(self, start: int, stop: int) -> bytes:
        """Bytes of the archive; raises `IntegrityError` where more would be needed than an archive's end can have."""
        if start < self.start:
            if self.size - start > _MAX_TAIL:
                raise IntegrityError("the archive's directory and manifest are too large to be any")
            begin = max(0, min(start, self.start - self._first))
            self.data = self._fetch(begin, self.start) + self.data[:]
        return self.data[start - self.start : stop - self.start]

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The offset in the archive that is read next."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset; raises `OSError` for one before the archive's start."""
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if position < 0:
            raise OSError("before the start of the archive")
        self._position = position
        return position

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        stop = self.size if size is None or size < 0 else min(self.size, self._position + size)
        found = self.between(self._position, stop) if self._position < stop else b""
        self._position += len(found)
        return found


def read_contents(tail: Tail, *, dataset_id: str, manifest_sha256: str) -> Contents:
    """Read what an archive holds. Raises `IntegrityError` for a damaged, dangerous or inconsistent archive, and
    `ProtocolError` for a manifest of another format.
    """
    try:
        with zipfile.ZipFile(tail) as opened:
            members, end = opened.infolist(), opened.start_dir
    except (zipfile.BadZipFile, EOFError, ValueError, OverflowError, NotImplementedError, struct.error) as error:
        raise IntegrityError(f"the archive of {dataset_id} is damaged: {error}") from error
    check_members(members, limit=tail.size)
    places = _places(members, end)
    at, described = places[MANIFEST_FILE]
    text = tail.between(at, at + described.file_size)
    if hashlib.sha256(text).hexdigest() != manifest_sha256:
        raise IntegrityError(f"the manifest in the archive of {dataset_id} is not the one that was announced")
    manifest = parse_manifest(text, origin=f"{MANIFEST_FILE} of {dataset_id}")
    return Contents(manifest, text, _wanted(places, manifest, dataset_id))


def check_members(members: Sequence[zipfile.ZipInfo], *, limit: int) -> None:
    """Raise `IntegrityError` unless all are plain flat files, stored, of different names, and ``limit``
    bytes at most together.
    """
    seen: set[str] = set()
    for member in members:
        name = member.orig_filename  # `filename` has been tidied by zipfile already
        kind = stat.S_IFMT(member.external_attr >> 16)
        if not SAFE_NAME.fullmatch(name) or name != member.filename:
            raise IntegrityError(f"the archive has a member with the forbidden name {name!r}")
        if kind not in {0, stat.S_IFREG}:
            raise IntegrityError(f"member {name!r} of the archive is a link or another special file")
        is_stored = member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size
        if not is_stored or member.flag_bits & (_ENCRYPTED | _SIZES_FOLLOW):
            raise IntegrityError(f"member {name!r} of the archive is compressed or encrypted, not stored")
        if name.casefold() in seen:
            raise IntegrityError(f"the archive has two members named {name!r}")
        seen.add(name.casefold())
    if sum(member.file_size for member in members) > limit:
        raise IntegrityError("the archive claims to hold more than its own size")
    if missing := sorted({*REQUIRED_FILES} - {member.filename for member in members}):
        raise IntegrityError(f"the archive lacks {', '.join(missing)}")


def _places(members: Sequence[zipfile.ZipInfo], end: int) -> dict[str, tuple[int, zipfile.ZipInfo]]:
    """Where each member's bytes start, in the archive's order; raises `IntegrityError` where they overlap."""
    ordered = sorted(members, key=lambda member: member.header_offset)
    stops = [member.header_offset for member in ordered[1:]] + [end]
    places = {}
    for member, stop in zip(ordered, stops, strict=True):
        at = stop - member.file_size
        extra = at - member.header_offset - _LOCAL_HEADER - len(member.filename)
        if extra not in _EXTRAS or ordered[0].header_offset:
            raise IntegrityError(f"the archive is damaged: {member.filename!r} is not where it should be")
        places[member.filename] = (at, member)
    return places


def _wanted(
    places: dict[str, tuple[int, zipfile.ZipInfo]], manifest: dict[str, Any], dataset_id: str
) -> tuple[Wanted, ...]:
    """All files but the manifest, as the manifest describes them; raises `IntegrityError` unless they are exactly those
    it lists, in the sizes it says.
    """
    if manifest["dataset_id"] != dataset_id:
        raise IntegrityError(f"the archive of {dataset_id} holds {manifest['dataset_id']!r}")
    others = files_of(manifest)
    listed = {member.file: member for member in (*shards_of(manifest), *(others or ()))}
    present = {name for name in places if name != MANIFEST_FILE and (others is not None or ".tfrecord" in name)}
    if listed.keys() != present:
        missing, extra = sorted(listed.keys() - present), sorted(present - listed.keys())
        raise IntegrityError(f"the archive of {dataset_id} lacks {missing} and has {extra} too many")
    for name, member in listed.items():
        if member.bytes != places[name][1].file_size:
            raise IntegrityError(f"{name} has {places[name][1].file_size} bytes; the manifest says {member.bytes}")
    return tuple(
        Wanted(name, info.file_size, listed[name].sha256 if name in listed else None, info.CRC, at)
        for name, (at, info) in places.items()
        if name != MANIFEST_FILE
    )
