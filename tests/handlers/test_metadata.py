"""Manifest, lineage and statistics against the shards read back."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from dataset_handlers.commands import build, plan
from dataset_handlers.errors import RawDataError
from dataset_handlers.example_proto import decode_example
from dataset_handlers.tfrecord import read_records
from tests.handlers.support import decode

CONFIG = {
    "image_size": [48, 64],
    "variations_per_sample": 2,
    "input_attributes": ["image", "source_id"],
    "examples_per_shard": 10,
    "flip_vertical": 0.5,
}


def make(dataset, config, raw, folder):
    ask = {"dataset": dataset, "config": config, "raw_root": str(raw), "work_dir": str(folder), "workers": 1}
    plan(ask, lambda _: None)
    build(ask, lambda _: None)
    return folder / "dataset"


@pytest.fixture(scope="module", params=["coco", "duts", "composite"])
def made(request, raw_root, tmp_path_factory):
    extra = {"coco": {"categories": ["figure"]}, "duts": {}, "composite": {"categories": ["figure"]}}[request.param]
    return request.param, make(request.param, {**CONFIG, **extra}, raw_root, tmp_path_factory.mktemp(request.param))


def read(folder):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    lineage = [json.loads(line) for line in (folder / "lineage.jsonl").read_text().splitlines()]
    shards = {
        shard["file"]: [decode_example(record) for record in read_records(folder / shard["file"])]
        for shard in manifest["shards"]
    }
    return manifest, lineage, shards


def test_shards_are_as_the_manifest_says(made):
    _, folder = made
    manifest, _, shards = read(folder)
    assert {path.name for path in folder.glob("*.tfrecord*")} == set(shards)
    for shard in manifest["shards"]:
        data = (folder / shard["file"]).read_bytes()
        assert shard["bytes"] == len(data)
        assert shard["sha256"] == hashlib.sha256(data).hexdigest()
        assert shard["examples"] == len(shards[shard["file"]]) <= 10
    for split, counts in manifest["splits"].items():
        ours = [shard for shard in manifest["shards"] if shard["split"] == split]
        assert counts == {"examples": sum(shard["examples"] for shard in ours), "shards": len(ours)}


def test_photos_and_masks_fit(made):
    _, folder = made
    for examples in read(folder)[2].values():
        for example in examples:
            image, mask = decode(example["image"][0]), decode(example["mask"][0])
            assert image.shape == (*mask.shape, 3) == (48, 64, 3)


def test_statistics_are_those_of_the_examples(made):
    _, folder = made
    manifest, _, shards = read(folder)
    for split, statistics in manifest["statistics"].items():
        files = [shard["file"] for shard in manifest["shards"] if shard["split"] == split]
        examples = [example for file in files for example in shards[file]]
        masks = [decode(example["mask"][0]) for example in examples]
        levels = np.concatenate([decode(example["image"][0])[::16].reshape(-1, 3) for example in examples]).astype(
            float
        )
        subject, pixels = sum(int((mask > 0).sum()) for mask in masks), sum(mask.size for mask in masks)
        shares = [(mask > 0).mean() for mask in masks]
        expected = {
            "examples": len(masks),
            "samples": len(masks) // 2,
            "pixels": pixels,
            "subject_pixels": subject,
            "subject_share": pytest.approx(subject / pixels, abs=1e-6),
            "subject_share_histogram": np.histogram(shares, bins=20, range=(0, 1))[0].tolist(),
            # Of every sixteenth row; before JPEG, which takes some of the contrast of colours.
            "channel_mean": pytest.approx(levels.mean(axis=0), abs=1),
            "channel_std": pytest.approx(levels.std(axis=0), abs=3),
        }
        optional = {
            "empty_masks": sum(not mask.any() for mask in masks),
            "full_masks": sum(mask.all() for mask in masks),
        }
        expected |= {name: count for name, count in optional.items() if count}
        of_raw_files = {"raw_masks", "grey_masks", "grey_pixels", "mask_pixels", "categories"}
        assert {name: value for name, value in statistics.items() if name not in of_raw_files} == expected


def test_lineage_leads_from_each_example_to_its_raw_files(made, raw_root):
    dataset, folder = made
    manifest, lineage, shards = read(folder)
    seen = dict.fromkeys(shards, 0)
    read_files = {}
    for line in lineage:
        assert line["first"] == seen[line["shard"]]
        for example in shards[line["shard"]][line["first"] : line["first"] + line["examples"]]:
            assert example["source_id"] == [line["key"].encode()]
        seen[line["shard"]] += line["examples"]
        for path, sha256 in line["files"].items():
            assert hashlib.sha256((raw_root / path).read_bytes()).hexdigest() == sha256
            assert read_files.setdefault(path, sha256) == sha256
        assert any(line["key"].rpartition("/")[2] in path for path in line["files"])
    assert seen == {file: len(examples) for file, examples in shards.items()}
    assert len({line["key"] for line in lineage}) == len(lineage)
    if dataset != "duts":
        for part in ("train2017", "val2017"):
            path = f"coco/annotations/instances_{part}.json"
            read_files[path] = hashlib.sha256((raw_root / path).read_bytes()).hexdigest()
    lines = "".join(f"{path}\0{sha256}\n" for path, sha256 in sorted(read_files.items()))
    digest = hashlib.sha256(lines.encode()).hexdigest()
    assert manifest["raw_data"] == {"files": len(read_files), "sha256": digest}


def test_info_for_tensorflow_datasets_agrees(made):
    dataset, folder = made
    manifest, _, _ = read(folder)
    info = json.loads((folder / "dataset_info.json").read_bytes())
    assert info["name"] == manifest["dataset_name"] == dataset
    for split in info["splits"]:
        ours = [shard for shard in manifest["shards"] if shard["split"] == split["name"]]
        assert split["shardLengths"] == [str(shard["examples"]) for shard in ours]
        assert split["numBytes"] == str(sum(shard["bytes"] for shard in ours))


def test_the_config_in_the_manifest_is_the_effective_one(made):
    manifest, _, _ = read(made[1])
    assert manifest["config"]["image_size"] == [48, 64]
    assert manifest["config"]["jpeg_quality"] == 95
    assert "batch_size" not in manifest["config"]
    assert manifest["environment"]["packages"]["numpy"]


def test_one_raw_byte_changes_the_digest(raw_root, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(raw_root / "duts", raw / "duts")
    before = json.loads((make("duts", CONFIG, raw, tmp_path / "a") / "manifest.json").read_bytes())
    photo = raw / "duts" / "DUTS-TE" / "DUTS-TE-Image" / "figure_00000.jpg"
    photo.write_bytes(photo.read_bytes() + b"\0")  # behind the picture's end: the same pixels
    after = json.loads((make("duts", CONFIG, raw, tmp_path / "b") / "manifest.json").read_bytes())
    assert before["raw_data"]["files"] == after["raw_data"]["files"] == 52
    assert before["raw_data"]["sha256"] != after["raw_data"]["sha256"]
    assert [shard["sha256"] for shard in before["shards"]] == [shard["sha256"] for shard in after["shards"]]


def test_raw_data_that_changes_during_a_build_is_refused(raw_root, tmp_path):
    raw = tmp_path / "raw"
    for folder in ("duts", "backgrounds"):
        shutil.copytree(raw_root / folder, raw / folder)
    config = {"subjects": "duts", "image_size": [48, 48], "variations_per_sample": 4}
    ask = {"dataset": "composite", "config": config, "raw_root": str(raw), "work_dir": str(tmp_path), "workers": 1}
    plan(ask, lambda _: None)
    build({**ask, "shards": [0]}, lambda _: None)
    for photo in (raw / "backgrounds").iterdir():
        photo.write_bytes(photo.read_bytes() + b"\0")
    with pytest.raises(RawDataError, match="changed while the dataset was built"):
        build(ask, lambda _: None)
