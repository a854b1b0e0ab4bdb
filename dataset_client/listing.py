"""Datasets as lines of text, for people. Pure."""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dataset_client.cache import CachedDataset
from dataset_client.dataset import Dataset
from dataset_client.errors import IntegrityError
from dataset_client.eviction import Entry
from dataset_client.manifest import shards_of
from dataset_client.protocol import Event


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


def usage_as_json(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Entries for machines."""
    return [{**asdict(entry), "path": str(entry.path)} for entry in entries]


def format_usage(entries: Sequence[Entry]) -> str:
    """A table: size, last use, what keeps or condemns it, name; and the sum."""
    if not entries:
        return "The cache is empty."
    lines = [f"{'size':>9}  {'last used':<16}  {'':<8}  dataset"]
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used))
        of_no_use = "replaced" if entry.sha256 else "left"
        mark = "open" if entry.in_use else of_no_use if entry.superseded else ""
        lines.append(f"{format_bytes(entry.bytes):>9}  {used:<16}  {mark:<8}  {entry.path.name}")
    lines.append(f"{format_bytes(sum(entry.bytes for entry in entries)):>9}  in all")
    return "\n".join(lines)


def format_collected(entries: Sequence[Entry], what: str) -> str:
    """What was removed, or would be: datasets, and what else took room (`room.holdings`)."""
    lines = [f"{format_bytes(entry.bytes):>9}  {entry.path.name}" for entry in entries]
    total = format_bytes(sum(entry.bytes for entry in entries))
    datasets = sum(bool(entry.sha256) for entry in entries)
    others = f" and {len(entries) - datasets} leftovers" if len(entries) > datasets else ""
    return "\n".join([*lines, f"{what} {datasets} datasets{others}, {total}."])


def format_event(event: Event, *, with_topic: bool) -> str:
    """An event in a line, or in several if it has log lines to tell."""
    data = event.data
    match event.kind:
        case "state":
            text = str(data.get("state"))
            if "position" in data:
                text += f", number {data['position']} in the queue"
            if data.get("message"):
                text += f": {data['message']}"
        case "progress":
            text = f"{data.get('done')} of {data.get('total')} samples"
            if data.get("eta") is not None:
                text += f", {data['eta']:.0f} s to go"
        case "shard":
            text = f"sealed {data.get('file')}: {data.get('examples')} examples, {format_bytes(data.get('bytes') or 0)}"
        case "ready":
            text = f"ready: {data.get('dataset_id')}, {format_bytes((data.get('archive') or {}).get('bytes') or 0)}"
        case _:
            text = f"{event.kind}: {data.get('message') or data.get('code') or ''}"
            log = data.get("log") or []
            text += "".join(f"\n  | {line}" for line in (log.splitlines() if isinstance(log, str) else log))
    return f"{event.topic_id}  {text}" if with_topic else text


def format_bytes(count: int) -> str:
    """Bytes in decimal units, three digits or so: ``1.23 MB``."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
