"""Half-downloaded archives: kept for whoever resumes them, written by one process at a time.

``<sha256>.part`` waits for anyone; ``<sha256>.<owner>.part`` belongs to a running download. A rename claims
the first kind, and as only one of several renames of a file succeeds, a part has one writer. Whoever comes
too late starts a part of his own.
"""

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dataset_client.concurrency import check_stop
from dataset_client.workspace import cache_errors, is_abandoned, new_owner_name

_BLOCK = 1 << 20
_STALE_AFTER_S = 7 * 24 * 3600.0


class Part:
    """The first ``size`` bytes of an archive in a file that this process owns, and their running sha256."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.size = 0
        self._file = file
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The sha256 of all bytes so far, in hex."""
        return self._digest.hexdigest()

    def take_over(self, stop: threading.Event) -> None:
        """Hash what an earlier run left in the file, so that it can be continued. Blocking."""
        with cache_errors(self.path):
            self._file.seek(0)
            while block := self._file.read(_BLOCK):
                check_stop(stop)
                self._digest.update(block)
                self.size += len(block)

    def write(self, block: bytes) -> None:
        """Append ``block``; raises `CacheError` if the disk is full."""
        with cache_errors(self.path):
            self._file.write(block)
        self._digest.update(block)
        self.size += len(block)

    def restart(self) -> None:
        """Forget all bytes."""
        with cache_errors(self.path):
            self._file.seek(0)
            self._file.truncate()
        self._digest = hashlib.sha256()
        self.size = 0

    def flush(self) -> None:
        """Hand all bytes to the operating system, so that the file can be opened by name."""
        with cache_errors(self.path):
            self._file.flush()


def waiting_bytes(downloads: Path, sha256: str) -> int:
    """How many bytes of the archive are there to resume from."""
    for path in _claimable(downloads, sha256):
        with contextlib.suppress(OSError):
            return path.stat().st_size
    return 0


@contextlib.contextmanager
def claim_part(downloads: Path, sha256: str) -> Iterator[Part]:
    """A part of the archive with this sha256, claimed or new.

    It is left for others to resume when the block raises, and removed when it is empty or the block ends
    well: by then it has been unpacked.
    """
    own = downloads / f"{sha256}.{new_owner_name()}.part"
    for path in _claimable(downloads, sha256):
        with contextlib.suppress(OSError):  # somebody else was faster
            os.utime(path)  # first, or an old part under our name would look abandoned to others
            path.rename(own)
            break
    with cache_errors(own):
        file = own.open("r+b" if own.exists() else "w+b")
    part = Part(own, file)
    try:
        yield part
    except BaseException:
        with contextlib.suppress(OSError):  # a full disk may refuse the last bytes
            file.close()
        with contextlib.suppress(OSError):
            if own.stat().st_size:
                own.rename(downloads / f"{sha256}.part")
            else:
                own.unlink()
        raise
    file.close()
    own.unlink(missing_ok=True)


def remove_stale(downloads: Path) -> None:
    """Remove parts that nobody has continued for a week: their archives have likely been replaced."""
    for path in list(downloads.glob("*.part")):
        with contextlib.suppress(OSError):  # claimed or removed meanwhile
            if time.time() - path.stat().st_mtime > _STALE_AFTER_S:
                path.unlink()


def _claimable(downloads: Path, sha256: str) -> list[Path]:
    """The parts that may be claimed, the longest first."""
    found = []
    for path in downloads.glob(f"{sha256}.*part"):
        owner = path.name.removeprefix(f"{sha256}.").removesuffix("part").removesuffix(".")
        if not owner or is_abandoned(path, owner):
            with contextlib.suppress(OSError):
                found.append((path.stat().st_size, path))
    return [path for _, path in sorted(found, reverse=True)]
