"""One file of a dataset while its bytes arrive, in any order and from several threads.

Beside it a journal says which bytes have arrived: a line ``start stop`` for each block, written after it. It is a hint
for whoever goes on after an interruption, however that came: the sha256 of the whole decides.
"""

import contextlib
import hashlib
import os
import shutil
import threading
import zlib
from pathlib import Path

from dataset_client.contents import Wanted
from dataset_client.spans import Spans
from dataset_client.verify import broken_records
from dataset_client.workspace import cache_errors, new_owner_name

_BLOCK = 1 << 20


class WorkFile:
    """``wanted`` in the making at ``path``, with its journal at ``journal``.

    ``sha256`` is known once it is complete. Its hash is taken of the bytes as they come where they come in order, and
    read back from the page cache where they do not.
    """

    def __init__(self, wanted: Wanted, path: Path, journal: Path) -> None:
        self.wanted = wanted
        self.path = path
        self.sha256 = ""
        self._journal = journal
        self._lock = threading.Lock()
        self._descriptor = self._journal_descriptor = -1
        self._is_hashing = False
        self.spans = self._found()
        self._start_hashing()

    def missing(self) -> list[tuple[int, int]]:
        """The spans that have not arrived."""
        with self._lock:
            return self.spans.missing(0, self.wanted.bytes)

    def arrived(self) -> int:
        """How many bytes are here."""
        with self._lock:
            return self.spans.total

    def take(self, source: Path) -> None:
        """Be what ``source`` is, a file that may be just this one: as another name of it where the file system can do
        that, else as a copy. Raises `OSError`.
        """
        self.path.unlink(missing_ok=True)
        try:
            os.link(source, self.path)
        except FileNotFoundError:
            raise
        except OSError:  # no links here, or too many, or not of other users' files
            shutil.copyfile(source, self.path)
        self._journal.unlink(missing_ok=True)
        if self.path.stat().st_size != self.wanted.bytes or not os.access(self.path, os.W_OK):
            copy = self._journal.with_name(new_owner_name())  # another name of it would be changed, or could not be
            shutil.copyfile(self.path, copy)
            copy.replace(self.path)
        self.spans = Spans([(0, min(self.path.stat().st_size, self.wanted.bytes))])
        self._journal.write_text("".join(f"{start} {stop}\n" for start, stop in self.spans))

    def write(self, offset: int, block: memoryview) -> bool:
        """Store ``block``; whether that completed the file, so that the caller is the one to `verify` it.

        Raises `CacheError`, for example if the disk is full.
        """
        self._open()
        with cache_errors(self.path):
            written = 0
            while written < len(block):
                written += os.pwrite(self._descriptor, block[written:], offset + written)
            os.write(self._journal_descriptor, b"%d %d\n" % (offset, offset + len(block)))
        return self._hash_on(offset, block)

    def resume(self) -> bool:
        """Hash what is here already; whether it is complete."""
        self._open()
        return self._hash_on(0, memoryview(b""))

    def verify(self) -> bool:
        """Whether a complete file is right; then it is on the disk for good, and closed. Raises `CacheError`."""
        self.sha256 = self._digest.hexdigest()
        with cache_errors(self.path):
            if self.wanted.sha256 is None:
                is_right = self._crc32() == self.wanted.crc32
            else:
                is_right = self.sha256 == self.wanted.sha256
            if is_right:
                os.fsync(self._descriptor)
                self.close()
        return is_right

    def forget_damage(self, *, all_of_it: bool) -> list[tuple[int, int]]:
        """Forget the bytes that the file's own checksums show to be wrong, or all; returns what is missing now, which
        is nothing if all checksums hold.
        """
        self._make_own()
        size = self.wanted.bytes
        is_whole = all_of_it or ".tfrecord" not in self.path.name
        with cache_errors(self.path):
            broken = [(0, size)] if is_whole else broken_records(self._descriptor, size)
            with self._lock:
                for start, stop in broken:
                    self.spans.remove(start, stop)
                lines = "".join(f"{start} {stop}\n" for start, stop in self.spans)
            os.ftruncate(self._journal_descriptor, 0)
            os.write(self._journal_descriptor, lines.encode())
        self._start_hashing()
        return self.missing()

    def close(self) -> None:
        """Close it; writing opens it again."""
        for descriptor in (self._descriptor, self._journal_descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._journal_descriptor = -1

    def _found(self) -> Spans:
        """What an earlier run has left, as its journal says; never more than there is."""
        spans = Spans()
        with contextlib.suppress(OSError):
            if self.path.stat().st_nlink > 1 and not self._journal.exists():
                self.path.unlink()  # a name of another dataset's file, through which nobody shall write
            size = min(self.path.stat().st_size, self.wanted.bytes)
            for line in self._journal.read_bytes().split(b"\n")[:-1]:  # what has no end was cut off
                with contextlib.suppress(ValueError):
                    start, stop = map(int, line.split())
                    spans.add(max(0, start), min(stop, size))
        return spans

    def _start_hashing(self) -> None:
        self._digest = hashlib.sha256()
        self._frontier = 0
        self._is_complete = False

    def _open(self) -> None:
        with self._lock, cache_errors(self.path):
            if self._descriptor < 0:
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._journal_descriptor = os.open(self._journal, flags, 0o666)
                if os.fstat(self._descriptor).st_size != self.wanted.bytes:
                    os.ftruncate(self._descriptor, self.wanted.bytes)

    def _make_own(self) -> None:
        """Be a copy where the file has another name too: what is mended here may be in use there."""
        with cache_errors(self.path):
            if self.path.stat().st_nlink > 1:
                self.close()
                copy = self._journal.with_name(new_owner_name())
                shutil.copyfile(self.path, copy)
                copy.replace(self.path)
        self._open()

    def _hash_on(self, offset: int, block: memoryview) -> bool:
        """Hash as far as bytes have come without a gap; whether this call came to the end of the file.

        One thread at a time hashes a file; the others leave their blocks to it.
        """
        with self._lock:
            self.spans.add(offset, offset + len(block))
            if self._is_hashing or self._is_complete:
                return False
            self._is_hashing = True
        try:
            while True:
                with self._lock:
                    start = self._frontier
                    stop = min(self.spans.end_of(start), start + _BLOCK)
                    if stop == start:
                        self._is_hashing = False
                        self._is_complete = start == self.wanted.bytes
                        return self._is_complete
                is_here = offset <= start < offset + len(block)
                with cache_errors(self.path):
                    chunk = block[start - offset :] if is_here else os.pread(self._descriptor, stop - start, start)
                if not chunk:  # cut off by somebody: what is hashed so far will not do
                    chunk = bytes(stop - start)
                self._digest.update(chunk)
                self._frontier = start + len(chunk)
        except BaseException:
            self._is_hashing = False
            raise

    def _crc32(self) -> int:
        crc32 = 0
        for offset in range(0, self.wanted.bytes, _BLOCK):
            crc32 = zlib.crc32(os.pread(self._descriptor, _BLOCK, offset), crc32)
        return crc32
