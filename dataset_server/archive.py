"""The published zip: shards in order, then what describes them; stored, with fixed timestamps.

The same inputs give the same bytes, on any machine and at any time.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from dataset_client.protocol import canonical_json

from .durable import sync_folder
from .errors import HandlerFaultError
from .stored_zip import StoredZip

_CHUNK = 1 << 20
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Published:
    """A finished archive: its size, sha256, manifest (as text), and where each member's bytes start."""

    size: int
    sha256: str
    manifest: str
    offsets: dict[str, int]


def complete_manifest(manifest: Mapping[str, Any], *, dataset_id: str, handler: Mapping[str, str]) -> dict[str, Any]:
    """The handler's manifest with identity and provenance.

    ``provenance.sha256`` is over the canonical JSON of effective config, handler, environment and raw data digest.
    """
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


def publish(
    folder: Path, files: Sequence[str], manifest: Mapping[str, Any], sealed: Mapping[str, str], target: Path
) -> Published:
    """Write the archive of ``files`` in ``folder`` to ``target``, atomically; ``manifest`` takes its member's place.

    ``sealed`` holds the sha256 of each shard as it was announced; raises `HandlerFaultError` (``shard_corrupt``) where
    a file reads back otherwise.

    Each file is read twice in a row, for its CRC-32, which stands before its bytes, and to be copied: the disk is asked
    for it once, and what was written is not read again. The next file is looked at while this one is copied.
    """
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    offsets: dict[str, int] = {}
    try:
        with partial.open("wb") as out:
            digest = hashlib.sha256()

            def write(data: bytes) -> None:
                out.write(data)
                digest.update(data)

            archive = StoredZip(write)
            for path, content in _look_ahead([folder / name for name in files if name != MANIFEST]):
                if content.sha256 != sealed.get(path.name, content.sha256):
                    raise _changed(path.name)
                offsets[path.name] = _append(archive, path, content)
            archive.begin(MANIFEST, len(text.encode()), zlib.crc32(text.encode()))
            archive.add(text.encode())
            archive.finish()
            out.flush()
            os.fsync(out.fileno())
        partial.replace(target)
        sync_folder(target.parent)
    finally:
        partial.unlink(missing_ok=True)
    return Published(archive.size, digest.hexdigest(), text, offsets)


@dataclass(frozen=True)
class _Content:
    size: int
    crc32: int
    sha256: str


def _look_ahead(paths: Sequence[Path]) -> Iterator[tuple[Path, _Content]]:
    """Each file with what is in it; the next one is looked at while the caller works on one."""
    with ThreadPoolExecutor(1) as pool:
        looking = [pool.submit(_look_at, path) for path in paths[:1]]
        for path, following in zip_longest(paths, paths[1:]):
            content = looking.pop().result()
            if following:
                looking.append(pool.submit(_look_at, following))
            yield path, content


def _look_at(path: Path) -> _Content:
    digest, crc32, size = hashlib.sha256(), 0, 0
    with path.open("rb", buffering=0) as source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            crc32 = zlib.crc32(chunk, crc32)
            size += len(chunk)
    return _Content(size, crc32, digest.hexdigest())


def _append(archive: StoredZip, path: Path, content: _Content) -> int:
    """Add one file that is as it was looked at; return the offset of its bytes in the archive."""
    offset = archive.begin(path.name, content.size, content.crc32)
    crc32 = 0
    with path.open("rb", buffering=0) as source:
        while chunk := source.read(_CHUNK):
            crc32 = zlib.crc32(chunk, crc32)
            archive.add(chunk)
    if (archive.size - offset, crc32) != (content.size, content.crc32):
        raise _changed(path.name)
    return offset


def _changed(name: str) -> HandlerFaultError:
    return HandlerFaultError("shard_corrupt", f"{name} is not what the handler announced; ask again")
