"""One dataset, written by a real handler, through every reader: equal examples, equal pixels."""

import importlib.util
import json
import warnings

import numpy as np
import pytest

from dataset_client import Dataset
from tests.handlers.support import plan_and_build

pytestmark = pytest.mark.filterwarnings("ignore")  # the frameworks', about themselves

CONFIGS = {
    "one-bit masks": {"image_size": [60, 80]},
    "soft masks": {"image_size": [61, 83], "mask_edges": "soft"},
    "png photos": {"image_size": [60, 80], "image_encoding": "png"},
    "raw photos": {"image_size": [60, 80], "image_encoding": "raw"},
}


@pytest.fixture(scope="module", params=CONFIGS)
def dataset(request, raw_root, tmp_path_factory):
    config = {"input_attributes": ["image", "source_id"], "splits": {"train": 1.0}} | CONFIGS[request.param]
    folder = tmp_path_factory.mktemp("agree")
    assert plan_and_build(folder, dataset="duts", config=config, raw_root=raw_root).status == 0
    directory = folder / "dataset"
    manifest = json.loads((directory / "manifest.json").read_bytes())
    return Dataset(directory, {"dataset_id": "duts"} | manifest, config)


@pytest.fixture(scope="module")
def wanted(dataset):
    """The examples by their source, from the reader that comes without frameworks."""
    examples = {example["source_id"]: example for example in dataset.as_numpy_iterator("train")}
    assert len(examples) == dataset.splits["train"] > 4
    return examples


def check(found, wanted):
    """(source, image, mask) of every example once, pixel for pixel."""
    seen = list(found)
    assert sorted(source for source, _, _ in seen) == sorted(wanted)
    for source, image, mask in seen:
        for name, pixels in (("image", image), ("mask", mask)):
            assert pixels.dtype == np.uint8
            np.testing.assert_array_equal(pixels, wanted[source][name])


def missing(module):
    return pytest.mark.skipif(not importlib.util.find_spec(module), reason=f"{module} is not installed")


def unbatched(batches, images=lambda pixels: pixels):
    for batch in batches:
        yield from zip(batch["source_id"], images(batch["image"]), images(batch["mask"]), strict=True)


def test_by_number(dataset, wanted):
    check(((example["source_id"], example["image"], example["mask"]) for example in dataset.examples("train")), wanted)


def test_loader(dataset, wanted):
    check(unbatched(dataset.loader("train", batch_size=3, shuffle=True)), wanted)


@missing("tensorflow")
def test_tensorflow(dataset, wanted):
    found = dataset.as_tf_dataset("train", batch_size=0).as_numpy_iterator()
    check(((example["source_id"].decode(), example["image"], example["mask"]) for example in found), wanted)


@missing("tensorflow_datasets")
def test_tensorflow_datasets(dataset, wanted):
    """By default TFDS decodes JPEG with TensorFlow's fast, inexact inverse DCT; docs/reading.md says how not to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow as tf
        import tensorflow_datasets as tfds

        @tfds.decode.make_decoder()
        def accurate(data, feature):
            return tf.io.decode_jpeg(data, channels=feature.shape[-1], dct_method="INTEGER_ACCURATE")

        is_jpeg = getattr(dataset.features["image"], "encoding", "") == "jpeg"
        split = tfds.builder_from_directory(dataset.path).as_dataset(
            split="train", decoders={"image": accurate()} if is_jpeg else None
        )
        found = tfds.as_numpy(split)
        check(((example["source_id"].decode(), example["image"], example["mask"]) for example in found), wanted)


@missing("torch")
def test_torch(dataset, wanted):
    from torch.utils.data import DataLoader

    def to_numpy(tensors):
        return [tensor.movedim(0, -1).numpy() for tensor in tensors]

    batches = dataset.as_torch_dataset("train", batch_size=3, shuffle=True)
    check(unbatched(DataLoader(batches, batch_size=None, num_workers=2), to_numpy), wanted)
    check(unbatched(DataLoader(dataset.as_torch_map_dataset("train"), batch_size=3), to_numpy), wanted)


@missing("keras")
def test_keras(dataset, wanted):
    batches = dataset.as_keras_dataset("train", batch_size=3)
    pairs = [batches[index] for index in range(len(batches))]
    images, masks = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    assert (images.dtype, masks.dtype) == (np.float32, np.float32)
    levels = np.rint(masks * 255).astype(np.uint8)
    np.testing.assert_array_equal(levels.astype(np.float32) / np.float32(255), masks)
    check(zip(wanted, images.astype(np.uint8), levels, strict=True), wanted)
