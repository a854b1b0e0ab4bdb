"""TensorFlow as the reference of the formats we write without it."""

import json

import numpy as np
import pytest

from dataset_handlers.coco import CocoHandler
from dataset_handlers.duts import DutsHandler
from dataset_handlers.example_proto import decode_example, encode_example
from dataset_handlers.features import (
    BytesFeature,
    ImageFeature,
    TensorFeature,
    TextFeature,
    TextListFeature,
    features_json,
    serialize,
)
from dataset_handlers.tf_mapper import decode_records
from dataset_handlers.tfrecord import frame, read_records
from tests.handlers.support import decode, make, plan_and_build

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


def test_the_schema_is_what_tensorflow_datasets_writes(tmp_path):
    import tensorflow_datasets as tfds

    kinds = tfds.features
    theirs = kinds.FeaturesDict(
        {
            "jpeg": kinds.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "png": kinds.Image(shape=(40, 56, 1), encoding_format="png"),
            "raw": kinds.Tensor(shape=(40, 56, 3), dtype=np.uint8, encoding="bytes"),
            "raw_rows": kinds.Tensor(shape=(None, 3), dtype=np.uint8, encoding="bytes"),
            "raw_level": kinds.Tensor(shape=(), dtype=np.uint8, encoding="bytes"),
            "boxes": kinds.Tensor(shape=(None, 4), dtype=np.float32),
            "box": kinds.Tensor(shape=(4,), dtype=np.float32),
            "cluster": kinds.Scalar(np.int64),
            "share": kinds.Scalar(np.float32),
            "text": kinds.Text(),
            "texts": kinds.Sequence(kinds.Text()),
            "bytes": kinds.Tensor(shape=(), dtype=np.object_),
        }
    )
    theirs.save_config(tmp_path)
    ours = {
        "jpeg": ImageFeature((None, None, 3), "jpeg"),
        "png": ImageFeature((40, 56, 1), "png"),
        "raw": TensorFeature((40, 56, 3), "uint8"),
        "raw_rows": TensorFeature((None, 3), "uint8"),
        "raw_level": TensorFeature((), "uint8"),
        "boxes": TensorFeature((None, 4), "float32"),
        "box": TensorFeature((4,), "float32"),
        "cluster": TensorFeature(),
        "share": TensorFeature((), "float32"),
        "text": TextFeature(),
        "texts": TextListFeature(),
        "bytes": BytesFeature(),
    }
    assert features_json(ours) == json.loads((tmp_path / "features.json").read_bytes())


LISTS = {
    "raw": TensorFeature((2, 4, 3), "uint8"),
    "rows": TensorFeature((None, 2), "uint8"),
    "boxes": TensorFeature((None, 4), "float32"),
    "numbers": TensorFeature((None,)),
    "texts": TextListFeature(),
    "cluster": TensorFeature(),
}


def lists_of(length):
    return {
        "raw": np.arange(24, dtype=np.uint8).reshape(2, 4, 3) + np.uint8(length),
        "rows": np.arange(2 * length, dtype=np.uint8).reshape(-1, 2),
        "boxes": np.arange(4 * length, dtype=np.float32).reshape(-1, 4) / 8,
        "numbers": list(range(-length, 0)),
        "texts": [f"ä{number}" for number in range(length)],
        "cluster": length,
    }


def check_lists(decoded, length):
    expected = lists_of(length)
    assert decoded["texts"].tolist() == [text.encode() for text in expected["texts"]]
    for name in ("raw", "rows", "boxes", "numbers", "cluster"):
        wanted = np.asarray(expected[name], LISTS[name].dtype)
        assert (decoded[name].dtype, decoded[name].shape) == (wanted.dtype, wanted.shape)
        np.testing.assert_array_equal(decoded[name], wanted)


def test_the_mapper_decodes_every_kind_also_where_it_is_empty(tmp_path):
    file = tmp_path / "lists"
    file.write_bytes(b"".join(frame(serialize(LISTS, lists_of(length))) for length in (3, 0, 1)))
    decoded = list(decode_records([str(file)], features_json(LISTS)).as_numpy_iterator())
    for example, length in zip(decoded, (3, 0, 1), strict=True):
        check_lists(example, length)


@pytest.mark.parametrize("length", [0, 1, 3])
def test_tensorflow_datasets_decodes_every_kind_also_where_it_is_empty(length):
    import tensorflow_datasets as tfds

    schema = tfds.features.FeaturesDict.from_json(features_json(LISTS))
    decoded = schema.deserialize_example(serialize(LISTS, lists_of(length)))
    check_lists({name: value.numpy() for name, value in decoded.items()}, length)


@pytest.mark.parametrize("encoding", ["png", "raw"])
def test_the_mapper_decodes_all_that_coco_offers(encoding, raw_root, tmp_path):
    config = {
        "categories": ["figure"],
        "input_attributes": ["image", "trimap", "clicks", "boxes", "category", "source_id"],
        "image_size": [48, 64],
        "image_encoding": encoding,
    }
    _, sealed = make(CocoHandler, config, raw_root, tmp_path)
    files = [tmp_path / "dataset" / shard.file for shard in sealed]
    stored = [decode_example(record) for file in files for record in read_records(file)]
    handler = CocoHandler(config, str(raw_root))
    found = list(handler.tf_records_mapper([str(file) for file in files]).as_numpy_iterator())
    assert len(found) == len(stored) == 26
    for example, values in zip(found, stored, strict=True):
        assert example.keys() == values.keys() == set(handler.features())
        image = values["image"][0]
        photo = decode(image) if encoding == "png" else np.frombuffer(image, np.uint8).reshape(48, 64, 3)
        np.testing.assert_array_equal(example["image"], photo)
        for name in ("mask", "trimap", "positive_clicks", "negative_clicks"):
            np.testing.assert_array_equal(example[name][..., 0], decode(values[name][0]))
        np.testing.assert_array_equal(example["boxes"], np.float32(values["boxes"]).reshape(-1, 4))
        assert example["category"].tolist() == values["category"]
        assert example["source_id"] == values["source_id"][0]
        assert len(example["boxes"]) == len(example["category"]) > 0


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
