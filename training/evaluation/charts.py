"""Charts as SVG inside a page: their colours are the page's, so that they follow its light and dark."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 42
#: How many colours the page has for series, ``--series-1`` and so on.
COLOURS = 6


@dataclass(frozen=True)
class Series:
    """A line: ``x`` and ``y`` of its points; ``dashed`` for a baseline. ``colour`` counts from 0."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int
    dashed: bool = False


@dataclass(frozen=True)
class Axes:
    """What a chart shows, and the range of both axes, which have five steps."""

    title: str
    x_label: str
    y_label: str
    x_range: tuple[float, float] = (0.0, 1.0)
    y_range: tuple[float, float] = (0.0, 1.0)


def line_chart(axes: Axes, series: Sequence[Series]) -> str:
    """Lines over a grid, as an ``<svg>`` that names itself to screen readers."""
    lines = []
    for one in series:
        points = " ".join(
            f"{_x(axes, x):.1f},{_y(axes, y):.1f}" for x, y in zip(one.x, one.y, strict=True) if y == y and x == x
        )
        dashes = ' stroke-dasharray="5 4"' if one.dashed else ""
        lines.append(
            f'<polyline points="{points}" fill="none" stroke="{_colour(one.colour)}" stroke-width="2" '
            f'stroke-linejoin="round"{dashes}><title>{escape(one.name)}</title></polyline>'
        )
    return _frame(axes, "".join(lines))


def bar_chart(axes: Axes, series: Sequence[Series]) -> str:
    """Bars side by side, one group for each x; ``x`` are the left edges of intervals of equal width."""
    bars = []
    for place, one in enumerate(series):
        step = one.x[1] - one.x[0]
        width = step * 0.84 / len(series)
        for x, y in zip(one.x, one.y, strict=True):
            left, right = (_x(axes, x + step * 0.08 + width * edge) for edge in (place, place + 1))
            top, bottom = _y(axes, y), _y(axes, axes.y_range[0])
            bars.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{max(bottom - top, 0):.1f}" '
                f'fill="{_colour(one.colour)}"><title>{escape(one.name)}: {y:g} from {x:.2f} to {x + step:.2f}</title>'
                "</rect>"
            )
    return _frame(axes, "".join(bars))


def legend(series: Sequence[Series]) -> str:
    """The names of series and their colours, once for all charts that share them."""
    items = []
    for one in series:
        dashes = ' stroke-dasharray="5 4"' if one.dashed else ""
        items.append(
            f'<li><svg width="26" height="10" aria-hidden="true"><line x1="1" x2="25" y1="5" y2="5" stroke-width="3" '
            f'stroke="{_colour(one.colour)}"{dashes}/></svg>{escape(one.name)}</li>'
        )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _frame(axes: Axes, content: str) -> str:
    """Grid, ticks and labels around the content."""
    parts = []
    for step in range(6):
        for low, high, horizontal in ((*axes.y_range, True), (*axes.x_range, False)):
            value = low + (high - low) * step / 5
            if horizontal:
                y = _y(axes, value)
                parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
                parts.append(f'<text class="tick" x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
            else:
                x = _x(axes, value)
                below = _HEIGHT - _BOTTOM + 17
                parts.append(f'<text class="tick" x="{x:.1f}" y="{below}" text-anchor="middle">{value:.3g}</text>')
    middle_x, middle_y = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(
        f'<text class="axis" x="{middle_x:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(axes.x_label)}</text>'
    )
    parts.append(
        f'<text class="axis" x="12" y="{middle_y:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 12 {middle_y:.0f})">{escape(axes.y_label)}</text>'
    )
    return (
        f'<figure class="chart"><figcaption>{escape(axes.title)}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(axes.title)}">'
        f"{''.join(parts)}{content}</svg></figure>"
    )


def _x(axes: Axes, value: float) -> float:
    low, high = axes.x_range
    return _LEFT + (min(max(value, low), high) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)


def _y(axes: Axes, value: float) -> float:
    low, high = axes.y_range
    return _HEIGHT - _BOTTOM - (min(max(value, low), high) - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)


def _colour(number: int) -> str:
    return f"var(--series-{number % COLOURS + 1})"
