"""Unpacking an archive: no byte is trusted that was not hashed, and nothing is written outside the
directory.
"""

import hashlib
import os
import stat
import threading
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from dataset_client.concurrency import check_stop
from dataset_client.errors import IntegrityError
from dataset_client.manifest import (
    MANIFEST_FILE,
    REQUIRED_FILES,
    SAFE_NAME,
    Member,
    Shard,
    parse_manifest,
    shards_of,
)
from dataset_client.workspace import cache_errors, fsync_directory

_BLOCK = 1 << 20
_ENCRYPTED = 0x1
_MAX_MANIFEST_BYTES = 256 << 20


def unpack(
    stop: threading.Event, archive: Path, directory: Path, *, dataset_id: str
) -> tuple[dict[str, Any], list[Member]]:
    """Unpack ``archive`` into the empty ``directory``, verify all of it, fsync it, and return the manifest and what
    was written.

    Blocking. Raises `IntegrityError` for a damaged, dangerous or inconsistent archive, `ProtocolError` for
    a manifest of another format and `CacheError` if the disk is full or ``archive`` cannot be read. After an
    error the directory's contents mean nothing.
    """
    written = list[Member]()
    try:
        with cache_errors(archive), zipfile.ZipFile(archive) as opened:
            members = {member.filename: member for member in opened.infolist()}
            check_members(opened.infolist(), limit=archive.stat().st_size)
            manifest = parse_manifest(opened.read(MANIFEST_FILE), origin=f"manifest.json of {dataset_id}")
            shards = {shard.file: shard for shard in shards_of(manifest)}
            check_contents(members.keys(), manifest, dataset_id=dataset_id)
            for name, member in members.items():
                with opened.open(member) as source:
                    written.append(_write(stop, source, directory / name))
                if name in shards:
                    check_shard(shards[name], written[-1])
    except (zipfile.BadZipFile, EOFError) as error:
        raise IntegrityError(f"the archive of {dataset_id} is damaged: {error}") from error
    with cache_errors(directory):
        fsync_directory(directory)
    return manifest, written


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
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & _ENCRYPTED:
            raise IntegrityError(f"member {name!r} of the archive is compressed or encrypted, not stored")
        if name.casefold() in seen:
            raise IntegrityError(f"the archive has two members named {name!r}")
        seen.add(name.casefold())
    if sum(member.file_size for member in members) > limit:
        raise IntegrityError("the archive claims to hold more than its own size")
    if missing := [name for name in REQUIRED_FILES if name not in seen]:
        raise IntegrityError(f"the archive lacks {', '.join(missing)}")
    manifest_size = next(member.file_size for member in members if member.filename == MANIFEST_FILE)
    if manifest_size > _MAX_MANIFEST_BYTES:
        raise IntegrityError(f"the archive's manifest has {manifest_size} bytes")


def check_contents(names: Iterable[str], manifest: dict[str, Any], *, dataset_id: str) -> None:
    """Raise `IntegrityError` unless the manifest is this dataset's and the shards are exactly those it
    lists.
    """
    if manifest["dataset_id"] != dataset_id:
        raise IntegrityError(f"the archive of {dataset_id} holds {manifest['dataset_id']!r}")
    listed = {shard.file for shard in shards_of(manifest)}
    present = {name for name in names if ".tfrecord" in name}
    if listed != present:
        missing, extra = sorted(listed - present), sorted(present - listed)
        raise IntegrityError(f"the archive of {dataset_id} lacks the shards {missing} and has {extra} too many")


def check_shard(shard: Shard, member: Member) -> None:
    """Raise `IntegrityError` unless ``member``, as it was unpacked, is what the manifest says."""
    if (member.bytes, member.sha256) != (shard.bytes, shard.sha256):
        raise IntegrityError(
            f"{shard.file} has {member.bytes} bytes with sha256 {member.sha256}; "
            f"the manifest says {shard.bytes} with {shard.sha256}"
        )


def _write(stop: threading.Event, source: Any, path: Path) -> Member:
    """Copy one member to ``path``, hashing on the way, and fsync it."""
    digest, size = hashlib.sha256(), 0
    with cache_errors(path):
        target: BinaryIO = path.open("xb")
    with target:
        while block := source.read(_BLOCK):
            check_stop(stop)
            digest.update(block)
            size += len(block)
            with cache_errors(path):
                target.write(block)
        with cache_errors(path):
            target.flush()
            os.fsync(target.fileno())
    return Member(path.name, size, digest.hexdigest())
