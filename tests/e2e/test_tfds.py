"""People who never heard of us read our archives with TensorFlow Datasets."""

import json
import warnings
import zipfile

import numpy as np
import pytest
import requests

from dataset_client import Dataset
from dataset_handlers.example_proto import decode_example
from dataset_handlers.tfrecord import read_records
from tests.handlers.support import plan_and_build

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

SIZES = {"image_size": [60, 80], "input_attributes": ["image", "source_id"], "splits": {"train": 0.6, "test": 0.4}}

#: A third of the self-made backgrounds are textures, with no surface to set anything on.
SMALL_LOGOS = {"logo_scale": [0.06, 0.3], "splits": {"train": 1.0}}


@pytest.fixture(scope="module")
def tfds():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_datasets

        return tensorflow_datasets


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("coco", {"categories": ["figure"], **SIZES}),
        ("coco", {"categories": ["figure"]}),
        ("duts", SIZES),
        ("composite", {"categories": ["figure"], **SIZES}),
        ("cutouts", SIZES),
        ("mattes", SIZES),
        ("logos", {**SIZES, **SMALL_LOGOS}),
    ],
)
def test_builder_from_directory_reads_every_example(server, tfds, tmp_path, name, config):
    ready = server.make(name, config)
    archive = tmp_path / "archive.zip"
    archive.write_bytes(requests.get(f"{server.api}/{ready['archive']['url']}", timeout=60).content)
    folder = tmp_path / "unpacked"
    zipfile.ZipFile(archive).extractall(folder)
    manifest = server.get(f"datasets/{ready['dataset_id']}/manifest").json()
    builder = tfds.builder_from_directory(folder)
    assert set(builder.info.splits) == set(manifest["splits"])
    for split, entry in manifest["splits"].items():
        assert builder.info.splits[split].num_examples == entry["examples"]
        ours = [
            decode_example(record)
            for shard in manifest["shards"]
            if shard["split"] == split
            for record in read_records(folder / shard["file"])
        ]
        read = list(tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False)))
        assert len(read) == len(ours) == entry["examples"]
        for example in read:
            assert example["image"].dtype == np.uint8
            assert example["image"].shape[2] == 3
            assert example["image"].shape[:2] == example["mask"].shape[:2]
            assert set(np.unique(example["mask"])) <= {0, 255}
        if "source_id" in config.get("input_attributes", []):
            assert [example["source_id"] for example in read] == [example["source_id"][0] for example in ours]


#: Every attribute of each; the small windows cut some subjects off, so that there are examples without a box.
WINDOWS = {"image_size": [120, 160], "crop_size": [32, 40], "variations_per_sample": 2}
PHOTO = ["image", "trimap", "clicks", "source_id"]
COCO = {"categories": ["figure"], "input_attributes": [*PHOTO, "boxes", "category"]}
DUTS = {"input_attributes": PHOTO}
CUTOUTS = {"input_attributes": [*PHOTO, "alpha", "boxes", "category", "cluster"], "category_from": "folder"}
MATTES = {"input_attributes": [*PHOTO, "alpha"]}
LOGOS = {**SMALL_LOGOS, "input_attributes": [*PHOTO, "alpha", "boxes", "category"]}


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("coco", {**COCO, **WINDOWS, "image_encoding": "png"}),
        ("coco", {**COCO, **WINDOWS, "image_encoding": "raw"}),
        ("coco", {**COCO, "image_encoding": "png", "mask_labels": "categories"}),
        ("duts", {**DUTS, **WINDOWS, "image_encoding": "png", "mask_edges": "soft"}),
        ("duts", {**DUTS, **WINDOWS, "image_encoding": "raw"}),
        ("cutouts", {**CUTOUTS, **WINDOWS, "image_encoding": "png", "items_per_picture": [2, 4], "clusters": 3}),
        ("mattes", {**MATTES, **WINDOWS, "image_encoding": "png", "mask_edges": "soft"}),
        ("logos", {**LOGOS, **WINDOWS, "image_encoding": "raw", "logos_per_picture": [1, 3]}),
    ],
)
def test_every_field_is_what_our_readers_give(tfds, raw_root, tmp_path, name, config):
    assert plan_and_build(tmp_path, dataset=name, config=config, raw_root=raw_root).status == 0
    folder = tmp_path / "dataset"
    dataset = Dataset(folder, json.loads((folder / "manifest.json").read_bytes()), config)
    builder = tfds.builder_from_directory(dataset.path)
    assert dict(builder.info.features.items()).keys() == dataset.features.keys()
    boxes = []
    for split, count in dataset.splits.items():
        read = list(tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False)))
        ours = list(dataset.as_numpy_iterator(split))
        by_tensorflow = list(dataset.as_tf_dataset(split, batch_size=0).as_numpy_iterator())
        assert len(read) == len(ours) == len(by_tensorflow) == count > 0
        for theirs, numpy, tensorflow in zip(read, ours, by_tensorflow, strict=True):
            check_equal(theirs, as_bytes(numpy))
            check_equal(tensorflow, as_bytes(numpy))
        boxes += [len(example["boxes"]) for example in ours if "boxes" in example]
    if "boxes" in config["input_attributes"]:
        assert max(boxes) > 0
        assert min(boxes) == 0 or "crop_size" not in config


def as_bytes(example):
    """Texts as TensorFlow has them, lists of them included."""
    encoded = {name: value.encode() for name, value in example.items() if isinstance(value, str)}
    lists = {name: [text.encode() for text in value] for name, value in example.items() if isinstance(value, list)}
    return example | encoded | lists


def check_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, np.ndarray):
            assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
            np.testing.assert_array_equal(found[name], value)
        else:
            assert (found[name].tolist() if isinstance(value, list) else found[name]) == value
