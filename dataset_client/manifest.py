"""The manifest of an archive: read, checked, and compared with a directory.

``manifest.json``::

    {"format": 1, "dataset_id", "dataset_name", "handler": {…}, "config": effective config,
     "splits": {split: {"examples": int, "shards": int}},
     "shards": [{"file", "split", "examples", "bytes", "sha256"}, …],      in order
     "files": [{"file", "bytes", "sha256"}, …],       all others but the manifest; absent from archives of before
     "statistics": {…}, "quarantine": [{"key", "reason"}, …], "provenance": {…}}
"""

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dataset_client.concurrency import check_stop
from dataset_client.errors import CacheError, IntegrityError, ProtocolError
from dataset_client.workspace import write_atomically

MANIFEST_FILE = "manifest.json"
FEATURES_FILE = "features.json"
#: What every archive has besides its shards.
REQUIRED_FILES = (MANIFEST_FILE, FEATURES_FILE, "dataset_info.json")
#: File names that are safe in any directory: flat, printable, not hidden.
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,254}")
FORMAT = 1
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Member:
    """One file of an archive; ``sha256`` in hex."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Kept(Member):
    """A file as the cache has installed it; what tells that it is the same file still: ``inode`` and ``mtime_ns``, 0
    where that was not noted.
    """

    inode: int = 0
    mtime_ns: int = 0

    @classmethod
    def at(cls, path: Path, sha256: str) -> "Kept":
        """The file at ``path``, which has been verified; raises `OSError`."""
        found = path.stat()
        return cls(path.name, found.st_size, sha256, found.st_ino, found.st_mtime_ns)


@dataclass(frozen=True)
class Shard(Member):
    """One TFRecord file of a split."""

    split: str
    examples: int


def parse_manifest(text: str | bytes, *, origin: str) -> dict[str, Any]:
    """Read a manifest; ``origin`` names it in errors.

    Raises `IntegrityError` for what is no consistent manifest and `ProtocolError` for a format of another
    version.
    """
    try:
        manifest = json.loads(text)
        found = manifest["format"]
        if found != FORMAT:
            raise ProtocolError(
                f"{origin} has format {found!r}; this client reads format {FORMAT}",
                remedy="Install the version of remote-dataset-pipeline that the server has.",
            )
        shards, others = shards_of(manifest), files_of(manifest) or ()
        splits = {
            str(name): (int(split["examples"]), int(split["shards"])) for name, split in manifest["splits"].items()
        }
        _ = manifest["dataset_id"], manifest["dataset_name"], manifest["config"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{origin} is not a manifest: {type(error).__name__}: {error}") from error
    if len({member.file for member in (*shards, *others)}) != len(shards) + len(others):
        raise IntegrityError(f"{origin} lists a file twice")
    for name, (examples, count) in splits.items():
        own = [shard for shard in shards if shard.split == name]
        if (sum(shard.examples for shard in own), len(own)) != (examples, count):
            raise IntegrityError(f"{origin} contradicts itself about split {name!r}")
    if unknown := {shard.split for shard in shards} - splits.keys():
        raise IntegrityError(f"{origin} has shards of splits it does not list: {sorted(unknown)}")
    checked: dict[str, Any] = manifest
    return checked


def shards_of(manifest: Mapping[str, Any]) -> tuple[Shard, ...]:
    """The shards in order; raises `ValueError`, `KeyError` or `TypeError` if they are malformed."""
    return tuple(_shard(entry) for entry in manifest["shards"])


def files_of(manifest: Mapping[str, Any]) -> tuple[Member, ...] | None:
    """What else is in the archive besides shards and manifest; None if the manifest, of an earlier server, does not
    say. Raises as `shards_of` does.
    """
    if "files" not in manifest:
        return None
    return tuple(Member(str(entry["file"]), int(entry["bytes"]), str(entry["sha256"])) for entry in manifest["files"])


def _shard(entry: Mapping[str, Any]) -> Shard:
    file = str(entry["file"])
    if not SAFE_NAME.fullmatch(file) or file in REQUIRED_FILES:
        raise ValueError(f"{file!r} cannot be the name of a shard")
    return Shard(file, int(entry["bytes"]), str(entry["sha256"]), str(entry["split"]), int(entry["examples"]))


def load_manifest(directory: Path) -> dict[str, Any]:
    """Read the manifest of an unpacked archive; raises as `parse_manifest` does, also if there is none."""
    path = directory / MANIFEST_FILE
    try:
        text = path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error.strerror}") from error
    return parse_manifest(text, origin=str(path))


def sidecar_of(directory: Path) -> Path:
    """Where the cache notes beside ``directory`` what it unpacked there (see cache.py)."""
    return directory.with_name(f"{directory.name}.json")


def members_of(directory: Path, manifest: Mapping[str, Any]) -> Sequence[Member]:
    """What should be in ``directory``: the files that the cache unpacked there, or for a directory from elsewhere the
    shards, which are all that a manifest vouches for.
    """
    with contextlib.suppress(OSError, ValueError):  # there is none, or it is somebody else's
        return recorded_members(json.loads(sidecar_of(directory).read_bytes()))
    return shards_of(manifest)


def recorded_members(sidecar: Any) -> Sequence[Member]:
    """The ``members`` of a sidecar; raises `ValueError` if it has none."""
    try:
        return [_kept(entry) for entry in sidecar["members"]]
    except (KeyError, TypeError) as error:
        raise ValueError("it does not say what was unpacked") from error


def _kept(entry: Mapping[str, Any]) -> Kept:
    identity = int(entry.get("inode", 0)), int(entry.get("mtime_ns", 0))
    return Kept(str(entry["file"]), int(entry["bytes"]), str(entry["sha256"]), *identity)


def find_faults(directory: Path, members: Sequence[Member], stop: threading.Event | None = None) -> list[str]:
    """What of an unpacked archive is missing or damaged; [] if all is well. What else lies there is no fault.

    Sizes are always compared. Hashed are the small files that everything hangs on, and what is not the very file that
    the cache installed (`Kept`), because it was copied, restored or changed since. Where that came out well, and the
    cache can be written, it is noted, so that it is not done every time.
    """
    recorded = {member.file for member in members}
    faults = [f"{name} is missing" for name in REQUIRED_FILES if not (name in recorded or (directory / name).is_file())]
    has_changed = False
    for member in members:
        is_other = isinstance(member, Kept) and not _is_same(directory, member)
        has_changed |= is_other
        has_doubt = is_other or member.file in REQUIRED_FILES
        fault = content_fault(directory, member, stop) if has_doubt else _size_fault(directory, member)
        faults += [fault] if fault else []
    if has_changed and not faults:
        _note_again(directory, members)
    return faults


def _is_same(directory: Path, member: Kept) -> bool:
    """Whether a file is the one that was installed, as far as its inode and its time of change tell."""
    try:
        return Kept.at(directory / member.file, member.sha256) == member
    except OSError:
        return False


def _note_again(directory: Path, members: Sequence[Member]) -> None:
    """Note which files were just found right; left undone in a cache that cannot be written."""
    sidecar = sidecar_of(directory)
    with contextlib.suppress(OSError, ValueError, CacheError):
        kept = [asdict(Kept.at(directory / member.file, member.sha256)) for member in members]
        fields = json.loads(sidecar.read_bytes()) | {"members": kept}
        times = sidecar.stat()
        write_atomically(sidecar, json.dumps(fields, indent=2), scratch=directory.parent.parent / "tmp")
        os.utime(sidecar, ns=(times.st_atime_ns, times.st_mtime_ns))  # which says when it was installed


def content_fault(directory: Path, member: Member, stop: threading.Event | None = None) -> str | None:
    """What is wrong with the file that should be ``member``, down to the last bit; None if nothing is.

    Raises `StoppedError` once ``stop`` is set.
    """
    if fault := _size_fault(directory, member):
        return fault
    try:
        sha256 = _sha256_of(directory / member.file, stop)
    except OSError as error:
        return f"{member.file} cannot be read: {error.strerror}"
    return None if sha256 == member.sha256 else f"{member.file} has sha256 {sha256}, not {member.sha256}"


def _sha256_of(path: Path, stop: threading.Event | None) -> str:
    digest, block = hashlib.sha256(), memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            if stop is not None:
                check_stop(stop)
            digest.update(block[:count])
    return digest.hexdigest()


def _size_fault(directory: Path, member: Member) -> str | None:
    try:
        size = (directory / member.file).stat().st_size
    except OSError:
        return f"{member.file} is missing"
    return None if size == member.bytes else f"{member.file} has {size} bytes, not {member.bytes}"
