"""A training that is killed, stopped or resumed: it goes on exactly, or says why it cannot."""

import os
import signal

import keras
import numpy as np
import pytest

from tests.proofs.resume import OPTIONS, Kill, curve, difference, run
from training.errors import DivergedError, StateError, StoppedError
from training.fit import fit
from training.options import FitOptions
from training.state import read_state, save_state

# Keras 3.15 on TensorFlow 2.21: NumPy 2 wishes for a copy keyword that tf.Variable.__array__ does not have.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

TINY = {"base_filters": 2, "depth": 1}


class At:
    """A tracker that does something at a step."""

    def __init__(self, step, act):
        self.step, self.act, self.closed_by = step, act, None

    def scalars(self, step, values):
        if step == self.step and "loss/batch" in values:
            self.act()

    def picture(self, *drawn):
        pass

    def close(self, error):
        self.closed_by = error


@pytest.fixture
def dataset(make_dataset, ellipses):
    examples = ellipses(9, size=(16, 16))
    return make_dataset({"train": examples[:7], "validation": examples[7:]})


def test_killed_at_three_points_it_is_the_training_that_nobody_disturbed(dataset, tmp_path):
    """In the middle of an epoch, while its state is saved, and at an epoch's end: SIGKILL each time."""
    kills = [Kill(step=2), Kill(file="state.npz", time=2), Kill(file="history.csv", time=3)]
    run(dataset.path, tmp_path / "undisturbed", OPTIONS, [])
    run(dataset.path, tmp_path / "killed", OPTIONS, kills)
    assert difference(tmp_path / "undisturbed", tmp_path / "killed") == ""
    assert len(curve(tmp_path / "killed")) == 1 + OPTIONS["epochs"]
    assert len(list((tmp_path / "killed").glob("events.out.tfevents.*"))) == 4


def test_sigterm_saves_what_was_reached_and_other_trainings_are_refused(dataset, tmp_path):
    def options(**changed):
        return FitOptions(
            **{"epochs": 3, "batch_size": 2, "model_options": TINY, "log_every": 1, "predictions_every": 0, **changed}
        )

    before = signal.getsignal(signal.SIGTERM)
    stop = At(4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(StoppedError, match=r"after step 4, in epoch 2; .*state\.npz holds all of it") as caught:
        fit(dataset, tmp_path, options(), trackers=[stop])
    assert (caught.value.signal, signal.getsignal(signal.SIGTERM)) == (signal.SIGTERM, before)
    assert stop.closed_by is caught.value
    state = read_state(tmp_path / "state.npz")
    assert (state.progress["step"], state.progress["samples"]) == (4, 8)

    for changed, message in (
        ({"learning_rate": 1e-4}, r"learning_rate was 0\.001 and is 0\.0001"),
        ({"model_options": {"base_filters": 3, "depth": 1}}, "model_options was"),
        ({"batch_size": 4}, "batch_size was 2 and is 4"),
        ({"schedule": "cosine"}, "epochs was None and is 3"),
    ):
        with pytest.raises(StateError, match=message):
            fit(dataset, tmp_path, options(resume=True, **changed))
    real = dataset.manifest["provenance"]["sha256"]
    dataset.manifest["provenance"]["sha256"] = "0" * 64
    with pytest.raises(StateError, match="provenance was 'f+' and is '0+'"):
        fit(dataset, tmp_path, options(resume=True))
    dataset.manifest["provenance"]["sha256"] = real

    # How it is run may change, and it may go on for longer; weights that are no numbers end it, the best ones stay.
    broken = [keras.Variable(np.full_like(state.arrays[0], np.nan)), *map(keras.Variable, state.arrays[1:])]
    save_state(tmp_path / "state.npz", state.subject, state.progress, broken)
    kept = (tmp_path / "best.keras").read_bytes()
    with pytest.raises(
        DivergedError,
        match=r"batch 2 of epoch 2; .*best\.keras keeps epoch 1\. Begin anew, .* from init = .*best\.keras",
    ) as found:
        fit(dataset, tmp_path, options(resume=True, epochs=5, save_seconds=1e-9))
    assert (found.value.epoch, found.value.batch, found.value.checkpoint) == (2, 2, tmp_path / "best.keras")
    assert (tmp_path / "best.keras").read_bytes() == kept
    assert [row["epoch"] for row in curve(tmp_path)] == ["0", "1"]
