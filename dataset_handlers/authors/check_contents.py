"""Checks of a dataset that was built: its records, examples, splits and lineage, read without TensorFlow or handler."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..errors import CorruptShardError
from ..example_proto import decode_example
from ..tfrecord import read_records
from .dataset import BuiltDataset, decode_fields
from .verdict import Verdict, judge, skip

#: Fields that show the same pixels of one photo.
_ALIGNED = ("image", "mask", "alpha", "trimap", "positive_clicks", "negative_clicks")
_MOST_CLASSES = 100
_TRIMAP_LEVELS = frozenset({0, 128, 255})
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{5,}")


@dataclass
class _Findings:
    """Faults of the examples, by check."""

    features: list[str] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)
    levels: set[int] = field(default_factory=set)
    trimap_levels: set[int] = field(default_factory=set)
    pictures: int = 0
    examples: int = 0


def check_contents(dataset: BuiltDataset, raw_root: Path) -> Iterator[Verdict]:
    """Verdicts on a finished dataset."""
    broken, findings = _read(dataset)
    yield judge("records", broken, f"{findings.examples} examples in {len(dataset.shards())} shards")
    yield judge("features", findings.features, ", ".join(dataset.fields))
    if sum(name in dataset.fields for name in _ALIGNED) > 1:
        yield judge("sizes", findings.sizes)
    else:
        yield from skip(("sizes",), "an example has one picture or none")
    yield _labels(dataset, findings)
    lineage = read_lineage(dataset)
    if not lineage:
        yield from skip(("splits", "lineage"), "a whole-contract handler tells no lineage")
        return
    yield judge(
        "splits", list(_straddling(dataset, lineage)), f"{len(lineage)} samples in {len(dataset.splits)} splits"
    )
    named = {path for item in lineage for path in item["files"]}
    looked_at = (
        f"{len(named)} files"
        if named
        else "no raw file was read with read_raw(): datasets cannot tell that one changed"
    )
    yield judge("lineage", list(_untrue(lineage, raw_root, findings.examples)), looked_at)


def read_lineage(dataset: BuiltDataset) -> list[dict[str, Any]]:
    """The lines of ``lineage.jsonl``."""
    text = (dataset.path / "lineage.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def mentions(text: str, path: str) -> bool:
    """Whether ``text`` names ``path`` itself, not a longer one that merely has it inside."""
    return re.search(rf"(?<![\w.-]){re.escape(path)}(?![\w.-])", text) is not None


def faults_of_reason(reason: str, machine_paths: tuple[str, ...]) -> Iterator[str]:
    """What makes a quarantine reason differ from run to run or machine to machine."""
    if not reason.strip():
        yield "a sample is in quarantine without a reason"
    for path in machine_paths:
        if mentions(reason, path):
            yield f"a reason names a path of this machine, name the file alone: {reason[:160]!r}"
            return
    if _ADDRESS.search(reason):
        yield f"a reason names an address in memory: {reason[:160]!r}"


def _read(dataset: BuiltDataset) -> tuple[list[str], _Findings]:
    """Faults of records, and what was found in the examples."""
    broken: list[str] = []
    findings = _Findings()
    for shard in dataset.manifest["shards"]:
        path, count = dataset.path / shard["file"], 0
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if (path.stat().st_size, sha256) != (shard["bytes"], shard["sha256"]):
                broken.append(f"{path.name} is not what the manifest says, by size or sha256")
            for record in read_records(path):
                _inspect(f"{path.name}: example {count}", dataset.fields, decode_example(record), findings)
                count += 1
        except (OSError, CorruptShardError) as error:
            broken.append(str(error))
        if count != shard["examples"]:
            broken.append(f"{path.name} holds {count} examples, the manifest says {shard['examples']}")
        findings.examples += count
    return broken, findings


def _inspect(where: str, fields: Mapping[str, Any], example: Mapping[str, Any], findings: _Findings) -> None:
    try:
        decoded = decode_fields(fields, example)
    except CorruptShardError as error:
        findings.features.append(f"{where}: {error}")
        return
    sizes = {
        name: decoded[name].shape[:2]
        for name in _ALIGNED
        if isinstance(decoded.get(name), np.ndarray) and decoded[name].ndim == 3
    }
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {size[0]}×{size[1]}" for name, size in sizes.items())
        findings.sizes.append(f"{where}: {told} (height × width)")
    if "mask" in sizes:
        findings.pictures += 1
        findings.levels.update(np.unique(decoded["mask"]).tolist())
    if "trimap" in sizes:
        findings.trimap_levels.update(np.unique(decoded["trimap"]).tolist())


def _labels(dataset: BuiltDataset, findings: _Findings) -> Verdict:
    if not findings.pictures:
        return Verdict("labels", "skipped", "an example has no mask")
    faults = []
    levels = sorted(findings.levels)
    shown = ", ".join(map(str, levels[:8])) + (", …" if len(levels) > 8 else "")
    if not _are_labels(findings.levels, dataset.manifest["config"]):
        faults.append(
            f"masks hold the levels {shown}; the subject is 255 and all else 0, or classes are numbers up to "
            f"{_MOST_CLASSES} (was a mask resized with interpolation, or never thresholded?)"
        )
    if not findings.trimap_levels <= _TRIMAP_LEVELS:
        faults.append(f"trimaps hold the levels {sorted(findings.trimap_levels)[:8]} where 0, 128 and 255 belong")
    return judge("labels", faults, f"levels {shown} in {findings.pictures} masks")


def _are_labels(levels: set[int], config: Mapping[str, Any]) -> bool:
    """Whether the levels of all masks are those of one subject, of classes, or soft because the config says so."""
    if levels <= {0, 255} or config.get("mask_edges") == "soft":
        return True
    if config.get("mask_labels") == "categories":
        return levels <= {*range(len(config.get("categories", ())) + 1), 255}
    return levels <= {*range(_MOST_CLASSES + 1), 255} and not levels <= {0, 1}


def _straddling(dataset: BuiltDataset, lineage: list[dict[str, Any]]) -> Iterator[str]:
    split_of = {shard["file"]: shard["split"] for shard in dataset.manifest["shards"]}
    splits: dict[str, set[str]] = defaultdict(set)
    for item in lineage:
        splits[item["key"]].add(split_of[item["shard"]])
    for key, found in splits.items():
        if len(found) > 1:
            yield f"sample '{key}' is in {' and '.join(sorted(found))}"


def _untrue(lineage: list[dict[str, Any]], raw_root: Path, examples: int) -> Iterator[str]:
    if (told := sum(item["examples"] for item in lineage)) != examples:
        yield f"the lineage accounts for {told} of {examples} examples"
    named = {path: sha256 for item in lineage for path, sha256 in item["files"].items()}
    for path, sha256 in sorted(named.items()):
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            yield f"'{path}' is not below the raw root"
            continue
        try:
            with (raw_root / path).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    yield f"'{path}' has another content than the lineage says"
        except OSError as error:
            yield f"'{path}' cannot be read: {error.strerror}"
