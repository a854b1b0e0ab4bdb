"""Options, output directories and the backend: found out before anything is spent."""

import dataclasses
import json
import pickle

import pytest

from training.backend import configured_backend, require_backend
from training.errors import BackendError, ModelOptionsError, OptionsError, OutputError, UnknownModelError
from training.files import atomic_path, write_json
from training.options import FitOptions
from training.outputs import prepare_outputs


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 2.0}, "epochs"),
        ({"batch_size": True}, "batch_size"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"learning_rate": "1e-3"}, "learning_rate"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"loss": "hinge"}, "bce, ce, focal"),
        ({"train_split": ""}, "train_split"),
        ({"validation_split": ""}, "validation_split"),
    ],
)
def test_options_out_of_range_are_refused(wrong, message):
    with pytest.raises(OptionsError, match=message):
        FitOptions(**wrong)


def test_the_models_options_are_checked_and_completed():
    assert FitOptions(model_options={"depth": 2}).model_options == {"base_filters": 16, "depth": 2}
    with pytest.raises(ModelOptionsError, match="no option width"):
        FitOptions(model_options={"width": 2})
    with pytest.raises(UnknownModelError, match="there are: unet"):
        FitOptions(model="vgg")


def test_options_travel():
    options = FitOptions(epochs=3, model_options={"depth": 2})
    assert pickle.loads(pickle.dumps(options)) == options
    assert dataclasses.replace(options, epochs=4).epochs == 4
    assert FitOptions(**json.loads(json.dumps(options.to_json()))) == options


def test_another_training_is_not_overwritten_unasked(tmp_path):
    outputs = prepare_outputs(tmp_path / "a" / "b", overwrite=False)
    outputs.checkpoint.write_bytes(b"x")
    with pytest.raises(OutputError, match=r"holds another training \(best\.keras\)"):
        prepare_outputs(outputs.directory, overwrite=False)
    assert prepare_outputs(outputs.directory, overwrite=True).existing() == [outputs.checkpoint]


def test_a_file_in_the_way_of_the_output_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make"):
        prepare_outputs(tmp_path / "file" / "run", overwrite=False)


def test_the_backend_is_that_of_keras(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert configured_backend() == "tensorflow"
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    assert configured_backend() == "jax"
    (tmp_path / "keras.json").write_text("{")
    assert configured_backend() == "tensorflow"
    monkeypatch.setenv("KERAS_BACKEND", "openvino")
    with pytest.raises(BackendError, match=r"'openvino' cannot train; .*tensorflow, jax, torch"):
        require_backend()


def test_a_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "report.json"
    write_json(path, {"a": 1})
    with pytest.raises(FileNotFoundError), atomic_path(path) as temporary:
        temporary.with_name("no such directory").joinpath("x").write_text("half")
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, float("nan"))
