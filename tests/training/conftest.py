"""Small real datasets: written by the handlers' own writer, opened by the client."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset_client import Dataset
from dataset_handlers.features import Feature, ImageFeature, features_json, serialize
from dataset_handlers.tfrecord import frame

Example = Mapping[str, Any]

FEATURES: dict[str, Feature] = {
    "image": ImageFeature((None, None, 3), "jpeg"),
    "mask": ImageFeature((None, None, 1), "png"),
}


def ellipse_examples(count: int, *, size: tuple[int, int] = (64, 64), seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Warm ellipses on cool, noisy ground: what is to be found is plain to see."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    examples = []
    for index in range(count):
        random = np.random.default_rng([seed, index])
        center = random.uniform(0.35, 0.65, 2) * (height, width)
        radii = random.uniform(0.18, 0.32, 2) * (height, width)
        inside = ((rows - center[0]) / radii[0]) ** 2 + ((columns - center[1]) / radii[1]) ** 2 <= 1
        ground, subject = (
            random.uniform((20, 60, 90), (70, 120, 160)),
            random.uniform((170, 90, 20), (240, 150, 80)),
        )
        photo = np.where(inside[..., None], subject, ground) + random.normal(0, 12, (height, width, 3))
        examples.append(
            {
                "image": photo.clip(0, 255).astype(np.uint8),
                "mask": (inside[..., None] * 255).astype(np.uint8),
            }
        )
    return examples


@pytest.fixture(scope="session")
def ellipses() -> Callable[..., list[dict[str, np.ndarray]]]:
    return ellipse_examples


def write_dataset_to(
    directory: Path, splits: Mapping[str, Sequence[Example]], features: Mapping[str, Feature] = FEATURES
) -> Dataset:
    """An unpacked archive with one shard per split."""
    directory.mkdir()
    shards = []
    for split, examples in splits.items():
        data = b"".join(frame(serialize(features, example)) for example in examples)
        file = f"ellipses-{split}.tfrecord-00000-of-00001"
        (directory / file).write_bytes(data)
        shard = {"file": file, "split": split, "examples": len(examples), "bytes": len(data)}
        shards.append({**shard, "sha256": hashlib.sha256(data).hexdigest()})
    manifest = {
        "format": 1,
        "dataset_id": f"ellipses_1.0.0_{'0' * 32}.zip",
        "dataset_name": "ellipses",
        "handler": {"version": "1.0.0"},
        "config": {"image_size": [64, 64]},
        "splits": {split: {"examples": len(examples), "shards": 1} for split, examples in splits.items()},
        "shards": shards,
        "statistics": {},
        "quarantine": [],
        "provenance": {"sha256": "f" * 64},
    }
    (directory / "features.json").write_text(json.dumps(features_json(features)))
    (directory / "dataset_info.json").write_text("{}")
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return Dataset.open(directory)


@pytest.fixture(scope="session")
def write_dataset() -> Callable[..., Dataset]:
    """``write_dataset(directory, {"train": examples, …}, features)``."""
    return write_dataset_to


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Dataset]:
    """``make_dataset({"train": examples, …}, features)``."""
    return partial(write_dataset_to, tmp_path / "dataset")
