"""The published zip: shards in order, then what describes them; stored, with fixed timestamps.

The same inputs give the same bytes, on any machine and at any time.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_client.protocol import canonical_json

from .errors import HandlerFaultError

_EPOCH = (1980, 1, 1, 0, 0, 0)
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
    """
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    offsets: dict[str, int] = {}
    try:
        with partial.open("wb") as out:
            with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                for name in files:
                    if name != MANIFEST:
                        offsets[name] = _append(archive, folder / name, sealed.get(name))
                with archive.open(_member(MANIFEST), "w") as member:
                    member.write(text.encode())
            out.flush()
            os.fsync(out.fileno())
        with partial.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = partial.stat().st_size
        partial.replace(target)
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        partial.unlink(missing_ok=True)
    return Published(size, sha256, text, offsets)


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.external_attr = 0o644 << 16
    info.create_system = 3  # Unix, wherever this runs
    return info


def _append(archive: zipfile.ZipFile, path: Path, sha256: str | None) -> int:
    """Add one file; return the offset of its bytes in the archive."""
    digest = hashlib.sha256()
    large = path.stat().st_size >= 1 << 31
    info = _member(path.name)
    with path.open("rb") as source, archive.open(info, "w", force_zip64=large) as member:
        assert archive.fp is not None
        offset: int = archive.fp.tell()
        while chunk := source.read(_CHUNK):
            member.write(chunk)
            digest.update(chunk)
    if sha256 is not None and digest.hexdigest() != sha256:
        raise HandlerFaultError("shard_corrupt", f"{path.name} is not what the handler announced; ask again")
    return offset
