"""One dataset, written by a real handler, through every reader: equal examples, equal pixels."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dataset_client import Dataset
from tests.handlers.support import REPOSITORY, plan_and_build

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


# --- the readers: each gives (source, image uint8 (H, W, 3), mask uint8 (H, W, 1)) ---------------------------


def single(examples):
    for example in examples:
        source = example["source_id"]
        yield source.decode() if isinstance(source, bytes) else source, example["image"], example["mask"]


def unbatched(batches, images=lambda pixels: pixels):
    for batch in batches:
        yield from zip(batch["source_id"], images(batch["image"]), images(batch["mask"]), strict=True)


def by_number(dataset):
    return single(dataset.examples("train"))


def by_loader(dataset):
    return unbatched(dataset.loader("train", batch_size=3, shuffle=True))


def by_tensorflow(dataset):
    return single(dataset.as_tf_dataset("train", batch_size=0).as_numpy_iterator())


def image_encoding(dataset):
    return getattr(dataset.features["image"], "encoding", "")


def by_plain_tf_data(dataset):
    """As one would write it who has never heard of this project."""
    import tensorflow as tf

    decode = {
        "jpeg": lambda data: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"),
        "png": lambda data: tf.io.decode_png(data, channels=3),
        "bytes": lambda data: tf.reshape(tf.io.decode_raw(data, tf.uint8), (60, 80, 3)),
    }[image_encoding(dataset)]

    def parse(record):
        kinds = {name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "mask", "source_id")}
        example = tf.io.parse_single_example(record, kinds)
        return example | {"image": decode(example["image"]), "mask": tf.io.decode_png(example["mask"], channels=1)}

    files = sorted(map(str, dataset.path.glob("*-train.tfrecord-*")))
    return single(tf.data.TFRecordDataset(files).map(parse).as_numpy_iterator())


def by_tensorflow_datasets(dataset):
    """By default TFDS decodes JPEG with TensorFlow's fast, inexact inverse DCT; docs/reading.md says how not to."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    @tfds.decode.make_decoder()
    def accurate(data, feature):
        return tf.io.decode_jpeg(data, channels=feature.shape[-1], dct_method="INTEGER_ACCURATE")

    decoders = {"image": accurate()} if image_encoding(dataset) == "jpeg" else None
    split = tfds.builder_from_directory(dataset.path).as_dataset(split="train", decoders=decoders)
    return single(tfds.as_numpy(split))


def by_torch(dataset, **options):
    from torch.utils.data import DataLoader

    batches = DataLoader(dataset.as_torch_dataset("train", batch_size=3, shuffle=True), batch_size=None, **options)
    return unbatched(batches, lambda tensors: [tensor.movedim(0, -1).numpy() for tensor in tensors])


def by_torch_workers(dataset):
    return by_torch(dataset, num_workers=2)


def by_torch_map(dataset):
    from torch.utils.data import DataLoader

    batches = DataLoader(dataset.as_torch_map_dataset("train"), batch_size=3)
    return unbatched(batches, lambda tensors: [tensor.movedim(0, -1).numpy() for tensor in tensors])


def by_jax(dataset):
    import jax.numpy as jnp

    batches = dataset.loader("train", batch_size=3, shuffle=True)
    return unbatched(batches, lambda pixels: np.asarray(jnp.asarray(pixels)))


def by_keras_fit(dataset, backend):
    """What a model sees that is trained by ``fit`` in a process of its own, where no other backend is imported."""
    seen = dataset.path.parent / f"seen-{backend}.npz"
    script = Path(__file__).parent / "support" / "keras_fit.py"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(dataset.path), str(seen)],
        env=os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, backend), done.stderr
    arrays = np.load(seen)
    return as_stored(dataset, arrays["inputs"], arrays["labels"])


def by_keras(dataset):
    batches = dataset.as_keras_dataset("train", batch_size=3)
    inputs, labels = (
        np.concatenate(parts) for parts in zip(*map(batches.__getitem__, range(len(batches))), strict=True)
    )
    return as_stored(dataset, inputs, labels)


def as_stored(dataset, inputs, labels):
    """What Keras has, float32, in the order in which it is stored."""
    assert (inputs.dtype, labels.dtype) == (np.float32, np.float32)
    levels = np.rint(labels * 255)
    np.testing.assert_array_equal(levels / np.float32(255), labels)  # no other numbers than those
    sources = [example["source_id"] for example in dataset.as_numpy_iterator("train")]
    return zip(sources, inputs.astype(np.uint8), levels.astype(np.uint8), strict=True)


#: Which reader needs which modules.
READERS = {
    by_number: (),
    by_loader: (),
    by_tensorflow: ("tensorflow",),
    by_plain_tf_data: ("tensorflow",),
    by_tensorflow_datasets: ("tensorflow_datasets", "tensorflow"),
    by_torch: ("torch",),
    by_torch_workers: ("torch",),
    by_torch_map: ("torch",),
    by_jax: ("jax",),
    by_keras: ("keras",),
}


def check(modules, reader, wanted):
    """Every example once, pixel for pixel."""
    for module in modules:
        if not importlib.util.find_spec(module):
            pytest.skip(f"{module} is not installed")
    seen = list(reader())
    assert sorted(source for source, _, _ in seen) == sorted(wanted)
    for source, image, mask in seen:
        for name, pixels in (("image", image), ("mask", mask)):
            assert pixels.dtype == np.uint8
            np.testing.assert_array_equal(pixels, wanted[source][name])


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_every_reader_gives_the_same_pixels(dataset, wanted, reader):
    """Those of TFDS, plain tf.data, torch's ``DataLoader``, JAX and Keras: the pixels of the numpy reader."""
    check(READERS[reader], lambda: reader(dataset), wanted)


@pytest.mark.parametrize("dataset", ["one-bit masks"], indirect=True)
@pytest.mark.parametrize("backend", ["tensorflow", "torch", "jax"])
def test_fit_trains_on_the_same_pixels(dataset, wanted, backend):
    check(("keras", backend), lambda: by_keras_fit(dataset, backend), wanted)
