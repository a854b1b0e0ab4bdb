"""The loop over epochs: train, measure, keep the best."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from training.batches import Batches
from training.checkpoint import save_checkpoint
from training.data import SegmentationSplit
from training.errors import DivergedError
from training.history import write_history
from training.losses import create_loss
from training.metrics.online import BinaryIoU
from training.options import FitOptions
from training.outputs import Outputs
from training.progress import epoch_bar, show_epoch
from training.result import EpochRecord


@dataclass
class TrainingLoop:
    """Trains ``model`` and leaves ``best.keras`` and ``history.csv``; both are whole after every epoch."""

    model: Any
    train: SegmentationSplit
    validation: SegmentationSplit
    options: FitOptions
    outputs: Outputs
    progress: bool = False
    best: EpochRecord | None = None

    def run(self) -> list[EpochRecord]:
        """Returns the record of each epoch, that of the untrained model first. Raises `DivergedError`."""
        trainer = compiled(self.model, self.options)
        history: list[EpochRecord] = []
        for epoch in range(self.options.epochs + 1):  # epoch 0 only measures
            started = time.perf_counter()
            learned = self._train_epoch(trainer, epoch) if epoch else {}
            measured = evaluate(trainer, self.validation, self.options)
            if not math.isfinite(measured["loss"]):
                raise self._diverged(epoch, None)
            record = EpochRecord(
                epoch=epoch,
                loss=learned.get("loss"),
                iou=learned.get("iou"),
                val_loss=measured["loss"],
                val_iou=measured["iou"],
                seconds=round(time.perf_counter() - started, 3),
            )
            history.append(record)
            write_history(self.outputs.history_csv, history)
            if epoch and (self.best is None or record.score > self.best.score):
                self.best = record
                save_checkpoint(self.model, self.outputs.checkpoint)
            if self.progress:
                show_epoch(record, self.options.epochs, best=record is self.best)
        return history

    def _train_epoch(self, trainer: Any, epoch: int) -> dict[str, float]:
        """One pass over the training split; loss and IoU as they were while it learned."""
        batches = Batches(self.train, self.options.batch_size, self.train.order(self.options.seed, epoch))
        guard = _LossGuard(lambda batch: self._diverged(epoch, batch))
        with epoch_bar(epoch, self.options.epochs, len(batches), shown=self.progress) as bar:
            seen = trainer.fit(batches, shuffle=False, verbose=0, callbacks=[guard, *bar]).history
        return {name: float(values[-1]) for name, values in seen.items()}

    def _diverged(self, epoch: int, batch: int | None) -> DivergedError:
        """The error that says where, what is kept, and what to try."""
        where = f"batch {batch} of epoch {epoch}" if batch is not None else f"the validation of epoch {epoch}"
        checkpoint = self.outputs.checkpoint if self.best else None
        kept = f"{checkpoint} keeps epoch {self.best.epoch}" if self.best else "there is no checkpoint yet"
        return DivergedError(
            f"the loss is no longer a finite number in {where}; {kept}. Lower learning_rate "
            f"(it is {self.options.learning_rate:g}), or raise batch_size (it is {self.options.batch_size})",
            epoch=epoch,
            batch=batch,
            checkpoint=checkpoint,
        )


class _LossGuard(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Raises ``error(batch)``, batches counted from 1, as soon as the running loss is not finite."""

    def __init__(self, error: Callable[[int], Exception]) -> None:
        super().__init__()
        self.error = error

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            raise self.error(batch + 1)


def compiled(model: Any, options: FitOptions) -> Any:
    """A compiled twin that shares the model's weights.

    The model itself stays free of optimizer, loss and metric, so that what is saved of it loads anywhere.
    """
    trainer = keras.Model(model.inputs, model.outputs, name="trainer")
    trainer.compile(
        optimizer=keras.optimizers.Adam(options.learning_rate),
        loss=create_loss(options.loss),
        metrics=[BinaryIoU()],
    )
    return trainer


def evaluate(trainer: Any, split: SegmentationSplit, options: FitOptions) -> dict[str, float]:
    """'loss' and 'iou' of a compiled model over a split."""
    measured = trainer.evaluate(Batches(split, options.batch_size), verbose=0, return_dict=True)
    return {name: float(value) for name, value in measured.items()}


def best_epoch(history: Sequence[EpochRecord]) -> EpochRecord:
    """The record whose weights are kept: of equal ones the first, and never the untrained model's."""
    return max(history[1:], key=lambda record: record.score)
