"""The command line as a person meets it: a message, an exit status, never a traceback."""

import os
import signal
import socket
import subprocess
import sys

import pytest

# Keras 3.15 on TensorFlow 2.21: NumPy 2 wishes for a copy keyword that tf.Variable.__array__ does not have.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

COMMAND = (sys.executable, "-m", "training.cli")


def dataset_train(*arguments, **options):
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False, **options)


def test_help_teaches():
    top = dataset_train("--help")
    assert top.returncode == 0
    for word in ("launch", "fit", "predict", "examples:", "best.keras", "KERAS_BACKEND"):
        assert word in top.stdout
    launch = dataset_train("launch", "--help").stdout
    for word in ("CONFIG.json", "--server", "--cache-dir", "--timeout", "--validation-split", "default 20", "--resume"):
        assert word in launch


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "cannot read the config"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "is a JSON list; it should be an object"),
    ],
)
def test_a_config_that_is_none_is_refused(tmp_path, config, message):
    path = tmp_path / "config.json"
    if config is not None:
        path.write_text(config)
    done = dataset_train("launch", "duts", "1.0", path, "--output", tmp_path / "run")
    assert done.returncode == 1
    assert done.stderr.startswith("dataset-train: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_options_are_refused(tmp_path):
    done = dataset_train("fit", tmp_path, "--output", tmp_path / "run", "--epochs", "0")
    assert (done.returncode, done.stderr) == (
        1,
        "dataset-train: epochs is a whole number of at least 1, not 0\n",
    )
    twice = ("--set", "augmentation=1", "--set", "augmentation.flip=1")
    done = dataset_train("fit", tmp_path, "--output", tmp_path / "run", *twice)
    assert done.returncode == 1
    assert "augmentation.flip and 1 as the whole of it do not agree" in done.stderr
    done = dataset_train("fit", tmp_path, "--output", tmp_path / "run", "--model-option", "depth")
    assert done.returncode == 2
    assert "NAME=VALUE" in done.stderr


def test_errors_of_the_client_are_messages_too(tmp_path):
    done = dataset_train("fit", tmp_path, "--output", tmp_path / "run")
    assert done.returncode == 1
    assert done.stderr.startswith("dataset-train: ")
    assert "manifest.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_fits_resumes_and_predicts(make_dataset, ellipses, tmp_path, capfd):
    from PIL import Image

    from training.cli import main

    dataset = make_dataset({"train": ellipses(2, size=(16, 16)), "test": ellipses(1, size=(16, 16))})
    (tmp_path / "train.toml").write_text("epochs = 5\n[model_options]\ndepth = 1\nbase_filters = 8\n")
    arguments = ["fit", str(dataset.path), "--output", str(tmp_path / "run"), "--config", str(tmp_path / "train.toml")]
    arguments += ["--model-option", "base_filters=2", "--set", "predictions_every=0"]
    assert main([*arguments, "--epochs", "1"]) == 0
    told = capfd.readouterr()
    assert "IoU on 'test'" in told.out
    assert "epoch 1/1" in told.err
    assert main([*arguments, "--epochs", "2"]) == 1
    assert "holds another training" in capfd.readouterr().err
    assert main([*arguments, "--epochs", "2", "--resume"]) == 0
    told = capfd.readouterr().err
    assert "resuming in epoch 2, after step 1" in told
    assert "epoch 2/2" in told
    assert "epoch 1/2" not in told
    assert main([*arguments, "--epochs", "2", "--resume", "--seed", "1"]) == 1
    assert "is of another training: seed was 0 and is 1" in capfd.readouterr().err

    Image.fromarray(ellipses(1)[0]["image"]).save(tmp_path / "photo.jpg")
    checkpoint, photo = str(tmp_path / "run" / "best.keras"), str(tmp_path / "photo.jpg")
    assert main(["predict", checkpoint, photo, "--output", str(tmp_path / "masks")]) == 0
    assert capfd.readouterr().out.split() == [str(tmp_path / "masks" / "photo.png")]


def test_ctrl_c_ends_with_130(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a server that never answers
        silent.settimeout(30)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        waiting = subprocess.Popen(
            [*COMMAND, "launch", "duts", "1.0", "config.json", "--server", url, "--output", "run", "--quiet"],
            cwd=tmp_path,
            env={**os.environ, "DATASET_CACHE_DIR": str(tmp_path / "cache")},
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = silent.accept()
        with connection:
            os.kill(waiting.pid, signal.SIGINT)
            _, errors = waiting.communicate(timeout=30)
    assert waiting.returncode == 130, errors
    assert errors.startswith("dataset-train: ")
    assert "Traceback" not in errors
