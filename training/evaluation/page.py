"""``evaluation.html``: the report as one page that needs no other file, no script and no network."""

from collections.abc import Mapping
from html import escape
from typing import Any

from training.evaluation.drawing import Pictures
from training.evaluation.page_charts import charts
from training.evaluation.page_examples import examples, suspects
from training.evaluation.page_tables import class_tables, differences, groups, metrics, number, origin
from training.evaluation.style import STYLE

Json = Mapping[str, Any]


def render_page(report: Json, pictures: Pictures) -> str:
    """HTML of a report as of `describe_evaluation`; all text in it is escaped."""
    dataset = report["dataset"]
    title = f"{dataset['dataset_name']} · {report['split']}"
    parts = [_head(report, title), metrics(report), differences(report)]
    parts += [class_tables(report)] if report["classes"] > 1 else []
    parts += [charts(report), groups(report), examples(report, pictures), suspects(report, pictures), origin(report)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # Nothing is fetched, whatever a name in the dataset may hold.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(title)} – evaluation</title><style>{STYLE}</style></head><body>"
        f"{''.join(part for part in parts if part)}</body></html>\n"
    )


def _head(report: Json, title: str) -> str:
    """What was evaluated, one card for each run, and what makes a number doubtful."""
    options = report["options"]
    least, most = report["photo_sizes"]["least"], report["photo_sizes"]["most"]
    sizes = f"{least[0]}×{least[1]}" if least == most else f"{least[0]}×{least[1]} to {most[0]}×{most[1]}"
    cards = "".join(_card(run) for run in report["runs"])
    warnings = "".join(f'<p class="warning">{escape(run["warning"])}</p>' for run in report["runs"] if run["warning"])
    return (
        f"<header><h1>{escape(title)}</h1>"
        f'<p class="muted">{report["photos"]:,} photos of {sizes} pixels (height × width), measured at that size. '
        f"Ranges are {options['confidence']:.0%} percentile bootstrap intervals over photos: {options['resamples']:,} "
        f"resamples, seed {options['seed']}.</p></header>{warnings}"
        f'<div class="cards">{cards}</div>'
    )


def _card(run: Json) -> str:
    kind = "baseline" if run["kind"] == "baseline" else run["model"] or "model"
    shares = ", ".join(f"{run['results'][f'iou_{limit}']['value']:.1%} ≥ 0.{limit}" for limit in (95, 97, 99))
    return (
        f'<div class="card"><b>{escape(run["name"])}</b><span class="note">{escape(kind)} · mean IoU</span>'
        f'<span class="big">{number(run["results"]["mean_iou"]["value"])}</span>'
        f'<span class="note">{_range(run["results"]["mean_iou"])}<br>photos: {shares}</span></div>'
    )


def _range(one: Json) -> str:
    return "" if one["low"] is None else f"{number(one['low'])} to {number(one['high'])}"
