"""A training that is killed and resumed is, bit for bit, the one that nobody disturbed.

python -m tests.proofs.resume [--epochs 3] [--kills 12] [--backend tensorflow|torch|jax]

Each case trains in processes of its own, all forked from one that has imported what they need (on JAX, whose threads
do not live on in a fork, all are new). SIGKILL comes when a step is done, when a state is written and about to take its
place, or when an epoch's checkpoint or history is; then another process resumes. At the end, all variables of the last
state, the checkpoint's weights and the history are compared.
"""

import argparse
import csv
import itertools
import multiprocessing
import os
import signal
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: Of an option's value in a case: what changes from step to step has to be in the state, or a resumed run differs.
OPTIONS: dict[str, Any] = {
    "model": "tiramisu-56",  # it has dropout
    "model_options": {"growth_rate": 2, "layers": [1, 1, 1], "first_filters": 4},
    "epochs": 3,
    "batch_size": 2,
    "learning_rate": 5e-3,
    "optimizer": "adam",
    "schedule": "cosine",
    "warmup_steps": 2,
    "accumulate": 2,
    "ema": 0.9,
    "clip_norm": 1.0,
    "augmentation": {"flip": 0.5, "brightness": 0.2},
    "save_steps": 2,
    "predictions_every": 0,
    "log_every": 1,
    "resume": True,
}


@dataclass(frozen=True)
class Kill:
    """``step``: after that step. ``file``: the ``time``-th time, counted from 1, that it is about to be replaced."""

    step: int | None = None
    file: str | None = None
    time: int = 1

    def arm(self) -> "Killer":
        """Die when the time has come; gives the tracker that looks at steps."""
        seen = itertools.count(1)

        def die_before_rename(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "os.rename" and self.file == Path(os.fsdecode(arguments[1])).name and next(seen) == self.time:
                os.kill(os.getpid(), signal.SIGKILL)

        if self.file is not None:
            sys.addaudithook(die_before_rename)
        return Killer(self.step)


class Killer:
    """A tracker that kills its process at a step."""

    def __init__(self, step: int | None) -> None:
        self.step = step

    def scalars(self, step: int, values: dict[str, float]) -> None:
        if step == self.step and "loss/batch" in values:
            os.kill(os.getpid(), signal.SIGKILL)

    def picture(self, *drawn: Any) -> None:
        pass

    def close(self, error: BaseException | None) -> None:
        pass


def train(dataset: str, directory: str, options: dict[str, Any], kill: Kill | None) -> None:
    """What a process does."""
    import warnings

    from dataset_client import open_dataset
    from training.fit import fit
    from training.options import FitOptions

    warnings.simplefilter("ignore")
    fit(open_dataset(dataset), directory, FitOptions(**options), trackers=[kill.arm()] if kill else [])


def run(
    dataset: Path, directory: Path, options: dict[str, Any], kills: list[Kill], *, backend: str = "tensorflow"
) -> None:
    """Train to the end, killed on the way; each process has 5 minutes. Raises `RuntimeError` if one ends otherwise."""
    if backend == "jax":
        processes: Any = multiprocessing.get_context("spawn")
    else:
        processes = multiprocessing.get_context("forkserver")
        # Not TensorFlow itself: what it has started does not live on in a fork.
        processes.set_forkserver_preload(["training.fit"])
    for kill in (*kills, None):
        process = processes.Process(target=train, args=(str(dataset), str(directory), options, kill))
        process.start()
        process.join(300)
        if process.is_alive():
            process.kill()
            process.join()
            raise RuntimeError(f"a training did not end: {kill}")
        if process.exitcode != (-signal.SIGKILL if kill else 0):
            raise RuntimeError(f"a training ended with {process.exitcode}: {kill}")


def curve(directory: Path) -> list[dict[str, str]]:
    """The history without what a clock said."""
    rows = csv.DictReader((directory / "history.csv").read_text().splitlines())
    return [{name: value for name, value in row.items() if name not in ("seconds", "waited")} for row in rows]


def difference(one: Path, other: Path) -> str:
    """What two trainings differ in; an empty string if nothing."""
    if curve(one) != curve(other):
        return f"the loss curves differ:\n{curve(one)}\n{curve(other)}"
    with np.load(one / "state.npz") as first, np.load(other / "state.npz") as second:
        if set(first) != set(second):
            return "the states have other variables"
        for name in first:
            if name != "state.json" and first[name].tobytes() != second[name].tobytes():
                return f"variable {name} of the states differs"
    with zipfile.ZipFile(one / "best.keras") as first, zipfile.ZipFile(other / "best.keras") as second:
        if first.read("model.weights.h5") != second.read("model.weights.h5"):
            return "the weights of the checkpoints differ"
    if unfinished := sorted(path.name for path in other.iterdir() if path.name.startswith(".")):
        return f"files were left over: {', '.join(unfinished)}"
    return ""


def cases(epochs: int, steps: int, kills: int) -> list[list[Kill]]:
    """One kill in each, of all kinds and spread over the training, and one case with three."""
    found: list[list[Kill]] = [[Kill(step=steps // 2), Kill(file="state.npz", time=2), Kill(file="history.csv")]]
    for number in range(max(0, kills - 3)):
        place = number // 3
        found.append(
            [
                (
                    Kill(step=1 + place * (steps * epochs - 1) // max(1, kills // 3)),
                    Kill(file="state.npz", time=1 + place),
                    Kill(file=("best.keras", "history.csv")[place % 2], time=1 + place % epochs),
                )[number % 3]
            ]
        )
    return found


def main() -> int:
    """Run all cases; returns 1 if one differs."""
    from tests.training.conftest import ellipse_examples, write_dataset_to

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--backend", default="tensorflow", choices=["tensorflow", "torch", "jax"])
    asked = parser.parse_args()
    os.environ["KERAS_BACKEND"] = asked.backend
    options = {**OPTIONS, "epochs": asked.epochs}
    with tempfile.TemporaryDirectory(prefix="resume-") as name:
        scratch = Path(name)
        examples = ellipse_examples(17, size=(32, 32))
        dataset = write_dataset_to(scratch / "dataset", {"train": examples[:11], "validation": examples[11:]}).path
        run(dataset, scratch / "undisturbed", options, [], backend=asked.backend)
        failed = 0
        for number, kills in enumerate(cases(asked.epochs, steps=5, kills=asked.kills)):
            directory = scratch / str(number)
            run(dataset, directory, options, kills, backend=asked.backend)
            fault = difference(scratch / "undisturbed", directory)
            failed += bool(fault)
            told = ", ".join(f"step {kill.step}" if kill.step else f"{kill.file} #{kill.time}" for kill in kills)
            print(f"{told:<60} {fault or 'the same to the bit'}", flush=True)
    print(f"{asked.backend}: {failed or 'none'} differ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
