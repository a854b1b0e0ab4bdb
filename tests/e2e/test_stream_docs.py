"""The examples of docs/streaming.md run."""

import os
import subprocess
import sys

import pytest

from tests.support import ROOT
from tests.test_docs import blocks

NUMPY, KERAS, TORCH = blocks((ROOT / "docs" / "streaming.md").read_text(), "python")
MODEL = """
import keras
model = keras.Sequential([keras.Input((224, 224, 3)), keras.layers.Conv2D(1, 1, activation="sigmoid")])
model.compile("sgd", "binary_crossentropy")
"""


def run(code, server, cache):
    environment = {**os.environ, "DATASET_SERVER_URL": server.url, "DATASET_CACHE_DIR": str(cache)}
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=240)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_numpy(server, tmp_path):
    assert run(NUMPY, server, tmp_path).splitlines() == ["(16, 224, 224, 3)", "(8, 224, 224, 3)"]


def test_keras(server, tmp_path):
    shared, epochs = NUMPY.partition("with ")[0], KERAS.replace("epochs=10", "epochs=2")
    assert "2/2" in run(shared + MODEL + epochs, server, tmp_path)


def test_torch(server, tmp_path):
    pytest.importorskip("torch", reason="torch is not installed: pip install 'remote-dataset-pipeline[torch]'")
    out = run(NUMPY.partition("with ")[0] + TORCH.replace("range(10)", "range(2)"), server, tmp_path)
    assert out.splitlines() == 2 * ["torch.Size([16, 3, 224, 224])", "torch.Size([8, 3, 224, 224])"]
