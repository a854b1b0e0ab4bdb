"""The published zip: shards in order, then what describes them; stored, with fixed timestamps.

The same inputs give the same bytes, on any machine and at any time.
"""

import contextlib
import hashlib
import json
import os
import threading
import uuid
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from dataset_client.protocol import MalformedConfigError, canonical_json

from .background import StoppedError
from .durable import open_regular, read_bounded, sync_folder
from .errors import HandlerFaultError
from .handler_events import loads_foreign
from .stored_zip import StoredZip

_CHUNK = 1 << 20
_LARGEST_MANIFEST = 64 << 20
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Sealed:
    """What was announced of a shard: its size in bytes, and its sha256."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Published:
    """A finished archive: its size, sha256, manifest (as text), and where each member's bytes start."""

    size: int
    sha256: str
    manifest: str
    offsets: dict[str, int]


def read_manifest(folder: Path) -> Any:
    """The manifest that a handler has left in ``folder``, which may be anything; raises `HandlerFaultError`."""
    path = folder / MANIFEST
    try:
        return loads_foreign(read_bounded(path, _LARGEST_MANIFEST), "a manifest that is no JSON")
    except FileNotFoundError as error:
        raise _lacking(path) from error


def complete_manifest(manifest: Mapping[str, Any], *, dataset_id: str, handler: Mapping[str, str]) -> dict[str, Any]:
    """The handler's manifest with identity and provenance.

    ``provenance.sha256`` is over the canonical JSON of effective config, handler, environment and raw data digest.
    Raises `HandlerFaultError` (``handler_protocol``) for a manifest that lacks something, or cannot be written so.
    """
    try:
        known = {
            "config": manifest["config"],
            "handler": dict(handler),
            "environment": manifest["environment"],
            "raw_data": manifest["raw_data"],
        }
        digest = hashlib.sha256(canonical_json(known).encode()).hexdigest()
        return {
            **manifest,
            "dataset_id": dataset_id,
            "handler": dict(handler),
            "provenance": {"sha256": digest, "raw_data_sha256": manifest["raw_data"]["sha256"]},
        }
    except (LookupError, TypeError, ValueError, RecursionError, MalformedConfigError) as error:
        raise _bad_manifest(error) from error


def publish(
    folder: Path,
    files: Sequence[str],
    manifest: Mapping[str, Any],
    sealed: Mapping[str, Sealed],
    target: Path,
    stop: threading.Event,
) -> Published:
    """Write the archive of ``files`` in ``folder`` to ``target``, atomically; ``manifest`` takes its member's place.

    It lists as its ``files`` what is neither a shard nor itself, with bytes and sha256, so that everything in an
    archive can be checked by the manifest.

    ``sealed`` holds each shard as it was announced; raises `HandlerFaultError` (``shard_corrupt``) where a file reads
    back otherwise, and `StoppedError` soon after ``stop`` is set.

    Each file is read twice in a row, for its CRC-32, which stands before its bytes, and to be copied: the disk is asked
    for it once, and what was written is not read again. The next file is looked at while this one is copied.
    """
    _described(manifest)  # a broken one is noticed before the copying
    partial = target.with_name(f".{uuid.uuid4().hex}.partial")  # the target's name may be as long as names can be
    offsets: dict[str, int] = {}
    others: list[dict[str, Any]] = []
    try:
        members = [folder / name for name in files if name != MANIFEST]
        with partial.open("wb") as out, contextlib.closing(_look_ahead(members, stop)) as looked_at:
            digest = hashlib.sha256()

            def write(data: bytes) -> None:
                out.write(data)
                digest.update(data)

            archive = StoredZip(write)
            for path, content in looked_at:
                announced = sealed.get(path.name)
                if announced and announced != Sealed(content.size, content.sha256):
                    raise _changed(path.name)
                if not announced:
                    others.append({"file": path.name, "bytes": content.size, "sha256": content.sha256})
                offsets[path.name] = _append(archive, path, content, stop)
            described = _described({**manifest, "files": others})
            archive.begin(MANIFEST, len(described), zlib.crc32(described))
            archive.add(described)
            archive.finish()
            out.flush()
            os.fsync(out.fileno())
        partial.replace(target)
        sync_folder(target.parent)
    finally:
        partial.unlink(missing_ok=True)
    return Published(archive.size, digest.hexdigest(), described.decode(), offsets)


def _described(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as it is in the archive; raises `HandlerFaultError` for one that cannot be written."""
    try:
        return (json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise _bad_manifest(error) from error


@dataclass(frozen=True)
class _Content:
    size: int
    crc32: int
    sha256: str


def _look_ahead(paths: Sequence[Path], stop: threading.Event) -> Generator[tuple[Path, _Content], None, None]:
    """Each file with what is in it; the next one is looked at while the caller works on one."""
    with ThreadPoolExecutor(1) as pool:
        looking = [pool.submit(_look_at, path, stop) for path in paths[:1]]
        for path, following in zip_longest(paths, paths[1:]):
            content = looking.pop().result()
            if following:
                looking.append(pool.submit(_look_at, following, stop))
            yield path, content


def _look_at(path: Path, stop: threading.Event) -> _Content:
    digest, crc32, size = hashlib.sha256(), 0, 0
    for chunk in _chunks(path, stop):
        digest.update(chunk)
        crc32 = zlib.crc32(chunk, crc32)
        size += len(chunk)
    return _Content(size, crc32, digest.hexdigest())


def _append(archive: StoredZip, path: Path, content: _Content, stop: threading.Event) -> int:
    """Add one file that is as it was looked at; return the offset of its bytes in the archive."""
    offset = archive.begin(path.name, content.size, content.crc32)
    crc32 = 0
    for chunk in _chunks(path, stop):
        crc32 = zlib.crc32(chunk, crc32)
        archive.add(chunk)
    if (archive.size - offset, crc32) != (content.size, content.crc32):
        raise _changed(path.name)
    return offset


def _chunks(path: Path, stop: threading.Event) -> Iterator[bytes]:
    """What is in a file of the handler's; raises `StoppedError` once ``stop`` is set."""
    try:
        source = open_regular(path)
    except FileNotFoundError as error:
        raise _lacking(path) from error
    with source:
        while chunk := source.read(_CHUNK):
            if stop.is_set():
                raise StoppedError
            yield chunk


def _lacking(path: Path) -> HandlerFaultError:
    return HandlerFaultError("handler_protocol", f"the handler announced {path.name}, which is not there")


def _bad_manifest(error: Exception) -> HandlerFaultError:
    return HandlerFaultError("handler_protocol", f"the handler's manifest is none ({type(error).__name__}: {error})")


def _changed(name: str) -> HandlerFaultError:
    return HandlerFaultError("shard_corrupt", f"{name} is not what the handler announced; ask again")
