"""Train a segmentation model on a `Dataset`, and leave what one needs to judge and use it."""

import os
from collections.abc import Sequence
from typing import Any

import keras

from dataset_client import Dataset
from training import plots
from training.backend import require_backend
from training.checkpoint import load_checkpoint
from training.data import SegmentationSplit, load_splits
from training.files import write_json
from training.loop import TrainingLoop, best_epoch, compiled, evaluate
from training.models import check_model, create_model
from training.options import FitOptions
from training.outputs import Outputs, prepare_outputs
from training.predict import predict_photos, spread
from training.progress import show_measured_on
from training.report import describe
from training.result import EpochRecord, FitResult

__all__ = ["EpochRecord", "FitOptions", "FitResult", "fit"]

_PICTURES = 6


def fit(
    dataset: Dataset,
    output_dir: str | os.PathLike[str],
    options: FitOptions | None = None,
    *,
    progress: bool = False,
) -> FitResult:
    """Train a binary segmentation model, keep the weights with the best validation IoU, and measure them.

    Into ``output_dir`` go ``best.keras``, ``history.csv``, ``history.png``, ``predictions.png`` and, last of
    all, ``report.json``. On a CPU the same dataset, options and library versions give the same weights.
    ``progress`` shows a bar and a line per epoch on stderr.

    Raises `OutputError`, `DatasetError` or `ModelError` before training, and `DivergedError` as soon as the
    loss is no longer finite: the last good checkpoint stays.
    """
    options = options or FitOptions()
    require_backend()
    outputs = prepare_outputs(output_dir, overwrite=options.overwrite)
    train, validation = load_splits(dataset, options.train_split, options.validation_split)
    input_shape = (*train.image_size, 3)
    check_model(options.model, input_shape, 1, **options.model_options)
    for path in outputs.existing():
        path.unlink()

    if progress:
        show_measured_on(train.name, validation.name)
    keras.utils.set_random_seed(options.seed)
    model = create_model(options.model, input_shape, 1, **options.model_options)
    history = TrainingLoop(model, train, validation, options, outputs, progress).run()

    kept = load_checkpoint(outputs.checkpoint)
    iou_after = evaluate(compiled(kept, options), validation, options)["iou"]
    _draw(kept, validation, history, outputs, options)
    best = best_epoch(history).epoch
    result = FitResult(outputs, tuple(history), best, history[0].val_iou, iou_after, validation.name)
    write_json(outputs.report, describe(dataset, train, validation, kept, options, result))
    return result


def _draw(
    model: Any,
    validation: SegmentationSplit,
    history: Sequence[EpochRecord],
    outputs: Outputs,
    options: FitOptions,
) -> None:
    """The two pictures."""
    plots.draw_history(outputs.history_plot, history, best_epoch(history))
    shown = spread(len(validation), _PICTURES)
    images, masks = validation.images[shown], validation.masks[shown]
    predictions = predict_photos(model, images, batch_size=options.batch_size)
    plots.draw_predictions(outputs.predictions, images, masks, predictions)
