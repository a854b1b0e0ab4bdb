"""Reading archives again, to find what has rotted before somebody needs it.

The whole file is compared with its sha256, and each shard with its own, which says what part of it is bad. The page
cache is dropped first, since it would show what was written, not what the disk has.
"""

import contextlib
import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .background import StoppedError
from .store.schema import Shard

_CHUNK = 1 << 20
#: What a disk or file system says of data it cannot give back, some of them on Linux only, and of what is no file. Any
#: other failure – too many open files, no memory, no right – may pass, and says nothing of the archive.
ROT = frozenset(
    getattr(errno, name, errno.EIO) for name in ("EIO", "EUCLEAN", "EBADMSG", "ENODATA", "EILSEQ", "EISDIR")
)


@dataclass(frozen=True)
class Finding:
    """What is wrong with an archive: ``rotten`` lists the shards whose bytes are not theirs, if it is any of these."""

    code: str  # archive_missing, archive_rotten, archive_unreadable
    message: str
    rotten: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As the reason why a dataset was evicted."""
        return {"code": self.code, "message": self.message}


def read_again(
    path: Path,
    size: int,
    sha256: str,
    shards: Sequence[Shard],
    bytes_per_second: float,
    stop: threading.Event,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> Finding | None:
    """Read an archive of ``size`` bytes at no more than ``bytes_per_second``; what is wrong with it, or None.

    ``shards`` are its own, in the order of their offsets. ``on_bytes`` hears how many bytes were read, chunk by chunk.
    Raises `StoppedError`, and `OSError` for what may pass; data that the disk cannot give back is a finding.
    """
    whole, parts, part = hashlib.sha256(), [hashlib.sha256() for _ in shards], 0
    position, started = 0, time.monotonic()
    try:
        with path.open("rb", buffering=0) as file:
            _forget(file.fileno())
            while chunk := file.read(_CHUNK):
                whole.update(chunk)
                while part < len(parts) and (shards[part].offset or 0) < position + len(chunk):
                    parts[part].update(_within(chunk, position, shards[part]))
                    if (shards[part].offset or 0) + shards[part].bytes > position + len(chunk):
                        break  # it goes on in the next chunk
                    part += 1
                position += len(chunk)
                on_bytes(len(chunk))
                early = started + position / bytes_per_second - time.monotonic()
                if stop.wait(max(0.0, early)):
                    raise StoppedError
            _forget(file.fileno())
    except FileNotFoundError:
        return Finding("archive_missing", f"{path.name} is not there any more")
    except OSError as error:
        if error.errno not in ROT:
            raise
        return Finding("archive_rotten", f"{path.name} cannot be read: {error.strerror} at byte {position}")
    if position == size and whole.hexdigest() == sha256:
        return None
    bad = tuple(shard.file for shard, digest in zip(shards, parts, strict=True) if digest.hexdigest() != shard.sha256)
    where = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "") or "its headers or metadata"
    return Finding("archive_rotten", f"{path.name} is not what was published: {where}", bad)


def _within(chunk: bytes, position: int, shard: Shard) -> memoryview:
    """The part of a chunk, which starts at ``position``, that belongs to a shard."""
    start = shard.offset or 0
    first, last = max(start, position), min(start + shard.bytes, position + len(chunk))
    return memoryview(chunk)[first - position : max(first, last) - position]


def _forget(descriptor: int) -> None:
    """Drop what the page cache holds of a file; only a hint."""
    with contextlib.suppress(AttributeError, OSError):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
