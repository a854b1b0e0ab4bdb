"""The manifest of an archive: read, checked, and compared with a directory.

``manifest.json``::

    {"format": 1, "dataset_id", "dataset_name", "handler": {…}, "config": effective config,
     "splits": {split: {"examples": int, "shards": int}},
     "shards": [{"file", "split", "examples", "bytes", "sha256"}, …],      in order
     "statistics": {…}, "quarantine": [{"key", "reason"}, …], "provenance": {…}}
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_client.errors import IntegrityError, ProtocolError

MANIFEST_FILE = "manifest.json"
FEATURES_FILE = "features.json"
#: What every archive has besides its shards.
REQUIRED_FILES = (MANIFEST_FILE, FEATURES_FILE, "dataset_info.json")
#: File names that are safe in any directory: flat, printable, not hidden.
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,254}")
FORMAT = 1


@dataclass(frozen=True)
class Shard:
    """One TFRecord file of a split; ``sha256`` in hex."""

    file: str
    split: str
    examples: int
    bytes: int
    sha256: str


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
        shards = shards_of(manifest)
        splits = {
            str(name): (int(split["examples"]), int(split["shards"])) for name, split in manifest["splits"].items()
        }
        _ = manifest["dataset_id"], manifest["dataset_name"], manifest["config"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{origin} is not a manifest: {type(error).__name__}: {error}") from error
    if len({shard.file for shard in shards}) != len(shards):
        raise IntegrityError(f"{origin} lists a shard twice")
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


def _shard(entry: Mapping[str, Any]) -> Shard:
    file = str(entry["file"])
    if not SAFE_NAME.fullmatch(file) or file in REQUIRED_FILES:
        raise ValueError(f"{file!r} cannot be the name of a shard")
    return Shard(file, str(entry["split"]), int(entry["examples"]), int(entry["bytes"]), str(entry["sha256"]))


def load_manifest(directory: Path) -> dict[str, Any]:
    """Read the manifest of an unpacked archive; raises as `parse_manifest` does, also if there is none."""
    path = directory / MANIFEST_FILE
    try:
        text = path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error.strerror}") from error
    return parse_manifest(text, origin=str(path))


def find_faults(directory: Path, manifest: Mapping[str, Any]) -> list[str]:
    """What of an unpacked archive is missing or has the wrong size, by names and sizes alone; [] if all is
    there.
    """
    faults = [f"{name} is missing" for name in REQUIRED_FILES if not (directory / name).is_file()]
    for shard in shards_of(manifest):
        try:
            size = (directory / shard.file).stat().st_size
        except OSError:
            faults.append(f"{shard.file} is missing")
            continue
        if size != shard.bytes:
            faults.append(f"{shard.file} has {size} bytes, not {shard.bytes}")
    return faults
