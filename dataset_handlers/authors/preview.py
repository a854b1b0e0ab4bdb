"""Contact sheets: the first examples of a dataset as one picture, to look at before training on thousands of them."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ..errors import EmptySelectionError, RequestError
from .dataset import BuiltDataset
from .drawing import caption, panels

_PANEL = 160  # width of one picture in pixels
_INNER, _GAP, _MARGIN = 3, 14, 16
_TITLE, _CAPTION = 34, 18
_INK, _FAINT = (30, 30, 30), (110, 110, 110)
_WIDEST = 1700  # of a sheet whose number of columns is not given
_MOST = 1000


def contact_sheet(
    dataset: BuiltDataset, splits: Sequence[str] | None = None, count: int = 12, columns: int | None = None
) -> Image.Image:
    """Draw up to ``count`` examples of each split, ``columns`` beside each other.

    An example is drawn as its photo, the photo with the mask laid over it, then alpha, trimap and clicks, if it has
    them; boxes are drawn into the photo; source id and numbers stand below. Raises `RequestError` for a split that is
    not there, `EmptySelectionError` where nothing can be drawn.
    """
    if not 1 <= count <= _MOST or (columns is not None and columns < 1):
        raise RequestError(f"a sheet shows 1 to {_MOST} examples of each split, in one column or more")
    if unknown := [split for split in splits or () if split not in dataset.splits]:
        raise RequestError(f"there is no split '{unknown[0]}'; the splits are {', '.join(dataset.splits)}")
    chosen = {
        split: list(itertools.islice(dataset.examples(split), count))
        for split in dataset.splits
        if not splits or split in splits
    }
    every = [example for examples in chosen.values() for example in examples]
    size = _panel_size(every)
    drawn = {
        split: [(panels(example, size, dataset.classes), caption(example)) for example in found]
        for split, found in chosen.items()
    }
    most = max((len(pictures) for cells in drawn.values() for pictures, _ in cells), default=0)
    if not most:
        raise EmptySelectionError(f"'{dataset.name}' holds nothing that can be drawn: no field is a picture")
    captioned = any(text for cells in drawn.values() for _, text in cells)
    cell = (most * (size[0] + _INNER) - _INNER, size[1] + (_CAPTION if captioned else 0))
    if columns is None:
        columns = max(1, (_WIDEST - 2 * _MARGIN + _GAP) // (cell[0] + _GAP))
    columns = min(columns, max(len(cells) for cells in drawn.values()))
    return _sheet(dataset, drawn, size, cell, columns)


def _panel_size(examples: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Width and height of every picture: of the median shape, so that most are drawn without a rim."""
    ratios = sorted(
        value.shape[0] / value.shape[1]
        for example in examples
        for value in example.values()
        if getattr(value, "ndim", 0) == 3 and value.size
    )
    ratio = ratios[len(ratios) // 2] if ratios else 1.0
    return _PANEL, max(_PANEL // 4, min(2 * _PANEL, round(_PANEL * ratio)))


def _sheet(
    dataset: BuiltDataset,
    drawn: dict[str, list[tuple[list[Image.Image], str]]],
    size: tuple[int, int],
    cell: tuple[int, int],
    columns: int,
) -> Image.Image:
    heights = [_TITLE + math.ceil(len(cells) / columns) * (cell[1] + _GAP) for cells in drawn.values()]
    width = 2 * _MARGIN + columns * (cell[0] + _GAP) - _GAP
    sheet = Image.new("RGB", (width, sum(heights) + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    title_font, caption_font = ImageFont.load_default(15), ImageFont.load_default(11)
    top = 0
    for (split, cells), height in zip(drawn.items(), heights, strict=True):
        title = f"{dataset.name} · {split} · {len(cells):,} of {dataset.splits[split]:,} examples"
        draw.text((_MARGIN, top + 11), _shortened(title, title_font, width - 2 * _MARGIN), _INK, title_font)
        for index, (pictures, text) in enumerate(cells):
            x = _MARGIN + index % columns * (cell[0] + _GAP)
            y = top + _TITLE + index // columns * (cell[1] + _GAP)
            for number, picture in enumerate(pictures):
                sheet.paste(picture, (x + number * (size[0] + _INNER), y))
            draw.text((x, y + size[1] + 3), _shortened(text, caption_font, cell[0]), _FAINT, caption_font)
        top += height
    return sheet


def _shortened(text: str, font: Any, width: int) -> str:
    """``text`` cut in its middle, where keys of one folder are alike, until it is at most ``width`` pixels wide."""
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = f"{text[: kept // 3]}…{text[len(text) - (kept - kept // 3) :]}"
        if font.getlength(short) <= width:
            return short
    return "…"
