"""``report.json``: what was trained on what, with which code, and how well."""

import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import keras

from dataset_client import Dataset
from training.data import Task
from training.options import FitOptions
from training.result import FitResult

_FROM_MANIFEST = ("dataset_name", "handler", "config", "provenance")


def describe_origin(dataset: Dataset, task: Task, model: Any, options: FitOptions) -> dict[str, Any]:
    """What is trained on what, how, and with which code, as JSON types: part of the report and of each checkpoint."""
    manifest = dataset.manifest
    return {
        "format": 2,
        "dataset": {
            "dataset_id": dataset.dataset_id,
            **{key: manifest.get(key) for key in _FROM_MANIFEST},
            "train_split": {"name": task.train.name, "examples": task.train.examples},
            "validation_split": {"name": task.validation.name, "examples": task.validation.examples},
            "labels": {str(number): name for number, name in task.labels.items()},
        },
        "model": {
            "name": options.model,
            "options": dict(options.model_options),
            "input_shape": list(model.input_shape[1:]),
            "input_features": list(task.features),
            "classes": task.classes,
            "parameters": model.count_params(),
        },
        "options": options.to_json(),
        "seed": options.seed,
        "software": {
            **code_version(),
            "python": platform.python_version(),
            "keras": keras.version(),
            "backend": keras.backend.backend(),
            "backend_version": version_of(keras.backend.backend()),
            "machine": platform.machine(),
        },
    }


def describe(origin: Mapping[str, Any], result: FitResult, *, stopped_early: bool) -> dict[str, Any]:
    """The report: the origin, what came of it, and the history."""
    return {
        **origin,
        "result": {
            "iou_before": result.iou_before,
            "iou_after": result.iou_after,
            "best_epoch": result.best_epoch,
            "stopped_early": stopped_early,
            "checkpoint": result.outputs.checkpoint.name,
        },
        "history": [asdict(record) for record in result.history],
    }


def code_version() -> dict[str, str | None]:
    """Our release, and in a checkout the commit, with '+changes' if it has some; None where unknown."""
    here = Path(__file__).resolve().parent
    commit = _git(here, "rev-parse", "HEAD")
    if commit is not None and _git(here, "status", "--porcelain", "--", "."):
        commit += "+changes"
    return {"version": version_of("remote-dataset-pipeline"), "commit": commit}


def version_of(package: str) -> str | None:
    """The version of an installed distribution; for TensorFlow, also that of its CPU build."""
    for name in (package, f"{package}-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def _git(directory: Path, *arguments: str) -> str | None:
    """What git answers; None where there is no git, or it does not track this directory."""
    command = ["git", "-C", str(directory)]
    try:
        subprocess.run([*command, "ls-files", "--error-unmatch", "."], check=True, capture_output=True, timeout=10)
        answer = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
