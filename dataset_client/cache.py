"""The local cache: the contents of archives, and which of them answers which request.

::

    <cache_dir>/datasets/<dataset id>-<16 hex of the archive's sha256>/      exactly the archive's contents
    <cache_dir>/datasets/<dataset id>-<16 hex of the archive's sha256>.json  its sidecar: id, sha256, bytes, when it
                                                                             was installed, and name, bytes, sha256
                                                                             of each file with its inode and time of
                                                                             change
    <cache_dir>/topics/<topic id>.json                                       a request, and its revision
    <cache_dir>/downloads/                                                   see claim.py
    <cache_dir>/shards/                                                      see shards.py
    <cache_dir>/uses/                                                        see uses.py
    <cache_dir>/tmp/                                                         see workspace.py

(Ids here are without their ``.zip``.) A directory's name holds the hash of its contents, so a new revision
of a dataset appears beside the old one, whose readers are not disturbed, and what stands under a name never
changes. A directory counts from the moment its sidecar exists.

Several users share a cache whose directory is theirs as a group, with the set-group-id bit and a umask of 002. Who
cannot write to a cache can use what is in it.
"""

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dataset_client.answers import Archive
from dataset_client.claim import remove_ended
from dataset_client.concurrency import StoppedError
from dataset_client.errors import CacheError, DatasetClientError, IntegrityError
from dataset_client.manifest import Kept, Member, find_faults, load_manifest, recorded_members, sidecar_of
from dataset_client.request import DatasetRequest
from dataset_client.uses import hold, release
from dataset_client.workspace import (
    cache_errors,
    file_system_time,
    fsync_directory,
    move,
    remove_abandoned,
    write_atomically,
)

_FORMAT = 2


@dataclass(frozen=True)
class Revision:
    """One archive's contents: the dataset's id, the archive's sha256 in hex and its size in bytes."""

    dataset_id: str
    sha256: str
    bytes: int

    @classmethod
    def of(cls, archive: Archive) -> "Revision":
        """The revision that ``archive`` holds."""
        return cls(archive.dataset_id, archive.sha256, archive.bytes)

    @property
    def stem(self) -> str:
        """The name of its directory."""
        return f"{self.dataset_id.removesuffix('.zip')}-{self.sha256[:16]}"


@dataclass(frozen=True)
class CachedDataset:
    """An unpacked archive in which `find_faults` finds none."""

    revision: Revision
    path: Path
    manifest: dict[str, Any]


@dataclass(frozen=True)
class Cache:
    """The cache in ``root``. Looking makes no directory; `prepare` does, and must precede writing.

    What looks for a dataset may have to hash it, which ends with a `StoppedError` once ``stop`` is set.
    """

    root: Path

    @property
    def datasets(self) -> Path:
        """Where the unpacked archives are."""
        return self.root / "datasets"

    @property
    def downloads(self) -> Path:
        """Where downloads are in progress."""
        return self.root / "downloads"

    @property
    def shards(self) -> Path:
        """Where shards are that came before their dataset was ready."""
        return self.root / "shards"

    @property
    def scratch(self) -> Path:
        """Where temporary files and directories are."""
        return self.root / "tmp"

    def prepare(self) -> None:
        """Make the directories and remove what dead runs left; raises `CacheError` if that cannot be done."""
        for directory in (self.datasets, self.root / "topics", self.downloads, self.shards, self.scratch):
            with cache_errors(directory):
                directory.mkdir(parents=True, exist_ok=True)
        with cache_errors(self.scratch):
            remove_abandoned(self.scratch)

    def find(self, revision: Revision, stop: threading.Event | None = None) -> CachedDataset | None:
        """The dataset of exactly this revision, if it is whole."""
        try:
            dataset = self._open(sidecar_of(self.datasets / revision.stem), stop)
        except DatasetClientError:
            return None  # damaged counts as absent: what is absent is fetched again
        return dataset if dataset and dataset.revision == revision else None

    def take(self, revision: Revision, stop: threading.Event | None = None) -> CachedDataset | None:
        """`find`, for who opens it: from now on it is in use by this process, and not evicted.

        What is left of a process that ended between installing it and tidying up goes.
        """
        path, found = self.datasets / revision.stem, None
        is_noted = hold(path)  # first: whoever evicts looks for holders after the dataset has ceased to be found
        try:
            found = self.find(revision, stop)
            if found is not None and not is_noted:  # it has come since
                found, is_noted = None, hold(path)
                found = self.find(revision, stop)
            if stop is not None and stop.is_set():  # nobody hears of it any more
                found = None
                raise StoppedError
        finally:
            if found is None and is_noted:
                release(path)
        if found is not None:
            remove_ended(self.downloads / revision.stem, self.scratch)
            with contextlib.suppress(OSError):  # there is none, or nothing can be removed
                remove_abandoned(self.scratch)
        return found

    def find_for(self, request: DatasetRequest, stop: threading.Event | None = None) -> CachedDataset | None:
        """The dataset that answered this request the last time, if it is complete."""
        revision = self._answer_to(request)
        return self.find(revision, stop) if revision else None

    def take_for(self, request: DatasetRequest, stop: threading.Event | None = None) -> CachedDataset | None:
        """`find_for`, for who opens it, as `take`."""
        revision = self._answer_to(request)
        return self.take(revision, stop) if revision else None

    def remember(self, request: DatasetRequest, revision: Revision) -> None:
        """Note which revision answers ``request``."""
        path = self._topic(request.topic_id)
        fields = {"format": _FORMAT, **asdict(revision), "request": {**asdict(request)}}
        with cache_errors(path):
            write_atomically(path, json.dumps(fields, indent=2), scratch=self.scratch)

    def install(self, unpacked: Path, revision: Revision, members: Sequence[Member]) -> Path:
        """Move a verified directory of ``scratch``, which holds ``members``, to its final name and return that.

        If the name is taken, by another process that was faster or by a damaged copy, each file takes the
        place of its like: their contents are equal by name, so a reader of the old file notices nothing. What else
        is there goes.
        """
        final = self.datasets / revision.stem
        with cache_errors(final):
            try:
                move(unpacked, final)
            except OSError:
                if not final.is_dir():
                    raise
                for file in sorted(unpacked.iterdir()):
                    move(file, final / file.name)
                _remove_others(final, {member.file for member in members})
                fsync_directory(final)
            fsync_directory(self.datasets)
            if faults := find_faults(final, members):
                raise CacheError(f"somebody else changes {final}: {'; '.join(faults)}", remedy="Ask again.")
            kept = [asdict(Kept.at(final / member.file, member.sha256)) for member in members]
            installed = file_system_time(self.scratch)
            sidecar = {"format": _FORMAT, **asdict(revision), "installed": installed, "members": kept}
            write_atomically(sidecar_of(final), json.dumps(sidecar, indent=2), scratch=self.scratch)
        return final

    def paths(self) -> list[Path]:
        """The directories of all datasets, by name; damaged ones too."""
        if not self.datasets.is_dir():
            return []
        return [sidecar.with_suffix("") for sidecar in sorted(self.datasets.glob("*.json"))]

    def entries(self) -> Iterator[CachedDataset | IntegrityError]:
        """All datasets by name; an `IntegrityError` in the place of one that is damaged."""
        for path in self.paths():
            try:
                dataset = self._open(sidecar_of(path))
            except DatasetClientError as error:
                yield IntegrityError(f"{path.name}: {error.message}")
                continue
            if dataset is not None:
                yield dataset

    def copies_of(self, wanted: Mapping[str, tuple[str, int]]) -> dict[str, Path]:
        """Files of the cache that should be the same as the ``wanted`` ones (sha256 and bytes by name), by that name;
        whether they are is to be seen.
        """
        found = dict[tuple[str, int], Path]()
        for path in self.paths():
            with contextlib.suppress(ValueError):
                for member in recorded_members(read_note(sidecar_of(path))):
                    found[member.sha256, member.bytes] = path / member.file
        for sha256, size in wanted.values():
            found.setdefault((sha256, size), self.shards / sha256)
        here = {name: (found[file], file[1]) for name, file in wanted.items()}
        return {name: path for name, (path, size) in here.items() if _has_size(path, size)}

    def _answer_to(self, request: DatasetRequest) -> Revision | None:
        return revision_of(read_note(self._topic(request.topic_id)))

    def _topic(self, topic_id: str) -> Path:
        return self.root / "topics" / f"{topic_id}.json"

    def _open(self, sidecar: Path, stop: threading.Event | None = None) -> CachedDataset | None:
        """What a sidecar stands for; None if there is no such sidecar, `IntegrityError` if its directory is
        damaged.
        """
        fields = read_note(sidecar)
        revision = revision_of(fields)
        if revision is None:
            return None
        path = self.datasets / revision.stem
        manifest = load_manifest(path)
        try:
            members = recorded_members(fields)
        except ValueError as error:
            raise IntegrityError(f"{sidecar}: {error}") from error
        if faults := find_faults(path, members, stop):
            raise IntegrityError("; ".join(faults))
        return CachedDataset(revision, path, manifest)


def _remove_others(directory: Path, names: set[str]) -> None:
    """Remove what has none of these names."""
    for path in list(directory.iterdir()):
        if path.name not in names:
            with contextlib.suppress(OSError):  # NFS keeps what is open under a name that cannot be removed
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def read_note(path: Path) -> Mapping[str, Any]:
    """A small file of ours; empty if it is absent or not ours."""
    with contextlib.suppress(OSError, ValueError):
        fields = json.loads(path.read_bytes())
        if isinstance(fields, dict) and fields.get("format") == _FORMAT:
            return fields
    return {}


def revision_of(fields: Mapping[str, Any]) -> Revision | None:
    """The revision that a note is about; None if it says of none."""
    dataset_id, sha256, size = fields.get("dataset_id"), fields.get("sha256"), fields.get("bytes")
    if not isinstance(dataset_id, str) or not isinstance(sha256, str) or not isinstance(size, int):
        return None
    if os.sep in dataset_id or not sha256.isalnum():
        return None
    return Revision(dataset_id, sha256, size)


def installed_at(path: Path, fields: Mapping[str, Any] | None = None) -> float:
    """When the dataset at ``path`` was installed, by the file system's clock then; where that was not noted, as earlier
    versions did not, when its sidecar was written. ``fields`` is what that says, if it is known. Raises `OSError`.
    """
    sidecar = sidecar_of(path)
    noted = (read_note(sidecar) if fields is None else fields).get("installed")
    return noted if isinstance(noted, float) else sidecar.stat().st_mtime
