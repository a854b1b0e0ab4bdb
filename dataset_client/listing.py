"""Datasets as lines of text, for people. Pure."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dataset_client.cache import CachedDataset
from dataset_client.dataset import Dataset
from dataset_client.errors import IntegrityError
from dataset_client.manifest import shards_of


@dataclass(frozen=True)
class Row:
    """One dataset in a list; ``bytes`` is the archive's size."""

    dataset_id: str
    sha256: str
    examples: int
    bytes: int
    path: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def rows_of(
    entries: Iterable[CachedDataset | IntegrityError],
) -> tuple[list[Row], list[IntegrityError]]:
    """The rows of what is whole, and the errors of what is damaged."""
    rows, damaged = list[Row](), list[IntegrityError]()
    for entry in entries:
        if isinstance(entry, IntegrityError):
            damaged.append(entry)
            continue
        examples = sum(shard.examples for shard in shards_of(entry.manifest))
        revision = entry.revision
        rows.append(Row(revision.dataset_id, revision.sha256, examples, revision.bytes, str(entry.path)))
    return rows, damaged


def format_rows(rows: Sequence[Row]) -> str:
    """A table: examples, size, id, and the beginning of the archive's sha256, which tells revisions apart."""
    if not rows:
        return "The cache is empty."
    lines = [("examples", "size", "dataset", "revision")]
    lines += [(f"{row.examples}", format_bytes(row.bytes), row.dataset_id, row.sha256[:16]) for row in rows]
    width = max(len(line[2]) for line in lines)
    return "\n".join(f"{a:>9}  {b:>9}  {c:<{width}}  {d}" for a, b, c, d in lines)


def format_dataset(dataset: Dataset) -> str:
    """A dataset's manifest for people."""
    manifest, shards = dataset.manifest, shards_of(dataset.manifest)
    lines = [
        f"dataset   {dataset.dataset_id}",
        f"path      {dataset.path}",
        f"size      {format_bytes(sum(shard.bytes for shard in shards))} in {len(shards)} shards",
        f"config    {json.dumps(manifest['config'], sort_keys=True)}",
        "splits",
        *(
            f"  {name:<12} {examples:>9} examples in {manifest['splits'][name]['shards']} shards"
            for name, examples in dataset.splits.items()
        ),
        "shards",
        *(f"  {shard.examples:>9} examples  {format_bytes(shard.bytes):>9}  {shard.file}" for shard in shards),
    ]
    if statistics := manifest.get("statistics"):
        lines += ["statistics", *(f"  {name}: {json.dumps(value)}" for name, value in statistics.items())]
    if quarantine := manifest.get("quarantine"):
        lines += ["quarantine", *(f"  {entry.get('key')}: {entry.get('reason')}" for entry in quarantine)]
    return "\n".join(lines)


def format_bytes(count: int) -> str:
    """Bytes in decimal units, three digits or so: ``1.23 MB``."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
