"""The files beside the shards: what is in the dataset, in TensorFlow Datasets' terms and in ours.

::

    features.json, dataset_info.json   as TensorFlow Datasets writes them
    lineage.jsonl                      per sample: its shard, first example, number of examples, raw files with sha256
    manifest.json                      config, splits, shards, statistics, names of classes, quarantine, environment,
                                       digest of raw data
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from .errors import RawDataError
from .files import atomic_file, write_json
from .gate import gate
from .plan import Plan
from .shards import SealedShard, WorkFolder
from .statistics import summarize, total

MANIFEST_FORMAT = 1

METADATA_FILES = ("features.json", "dataset_info.json", "lineage.jsonl", "manifest.json")


def write_features(work: WorkFolder, plan: Plan) -> None:
    """Write ``features.json``: before the first shard, so that readers need not wait for the last one."""
    write_json(work.dataset / "features.json", plan.features, indent=1)


def write_metadata(work: WorkFolder, plan: Plan, sealed: Sequence[SealedShard]) -> list[str]:
    """Write the metadata of a dataset whose shards are all sealed; return all its files, shards first, in order.

    Raises `RawDataError` if one raw file was read with two contents.
    """
    write_features(work, plan)
    write_json(work.dataset / "dataset_info.json", _dataset_info(plan.dataset, sealed), indent=1)
    to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # `dumps` would make one for each line
    with atomic_file(work.dataset / "lineage.jsonl") as file:
        for shard in sealed:
            first = 0
            for item in shard.lineage:
                line = {"shard": shard.file, "first": first, "examples": item.examples, "key": item.key}
                line["files"] = dict(item.files)
                file.write(to_json(line).encode() + b"\n")
                first += item.examples
    write_json(work.dataset / "manifest.json", _manifest(plan, sealed), indent=1)
    return [shard.file for shard in sealed] + list(METADATA_FILES)


def _by_split(sealed: Sequence[SealedShard]) -> dict[str, list[SealedShard]]:
    splits: dict[str, list[SealedShard]] = {}
    for shard in sealed:
        splits.setdefault(shard.split, []).append(shard)
    return splits


def _dataset_info(dataset: str, sealed: Sequence[SealedShard]) -> dict[str, Any]:
    splits = [
        {
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            "name": split,
            "numBytes": str(sum(shard.bytes for shard in shards)),
            "shardLengths": [str(shard.examples) for shard in shards],
        }
        for split, shards in _by_split(sealed).items()
    ]
    return {
        "fileFormat": "tfrecord",
        "moduleName": "dataset_handlers",
        "name": dataset,
        "splits": splits,
        "version": "1.0.0",
    }


def _manifest(plan: Plan, sealed: Sequence[SealedShard]) -> dict[str, Any]:
    splits = _by_split(sealed)
    statistics = {split: _statistics(shards) for split, shards in splits.items()}
    quarantine = [{"key": item.key, "reason": item.reason} for item in plan.rejected]
    quarantine += [{"key": key, "reason": reason} for shard in sealed for key, reason in shard.quarantine]
    return {
        "format": MANIFEST_FORMAT,
        "dataset_name": plan.dataset,
        "config": plan.config,
        "splits": {
            split: {"examples": sum(shard.examples for shard in shards), "shards": len(shards)}
            for split, shards in splits.items()
        },
        "shards": [{key: value for key, value in shard.announcement().items() if key != "number"} for shard in sealed],
        "statistics": statistics,
        "labels": plan.labels,
        "quarantine": quarantine,
        "removed": [{"key": item.key, "reason": item.reason} for item in plan.removed],
        "near_duplicates": [[{"split": split, "key": key} for split, key in group] for group in plan.near_duplicates],
        "gate": gate(plan, statistics, len(quarantine)),
        "environment": plan.environment,
        "raw_data": _raw_digest(plan, sealed),
    }


def _statistics(shards: Sequence[SealedShard]) -> dict[str, Any]:
    samples, examples = sum(len(shard.lineage) for shard in shards), sum(shard.examples for shard in shards)
    return {"samples": samples, "examples": examples, **summarize(total([shard.counters for shard in shards]))}


def _raw_digest(plan: Plan, sealed: Sequence[SealedShard]) -> dict[str, Any]:
    """How many raw files were read, and one sha256 over their sorted ``path NUL sha256`` lines."""
    read: dict[str, str] = {}
    pairs = list(plan.raw_files)
    pairs += [pair for shard in sealed for item in shard.lineage for pair in item.files]
    pairs += [pair for shard in sealed for pair in shard.quarantined_files]
    for path, sha256 in pairs:
        if read.setdefault(path, sha256) != sha256:
            raise RawDataError(f"{path} changed while the dataset was built; ask again once the raw data is at rest")
    digest = hashlib.sha256()
    for path, sha256 in sorted(read.items()):
        digest.update(f"{path}\0{sha256}\n".encode())
    return {"files": len(read), "sha256": digest.hexdigest()}
