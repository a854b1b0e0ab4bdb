"""The pictures of the report: best, worst, where runs differ, and suspect labels."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from training.evaluation.drawing import Drawn, Pictures
from training.evaluation.page_tables import number
from training.evaluation.tiles import Tile
from training.pictures import FALSE, HIT, MISSED

Json = Mapping[str, Any]
_TITLES = {"worst": "Worst photos", "best": "Best photos", "differ": "Where the runs differ most"}
_KEY = (("found", HIT), ("too much", FALSE), ("missed", MISSED))


def examples(report: Json, pictures: Pictures) -> str:
    """Rows of photo, truth and, for each model, prediction and overlay."""
    parts: list[str] = []
    for kind, title in _TITLES.items():
        shown = report["examples"].get(kind, [])
        if not shown:
            continue
        rows = []
        for one in shown:
            drawn = pictures[one["number"]]
            rows.append(_photo(_name(one), "", _tiles(drawn, {name: one["iou"][name] for name in drawn.overlay})))
        parts.append(f"<h2>{title}</h2>{_key(report) if not parts else ''}{''.join(rows)}")
    return "".join(parts)


def suspects(report: Json, pictures: Pictures) -> str:
    """The labels that the models contradict, the worst first."""
    rule, found = report["suspect_rule"], report["suspects"]
    shown = found[: report["suspects_shown"]]
    counted = f"{len(found):,} of {report['photos']:,} labels"
    text = (
        f"{counted} are contradicted on {rule['least']:.0%} or more of what label or model mark, by a model that gives "
        f"the label a probability of {rule['sure_below']:g} at most; thin disagreement along edges is not counted. "
        f"{_judge(report)}A model that is often wrong finds many; a wrong label that it has learned too is not found. "
        "All of them are in suspects.csv; the yellow box bounds what is contradicted."
    )
    rows = []
    for rank, one in enumerate(shown, 1):
        drawn = pictures[one["number"]]
        note = f"suspicion {one['suspicion']:.2f} · {one['what']}"
        tiles = _tiles(drawn, None, one["box"])
        rows.append(_photo(f"{rank}. {_name(one)}", note, tiles))
    more = (
        f'<p class="note">{len(found) - len(shown):,} more are in suspects.csv.</p>' if len(found) > len(shown) else ""
    )
    return f'<h2>Suspect labels</h2><p class="note">{escape(text)}</p>{"".join(rows)}{more}'


def _judge(report: Json) -> str:
    """Which of several models decides."""
    models = [run for run in report["runs"] if run["kind"] == "model"]
    best = max(models, key=lambda run: run["results"]["photo_iou" if report["classes"] > 1 else "mean_iou"]["value"])
    return f"{best['name']} decides, as the best model here. " if len(models) > 1 else ""


def _tiles(drawn: Drawn, ious: Mapping[str, float] | None, box: Sequence[float] | None = None) -> str:
    """One model has four tiles; of several the overlays say enough."""
    single = len(drawn.overlay) == 1
    tiles = [_figure(drawn.photo), _figure(drawn.truth, box)]
    for name, overlay in drawn.overlay.items():
        caption = overlay.caption if single else name
        if ious is not None:
            caption += f" · IoU {number(ious[name])}"
        if single:
            tiles.append(_figure(drawn.prediction[name]))
        tiles.append(_figure(Tile(caption, overlay.uri), box if single else None))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _figure(tile: Tile, box: Sequence[float] | None = None) -> str:
    frame = ""
    if box and box[2] > box[0]:
        top, left, bottom, right = (100 * side for side in box)
        frame = (
            f'<span class="box" style="top:{top:.1f}%;left:{left:.1f}%;height:{bottom - top:.1f}%;'
            f'width:{right - left:.1f}%"></span>'
        )
    return (
        f'<figure><div class="frame"><img src="{tile.uri}" alt="{escape(tile.caption)}">{frame}</div>'
        f"<figcaption>{escape(tile.caption)}</figcaption></figure>"
    )


def _photo(title: str, note: str, tiles: str) -> str:
    return f'<section class="photo"><h4>{escape(title)}<span class="note">{escape(note)}</span></h4>{tiles}</section>'


def _name(one: Json) -> str:
    return str(one["source_id"]) if one["source_id"] is not None else f"example {one['number']}"


def _key(report: Json) -> str:
    """What the colours of overlays mean."""
    key = _KEY if report["classes"] == 1 else (("wrong class", MISSED),)
    items = "".join(
        f'<li><span class="key" style="background:rgb{color}"></span>{escape(name)}</li>' for name, color in key
    )
    return f'<ul class="legend">{items}</ul>'
