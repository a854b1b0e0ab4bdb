"""Reading a dataset while a real server makes it."""

import time

import numpy as np
import pytest

from dataset_client import DatasetStream, errors, request_dataset

VERSION = "0.1.0"
CONFIG = {
    "categories": ["figure"],
    "image_size": [64, 96],
    "crop_size": [48, 64],
    "splits": {"train": 1.0},
    "examples_per_shard": 8,
    "variations_per_sample": 4,
}


def key(example):
    return example["image"].tobytes(), example["mask"].tobytes()


def test_each_example_comes_once_while_it_is_made_and_then_in_the_ordinary_order(server, tmp_path):
    config = {**CONFIG, "seed": 201}
    where = {"server_url": server.url, "cache_dir": tmp_path, "progress": False}
    began = time.monotonic()
    with request_dataset("coco", VERSION, config, stream=True, **where) as stream:
        returned = time.monotonic() - began
        assert isinstance(stream, DatasetStream)
        batches = stream.batches("train", batch_size=5)
        first = next(batches)
        was_whole = stream._arrivals.dataset is not None
        streamed = [*zip(first["image"], first["mask"], strict=True)]
        for batch in batches:
            streamed += zip(batch["image"], batch["mask"], strict=True)
        dataset = stream.dataset(timeout=240)
        assert returned < 5
        assert not was_whole, "the first batch came before the dataset was whole"
        again = [*stream.batches("train", batch_size=5)]
    dataset.verify()
    whole = [key(example) for example in dataset.as_numpy_iterator("train")]
    assert sorted((image.tobytes(), mask.tobytes()) for image, mask in streamed) == sorted(whole)
    ordinary = [*dataset.loader("train", batch_size=5, shuffle=False)]
    assert len(again) == len(ordinary)
    for one, other in zip(again, ordinary, strict=True):
        assert np.array_equal(one["image"], other["image"])


def test_examples_one_by_one(server, tmp_path):
    config = {**CONFIG, "seed": 202}
    where = {"server_url": server.url, "cache_dir": tmp_path, "progress": False}
    with request_dataset("coco", VERSION, config, stream=True, **where) as stream:
        streamed = sorted(key(example) for example in stream.as_numpy_iterator("train"))
        whole = sorted(key(example) for example in stream.dataset(240).as_numpy_iterator("train"))
    assert streamed == whole
    # What is ready, and what is in the cache, is read the same way.
    for cache in (tmp_path, tmp_path / "another"):
        with request_dataset("coco", VERSION, config, stream=True, **{**where, "cache_dir": cache}) as stream:
            assert sorted(key(example) for example in stream.as_numpy_iterator("train")) == whole


def test_why_there_will_be_no_more(server, tmp_path):
    where = {"server_url": server.url, "cache_dir": tmp_path, "progress": False}
    with request_dataset("coco", VERSION, {"no_such_option": 1}, stream=True, **where) as stream:
        with pytest.raises(errors.ConfigRefusedError, match="no_such_option"):
            next(stream.as_numpy_iterator("train"))
        with pytest.raises(errors.ConfigRefusedError):
            stream.dataset()
    with pytest.raises(errors.InvalidSettingError):
        request_dataset("coco", VERSION, {}, stream=True, timeout=5, **where)
