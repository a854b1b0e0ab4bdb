"""From tables of scores to the numbers of the report, as JSON types."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from training.evaluation.bootstrap import Replicates, Resamples, Statistic, Table, means_of, replicate
from training.evaluation.groups import Facts, group
from training.evaluation.options import EvaluationOptions
from training.evaluation.summary import class_statistic, share_statistic, subject_statistic

#: Ends of the intervals that IoUs are counted in.
_BINS = np.linspace(0, 1, 21)
_STEPS = 100  # of the curve of photos with at least some IoU
Json = dict[str, Any]


def statistic_for(classes: int) -> Statistic:
    """What is said of a split with so many classes."""
    return subject_statistic if classes == 1 else class_statistic


def run_replicates(
    tables: Sequence[Table], classes: int, options: EvaluationOptions, moved: Callable[[int], None]
) -> list[dict[str, Replicates]]:
    """All numbers of all runs, by the same resamples: those of two runs may be subtracted. ``moved(1)`` is told of
    each run that is done.
    """
    photos = len(tables[0]["iou"])
    resamples = Resamples.draw(photos, options.resamples, options.seed)
    statistic = statistic_for(classes)
    replicates = []
    for table in tables:
        replicates.append(replicate(_needed(table), statistic, resamples))
        moved(1)
    return replicates


def result_of(
    table: Table, replicates: Mapping[str, Replicates], facts: Sequence[Facts], options: EvaluationOptions
) -> Json:
    """All about one run: ``results``, IoU of the photos, ``groups``; ``curves``, or ``per_class`` and ``confusion``."""
    found: Json = {
        "results": {name: interval(one, options.confidence) for name, one in replicates.items() if one.value.ndim == 0},
        "iou_histogram": np.histogram(table["iou"], _BINS)[0].tolist(),
        "iou_at_least": [round(float((table["iou"] >= step / _STEPS).mean()), 6) for step in range(_STEPS + 1)],
        "groups": _groups(table, facts, options),
    }
    means = {name: values[0] for name, values in means_of(_needed(table)).items()}
    if "class_iou" in replicates:
        one = replicates["class_iou"]
        low, high = one.interval(options.confidence)
        found["per_class"] = [_numbers(one.value[k], low[k], high[k]) for k in range(len(one.value))]
        total = table["confusion"].sum(axis=0)
        classes = math.isqrt(len(total))
        found["confusion"] = total.reshape(classes, classes).astype(np.int64).tolist()
    else:
        names = ("precision_curve", "recall_curve", "f_beta_curve", "e_measure_curve")
        found["curves"] = {name.removesuffix("_curve"): np.round(means[name], 5).tolist() for name in names}
    return found


def difference(run: Mapping[str, Replicates], other: Mapping[str, Replicates], confidence: float) -> Json:
    """``run`` minus ``other``, photo by photo: the interval of the difference, not the difference of intervals."""
    return {name: interval(run[name] - other[name], confidence) for name in run if run[name].value.ndim == 0}


def interval(replicates: Replicates, confidence: float) -> Json:
    """``value``, ``low`` and ``high``; None where there is no such number."""
    low, high = replicates.interval(confidence)
    return _numbers(replicates.value, low, high)


def _groups(table: Table, facts: Sequence[Facts], options: EvaluationOptions) -> Json:
    """Kind → groups with ``name``, ``photos``, ``iou`` and ``iou_95``; one of a single photo has no interval."""
    found: Json = {}
    columns = {name: table[name] for name in ("iou", "iou_95")}
    for kind, members in group(facts).items():
        found[kind] = []
        for name, places in members.items():
            resamples = Resamples.draw(len(places), options.resamples, options.seed)
            replicates = replicate({key: column[places] for key, column in columns.items()}, share_statistic, resamples)
            numbers = {key: interval(one, options.confidence) for key, one in replicates.items()}
            found[kind].append({"name": name, "photos": len(places), **numbers})
    return found


_NOT_AVERAGED = ("suspicion", "missing", "extra", "labelled", "seen", "top", "left", "bottom", "right")


def _needed(table: Table) -> Table:
    return {name: column for name, column in table.items() if name not in _NOT_AVERAGED}


def _numbers(value: Any, low: Any, high: Any) -> Json:
    return {"value": _number(value), "low": _number(low), "high": _number(high)}


def _number(value: Any) -> float | None:
    """Rounded to 6 digits after the point."""
    number = float(value)
    return round(number, 6) if math.isfinite(number) else None
