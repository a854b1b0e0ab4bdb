"""``report.json``: what was trained on what, with which code, and how well."""

import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import keras

from dataset_client import Dataset
from training.data import SegmentationSplit
from training.options import FitOptions
from training.result import FitResult

_FROM_MANIFEST = ("dataset_name", "handler", "config", "provenance")


def describe(
    dataset: Dataset,
    train: SegmentationSplit,
    validation: SegmentationSplit,
    model: Any,
    options: FitOptions,
    result: FitResult,
) -> dict[str, Any]:
    """The report as JSON types."""
    manifest = dataset.manifest
    return {
        "format": 1,
        "dataset": {
            "dataset_id": dataset.dataset_id,
            **{key: manifest.get(key) for key in _FROM_MANIFEST},
            "train_split": {"name": train.name, "examples": len(train)},
            "validation_split": {"name": validation.name, "examples": len(validation)},
        },
        "model": {
            "name": options.model,
            "options": dict(options.model_options),
            "input_shape": list(model.input_shape[1:]),
            "classes": model.output_shape[-1],
            "parameters": model.count_params(),
        },
        "options": options.to_json(),
        "result": {
            "iou_before": result.iou_before,
            "iou_after": result.iou_after,
            "best_epoch": result.best_epoch,
            "checkpoint": result.outputs.checkpoint.name,
        },
        "history": [asdict(record) for record in result.history],
        "software": {
            **code_version(),
            "python": platform.python_version(),
            "keras": keras.version(),
            "backend": keras.backend.backend(),
            "backend_version": version_of(keras.backend.backend()),
            "machine": platform.machine(),
        },
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
