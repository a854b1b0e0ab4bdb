"""The frameworks on a stream: what they get in the first epoch is what the ordinary readers give, in another order."""

import json
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest

from dataset_client import Shuffle, errors, request_dataset
from tests.e2e.stream_support import COUNT, VERSION, gated_config
from tests.support import ROOT, Server

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs, at import
    keras = pytest.importorskip("keras")
    tf = pytest.importorskip("tensorflow")


@pytest.fixture
def gate(raw_root, tmp_path):
    yield (gate := raw_root / f"gate-{tmp_path.name}")
    shutil.rmtree(gate)


@pytest.fixture
def stream(server, gate, tmp_path):
    where = {"server_url": server.url, "cache_dir": tmp_path / "cache", "progress": False}
    with request_dataset("gated", VERSION, gated_config(gate), stream=True, **where) as stream:
        yield stream


@pytest.fixture(scope="module")
def server(raw_root, environments_dir, plugin_sources, tmp_path_factory):
    settings = {"workers": 2, "retry_limit": 0}
    folder = tmp_path_factory.mktemp("server")
    running = Server(raw_root, folder, environments_dir, handlers=plugin_sources, settings=settings).start()
    yield running
    assert running.stop() == 0


def pixels(examples):
    """Photos and masks by number."""
    return {int(e["number"]): (np.asarray(e["image"]).tobytes(), np.asarray(e["mask"]).tobytes()) for e in examples}


def apart(batch):
    for row in range(len(batch["number"])):
        yield {name: column[row] for name, column in batch.items()}


def test_tensorflow(stream, gate):
    dataset = stream.as_tf_dataset("train", batch_size=2)
    batches = dataset.as_numpy_iterator()
    seen = [*apart(next(batches))]
    assert stream.whole is None
    (gate / "open").touch()
    for batch in batches:
        seen += apart(batch)
    whole = stream.dataset(60)
    assert len(seen) == COUNT
    assert pixels(seen) == pixels(whole.as_tf_dataset("train").as_numpy_iterator())
    again = [example["number"] for batch in dataset.as_numpy_iterator() for example in apart(batch)]
    assert again == [example["number"] for example in whole.as_tf_dataset("train").as_numpy_iterator()]
    assert dataset.element_spec == whole.as_tf_dataset("train", batch_size=2).element_spec


@pytest.mark.parametrize("shuffle", [Shuffle(4, seed=3), Shuffle(4, seed=3, reshuffle_each_iteration=False)])
def test_tensorflow_shuffled(stream, gate, shuffle):
    """Later passes are the ordinary ones: files are shuffled, too, and not examples in a buffer alone."""

    def order(examples):
        return [int(example["number"]) for example in examples.as_numpy_iterator()]

    streamed = stream.as_tf_dataset("train", shuffle=shuffle)
    assert stream.whole is None
    (gate / "open").touch()
    assert pixels(streamed.as_numpy_iterator()) == pixels(stream.dataset(60).as_numpy_iterator("train"))
    ordinary = stream.dataset().as_tf_dataset("train", shuffle=shuffle)
    passes = [order(ordinary) for _ in range(2)]
    assert [order(streamed) for _ in range(2)] == passes
    assert order(stream.as_tf_dataset("train", shuffle=shuffle)) == passes[0]


def test_tensorflow_is_told_why_there_will_be_no_more(stream, gate):
    examples = stream.as_tf_dataset("train").as_numpy_iterator()
    next(examples)
    (gate / "fail").touch()
    (gate / "open").touch()
    with pytest.raises(tf.errors.OpError, match="the handler's own mistake"):
        list(examples)
    with pytest.raises(errors.BuildFailedError):
        stream.dataset()


def test_keras_batches(stream, gate):
    batches = stream.keras_batches("train", batch_size=2)
    (x, y) = next(batches)
    assert (x.dtype, x.shape, y.dtype, y.shape) == (np.float32, (2, 8, 8, 3), np.float32, (2, 8, 8, 1))
    (gate / "open").touch()
    seen = [(x, y), *batches]
    ordinary = stream.dataset(60).as_keras_dataset("train", batch_size=2)
    found = sorted((a.tobytes(), b.tobytes()) for x, y in seen for a, b in zip(x, y, strict=True))
    wanted = [ordinary[index] for index in range(len(ordinary))]
    assert found == sorted((a.tobytes(), b.tobytes()) for x, y in wanted for a, b in zip(x, y, strict=True))


def test_keras_fits_the_first_epoch_on_the_stream_and_the_others_on_the_dataset(stream, gate):
    (gate / "open").touch()
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid")])
    model.compile("sgd", "binary_crossentropy")
    steps = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))
    options = {"shuffle": False, "verbose": 0}
    with pytest.warns(UserWarning, match="ran out of data"):  # as of any generator whose length is not known
        first = model.fit(stream.keras_batches("train", batch_size=5), epochs=1, callbacks=[count], **options)
    batches = stream.dataset(60).as_keras_dataset("train", batch_size=5, shuffle=True)
    rest = model.fit(batches, initial_epoch=1, epochs=3, callbacks=[batches.epochs(), count], **options)
    assert [len(history.history["loss"]) for history in (first, rest)] == [1, 2]
    assert steps == [0, 1, 2] * 3


def test_fields_that_are_not_there(stream):
    with pytest.raises(errors.InvalidSettingError, match="mattes"):
        next(stream.keras_batches("train", batch_size=2, labels="mattes"))
    with pytest.raises(errors.InvalidSettingError, match="batch_size"):
        stream.keras_batches("train")


def test_streaming_needs_no_tensorflow(server, gate, tmp_path):
    code = """
import json, sys
from dataset_client import request_dataset
config, url, cache = sys.argv[1:]
where = {"server_url": url, "cache_dir": cache, "progress": False}
with request_dataset("gated", "1.0", json.loads(config), stream=True, **where) as stream:
    print(sum(len(batch["number"]) for batch in stream.batches("train", batch_size=5)))
print(*({"tensorflow", "torch", "keras"} & {*sys.modules}))
"""
    gate_config = gated_config(gate)
    (gate / "open").touch()
    command = [sys.executable, "-c", code, json.dumps(gate_config), server.url, str(tmp_path / "cache")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [str(COUNT)]
