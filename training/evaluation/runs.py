"""What is evaluated: the runs named by a person, and the models that are in them."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from training.checkpoint import read_origin
from training.errors import CheckpointError
from training.evaluation.baselines import BASELINES
from training.outputs import Outputs


@dataclass(frozen=True)
class Run:
    """A checkpoint to evaluate; ``training`` says how it was trained, as `read_origin` does; {} where unknown."""

    name: str
    checkpoint: Path
    sha256: str
    training: dict[str, Any]

    def describe(self) -> dict[str, Any]:
        """Where it comes from, as JSON types; None for what its training does not say."""
        dataset, model, options = (_object(self.training, key) for key in ("dataset", "model", "options"))
        result, software = (_object(self.training, key) for key in ("result", "software"))
        return {
            "checkpoint": self.checkpoint.name,
            "sha256": self.sha256,
            "model": model.get("name"),
            "model_options": model.get("options"),
            "trained_on": dataset.get("dataset_id"),
            "provenance": _object(dataset, "provenance").get("sha256"),
            "train_split": _object(dataset, "train_split").get("name"),
            "chosen_on": _object(dataset, "validation_split").get("name"),
            "epoch": self.training.get("epoch") or result.get("best_epoch"),
            "seed": options.get("seed"),
            "loss": options.get("loss"),
            "code": software.get("commit") or software.get("version"),
        }

    def inputs(self, channels: int) -> list[str]:
        """What it sees besides photos, as in ``FitOptions.inputs``; without a word of that in the checkpoint, two
        further ``channels`` are clicks.
        """
        told = _object(self.training, "options").get("inputs")
        if isinstance(told, list):
            return [str(name) for name in told]
        return ["clicks"] if channels == 5 else []

    def warning(self, dataset_id: str, split: str) -> str | None:
        """Why its numbers on this split would flatter it, or None."""
        told = self.describe()
        if told["trained_on"] != dataset_id:
            return None
        if told["train_split"] == split:
            return f"{self.name} was trained on {split!r}: these numbers show fit, not skill"
        if told["chosen_on"] == split:
            return f"the best epoch of {self.name} was chosen on {split!r}: its numbers are optimistic"
        return None


def find_runs(paths: Iterable[str | os.PathLike[str]]) -> list[Run]:
    """The run of each path, a training's directory or a ``.keras`` file.

    Raises `CheckpointError` where there is no checkpoint, or it is damaged.
    """
    found = [_locate(Path(path)) for path in paths]
    names = _names([checkpoint for checkpoint, _ in found])
    return [
        Run(name, checkpoint, _sha256(checkpoint), {**_report(report), **(read_origin(checkpoint) or {})})
        for name, (checkpoint, report) in zip(names, found, strict=True)
    ]


def _locate(path: Path) -> tuple[Path, Path | None]:
    """Checkpoint and report of the training; that is about its best checkpoint, and of no other."""
    outputs = Outputs(path if path.is_dir() else path.parent)
    checkpoint = outputs.checkpoint if path.is_dir() else path
    if not checkpoint.is_file():
        raise CheckpointError(f"there is no checkpoint {checkpoint}: name a training's directory or its best.keras")
    return checkpoint, outputs.report if checkpoint.name == outputs.checkpoint.name else None


def _names(checkpoints: Sequence[Path]) -> list[str]:
    """A short name for each: its directory's, and the file's where that is not the usual one; unique by numbers, also
    among baselines.
    """
    names = []
    for path in checkpoints:
        directory = path.resolve().parent.name
        usual = path.name == Outputs(path.parent).checkpoint.name
        names.append(directory if usual else f"{directory}/{path.stem}")
    taken = {*names, *BASELINES}
    unique = []
    for name in names:
        if [*names, *BASELINES].count(name) == 1:
            unique.append(name)
        else:
            unique.append(next(free for number in count(1) if (free := f"{name} ({number})") not in taken))
            taken.add(unique[-1])
    return unique


def _report(path: Path | None) -> dict[str, Any]:
    """A training's report; {} where there is none that can be read."""
    if path is None:
        return {}
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def _object(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The JSON object under a key; {} where there is none."""
    found = value.get(key)
    return found if isinstance(found, Mapping) else {}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
