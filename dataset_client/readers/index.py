"""Any record of a split by its number: an index of offsets for each shard, made when the shard is first read.

A shard's index takes 8 bytes a record, and a fraction of a second per 100,000 records: one read of 12 bytes for each,
from header to header (see `tfrecord`). Reads name their offset (``pread``), so threads and forked processes share open
files without disturbing each other. Pickled, an index takes its names along, neither files nor offsets.
"""

import os
import struct
import weakref
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

from dataset_client.errors import IntegrityError
from dataset_client.readers.tfrecord import crc32c, damage, masked

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_FRAME = _HEADER.size + _FOOTER.size


class RecordIndex:
    """The records of shards, numbered 0, 1, 2 … through all of them in order.

    ``shards`` are files and how many records each holds, by the manifest. ``check_crc=False`` trusts the data of
    records, as may who has hashed the files; lengths are always checked. ``max_open`` shards are kept open, others are
    opened for each read: a process may open 1,024 files on most systems.
    """

    def __init__(self, shards: Sequence[tuple[Path, int]], *, check_crc: bool = True, max_open: int = 256) -> None:
        self._shards = tuple(shards)
        self._check_crc, self._max_open = check_crc, max_open
        self._starts = [0, *accumulate(count for _, count in shards)]
        self._offsets: dict[int, array[int]] = {}
        self._files: dict[int, int] = {}
        weakref.finalize(self, _close, self._files)

    def __len__(self) -> int:
        return self._starts[-1]

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (self._shards, self._check_crc, self._max_open)

    def open(self) -> None:
        """Open the files now, as many as are kept open: who has them open may read on when they lose their names."""
        for shard in range(min(len(self._shards), self._max_open)):
            with self._opened(shard):
                pass

    def read(self, number: int) -> tuple[Path, int, bytes]:
        """File, offset and data of record ``number`` in [0, len); raises `IntegrityError` with file and offset."""
        shard = bisect_right(self._starts, number) - 1
        path, count = self._shards[shard]
        with self._opened(shard) as file:
            offsets = self._offsets.get(shard)
            if offsets is None:  # two threads may make it at once: no harm
                offsets = self._offsets[shard] = self._find_records(file, path, count)
            begin, end = offsets[number - self._starts[shard]], offsets[number - self._starts[shard] + 1]
            frame = os.pread(file, end - begin - _HEADER.size, begin + _HEADER.size)
        if len(frame) < end - begin - _HEADER.size:
            raise damage(path, begin, f"ends within a record of {end - begin - _FRAME} bytes")
        data = frame[: -_FOOTER.size]
        if self._check_crc and masked(crc32c(data)) != _FOOTER.unpack_from(frame, len(data))[0]:
            raise damage(path, begin, "has a wrong checksum over a record's data")
        return path, begin, data

    def _find_records(self, file: int, path: Path, count: int) -> "array[int]":
        """Where each of ``count`` records starts, and where the last one ends."""
        offsets, offset, size = array("Q", [0]), 0, os.fstat(file).st_size
        while header := os.pread(file, _HEADER.size, offset):
            if len(header) < _HEADER.size:
                raise damage(path, offset, "ends within a record's header")
            length, length_crc = _HEADER.unpack(header)
            if masked(crc32c(header[:8])) != length_crc:
                raise damage(path, offset, "has a wrong checksum over a record's length")
            if len(offsets) > count:
                raise damage(path, offset, f"has more than the {count} examples of its manifest")
            if offset + _FRAME + length > size:
                raise damage(path, offset, f"ends within a record of {length} bytes")
            offset += _FRAME + length
            offsets.append(offset)
        if len(offsets) <= count:
            raise damage(path, offset, f"ends after {len(offsets) - 1} of its {count} examples")
        return offsets

    @contextmanager
    def _opened(self, shard: int) -> Iterator[int]:
        """The descriptor of a shard's file; what goes wrong with it is an `IntegrityError`."""
        file, kept = self._files.get(shard), True
        try:
            if file is None:
                file = os.open(self._shards[shard][0], os.O_RDONLY)
                # of two threads that open it at once, the second closes its own again
                kept = len(self._files) < self._max_open and self._files.setdefault(shard, file) == file
            try:
                yield file
            finally:
                if not kept:
                    os.close(file)
        except OSError as error:
            raise IntegrityError(f"{self._shards[shard][0]} cannot be read: {error.strerror}") from error


def _restored(shards: Sequence[tuple[Path, int]], check_crc: bool, max_open: int) -> RecordIndex:
    return RecordIndex(shards, check_crc=check_crc, max_open=max_open)


def _close(files: dict[int, int]) -> None:
    while files:
        os.close(files.popitem()[1])
