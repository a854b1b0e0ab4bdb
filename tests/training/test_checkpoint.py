"""Checkpoints and states on disk: what was written comes back, and what is damaged or foreign is refused."""

import zipfile

import keras
import numpy as np
import pytest

from training.checkpoint import copy_weights, load_checkpoint, read_origin, save_checkpoint
from training.errors import CheckpointError, StateError
from training.models import create_model
from training.state import read_state, require_same, restore, save_state

# Keras 3.15 on TensorFlow 2.21: NumPy 2 wishes for a copy keyword that tf.Variable.__array__ does not have.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

TINY = {"base_filters": 2, "depth": 1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "best.keras"
    model = create_model("unet", (16, 16, 3), **TINY)
    save_checkpoint(model, path, {"dataset": {"dataset_id": "a"}, "epoch": 3})
    return model, path


def test_a_checkpoint_is_the_model_and_its_origin(checkpoint):
    model, path = checkpoint
    weights = zip(model.get_weights(), load_checkpoint(path).get_weights(), strict=True)
    assert all(np.array_equal(a, b) for a, b in weights)
    assert keras.models.load_model(path).count_params() == model.count_params()
    assert read_origin(path) == {"dataset": {"dataset_id": "a"}, "epoch": 3}


def test_a_missing_or_damaged_checkpoint_is_refused(checkpoint, tmp_path):
    whole = checkpoint[1].read_bytes()
    (tmp_path / "half.keras").write_bytes(whole[: len(whole) // 2])
    for read in (load_checkpoint, read_origin):
        with pytest.raises(CheckpointError, match="no checkpoint"):
            read(tmp_path / "none.keras")
        with pytest.raises(CheckpointError, match="damaged"):
            read(tmp_path / "half.keras")


def test_weights_go_to_a_model_of_another_size_but_not_of_another_kind(checkpoint):
    larger = create_model("unet", (20, 24, 3), **TINY)
    copy_weights(checkpoint[0], larger, "best.keras")
    assert all(np.array_equal(a, b) for a, b in zip(checkpoint[0].get_weights(), larger.get_weights(), strict=True))
    with pytest.raises(CheckpointError, match=r"best\.keras has .* of \(2, 2\) where .* of \(2, 3\)|classes"):
        copy_weights(checkpoint[0], create_model("unet", (16, 16, 3), 3, **TINY), "best.keras")
    with pytest.raises(CheckpointError, match="arrays of weights"):
        copy_weights(checkpoint[0], create_model("unet", (16, 16, 3), base_filters=2, depth=2), "best.keras")


@pytest.fixture
def variables():
    values = [np.arange(6.0, dtype="float32").reshape(2, 3), np.float32(7), np.array([3, 4], "int32")]
    return [keras.Variable(value, dtype=value.dtype, name=f"v{number}") for number, value in enumerate(values)]


def test_a_state_comes_back_to_the_bit(variables, tmp_path):
    path = tmp_path / "state.npz"
    variables[0].assign(np.array([[0.1, -0.0, 1e-45], [3e38, np.nan, 1 / 3]], "float32"))
    held = [np.asarray(variable.value) for variable in variables]
    save_state(path, {"seed": 1}, {"epoch": 2, "loss_sum": 0.1 + 0.2}, variables)
    for variable in variables:
        variable.assign(np.zeros(variable.shape))
    state = read_state(path)
    assert (state.subject, state.progress) == ({"seed": 1}, {"epoch": 2, "loss_sum": 0.1 + 0.2})
    restore(state, variables, path)
    for variable, value in zip(variables, held, strict=True):
        assert np.asarray(variable.value).tobytes() == value.tobytes()
    with np.load(path) as readable:  # by numpy alone
        np.testing.assert_array_equal(readable["2"], held[2])


def test_a_state_with_any_byte_changed_is_refused_or_the_same(variables, tmp_path):
    path = tmp_path / "state.npz"
    save_state(path, {"seed": 1}, {"epoch": 2}, variables)
    whole = path.read_bytes()
    before = read_state(path)
    refused = 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            state = read_state(path)
        except StateError:
            refused += 1
        else:  # a time stamp, or padding between members
            assert (state.subject, state.progress) == (before.subject, before.progress)
            assert all(np.array_equal(a, b) for a, b in zip(state.arrays, before.arrays, strict=True))
    assert refused > len(whole) / 7 / 2
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(StateError, match="damaged"):
            read_state(path)
    with zipfile.ZipFile(path, "w") as other:
        other.writestr("a.txt", "b")
    with pytest.raises(StateError, match="damaged"):
        read_state(path)
    with pytest.raises(StateError, match="no state"):
        read_state(tmp_path / "none.npz")


def test_a_foreign_state_is_refused_before_anything_is_changed(variables, tmp_path):
    path = tmp_path / "state.npz"
    save_state(path, {"seed": 1, "model": "unet"}, {}, variables)
    state = read_state(path)
    require_same(state, {"seed": 1, "model": "unet"}, path)
    with pytest.raises(StateError, match="of another training: seed was 1 and is 2"):
        require_same(state, {"seed": 2, "model": "unet"}, path)
    other = [variables[0], keras.Variable(np.zeros(2, "float32")), variables[2]]
    with pytest.raises(StateError, match=r"v1 is \(\), .* of the training is \(2,\)"):
        restore(state, other, path)
    with pytest.raises(StateError, match="it has 3 variables, the training has 2"):
        restore(state, variables[:2], path)
