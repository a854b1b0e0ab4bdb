"""Backups: the database, the settings, and where wanted the archives, as one folder that can be verified.

::

    backup.json       {"format": 1, "made_at", "database_revision", "files": {name: {"bytes", "sha256"}}, "left_out"}
    server.db         the database as it was at one moment
    settings.json     the settings in force, secrets masked: to read, not to load
    archives/...      archives, and the lists of their raw files, as they are in the data folder

``files`` lists all of them but ``backup.json`` itself; times are seconds since the epoch. Raw data is never in a
backup, nor are environments and unfinished builds: these are made again. A backup appears under its name when it is
complete; restoring makes a data folder the same way.
"""

import contextlib
import hashlib
import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from .durable import publish_folder
from .migrations import head, is_known
from .models import in_words
from .store.inspection import copy_database, inspect_database, mark_evicted, ready_archives

DATABASE = "server.db"
_MANIFEST = "backup.json"
_SETTINGS = "settings.json"
_ARCHIVES = "archives"
_CHUNK = 1 << 20
#: What a file of a backup may be called: never a path to elsewhere.
_Name = Annotated[str, StringConstraints(pattern=r"^(archives/)?[A-Za-z0-9][A-Za-z0-9._+-]{0,254}$")]


class BackupError(Exception):
    """The backup cannot be made, or is none that can be restored here."""


class File(BaseModel):
    """A file of a backup: its size, and the sha256 of its content in hex."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """What is in a backup; ``left_out`` names the datasets that were ready, but whose archives are not in it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = Field(ge=1)
    made_at: float
    database_revision: str
    files: dict[_Name, File]
    left_out: list[str]


@dataclass(frozen=True)
class Made:
    """A backup that was made; ``rotten`` names archives that are not what they were when they were published."""

    manifest: Manifest
    rotten: list[str]


def back_up(
    database: Path,
    settings: str,
    target: Path,
    archive_path: Callable[[str, int], Path] | None,
) -> Made:
    """Make a backup at ``target``, which must not exist; a server may be using the database and the archives.

    ``archive_path`` says where the archive of a dataset's revision is; None leaves all archives out. One that is
    evicted meanwhile, or has rotted, is left out too. Raises `BackupError`.
    """
    with _appearing(target) as folder:
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
        left_out, rotten = [], []
        (folder / _ARCHIVES).mkdir()
        for archive in ready_archives(folder / DATABASE):
            kept = _keep(archive_path(archive.dataset_id, archive.revision), folder) if archive_path else {}
            if not kept:
                left_out.append(archive.dataset_id)
            elif next(iter(kept.values())) == File(bytes=archive.bytes, sha256=archive.sha256):
                files.update(kept)
            else:
                rotten.append(archive.dataset_id)
                for name in kept:
                    (folder / name).unlink()
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
    with _appearing(data_dir) as folder:
        (folder / _ARCHIVES).mkdir()
        for name, file in manifest.files.items():
            try:
                shutil.copyfile(source / name, folder / name)
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
def _appearing(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``target`` when the context ends well, and is removed otherwise."""
    if target.exists() and not (target.is_dir() and next(target.iterdir(), None) is None):
        raise BackupError(f"{target} is not empty; name a folder that does not exist yet")
    partial = target.absolute().with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir(mode=0o700)  # the database holds what tokens are known by, and who asked for what
        yield partial
        publish_folder(partial, target.absolute())
    except OSError as error:
        raise BackupError(f"{target} cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _keep(archive: Path, folder: Path) -> dict[str, File]:
    """Take an archive, and after it the list of its raw files; what they are now, by name. Nothing if it is gone."""
    kept = {}
    for path in (archive, archive.with_suffix(".sources.jsonl")):
        name = f"{_ARCHIVES}/{path.name}"
        if _link_or_copy(path, folder / name):
            kept[name] = _measure(folder / name)
        elif path == archive:
            break
    return kept


def _link_or_copy(source: Path, target: Path) -> bool:
    """Give a file a second name, or where that cannot be, copy it; False if it is not there."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        return False
    except OSError:  # another disk, or one without hard links
        try:
            shutil.copyfile(source, target)
        except FileNotFoundError:
            return False
    return True


def _measure(path: Path) -> File:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return File(bytes=file.tell(), sha256=digest.hexdigest())
