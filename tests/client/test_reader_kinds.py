"""What datasets hold besides an image and its mask: raw pixels, boxes, lists of texts; also where a list is empty."""

import json
import warnings

import numpy as np
import pytest
from client_archives import chunk, encode_feature, mask, mask_pixels, record, unpack_to

from dataset_client import Dataset, errors
from dataset_client.readers.features import TensorFeature, TextListFeature, parse_features

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs, at import
    tf = pytest.importorskip("tensorflow")


def kind(name, field, **content):
    return {"pythonClassName": f"tensorflow_datasets.core.features.{name}", field: content}


def tensor(dtype, *sides, encoding="none"):
    shape = {"dimensions": [str(side) for side in sides]} if sides else {}
    return kind("tensor_feature.Tensor", "tensor", shape=shape, dtype=dtype, encoding=encoding)


TEXT = kind("text_feature.Text", "text")
FIELDS = {
    "image": tensor("uint8", 48, 64, 3, encoding="bytes"),
    "mask": kind(
        "image_feature.Image", "image", shape={"dimensions": ["48", "64", "1"]}, dtype="uint8", encodingFormat="png"
    ),
    "boxes": tensor("float32", -1, 4),
    "numbers": tensor("int64", -1),
    "category": kind("sequence_feature.Sequence", "sequence", feature=TEXT, length="-1"),
    "cluster": kind("scalar.Scalar", "tensor", shape={}, dtype="int64", encoding="none"),
    "source_id": TEXT,
}


def pixels(index):
    return np.random.default_rng(index).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def boxes(count):
    return np.arange(4 * count, dtype=np.float32).reshape(-1, 4) / 16


def names(count):
    return [f"dög {number}" for number in range(count)]


def example(index, count):
    """The features of an example with ``count`` boxes, encoded; an empty list has no kind."""
    values = {
        "image": [pixels(index).tobytes()],
        "mask": [mask(index)],
        "boxes": boxes(count).ravel().tolist(),
        "numbers": list(range(count)),
        "category": [name.encode() for name in names(count)],
        "cluster": [index],
        "source_id": [b"photo"],
    }
    return {name: encode_feature(found) if found else b"" for name, found in values.items()}


def serialized(features):
    return chunk(1, b"".join(chunk(1, chunk(1, name.encode()) + chunk(2, data)) for name, data in features.items()))


def open_examples(directory, examples, fields=FIELDS, config=None):
    path = unpack_to(directory, splits={"train": 1})
    (path / "features.json").write_text(json.dumps({"featuresDict": {"features": fields}}))
    manifest = json.loads((path / "manifest.json").read_bytes())
    manifest["shards"][0]["examples"] = manifest["splits"]["train"]["examples"] = len(examples)
    next(path.glob("*.tfrecord-*")).write_bytes(b"".join(record(serialized(features)) for features in examples))
    return Dataset(path, manifest, config or {})


COUNTS = (2, 0, 1)


@pytest.fixture
def dataset(tmp_path):
    return open_examples(tmp_path / "d", [example(index, count) for index, count in enumerate(COUNTS)])


def check(found, index, count, texts):
    assert found["image"].dtype == np.uint8
    np.testing.assert_array_equal(found["image"], pixels(index))
    np.testing.assert_array_equal(found["mask"][..., 0], mask_pixels(index))
    assert (found["boxes"].dtype, found["boxes"].shape) == (np.float32, (count, 4))
    np.testing.assert_array_equal(found["boxes"], boxes(count))
    assert (found["numbers"].dtype, found["numbers"].tolist()) == (np.int64, list(range(count)))
    assert list(found["category"]) == texts
    assert found["cluster"] == index


def test_numpy(dataset):
    for index, (found, count) in enumerate(zip(dataset.as_numpy_iterator("train"), COUNTS, strict=True)):
        check(found, index, count, names(count))
        assert type(found["category"]) is list


def test_tensorflow(dataset):
    items = dataset.as_tf_dataset("train")
    for index, (found, count) in enumerate(zip(items.as_numpy_iterator(), COUNTS, strict=True)):
        check(found, index, count, [name.encode() for name in names(count)])
    shapes = {name: spec.shape.as_list() for name, spec in items.element_spec.items()}
    assert shapes["image"] == [48, 64, 3]
    assert (shapes["boxes"], shapes["numbers"], shapes["category"]) == ([None, 4], [None], [None])


def test_batches_hold_ragged_lists(dataset):
    batches = list(dataset.as_tf_dataset("train", batch_size=2))
    assert [batch["image"].shape.as_list() for batch in batches] == [[2, 48, 64, 3], [1, 48, 64, 3]]
    for batch, counts in zip(batches, (COUNTS[:2], COUNTS[2:]), strict=True):
        assert batch["boxes"].shape.as_list() == [len(counts), None, 4]
        assert batch["boxes"].to_list() == [boxes(count).tolist() for count in counts]
        assert batch["numbers"].to_list() == [list(range(count)) for count in counts]
        assert batch["category"].to_list() == [[name.encode() for name in names(count)] for count in counts]
        assert batch["boxes"].to_tensor().shape.as_list() == [len(counts), max(counts), 4]
        assert isinstance(batch["mask"], tf.Tensor)


def test_a_batch_may_hold_empty_lists_alone(tmp_path):
    dataset = open_examples(tmp_path / "d", [example(index, 0) for index in range(3)], config={"batch_size": 2})
    batches = list(dataset.as_tf_dataset("train"))
    assert [batch["boxes"].to_list() for batch in batches] == [[[], []], [[]]]
    assert [batch["category"].to_list() for batch in batches] == [[[], []], [[]]]


@pytest.mark.parametrize("form", ["left out", "without kind", "of its kind"])
def test_every_form_of_an_empty_list(tmp_path, form):
    features = example(0, 1)
    for name, number in (("boxes", 2), ("numbers", 3), ("category", 1)):
        features[name] = chunk(number, b"") if form == "of its kind" else b""
        if form == "left out":
            del features[name]
    dataset = open_examples(tmp_path / "d", [features])
    check(next(dataset.as_numpy_iterator("train")), 0, 0, [])
    check(next(dataset.as_tf_dataset("train").as_numpy_iterator()), 0, 0, [])


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int16", "int32", "int64", "float16", "float64"])
@pytest.mark.parametrize("shape", [(), (2, 3), (None, 3), (3, None)])
def test_tensors_stored_as_bytes(tmp_path, dtype, shape):
    count = 1 if shape == () else 6
    stored = (np.arange(count) % 2 if dtype == "bool" else np.arange(count) - (dtype[0] != "u")).astype(dtype)
    stored = stored.reshape([-1 if side is None else side for side in shape])
    field = tensor(dtype, *[-1 if side is None else side for side in shape], encoding="bytes")
    dataset = open_examples(tmp_path / "d", [{"x": encode_feature([stored.tobytes()])}], {"x": field})
    assert dataset.features == {"x": TensorFeature(shape, dtype, "bytes")}
    for (found,) in (dataset.as_numpy_iterator("train"), dataset.as_tf_dataset("train").as_numpy_iterator()):
        assert (found["x"].dtype, found["x"].shape) == (stored.dtype, stored.shape)
        np.testing.assert_array_equal(found["x"], stored)


def test_any_one_side_of_a_tensor_may_differ(tmp_path):
    """Batches hold them as lists in the numpy reader, and ragged in TensorFlow's."""
    stored = [np.arange(3 * count * 2, dtype=np.float32).reshape(3, count, 2) for count in (2, 0, 1)]
    examples = [{"x": encode_feature(values.ravel().tolist()) if values.size else b""} for values in stored]
    dataset = open_examples(tmp_path / "d", examples, {"x": tensor("float32", 3, -1, 2)})
    (batch,) = dataset.loader("train", batch_size=3, workers=0)
    for found, values in zip(batch["x"], stored, strict=True):
        np.testing.assert_array_equal(found, values)
    (ragged,) = dataset.as_tf_dataset("train", batch_size=3)
    assert ragged["x"].shape.as_list() == [3, 3, None, 2]
    assert ragged["x"].to_list() == [values.tolist() for values in stored]


@pytest.mark.parametrize(
    ("name", "values"),
    [("image", [bytes(48 * 64 * 3 - 1)]), ("image", [bytes(48 * 64 * 3 + 3)]), ("image", []), ("image", [b"", b""]),
     ("boxes", [0.5] * 3), ("boxes", [1, 2, 3, 4]), ("category", [b"dog", b"\xff"]), ("category", [7])],
)  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path, name, values):
    dataset = open_examples(tmp_path / "d", [example(0, 1), example(1, 1) | {name: encode_feature(values)}])
    items = dataset.as_numpy_iterator("train")
    next(items)
    with pytest.raises(errors.IntegrityError, match=r"offset [1-9]\d*: the example cannot be decoded"):
        next(items)


def test_bytes_that_are_no_whole_numbers_are_named(tmp_path):
    field = {"x": tensor("float32", -1, encoding="bytes")}
    dataset = open_examples(tmp_path / "d", [{"x": encode_feature([b"12345"])}], field)
    with pytest.raises(errors.IntegrityError, match=r"'x' has 5 bytes, which are no float32 of shape \(None,\)"):
        next(dataset.as_numpy_iterator("train"))


@pytest.mark.parametrize(
    "feature",
    [
        tensor("uint32", 2, encoding="bytes"),
        tensor("uint8", 2, encoding="zlib"),
        tensor("uint8", -1, -1, 3, encoding="bytes"),
        tensor("string", -1),
        kind("sequence_feature.Sequence", "sequence", feature=TEXT, length="3"),
        kind("sequence_feature.Sequence", "sequence", feature=tensor("int64"), length="-1"),
        kind("sequence_feature.Sequence", "sequence"),
    ],
)
def test_kinds_that_are_not_supported(feature):
    with pytest.raises(errors.UnsupportedFeatureError):
        parse_features({"featuresDict": {"features": {"a": feature}}})


def test_tensorflow_datasets_writes_the_kinds_we_parse(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tfds = pytest.importorskip("tensorflow_datasets")
        tfds.features.FeaturesDict(
            {
                "image": tfds.features.Tensor(shape=(48, 64, 3), dtype=np.uint8, encoding="bytes"),
                "boxes": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
                "category": tfds.features.Sequence(tfds.features.Text()),
            }
        ).save_config(tmp_path)
    assert parse_features(json.loads((tmp_path / "features.json").read_bytes())) == {
        "image": TensorFeature((48, 64, 3), "uint8", "bytes"),
        "boxes": TensorFeature((None, 4), "float32"),
        "category": TextListFeature(),
    }
