"""``evaluation.json``: what was evaluated on what, with which code, and how well."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import keras
import numpy as np

from dataset_client import Dataset
from training.errors import OptionsError
from training.evaluation.bootstrap import Replicates
from training.evaluation.disagreement import SURE
from training.evaluation.groups import SIZE_LIMITS
from training.evaluation.options import EvaluationOptions
from training.evaluation.predictor import Predictor
from training.evaluation.results import Json, difference, result_of
from training.evaluation.runs import Run
from training.evaluation.scores import Scores
from training.evaluation.summary import CLASS_METRICS, MATTE_METRICS, SUBJECT_METRICS
from training.evaluation.suspects import LEAST, Suspect
from training.report import code_version, version_of


def class_names_of(dataset: Dataset, classes: int, given: Sequence[str]) -> list[str]:
    """The name of each class: those ``given``, else the manifest's ``labels``, else "class 3"; none for one subject.

    Raises `OptionsError` for another number of names than there are classes.
    """
    if classes == 1:
        return []
    if given:
        if len(given) != classes:
            raise OptionsError(f"there are {classes} classes and {len(given)} class_names ({', '.join(given)})")
        return list(given)
    labels = {int(number): str(name) for number, name in (dataset.manifest.get("labels") or {}).items()}
    return [labels.get(number, "ground" if number == 0 and labels else f"class {number}") for number in range(classes)]


def describe_evaluation(
    dataset: Dataset,
    predictors: Sequence[Predictor],
    runs: Sequence[Run],
    scores: Scores,
    replicates: Sequence[Mapping[str, Replicates]],
    chosen: Mapping[str, Sequence[int]],
    suspects: Sequence[Suspect],
    class_names: Sequence[str],
    options: EvaluationOptions,
) -> Json:
    """The report as JSON types."""
    classes = predictors[0].classes
    warnings = {run.name: run.warning(dataset.dataset_id, options.split) for run in runs}
    told = []
    for predictor, table, replicate in zip(predictors, scores.tables, replicates, strict=True):
        about = {"name": predictor.name, **predictor.describe(), "warning": warnings.get(predictor.name)}
        told.append({**about, **result_of(table, replicate, scores.facts, options)})
    tables = dict(zip((predictor.name for predictor in predictors), scores.tables, strict=True))
    return {
        "format": 1,
        "dataset": _dataset(dataset),
        "split": options.split,
        "photos": len(scores.facts),
        "photo_sizes": _sizes(scores),
        "measured_at": "the size of the dataset's photos",
        "classes": classes,
        "class_names": list(class_names),
        "options": options.to_json(),
        "metrics": [asdict(metric) for metric in _metrics(classes) if _is_told(told, metric.key)],
        "size_limits": list(SIZE_LIMITS),
        "runs": told,
        "differences": [
            {
                "run": predictors[0].name,
                "minus": predictor.name,
                "results": difference(replicates[0], other, options.confidence),
            }
            for predictor, other in zip(predictors[1:], replicates[1:], strict=True)
        ],
        "examples": {kind: [_example(scores, tables, n) for n in numbers] for kind, numbers in chosen.items()},
        "suspect_rule": {"sure_below": SURE, "least": LEAST},
        "suspects": [suspect.to_json() for suspect in suspects],
        "suspects_shown": options.suspects,
        "software": {
            **code_version(),
            "python": platform.python_version(),
            "keras": keras.version(),
            "backend": keras.backend.backend(),
            "backend_version": version_of(keras.backend.backend()),
            "machine": platform.machine(),
        },
    }


def _dataset(dataset: Dataset) -> Json:
    keys = ("dataset_name", "handler", "config", "provenance")
    return {"dataset_id": dataset.dataset_id, **{key: dataset.manifest.get(key) for key in keys}}


def _metrics(classes: int) -> tuple[Any, ...]:
    return (*SUBJECT_METRICS, *MATTE_METRICS) if classes == 1 else CLASS_METRICS


def _is_told(runs: Sequence[Json], key: str) -> bool:
    """Whether any run has such a number: errors of mattes are there for soft masks only."""
    return any(run["results"].get(key, {}).get("value") is not None for run in runs)


def _sizes(scores: Scores) -> Json:
    """Smallest and largest height and width."""
    sizes = np.array([photo.size for photo in scores.facts])
    return {"least": sizes.min(axis=0).tolist(), "most": sizes.max(axis=0).tolist()}


def _example(scores: Scores, tables: Mapping[str, Mapping[str, np.ndarray]], number: int) -> Json:
    photo = scores.facts[number]
    return {
        "number": photo.number,
        "source_id": photo.key,
        "iou": {name: round(float(table["iou"][number]), 6) for name, table in tables.items()},
    }
