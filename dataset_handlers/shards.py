"""Writing one shard, and what is known of it once it is sealed.

A shard is *sealed* when its file is complete, on disk and under its final name, and a record beside it (in ``sealed/``)
says so; whoever resumes a build trusts nothing else.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .files import atomic_file, read_json, write_json
from .plan import PlannedShard
from .statistics import add
from .tfrecord import frame


@dataclass(frozen=True)
class Lineage:
    """Where examples came from: sample ``key``, its ``examples`` in the shard, raw files as (path, sha256)."""

    key: str
    examples: int
    files: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class SealedShard:
    """What is known of a finished shard. ``samples_sha256`` ties it to the plan it was made from."""

    number: int
    file: str
    split: str
    examples: int
    bytes: int
    sha256: str
    samples_sha256: str
    counters: dict[str, int] = field(default_factory=dict)
    quarantine: tuple[tuple[str, str], ...] = ()  # (key, reason)
    quarantined_files: tuple[tuple[str, str], ...] = ()  # raw files of these as (path, sha256)
    lineage: tuple[Lineage, ...] = ()

    def announcement(self) -> dict[str, Any]:
        """What the ``shard`` event says of it."""
        return {key: getattr(self, key) for key in ("number", "file", "split", "examples", "bytes", "sha256")}


@dataclass(frozen=True)
class WorkFolder:
    """The folder of one build: ``plan/``, ``sealed/`` (records) and ``dataset/`` (what will be published)."""

    root: Path

    @property
    def plan(self) -> Path:
        """Plan files."""
        return self.root / "plan"

    @property
    def sealed(self) -> Path:
        """One JSON record for each sealed shard."""
        return self.root / "sealed"

    @property
    def dataset(self) -> Path:
        """Shards and metadata: exactly what goes into the archive."""
        return self.root / "dataset"

    def create(self) -> None:
        """Make the folders that are not there."""
        for folder in (self.plan, self.sealed, self.dataset):
            folder.mkdir(parents=True, exist_ok=True)

    def remove_partial(self) -> None:
        """Remove what a process that died left half-written."""
        for folder in (self.plan, self.sealed, self.dataset):
            for path in folder.glob(".*.partial"):
                path.unlink(missing_ok=True)

    def read_sealed(self, shard: PlannedShard) -> SealedShard | None:
        """The record of a shard that is sealed for this plan and still reads back as it was written, or None."""
        try:
            stored = read_json(self.sealed / f"{shard.file}.json")
            for name in ("quarantine", "quarantined_files"):
                stored[name] = tuple((first, second) for first, second in stored[name])
            stored["lineage"] = tuple(
                Lineage(item["key"], item["examples"], tuple((path, sha) for path, sha in item["files"]))
                for item in stored["lineage"]
            )
            record = SealedShard(**stored)
            if record.samples_sha256 != shard.sha256 or record.number != shard.number:
                return None
            with (self.dataset / shard.file).open("rb") as file:
                return record if hashlib.file_digest(file, "sha256").hexdigest() == record.sha256 else None
        except (OSError, ValueError, TypeError, KeyError):
            return None  # no record, or not one of ours: the shard is made again


class ShardWriter:
    """Collects the records of one shard; `seal` makes it visible."""

    def __init__(self, shard: PlannedShard, file: IO[bytes]) -> None:
        self._shard = shard
        self._file = file
        self._sha256 = hashlib.sha256()
        self._bytes = self._examples = 0
        self._counters: dict[str, int] = {}
        self._lineage: list[Lineage] = []
        self._quarantine: list[tuple[str, str]] = []
        self._quarantined_files: list[tuple[str, str]] = []

    def mark(self) -> tuple[int, int, Any]:
        """Where the shard ends now, for `roll_back`."""
        return self._bytes, self._examples, self._sha256.copy()

    def write(self, record: bytes) -> None:
        """Append one serialised example."""
        framed = frame(record)
        self._file.write(framed)
        self._sha256.update(framed)
        self._bytes += len(framed)
        self._examples += 1

    def roll_back(self, mark: tuple[int, int, Any]) -> None:
        """Take back what was written since ``mark``."""
        self._bytes, self._examples, self._sha256 = mark
        self._file.seek(self._bytes)
        self._file.truncate()

    def close_sample(
        self, key: str, mark: tuple[int, int, Any], counters: Mapping[str, int], raw_files: list[tuple[str, str]]
    ) -> None:
        """Note what was written since ``mark`` as made of one sample."""
        add(self._counters, counters)
        self._lineage.append(Lineage(key, self._examples - mark[1], tuple(raw_files)))

    def quarantine(self, key: str, reason: str, raw_files: list[tuple[str, str]]) -> None:
        """List a sample that could not be used, and what was read to find that out."""
        self._quarantine.append((key, reason))
        self._quarantined_files += raw_files

    def record(self) -> SealedShard:
        """What the shard holds so far."""
        return SealedShard(
            number=self._shard.number,
            file=self._shard.file,
            split=self._shard.split,
            examples=self._examples,
            bytes=self._bytes,
            sha256=self._sha256.hexdigest(),
            samples_sha256=self._shard.sha256,
            counters=dict(sorted(self._counters.items())),
            quarantine=tuple(self._quarantine),
            quarantined_files=tuple(self._quarantined_files),
            lineage=tuple(self._lineage),
        )


def seal(work: WorkFolder, shard: PlannedShard, fill: Callable[[ShardWriter], None]) -> SealedShard:
    """Make a shard: ``fill(writer)`` adds its samples; then the file and, after it, its record appear whole."""
    with atomic_file(work.dataset / shard.file) as file:
        writer = ShardWriter(shard, file)
        fill(writer)
    record = writer.record()
    # `asdict` would copy every string of every sample.
    lineage = [vars(item) for item in record.lineage]
    write_json(work.sealed / f"{shard.file}.json", vars(record) | {"lineage": lineage})
    return record


_SPLIT_IN_NAME = re.compile(r"-([a-z][a-z0-9_]*)\.tfrecord")


def split_of_file(name: str) -> str:
    """The split a shard's file name tells, ``train`` if it tells none."""
    match = _SPLIT_IN_NAME.search(name)
    return match[1] if match else "train"
