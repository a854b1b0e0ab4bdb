"""The pictures of a training: its curves, and what the model sees. No pyplot, no global state."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from training.files import atomic_path
from training.metrics import binary_iou
from training.result import EpochRecord

_TRAIN, _VALIDATION, _MUTED = "#8a94a6", "#0b6e99", "#5b6472"
#: Of the overlay: a pixel found, one that is none, one that was missed. Distinct without red and green.
_HIT, _FALSE, _MISSED = (38, 166, 154), (255, 160, 0), (216, 27, 136)
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


def draw_predictions(path: Path, images: np.ndarray, masks: np.ndarray, predictions: np.ndarray) -> None:
    """A row per photo: photo | truth | prediction | overlay, with its IoU.

    ``images`` uint8 (N, H, W, 3), ``masks`` uint8 (N, H, W, 1), ``predictions`` float in [0, 1] (N, H, W,
    1), N ≥ 1.
    """
    rows, height, width = images.shape[:3]
    scale = _TILE / max(height, width)
    gap, header, footer = 0.06, 0.34, 0.42  # inches
    tile_width, tile_height = width * scale, height * scale
    total_width = 4 * tile_width + 5 * gap
    total_height = rows * (tile_height + gap) + header + footer
    figure = Figure(figsize=(total_width, total_height), facecolor="white")

    for row in range(rows):
        truth = masks[row, :, :, 0]
        probability = predictions[row, :, :, 0]
        iou = binary_iou(truth / 255, probability)
        tiles = (images[row], truth, probability * 255, overlay(images[row], truth, probability))
        bottom = total_height - header - (row + 1) * tile_height - row * gap
        for column, tile in enumerate(tiles):
            left = gap + column * (tile_width + gap)
            axes = figure.add_axes(
                (
                    left / total_width,
                    bottom / total_height,
                    tile_width / total_width,
                    tile_height / total_height,
                )
            )
            axes.imshow(tile, cmap="gray", vmin=0, vmax=255)
            axes.set_axis_off()
            if row == 0:
                title = ("Photo", "Truth", "Prediction", "Overlay")[column]
                axes.set_title(title, fontsize=11, fontweight="bold", color="#1f2733", pad=6)
            if column == 3:
                _badge(axes, f"IoU {iou:.2f}")
    figure.legend(
        handles=[
            Patch(color=np.array(color) / 255, label=label)
            for color, label in ((_HIT, "found"), (_FALSE, "too much"), (_MISSED, "missed"))
        ],
        loc="lower center",
        ncols=3,
        frameon=False,
        fontsize=10,
        bbox_to_anchor=(0.5, 0.0),
        handlelength=1,
        handleheight=1,
    )
    _save(figure, path, dpi=110)


def overlay(image: np.ndarray, truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The photo in grey, with colour where the mask is: found, too much, missed.

    ``image`` uint8 (H, W, 3), ``truth`` uint8 (H, W), ``probability`` float in [0, 1] (H, W); gives uint8
    (H, W, 3).
    """
    true, predicted = truth >= 127.5, probability >= 0.5
    grey = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
    drawn = np.repeat((0.75 * grey + 48)[:, :, None], 3, axis=2)
    for where, color in ((true & predicted, _HIT), (~true & predicted, _FALSE), (true & ~predicted, _MISSED)):
        drawn[where] = 0.45 * drawn[where] + 0.55 * np.array(color, np.float32)
    pixels: np.ndarray = np.rint(drawn.clip(0, 255)).astype(np.uint8)
    return pixels


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
