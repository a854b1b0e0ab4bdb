"""What needs TensorFlow: its reader, and its serialisation as a reference for ours."""

import json
import warnings

import numpy as np
import pytest
from client_archives import FEATURES, unpack_to
from hypothesis import given
from hypothesis import strategies as st

from dataset_client import Dataset, Shuffle, errors
from dataset_client.readers.example_proto import BytesList, FloatList, Int64List, decode_example
from dataset_client.readers.features import parse_features

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs, at import
    tf = pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return unpack_to(tmp_path_factory.mktemp("tf") / "discs" / "1.0.0", splits={"train": 7, "val": 2})


@pytest.fixture(scope="module")
def dataset(path):
    return Dataset.open(path)


def test_both_readers_give_equal_examples(dataset):
    ours = list(dataset.as_numpy_iterator("train"))
    theirs = list(dataset.as_tf_dataset("train").as_numpy_iterator())
    assert len(ours) == len(theirs) == 7
    for our, their in zip(ours, theirs, strict=True):
        assert our.keys() == their.keys()
        assert our["key"] == their["key"].decode()
        for name in ("image", "mask", "area", "box"):
            assert our[name].dtype == their[name].dtype
            np.testing.assert_array_equal(our[name], their[name])


def test_shapes_are_static_where_they_can_be(dataset):
    spec = dataset.as_tf_dataset("train").element_spec
    assert spec["image"].shape.as_list() == [None, None, 3]
    assert spec["mask"].shape.as_list() == [None, None, 1]
    assert spec["box"].shape.as_list() == [4]


@pytest.mark.parametrize(
    ("config", "batch_size", "sizes"),
    [
        ({}, None, None),
        ({"batch_size": 3}, None, [3, 3, 1]),
        ({"batch_size": 3}, 4, [4, 3]),
        ({"batch_size": 3}, 0, None),
    ],
)
def test_batches(path, dataset, config, batch_size, sizes):
    batches = list(Dataset(path, dataset.manifest, config).as_tf_dataset("train", batch_size=batch_size))
    if sizes is None:
        assert len(batches) == 7
        assert batches[0]["image"].shape == (48, 64, 3)
    else:
        assert [len(batch["image"]) for batch in batches] == sizes


@pytest.mark.parametrize("size", [-1, True, "3", 1.5])
def test_impossible_batch_sizes(path, dataset, size):
    with pytest.raises(errors.InvalidSettingError, match="batch_size"):
        Dataset(path, dataset.manifest, {"batch_size": size}).as_tf_dataset("train")


def keys(dataset):
    return [example["key"] for example in dataset.as_numpy_iterator()]


def test_shuffling_is_a_function_of_the_seed_and_the_epoch(dataset):
    plain = keys(dataset.as_tf_dataset("train"))
    shuffled = dataset.as_tf_dataset("train", shuffle=Shuffle(buffer=7, seed=1))
    first, second = keys(shuffled), keys(shuffled)
    assert sorted(first) == sorted(second) == sorted(plain)
    assert len({tuple(plain), tuple(first), tuple(second)}) == 3
    assert keys(dataset.as_tf_dataset("train", shuffle=Shuffle(buffer=7, seed=1))) == first
    assert sorted(keys(dataset.as_tf_dataset("train", shuffle=4))) == sorted(plain)


@pytest.mark.parametrize("shuffle", [True, False])
def test_shuffle_is_no_switch(dataset, shuffle):
    with pytest.raises(errors.InvalidSettingError, match="shuffle=1000"):
        dataset.as_tf_dataset("train", shuffle=shuffle)


def test_a_buffer_holds_something():
    with pytest.raises(errors.InvalidSettingError):
        Shuffle(buffer=0)


def feature(values):
    if isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if isinstance(values[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def expected(values):
    if isinstance(values[0], bytes):
        return BytesList(tuple(values))
    return FloatList(tuple(values)) if isinstance(values[0], float) else Int64List(tuple(values))


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.one_of(
            st.lists(st.binary(max_size=9), min_size=1),
            st.lists(st.floats(width=32, allow_nan=False), min_size=1),
            st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1),
        ),
        max_size=5,
    )
)
def test_the_decoder_agrees_with_protobuf(features):
    message = tf.train.Example(
        features=tf.train.Features(feature={name: feature(values) for name, values in features.items()})
    )
    decoded = decode_example(message.SerializeToString())
    assert decoded == {name: expected(values) for name, values in features.items()}


@given(st.binary(max_size=40))
def test_what_protobuf_refuses_we_refuse(data):
    try:
        ours = decode_example(data)
    except ValueError:
        return  # we refuse groups and field numbers that protobuf would skip
    message = tf.train.Example.FromString(data)  # does not raise, then
    assert ours.keys() == message.features.feature.keys()


def test_tensorflow_datasets_writes_the_features_we_parse(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tfds = pytest.importorskip("tensorflow_datasets")
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                "key": tfds.features.Text(),
                "area": tfds.features.Scalar(np.int64),
                "box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
            }
        )
        features.save_config(tmp_path)
    written = json.loads((tmp_path / "features.json").read_bytes())
    assert parse_features(written) == parse_features(FEATURES)


def test_tensorflow_datasets_opens_the_directory(path, dataset):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tfds = pytest.importorskip("tensorflow_datasets")
        builder = tfds.builder_from_directory(path)
        examples = list(builder.as_dataset(split="train", shuffle_files=False).as_numpy_iterator())
    assert len(examples) == builder.info.splits["train"].num_examples == 7
    ours = list(dataset.as_numpy_iterator("train"))
    assert {item["key"].decode() for item in examples} == {item["key"] for item in ours}
