"""Waiting costs no GPU: the order of things, and what is found out before the wait."""

import subprocess
import sys

import pytest

from training.errors import OutputError
from training.launcher import launch_training
from training.options import FitOptions

HEAVY = "('keras', 'tensorflow', 'torch', 'jax', 'matplotlib')"


def run_python(script, *arguments):
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_importing_imports_nothing_heavy():
    script = f"import sys, training, training.cli; print([m for m in {HEAVY} if m in sys.modules])"
    assert run_python(script).stdout.strip() == "[]"


def test_nothing_heavy_is_imported_before_the_dataset_is_here(make_dataset, ellipses, tmp_path):
    dataset = make_dataset({"train": ellipses(2, size=(16, 16)), "test": ellipses(1, size=(16, 16))})
    script = f"""
import sys
from dataset_client import open_dataset
from training import FitOptions, TrainingError, launch_training

def request(*arguments, **options):
    print([m for m in {HEAVY} if m in sys.modules], arguments, sorted(options), flush=True)
    return open_dataset(sys.argv[1])

try:  # for photos of 16×16 the model is too deep, which the training finds out
    launch_training("ellipses", "1.0.0", {{"seed": 1}}, output_dir=sys.argv[2], progress=False, request=request,
                    fit_options=FitOptions(model_options={{"depth": 5}}))
except TrainingError as error:
    print("keras" in sys.modules, type(error).__name__)
"""
    done = run_python(script, dataset.path, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[] ('ellipses', '1.0.0', {'seed': 1}) ['cache_dir', 'progress', 'server_url', 'timeout', 'token']",
        "True ModelShapeError",
    ]


def test_what_cannot_be_is_found_before_the_wait(tmp_path):
    (tmp_path / "report.json").write_text("{}")

    def request(*arguments, **options):
        pytest.fail("the server was asked")

    with pytest.raises(OutputError, match="holds another training"):
        launch_training("a", "1", {}, output_dir=tmp_path, request=request)
    with pytest.raises(OutputError, match="cannot make"):
        launch_training("a", "1", {}, output_dir=tmp_path / "report.json" / "x", request=request)


def test_a_missing_backend_is_found_before_the_wait(tmp_path):
    script = """
import sys
from training import TrainingError, launch_training

def request(*arguments, **options):
    sys.exit("the server was asked")

try:
    launch_training("a", "1", {}, output_dir=sys.argv[1], request=request)
except TrainingError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run")],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "KERAS_BACKEND": "theano"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("BackendError the Keras backend 'theano' cannot train"), done.stderr


def test_options_are_checked_when_they_are_made():
    with pytest.raises(ValueError, match="epochs"):
        FitOptions(epochs=-1)
