"""How long training waits for data.

Two questions. How much of the time of its steps does a training of U²-Net wait for batches on this machine? And how
much would it at the rate of a faster device: batches are taken as a training takes them, and between them the process
sleeps for as long as the device would be busy.
"""

import os
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks import ours
from benchmarks.photos import prepare
from benchmarks.reading.ours import open_dataset

#: Photos per second: about U²-Net's, 320 × 320 in float32, of a small GPU to a large one, and beyond.
RATES = (10, 25, 50, 100, 200, 400)
AIM = 0.02


def make_dataset(raw_root: Path, scratch: Path, photos: int) -> Path:
    """Photos of 320 × 320 with their masks, JPEG 95 and PNG."""
    prepare(raw_root, scratch / "photos", photos)
    config = {"splits": {"train": 0.9, "validation": 0.1}}
    request = ours.write_request(scratch / "photos" / "raw", scratch / "made", len(os.sched_getaffinity(0)), **config)
    ours.plan(request)
    subprocess.run([*ours.COMMAND, "build", str(request)], check=True, capture_output=True)
    return scratch / "made" / "dataset"


def trained(path: Path, model: str, batch: int) -> float:
    """The share of the time of its steps that an epoch of training waits for batches, in [0, 1]."""
    from training.fit import fit
    from training.options import FitOptions

    options = FitOptions(model, epochs=1, batch_size=batch, loss="bce", predictions_every=0)
    with tempfile.TemporaryDirectory() as folder:
        result = fit(open_dataset(path), Path(folder) / "run", options)
    return result.history[-1].waited


def at_rate(path: Path, rate: float, batch: int, seconds: float) -> float:
    """The share of ``seconds`` that a device which trains ``rate`` photos a second waits for batches, in [0, 1].

    The first batch is left out: a training has it once.
    """
    from training import FitOptions
    from training.batches import Batches
    from training.data import read_task

    options = FitOptions(batch_size=batch)
    dataset = open_dataset(path)
    task = read_task(dataset, options)
    batches = Batches(dataset, task, task.train, options, training=True)
    waited, began, epoch = 0.0, None, 0
    while began is None or time.perf_counter() - began < seconds:
        epoch += 1
        batches.loader.set_epoch(epoch)
        source = iter(batches)
        while True:
            asked = time.perf_counter()
            if next(source, None) is None:
                break
            if began is None:
                began = time.perf_counter()
            else:
                waited += time.perf_counter() - asked
            time.sleep(batch / rate)
    return waited / (time.perf_counter() - began)
