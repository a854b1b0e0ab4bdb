"""Options, output directories and the backend: found out before anything is spent."""

import dataclasses
import json
import pickle
import re

import pytest

from tests.support import ROOT
from training.augmentation import Augmentation
from training.backend import configured_backend, require_backend
from training.config import make_options, read_config
from training.errors import BackendError, ModelOptionsError, OptionsError, OutputError, UnknownModelError
from training.files import atomic_path, write_json
from training.losses import check_loss
from training.models import check_model
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
        ({"classes": 0}, "classes"),
        ({"optimizer": "lion"}, "adam, adamw, rmsprop, sgd"),
        ({"optimizer": "sgd", "optimizer_options": {"rho": 0.9}}, "sgd has no option rho; it has: momentum, nesterov"),
        ({"schedule": "step"}, "constant, exponential, cosine, polynomial"),
        ({"decay": 1.5}, "decay"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"accumulate": 0}, "accumulate"),
        ({"clip_norm": 0}, "clip_norm"),
        ({"ema": 1.0}, "ema"),
        ({"mixed_precision": "float8"}, "bfloat16, float16"),
        ({"patience": 0}, "patience"),
        ({"class_weights": "mean"}, "class_weights"),
        ({"class_weights": [1, -1]}, "class_weights"),
        ({"inputs": "clicks"}, "inputs"),
        ({"save_seconds": 0}, "save_seconds"),
        ({"overwrite": True, "resume": True}, "choose one"),
        ({"resume": 1}, "true or false"),
        ({"train_split": ""}, "train_split"),
        ({"validation_split": ""}, "validation_split"),
    ],
)
def test_options_out_of_range_are_refused(wrong, message):
    with pytest.raises(OptionsError, match=message):
        FitOptions(**wrong)


def test_the_models_options_are_checked_and_completed():
    chosen = FitOptions(model_options={"depth": 2}).model_options
    assert (chosen["base_filters"], chosen["depth"]) == (16, 2)
    with pytest.raises(ModelOptionsError, match="no option width"):
        FitOptions(model_options={"width": 2})
    with pytest.raises(UnknownModelError, match="there are: .*unet"):
        FitOptions(model="vgg")


def test_options_travel():
    options = FitOptions(
        epochs=3,
        model_options={"depth": 2},
        inputs=["clicks"],
        class_weights=[1, 2],
        augmentation={"crop": [32, 32], "scale": [0.8, 1.2]},
        ema=0.999,
    )
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


CONFIG = """
epochs = 7
optimizer = "rmsprop"
learning_rate = 1e-3
class_weights = "median"
inputs = ["clicks"]

[model_options]
depth = 2

[augmentation]
flip = 0.5
crop = [32, 48]
"""


def test_a_file_gives_options_and_what_is_given_besides_comes_first(tmp_path):
    path = tmp_path / "train.toml"
    path.write_text(CONFIG)
    options = make_options(
        read_config(path), {"epochs": 9, "model_options": {"base_filters": 4}, "augmentation": {"flip": 0.0}}
    )
    assert options == FitOptions(
        epochs=9,
        optimizer="rmsprop",
        class_weights="median",
        inputs=("clicks",),
        model_options={"depth": 2, "base_filters": 4},
        augmentation={"crop": (32, 48)},
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", r"train\.toml: there is no option epoch; did you mean epochs\?"),
        ("[augmentation]\nflips = 1", r"no option augmentation\.flips; did you mean augmentation\.flip\?"),
        ("zzz = 1", r"no option zzz; there are: model, "),
        ("epochs = ", "is not TOML"),
        ("model_options = 3", "model_options is a table of options, not 3"),
        ('epochs = "3"', "epochs is a whole number"),
    ],
)
def test_a_file_with_faults_is_refused(tmp_path, text, message):
    path = tmp_path / "train.toml"
    path.write_text(text)
    with pytest.raises(OptionsError, match=message):
        make_options(read_config(path))
    with pytest.raises(OptionsError, match="cannot read"):
        read_config(tmp_path / "other.toml")


PAGE = (ROOT / "docs" / "training.md").read_text()


def documented(names):
    """The rows `option | default | …` of the table in the docs that begins with the first of ``names``."""
    table = PAGE[PAGE.index(f"| `{names[0]}` |") :].partition("\n\n")[0]
    return {
        name: json.loads(default) for name, default in re.findall(r"^\| `(\w+)` \| `(.*?)` \|", table, re.MULTILINE)
    }


def test_every_option_and_its_default_is_documented():
    augmentation = Augmentation().to_json()
    assert documented(list(augmentation)) == augmentation
    defaults = FitOptions().to_json() | {"model_options": {}, "augmentation": {}}
    assert documented(list(defaults)) == defaults


@pytest.mark.parametrize("recipe", re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
def test_recipes_in_the_docs_are_possible(recipe, tmp_path):
    (tmp_path / "train.toml").write_text(recipe)
    options = make_options(read_config(tmp_path / "train.toml"))
    check_loss(options.loss_for(1 if options.loss == "bce" else 11), 1 if options.loss == "bce" else 11)
    crop = options.augmentation.crop or (360, 480)
    check_model(options.model, (*crop, 3), 1, **options.model_options)
