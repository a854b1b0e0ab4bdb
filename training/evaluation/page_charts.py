"""The charts of the report."""

from collections.abc import Mapping
from typing import Any

from training.evaluation.charts import Axes, Series, bar_chart, legend, line_chart

Json = Mapping[str, Any]


def charts(report: Json) -> str:
    """How IoU is distributed, and for one subject how the result depends on the threshold."""
    runs = report["runs"]
    drawn = [_histogram(report), _cumulated(report)]
    if report["classes"] == 1:
        drawn += [_precision_recall(report), _f_beta(report)]
    names = [_series(run, place, [], []) for place, run in enumerate(runs)]
    return f'<h2>Curves</h2>{legend(names)}<div class="charts">{"".join(drawn)}</div>'


def _series(run: Json, place: int, x: list[float], y: list[float]) -> Series:
    return Series(run["name"], x, y, place, dashed=run["kind"] == "baseline")


def _histogram(report: Json) -> str:
    """How many photos have which IoU; of models only, as bars of many runs are hard to read."""
    shown = [(place, run) for place, run in enumerate(report["runs"]) if run["kind"] == "model"]
    highest = max(max(run["iou_histogram"]) for _, run in shown)
    top = next(step * 10**power for power in range(9) for step in (5, 10, 25) if step * 10**power >= highest)
    edges = [step / 20 for step in range(20)]
    axes = Axes("IoU of the photos", "IoU", "photos", y_range=(0, top))
    return bar_chart(axes, [_series(run, place, edges, run["iou_histogram"]) for place, run in shown])


def _cumulated(report: Json) -> str:
    """The share of photos with at least some IoU."""
    series = []
    for place, run in enumerate(report["runs"]):
        shares = run["iou_at_least"]
        series.append(_series(run, place, [step / (len(shares) - 1) for step in range(len(shares))], shares))
    return line_chart(Axes("Photos with at least this IoU", "IoU", "share of photos"), series)


def _precision_recall(report: Json) -> str:
    series = []
    for place, run in enumerate(report["runs"]):
        points = zip(run["curves"]["recall"], run["curves"]["precision"], strict=True)
        # A threshold that nothing reaches has no precision; its 0 would draw a line to the corner.
        found = [(recall, precision) for recall, precision in points if recall > 0]
        series.append(_series(run, place, [recall for recall, _ in found], [precision for _, precision in found]))
    return line_chart(Axes("Precision and recall, means over photos", "recall", "precision"), series)


def _f_beta(report: Json) -> str:
    series = []
    for place, run in enumerate(report["runs"]):
        curve = run["curves"]["f_beta"]
        series.append(_series(run, place, [step / (len(curve) - 1) for step in range(len(curve))], curve))
    return line_chart(Axes("F-beta (β² = 0.3), mean over photos", "threshold", "F-beta"), series)
