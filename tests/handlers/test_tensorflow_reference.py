"""TensorFlow as the reference of the formats we write without it."""

import json

import numpy as np
import pytest

from dataset_handlers.duts import DutsHandler
from dataset_handlers.example_proto import decode_example, encode_example
from dataset_handlers.tfrecord import frame, read_records
from tests.handlers.support import decode, plan_and_build

# TensorFlow and what it brings use names that NumPy, protobuf and the standard library are about to drop.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

RECORDS = [b"", b"abc", bytes(range(256)) * 5]
FEATURES = {
    "bytes": [b"", b"\0\xff", b"x" * 300],
    "ints": [0, 1, -1, 127, 128, 2**63 - 1, -(2**63)],
    "floats": [0.0, -0.5, 3.4028234663852886e38, 1e-45, float("inf")],
    "nothing": [],
    "grün": [b"name"],
}


def test_tensorflow_reads_our_records_and_we_its(tmp_path):
    import tensorflow as tf

    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_bytes(b"".join(map(frame, RECORDS)))
    assert [record.numpy() for record in tf.data.TFRecordDataset(str(ours))] == RECORDS
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for record in RECORDS:
            writer.write(record)
    assert theirs.read_bytes() == ours.read_bytes()
    assert list(read_records(theirs)) == RECORDS


def test_an_example_is_what_tensorflow_takes_it_for():
    import tensorflow as tf

    parsed = tf.train.Example.FromString(encode_example(FEATURES)).features.feature
    assert set(parsed) == set(FEATURES)
    assert list(parsed["bytes"].bytes_list.value) == FEATURES["bytes"]
    assert list(parsed["ints"].int64_list.value) == FEATURES["ints"]
    np.testing.assert_array_equal(parsed["floats"].float_list.value, np.float32(FEATURES["floats"]))
    example = tf.train.Example()
    example.features.feature["ints"].int64_list.value.extend(FEATURES["ints"])
    example.features.feature["bytes"].bytes_list.value.extend(FEATURES["bytes"])
    example.features.feature["floats"].float_list.value.extend(FEATURES["floats"])
    example.features.feature["empty"].int64_list.SetInParent()
    decoded = decode_example(example.SerializeToString())
    assert decoded["ints"] == FEATURES["ints"]
    assert decoded["bytes"] == FEATURES["bytes"]
    assert decoded["floats"] == np.float32(FEATURES["floats"]).tolist()
    assert decoded["empty"] == []


@pytest.fixture(scope="module")
def built(raw_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("duts")
    config = {"input_attributes": ["image", "source_id"], "image_size": [40, 56], "examples_per_shard": 4}
    assert plan_and_build(folder, dataset="duts", config=config, raw_root=raw_root, workers=2).status == 0
    return folder / "dataset", config


def read_back(folder, split):
    found = {}
    for path in sorted(folder.glob(f"*-{split}.tfrecord-*")):
        for record in read_records(path):
            example = {name: values[0] for name, values in decode_example(record).items()}
            found[example["source_id"]] = decode(example["image"]), decode(example["mask"])
    return found


def check(example, expected):
    # A PNG is exact. TensorFlow decodes JPEGs by a faster, coarser DCT and repeats chroma instead of interpolating it.
    image, mask = expected[example["source_id"]]
    np.testing.assert_array_equal(example["mask"][..., 0], mask)
    assert np.abs(example["image"].astype(int) - image).mean() < 4
    assert example["image"].shape == (40, 56, 3)


def test_the_mapper_decodes_every_example(built, raw_root):
    folder, config = built
    expected = read_back(folder, "train")
    files = sorted(str(path) for path in folder.glob("*-train.tfrecord-*"))
    found = list(DutsHandler(config, str(raw_root)).tf_records_mapper(files).as_numpy_iterator())
    assert len(found) == len(expected) == 20
    for example in found:
        check(example, expected)


def test_tensorflow_datasets_opens_the_folder(built):
    import tensorflow_datasets as tfds

    folder, _ = built
    builder = tfds.builder_from_directory(str(folder))
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {"train": 20, "test": 6}
    for split, counts in manifest["splits"].items():
        expected = read_back(folder, split)
        found = list(tfds.as_numpy(builder.as_dataset(split=split)))
        assert len(found) == counts["examples"] == len(expected)
        for example in found:
            check(example, expected)


@pytest.mark.parametrize("dataset", ["number", "whole"])
def test_numbers_and_foreign_shards_open_too(dataset, plugin_python, raw_root, tmp_path):
    import tensorflow_datasets as tfds

    config = {"count": 5}
    assert plan_and_build(tmp_path, plugin_python, dataset=dataset, config=config, raw_root=raw_root).status == 0
    builder = tfds.builder_from_directory(str(tmp_path / "dataset"))
    found = list(tfds.as_numpy(builder.as_dataset(split="train")))
    if dataset == "number":
        assert sorted(example["number"] for example in found) == [0, 1, 2, 3, 4]
        for example in found:
            np.testing.assert_array_equal(example["row"], np.float32([example["number"], 0.5, -1.0]))
    else:
        assert [(example["number"], example["name"]) for example in found] == [(n, b"%d" % n) for n in range(5)] * 2
