"""The pictures of a training: its curves, and what the model sees. No pyplot, no global state."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from training.files import atomic_path
from training.metrics import VOID, binary_iou
from training.pictures import FALSE, HIT, MISSED, class_colors, tiles
from training.result import EpochRecord

_TRAIN, _VALIDATION, _MUTED = "#8a94a6", "#0b6e99", "#5b6472"
_TILE = 2.3  # inches, the longer side of a photo


def draw_history(path: Path, history: Sequence[EpochRecord], best: EpochRecord) -> None:
    """Loss and IoU by epoch, side by side; the ``best`` epoch is marked, the untrained IoU a dashed line."""
    trained = [record for record in history if record.epoch > 0]
    epochs = [record.epoch for record in trained]
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    loss_axes, iou_axes = figure.subplots(1, 2)
    marker = "o" if len(epochs) <= 30 else None

    def curve(axes: Any, values: list[float | None], color: str, label: str) -> None:
        axes.plot(epochs, values, color=color, label=label, linewidth=2, marker=marker, markersize=3.5)

    curve(loss_axes, [record.loss for record in trained], _TRAIN, "training")
    curve(loss_axes, [record.val_loss for record in trained], _VALIDATION, "validation")
    curve(iou_axes, [record.iou for record in trained], _TRAIN, "training")
    curve(iou_axes, [record.val_iou for record in trained], _VALIDATION, "validation")
    iou_axes.axhline(history[0].val_iou, color=_MUTED, linestyle="--", linewidth=1, label="untrained")
    iou_axes.plot(
        best.epoch,
        best.val_iou,
        "o",
        color=_VALIDATION,
        markersize=9,
        markerfacecolor="white",
        markeredgewidth=2,
        label=f"kept: epoch {best.epoch}, IoU {best.val_iou:.3f}",
    )
    iou_axes.set_ylim(0, 1)
    loss_axes.set_ylim(bottom=0)
    for axes, title in ((loss_axes, "Loss"), (iou_axes, "IoU")):
        axes.set_title(title, loc="left", fontweight="bold")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=True, color="#e4e7ec", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    _save(figure, path, dpi=130)


def draw_predictions(
    path: Path,
    images: np.ndarray,
    masks: np.ndarray,
    predictions: np.ndarray,
    labels: Mapping[int, str] | None = None,
) -> None:
    """A row per photo: photo | truth | prediction | overlay, with its IoU, or with several classes its pixel accuracy.

    ``images`` uint8 (N, H, W, 3), ``masks`` uint8 (N, H, W, 1), ``predictions`` float in [0, 1] (N, H, W, classes),
    N ≥ 1; ``labels`` names classes by number.
    """
    rows, height, width = images.shape[:3]
    classes = predictions.shape[3]
    scale = _TILE / max(height, width)
    legend = _legend(classes, labels or {})
    columns = min(len(legend), 6)
    gap, header, footer = 0.06, 0.34, 0.18 + 0.24 * math.ceil(len(legend) / columns)  # inches
    tile_width, tile_height = width * scale, height * scale
    total_width = 4 * tile_width + 5 * gap
    total_height = rows * (tile_height + gap) + header + footer
    figure = Figure(figsize=(total_width, total_height), facecolor="white")

    for row in range(rows):
        truth = masks[row, :, :, 0]
        bottom = total_height - header - (row + 1) * tile_height - row * gap
        for column, tile in enumerate(tiles(images[row], truth, predictions[row])):
            left = gap + column * (tile_width + gap)
            axes = figure.add_axes(
                (
                    left / total_width,
                    bottom / total_height,
                    tile_width / total_width,
                    tile_height / total_height,
                )
            )
            axes.imshow(tile)
            axes.set_axis_off()
            if row == 0:
                title = ("Photo", "Truth", "Prediction", "Overlay")[column]
                axes.set_title(title, fontsize=11, fontweight="bold", color="#1f2733", pad=6)
            if column == 3:
                _badge(axes, _verdict(truth, predictions[row]))
    figure.legend(
        handles=[Patch(color=np.array(color) / 255, label=label) for color, label in legend],
        loc="lower center",
        ncols=columns,
        frameon=False,
        fontsize=10 if classes == 1 else 8,
        bbox_to_anchor=(0.5, 0.0),
        handlelength=1,
        handleheight=1,
    )
    _save(figure, path, dpi=110)


def _verdict(truth: np.ndarray, prediction: np.ndarray) -> str:
    """How good one prediction is, in a few letters."""
    if prediction.shape[2] == 1:
        return f"IoU {binary_iou(truth / 255, prediction[:, :, 0]):.2f}"
    known = truth != VOID
    right = int(np.count_nonzero(known & (prediction.argmax(axis=2) == truth)))
    return f"right {right / max(1, int(np.count_nonzero(known))):.2f}"


def _legend(classes: int, labels: Mapping[int, str]) -> list[tuple[Any, str]]:
    """Colours and what they mean."""
    if classes == 1:
        return [(HIT, "found"), (FALSE, "too much"), (MISSED, "missed")]
    colors = class_colors(classes)
    named = [(colors[number], labels.get(number, f"class {number}")) for number in range(min(classes, 24))]
    return [*named, (MISSED, "wrong (overlay)")]


def _badge(axes: Any, text: str) -> None:
    """A small label in the upper left corner of a tile."""
    axes.text(
        0.03,
        0.965,
        text,
        transform=axes.transAxes,
        va="top",
        fontsize=9,
        color="white",
        bbox={"facecolor": "#1f2733", "alpha": 0.8, "edgecolor": "none", "boxstyle": "round,pad=0.3"},
    )


def _save(figure: Figure, path: Path, dpi: int) -> None:
    """Render to PNG, atomically."""
    FigureCanvasAgg(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi)
