"""Backups: the database, the settings, and where wanted the archives, as one folder that can be verified.

::

    backup.json       {"format": 1, "made_at", "database_revision", "files": {name: {"bytes", "sha256"}}, "left_out"}
    server.db         the database as it was at one moment
    settings.json     the settings in force, secrets masked: to read, not to load
    environments/...  what versions were found to mean, and what is locked for each (`dataset_server.environments`)
    archives/...      archives, and the lists of their raw files, as they are in the data folder

``files`` lists all of them but ``backup.json`` itself; times are seconds since the epoch. Raw data is never in a
backup, nor are environments and unfinished builds: these are made again, environments from the very packages that are
locked. A backup appears under its name when it is complete; restoring makes a data folder the same way. In a folder
that is there already, and empty, what makes it one appears last: ``backup.json``, or the database.
"""

import contextlib
import hashlib
import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from .archive_folder import ArchiveFolder
from .durable import publish_folder
from .migrations import head, is_known
from .models import in_words
from .scrub import ROT
from .store.inspection import copy_database, inspect_database, mark_evicted, ready_archives

_CHUNK = 1 << 20
DATABASE = "server.db"
_MANIFEST = "backup.json"
_SETTINGS = "settings.json"
_ARCHIVES = "archives"
_ENVIRONMENTS = "environments"
#: The files that say what versions mean, and are locked to.
_KNOWN_VERSIONS = ("version-*.json", "reference-*.json")
#: What a file of a backup may be called: never a path to elsewhere.
_Name = Annotated[str, StringConstraints(pattern=r"^((archives|environments)/)?[A-Za-z0-9][A-Za-z0-9._+-]{0,254}$")]


class BackupError(Exception):
    """The backup cannot be made, or is none that can be restored here."""


class _UnreadableError(BackupError):
    """What is to be copied cannot be read; ``number`` is the error's."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{path} cannot be read: {error.strerror}")
        self.number = error.errno


class File(BaseModel):
    """A file of a backup: its size, and the sha256 of its content in hex."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """What is in a backup; ``left_out`` names the datasets that had archives which are not in it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = Field(ge=1)
    made_at: float
    database_revision: str
    files: dict[_Name, File]
    left_out: list[str]


@dataclass(frozen=True)
class Made:
    """A backup that was made; ``rotten`` names archives that are not what they were, or whose disk cannot read them."""

    manifest: Manifest
    rotten: list[str]


def back_up(
    database: Path,
    settings: str,
    target: Path,
    environments: Path,
    archives: ArchiveFolder | None,
) -> Made:
    """Make a backup at ``target``, which must not exist or be empty; a server may be using all that is copied.

    Without ``archives`` all of them are left out; one that is evicted meanwhile, or has rotted, is left out too. Raises
    `BackupError`.
    """
    with _appearing(target, last=_MANIFEST) as folder:
        try:
            copy_database(database, folder / DATABASE)
            inspection = inspect_database(folder / DATABASE)
        except (sqlite3.Error, SQLAlchemyError) as error:
            raise BackupError(f"the database {database} cannot be copied: {error}") from error
        if inspection.faults:
            raise BackupError(f"the database {database} is damaged: {'; '.join(inspection.faults[:3])}")
        if inspection.revision != head():
            raise BackupError(
                f"the database is at revision {inspection.revision}, this server's is {head()}: make the backup with "
                "the dataset-server that wrote it"
            )
        (folder / _SETTINGS).write_text(settings)
        files = {name: _measure(folder / name) for name in (DATABASE, _SETTINGS)}
        (folder / _ENVIRONMENTS).mkdir()
        for path in sorted(path for pattern in _KNOWN_VERSIONS for path in environments.glob(pattern)):
            name = f"{_ENVIRONMENTS}/{path.name}"
            with contextlib.suppress(FileNotFoundError):  # somebody wants it found out anew
                _copy(path, folder / name)
                files[name] = _measure(folder / name)
        left_out, rotten = [], []
        (folder / _ARCHIVES).mkdir()
        for archive in ready_archives(folder / DATABASE):
            try:
                kept = _keep(archives.archive(archive.dataset_id, archive.revision), folder) if archives else {}
            except _UnreadableError as error:
                if error.number not in ROT:
                    raise
                rotten.append(archive.dataset_id)
                continue
            if not kept:
                left_out.append(archive.dataset_id)
            elif next(iter(kept.values())) == File(bytes=archive.bytes, sha256=archive.sha256):
                files.update(kept)
            else:
                rotten.append(archive.dataset_id)
                _drop(folder, kept)
        manifest = Manifest(
            format=1, made_at=time.time(), database_revision=head(), files=files, left_out=left_out + rotten
        )
        (folder / _MANIFEST).write_text(manifest.model_dump_json(indent=2))
    return Made(manifest, rotten)


def restore(source: Path, data_dir: Path) -> Manifest:
    """Make a data folder of the backup at ``source``; ``data_dir`` must not exist, or be empty.

    Every file is verified while it is copied. Datasets whose archives are not in the backup are marked, so that they
    are made again when somebody asks. Raises `BackupError`.
    """
    manifest = _read_manifest(source)
    with _appearing(data_dir, last=DATABASE) as folder:
        for name in (_ARCHIVES, _ENVIRONMENTS):
            (folder / name).mkdir()
        for name, file in manifest.files.items():
            try:
                _copy(source / name, folder / name)
            except FileNotFoundError as error:
                raise BackupError(f"{source / name} is missing: the backup is not complete") from error
            if _measure(folder / name) != file:
                raise BackupError(f"{source / name} is not what was backed up: the backup has rotted; take another")
        (folder / _SETTINGS).unlink()
        mark_evicted(folder / DATABASE, manifest.left_out)
    return manifest


def _read_manifest(source: Path) -> Manifest:
    try:
        manifest = Manifest.model_validate_json((source / _MANIFEST).read_bytes())
    except OSError as error:
        raise BackupError(f"{source} is no backup: {_MANIFEST} cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise BackupError(f"{source / _MANIFEST} is not understood: {in_words(error)}") from error
    if manifest.format != 1 or not is_known(manifest.database_revision):
        raise BackupError(
            f"{source} was made by a later server (format {manifest.format}, database revision "
            f"{manifest.database_revision}; this one knows up to 1 and {head()}): restore it with that version"
        )
    if not {DATABASE, _SETTINGS} <= manifest.files.keys():
        raise BackupError(f"{source / _MANIFEST} names no database: this is no backup of ours")
    return manifest


@contextlib.contextmanager
def _appearing(target: Path, last: str) -> Iterator[Path]:
    """A folder to fill, which becomes ``target`` when the context ends well, and is removed otherwise.

    Where ``target`` is there already, it may be all that this user can write to, or a disk of its own: then what was
    made is moved into it, the file ``last`` at the end.
    """
    target, partial_name = target.absolute(), f".{target.name}.{uuid.uuid4().hex}.partial"
    try:
        is_there = target.is_dir()
        if target.exists() and not (is_there and next(target.iterdir(), None) is None):
            raise BackupError(f"{target} is not empty; name a folder that does not exist yet")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target / partial_name if is_there else target.with_name(partial_name)
        partial.mkdir(mode=0o700)  # the database holds what tokens are known by, and who asked for what
    except OSError as error:
        raise BackupError(f"{target} cannot be written: {error}") from error
    try:
        yield partial
        if is_there:
            for path in sorted(partial.iterdir(), key=lambda path: path.name == last):
                publish_folder(path, target / path.name)
        else:
            publish_folder(partial, target)
    except OSError as error:
        raise BackupError(f"{target} cannot be made: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _keep(archive: Path, folder: Path) -> dict[str, File]:
    """Take an archive, and after it the list of its raw files; what they are now, by name. Nothing if it is gone.

    Raises `_UnreadableError` where one of them cannot be read; then neither stays.
    """
    paths = {f"{_ARCHIVES}/{path.name}": path for path in (archive, archive.with_suffix(".sources.jsonl"))}
    kept: dict[str, File] = {}
    try:
        for name, path in paths.items():
            kept[name] = _take(path, folder / name)
    except FileNotFoundError:  # the archive, or only the list: there may be none
        _drop(folder, paths.keys() - kept.keys())
    except _UnreadableError:
        _drop(folder, paths)
        raise
    return kept


def _drop(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _take(source: Path, target: Path) -> File:
    """Give a file a second name, or where that cannot be, copy it; what it is now.

    Raises `FileNotFoundError`, `_UnreadableError`, and `OSError` for what cannot be written.
    """
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or one without hard links
        _copy(source, target)
        return _measure(target)
    with _reading(source):
        return _measure(target)


def _copy(source: Path, target: Path) -> None:
    """Copy a file and its times: what a version was found to mean was so at that time. Raises as `_take` does."""
    with _reading(source):
        times = source.stat()
    with target.open("wb") as out:
        out.writelines(_chunks(source))
    os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))


def _chunks(source: Path) -> Iterator[bytes]:
    with _reading(source), source.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


@contextlib.contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Tell what cannot be read from what cannot be written; a file that is not there is a case of its own."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _UnreadableError(source, error) from error


def _measure(path: Path) -> File:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return File(bytes=file.tell(), sha256=digest.hexdigest())
