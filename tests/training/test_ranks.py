"""Several ranks are one training: two processes on the CPU against one at the same global batch."""

import os
import socket
import subprocess
import sys

import pytest

from tests.proofs.resume import curve
from training.errors import BackendError, OptionsError
from training.ranks import join, parse_ranks

#: Sums of the same numbers in another order, in float32, over a few steps.
TOLERANCE = 1e-4


def test_ranks_are_read():
    assert parse_ranks("0/2@10.0.0.5:7777") == (0, 2, "10.0.0.5:7777")
    for wrong in ("2/2@host:1", "0/2", "0/2@host", "-1/2@host:1", ""):
        with pytest.raises(OptionsError, match="RANK/RANKS@HOST:PORT"):
            parse_ranks(wrong)
    with pytest.raises(BackendError, match="set KERAS_BACKEND=jax"):
        join("0/2@127.0.0.1:1", "tensorflow")


def test_two_ranks_train_as_one_does_at_the_same_global_batch(make_dataset, ellipses, tmp_path):
    pytest.importorskip("jax", reason="several ranks train on JAX, which is not installed")
    examples = ellipses(12, size=(16, 16))
    dataset = make_dataset({"train": examples[:9], "validation": examples[9:]})
    (tmp_path / "train.toml").write_text(
        'epochs = 3\nbatch_size = 4\npredictions_every = 8\nlog_every = 1\nmodel = "tiramisu-56"\n'
        "[model_options]\ngrowth_rate = 2\nlayers = [1, 1, 1]\nfirst_filters = 4\n[augmentation]\nflip = 0.5\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}

    def start(run, *more):
        command = [sys.executable, "-m", "training.cli", "fit", str(dataset.path), "--output", str(tmp_path / run)]
        command += ["--config", str(tmp_path / "train.toml"), "--quiet", *more]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(*processes):
        try:
            told = [process.communicate(timeout=400) for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [0] * len(processes), told
        return told

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    finish(start("one"))
    ranks = [start("two", "--ranks", f"{rank}/2@127.0.0.1:{port}") for rank in (0, 1)]
    (first, _), (second, _) = finish(*ranks)
    assert "best.keras" in first
    # Gloo says on standard output whom it has met.
    assert [line for line in second.splitlines() if not line.startswith("[Gloo]")] == []
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert len(one) == len(two) == 4
    for alone, together in zip(one, two, strict=True):
        for name in ("loss", "val_loss", "iou", "val_iou", "learning_rate"):
            if alone[name]:
                assert float(together[name]) == pytest.approx(float(alone[name]), abs=TOLERANCE), name
    assert {path.name for path in (tmp_path / "one").iterdir() if "events" not in path.name} == {
        path.name for path in (tmp_path / "two").iterdir() if "events" not in path.name
    }
