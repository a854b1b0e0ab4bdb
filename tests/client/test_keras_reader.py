"""Batches as Keras has them, on whatever backend it runs."""

import json
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from client_archives import unpack_to

from dataset_client import Dataset, errors

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs, at import
    keras = pytest.importorskip("keras")

COUNT = 23


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    directory = tmp_path_factory.mktemp("keras") / "discs"
    return Dataset.open(unpack_to(directory, splits={"train": COUNT}, shard_size=5))


def open_batches(dataset, **options):
    return dataset.as_keras_dataset("train", **{"batch_size": 4, "shuffle": True, "seed": 6} | options)


def loader(dataset, **options):
    return dataset.loader("train", batch_size=4, shuffle=True, seed=6, workers=0, **options)


def same(found, wanted):
    assert len(found) == len(wanted)
    for (x, y), batch in zip(found, wanted, strict=True):
        assert (x.dtype, y.dtype) == (np.float32, np.float32)
        np.testing.assert_array_equal(x, batch["image"].astype(np.float32))
        np.testing.assert_array_equal(y, (batch["mask"] == 255).astype(np.float32))


def test_batches_are_those_of_the_loader(dataset):
    batches, numpy = open_batches(dataset), loader(dataset)
    for epoch in range(2):
        batches.set_epoch(epoch)
        same([batches[index] for index in range(len(batches))], list(numpy))
    with pytest.raises(IndexError):
        batches[6]


def test_batches_may_be_asked_in_any_order(dataset):
    batches, wanted = open_batches(dataset, workers=2), list(loader(dataset))
    asked = [0, 1, 2, 1, 2, 3, 0, 5, 4, 5, 0, 1]
    same([batches[index] for index in asked], [wanted[index] for index in asked])


def test_ranks_share_the_epoch(dataset):
    parts = [open_batches(dataset, rank=rank, ranks=2) for rank in range(2)]
    for rank, part in enumerate(parts):
        same([part[index] for index in range(len(part))], list(loader(dataset, rank=rank, ranks=2)))


def test_resuming_within_an_epoch(dataset):
    batches, rest = open_batches(dataset), open_batches(dataset)
    rest.load_state_dict(batches.state_dict(steps=4))
    assert len(rest) == 2
    rest.set_epoch(0)
    same([rest[index] for index in range(2)], list(loader(dataset))[4:])
    rest.set_epoch(1)
    assert len(rest) == 6
    with pytest.raises(errors.InvalidSettingError):
        open_batches(dataset, seed=7).load_state_dict(batches.state_dict(steps=4))


def test_other_fields_come_as_they_are(dataset):
    x, y = open_batches(dataset, inputs="box", labels="area")[0]
    assert (x.dtype, x.shape, y.dtype, y.shape) == (np.float32, (4, 4), np.int64, (4,))


def test_fields_that_are_not_there(dataset):
    with pytest.raises(errors.InvalidSettingError, match="no 'alpha'"):
        open_batches(dataset, labels="alpha")


def test_names_are_those_of_what_a_transform_makes(dataset):
    def renamed(example, _rng):
        return {"photo": example["image"], "classes": example["mask"][..., 0] // 255}

    x, y = open_batches(dataset, inputs="photo", labels="classes", transform=renamed)[0]
    batch = next(iter(loader(dataset)))
    np.testing.assert_array_equal(x, batch["image"])
    np.testing.assert_array_equal(y, batch["mask"][..., 0] // 255)
    with pytest.raises(errors.InvalidSettingError, match="no 'image'\nThey have: photo, classes"):
        open_batches(dataset, transform=renamed)[0]


def test_class_numbers_are_no_levels(dataset):
    def numbered(example, _rng):
        return example | {"mask": example["mask"][..., 0] // 51}

    _, y = open_batches(dataset, transform=numbered)[0]
    assert (y.dtype, y.shape, np.unique(y).tolist()) == (np.uint8, (4, 48, 64), [0, 5])


def test_states_are_plain_json(dataset):
    batches = open_batches(dataset, batch_size=np.uint8(4))
    batches.set_epoch(np.int64(2))
    state = json.loads(json.dumps(batches.state_dict(np.int64(3))))
    assert (state["epoch"], state["consumed"]) == (2, 12)


def test_pictures_of_several_sizes_are_refused(dataset):
    def cut(example, _rng):
        return example | {"image": example["image"][: 20 + example["area"] % 3]}

    with pytest.raises(errors.InvalidSettingError, match="no one shape"):
        open_batches(dataset, transform=cut)[0]


@pytest.mark.filterwarnings("ignore")  # Keras' backends, about themselves
@pytest.mark.parametrize("workers", [0, 3])
def test_fit_sees_every_epoch_in_its_order(dataset, workers):
    """The model's loss is the mean level of a batch; what Keras logs is its mean over the epoch so far."""
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.0), lambda _truth, level: keras.ops.mean(level, axis=-1))
    batches, logged = open_batches(dataset, workers=workers), []
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: logged.append(logs["loss"]))
    model.fit(batches, epochs=2, shuffle=False, verbose=0, callbacks=[batches.epochs(), note])
    numpy, wanted = loader(dataset), []
    for _ in range(2):
        levels = np.concatenate([batch["image"].mean(axis=(1, 2)).sum(axis=1) for batch in numpy])
        wanted += [levels[:count].mean() for count in (4, 8, 12, 16, 20, COUNT)]
    np.testing.assert_allclose(logged, wanted, rtol=1e-5)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dataset-reader") and ends(thread)]


def ends(thread):
    """Whether it goes on for longer than it takes to end."""
    thread.join(20)
    return thread.is_alive()


def test_numpy_readers_import_no_framework():
    code = (
        "import sys\nfrom dataset_client.readers import loader, examples\n"
        "print(*[name for name in ('tensorflow', 'keras', 'torch', 'cv2', 'PIL', 'numpy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
