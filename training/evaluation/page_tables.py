"""The tables of the report."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from training.evaluation.tiles import class_color

Json = Mapping[str, Any]
#: Of a run, what other parts of the page show.
_SHOWN_ELSEWHERE = frozenset(
    ("name", "warning", "results", "curves", "iou_histogram", "iou_at_least", "groups", "per_class", "confusion")
)
_KINDS = {"size": "Subject size (share of the photo)", "category": "Category", "cluster": "Cluster"}


def number(value: float | None) -> str:
    """Three digits after the point, or four figures of what is far from 1."""
    if value is None:
        return "–"
    digits = f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
    return digits.replace("-", "−")


def metrics(report: Json) -> str:
    """All metrics of all runs; the best of each row is marked."""
    rows = []
    for metric in report["metrics"]:
        results = [run["results"][metric["key"]] for run in report["runs"]]
        values = [result["value"] for result in results if result["value"] is not None]
        best = (max if metric["higher"] else min)(values) if len(set(values)) > 1 else None
        cells = "".join(_cell(result, "best" if result["value"] == best else "") for result in results)
        arrow = "↑" if metric["higher"] else "↓"
        rows.append(
            f'<tr><th scope="row">{escape(metric["label"])} {arrow}</th>{cells}'
            f'<td class="note">{escape(metric["text"])}</td></tr>'
        )
    names = "".join(f'<th scope="col" class="number">{escape(run["name"])}</th>' for run in report["runs"])
    return (
        "<h2>Metrics</h2>"
        + _note("↑ higher is better, ↓ lower is better.")
        + _table(f'<th scope="col">metric</th>{names}<th scope="col">what it is</th>', rows)
    )


def differences(report: Json) -> str:
    """The first run minus each of the others, with paired intervals."""
    if not report["differences"]:
        return ""
    first = report["runs"][0]["name"]
    rows = []
    for metric in report["metrics"]:
        cells = ""
        for one in report["differences"]:
            result = one["results"][metric["key"]]
            cells += _cell(result, _verdict(result, higher=metric["higher"]), sign=True)
        rows.append(f'<tr><th scope="row">{escape(metric["label"])}</th>{cells}</tr>')
    names = "".join(
        f'<th scope="col" class="number">minus {escape(one["minus"])}</th>' for one in report["differences"]
    )
    return (
        f"<h2>{escape(first)} against the others</h2>"
        + _note(
            "Both are resampled with the same photos (paired bootstrap). A difference in colour has an interval "
            "without 0: green where it is for the better, red for the worse. With so many rows, a few will by chance."
        )
        + _table(f'<th scope="col">{escape(first)}</th>{names}', rows)
    )


def class_tables(report: Json) -> str:
    """IoU per class of all runs, and a confusion matrix of each."""
    names = report["class_names"]
    runs = report["runs"]
    rows = []
    for k, name in enumerate(names):
        cells = "".join(_cell(run["per_class"][k]) for run in runs)
        key = f'<span class="key" style="background:{class_color(k, len(names))}"></span>'
        rows.append(f'<tr><th scope="row">{key}{escape(name)}</th>{cells}</tr>')
    heads = "".join(f'<th scope="col" class="number">{escape(run["name"])}</th>' for run in runs)
    parts = ["<h2>Classes</h2>", _note("IoU of each class over all pixels of the split; void pixels do not count.")]
    parts.append(_table(f'<th scope="col">class</th>{heads}', rows))
    parts += [_confusion(run["name"], run["confusion"], names) for run in runs if run["kind"] == "model"]
    return "".join(parts)


def groups(report: Json) -> str:
    """IoU by subject size, category and cluster."""
    parts = []
    for kind, title in _KINDS.items():
        by_run = [run["groups"].get(kind) for run in report["runs"]]
        if not by_run[0]:
            continue
        rows = []
        for place, one in enumerate(by_run[0]):
            cells = "".join(_cell(members[place]["iou"]) + _alone(members[place]["iou_95"]) for members in by_run)
            photos = f'<td class="number">{one["photos"]:,}</td>'
            rows.append(f'<tr><th scope="row">{escape(one["name"])}</th>{photos}{cells}</tr>')
        heads = "".join(
            f'<th scope="col" class="number">{escape(run["name"])}<br>IoU</th>'
            '<th scope="col" class="number">≥ 0.95</th>'
            for run in report["runs"]
        )
        parts.append(
            f"<h3>{escape(title)}</h3>"
            + _table(f'<th scope="col">group</th><th scope="col" class="number">photos</th>{heads}', rows)
        )
    return "".join(["<h2>Kinds of photos</h2>", *parts]) if parts else ""


def origin(report: Json) -> str:
    """Where dataset, runs and code come from."""
    dataset, software = report["dataset"], report["software"]
    told: list[tuple[str, str]] = [
        ("dataset", dataset["dataset_id"]),
        ("provenance", (dataset.get("provenance") or {}).get("sha256") or "not known"),
        ("config", json.dumps(dataset.get("config"), ensure_ascii=False, sort_keys=True)),
        ("code", f"{software['version']} ({software['commit'] or 'no checkout'})"),
        ("backend", f"Keras {software['keras']} on {software['backend']} {software['backend_version']}"),
    ]
    parts = ["<h2>Where this comes from</h2>", _definitions(told)]
    for run in report["runs"]:
        facts = [(key.replace("_", " "), _plain(value)) for key, value in run.items() if key not in _SHOWN_ELSEWHERE]
        parts += [f"<h3>{escape(run['name'])}</h3>", _definitions([fact for fact in facts if fact[1]])]
    return "".join(parts)


def _confusion(name: str, matrix: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """Rows are the truth; shades are shares of the row."""
    heads = "".join(f'<th scope="col">{escape(class_name)}</th>' for class_name in names)
    rows = []
    for class_name, counts in zip(names, matrix, strict=True):
        total = max(sum(counts), 1)
        cells = "".join(
            f'<td style="background:color-mix(in srgb, var(--accent) {55 * count / total:.0f}%, transparent)">'
            f"{100 * count / total:.1f}</td>"
            for count in counts
        )
        rows.append(f'<tr><th scope="row">{escape(class_name)}</th>{cells}<td>{sum(counts):,}</td></tr>')
    return (
        f"<h3>Confusion matrix of {escape(name)}</h3>"
        + _note("Per cent of the pixels of each true class (row) that were predicted as each class (column).")
        + _table(f'<th scope="col">truth</th>{heads}<th scope="col">pixels</th>', rows, "confusion")
    )


def _cell(result: Json, kind: str = "", *, sign: bool = False) -> str:
    """A value with its interval."""
    value = number(result["value"])
    if sign and result["value"] is not None and result["value"] > 0:
        value = f"+{value}"
    spread = (
        ""
        if result["low"] is None
        else f'<span class="range">{number(result["low"])} … {number(result["high"])}</span>'
    )
    return f'<td class="number {kind}"><span class="value">{value}</span>{spread}</td>'


def _verdict(difference: Json, *, higher: bool) -> str:
    """Whether the first run is surely better, surely worse, or neither."""
    low, high = difference["low"], difference["high"]
    if low is None or low <= 0 <= high:
        return ""
    return "best" if (low > 0) == higher else "worse"


def _alone(result: Json) -> str:
    """A value without its interval."""
    return f'<td class="number">{number(result["value"])}</td>'


def _table(head: str, rows: Sequence[str], kind: str = "") -> str:
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _definitions(facts: Sequence[tuple[str, str]]) -> str:
    items = "".join(f"<dt>{escape(key)}</dt><dd><code>{escape(value)}</code></dd>" for key, value in facts)
    return f"<dl>{items}</dl>"


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
