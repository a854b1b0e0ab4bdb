"""The loop over epochs: train, measure, keep the best, and save where it stands."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import keras

from dataset_client import DatasetClientError
from training.batches import Batch, Batches
from training.checkpoint import copy_weights, save_checkpoint
from training.errors import DivergedError, StateError, StoppedError
from training.history import write_history
from training.options import FitOptions
from training.outputs import Outputs
from training.progress import EpochBar, show_epoch
from training.randomness import random_state, set_random_state
from training.ranks import ALONE, Ranks
from training.result import EpochRecord
from training.signals import StopRequest
from training.state import State, restore, save_state
from training.trackers import Tracker
from training.trainer import Trainer


@dataclass
class Progress:
    """Where a training stands between two steps; what is not in its variables. Plain JSON but for ``history``."""

    epoch: int = 1  #: the one under way
    step: int = 0  #: of the whole training
    samples: int = 0  #: examples trained on so far
    loss_sum: float = 0.0  #: of the epoch's examples
    loss_samples: int = 0
    seconds: float = 0.0  #: of the epoch, up to here
    stepping: float = 0.0  #: of these, in steps and waiting for batches
    waited: float = 0.0  #: of these, waiting
    position: dict[str, Any] | None = None  #: of the loader
    history: list[EpochRecord] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON types."""
        return {**vars(self), "history": [asdict(record) for record in self.history]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Progress":
        """What `to_json` gave."""
        return cls(**{**values, "history": [EpochRecord(**record) for record in values["history"]]})

    def begin_epoch(self) -> None:
        """Forget the sums of the last one."""
        self.loss_sum = self.seconds = self.stepping = self.waited = 0.0
        self.loss_samples = 0


@dataclass(frozen=True, eq=False)
class Judge:
    """The model that is validated, drawn and kept, and its twin.

    The one that learns, or where that trains on parts of photos, its weights are averaged, or it is spread over
    ``ranks``, another one of the photos' size, on this process alone.
    """

    model: Any
    trainer: Trainer
    learner: Any
    optimizer: Any
    ranks: Ranks = ALONE

    def refresh(self, step: int) -> None:
        """Take over what was learned in ``step`` ≥ 0 steps."""
        if self.model is self.learner:
            return
        if self.ranks.ranks > 1:
            for ours, all_ranks in zip(self.model.weights, self.learner.weights, strict=True):
                ours.assign(keras.ops.convert_to_numpy(all_ranks.value))
            return
        copy_weights(self.learner, self.model, "the model that learns")
        if step:  # averages begin with the first step
            self.optimizer.finalize_variable_values(self.trainer.trainable_variables)
            for variable in self.trainer.trainable_variables:
                variable.assign(keras.ops.copy(variable.value))  # as in `copy_weights`


@dataclass(eq=False)
class TrainingLoop:
    """Trains, and leaves ``best.keras``, ``history.csv`` and ``state.npz``; all are whole at any time.

    ``draw(model, samples)`` is called every ``options.predictions_every`` examples.
    """

    model: Any
    trainer: Trainer
    judge: Judge
    train: Batches
    validation: Batches
    options: FitOptions
    outputs: Outputs
    subject: dict[str, Any]
    origin: dict[str, Any]
    stop: StopRequest
    rate: Callable[[int], Any]
    trackers: Sequence[Tracker] = ()
    draw: Callable[[Any, int, int], None] | None = None
    show: bool = False
    ranks: Ranks = ALONE
    progress: Progress = field(default_factory=Progress)
    saved_at: float = 0.0

    def resume(self, state: State) -> None:
        """Stand where ``state`` was taken. Raises `StateError`."""
        restore(state, self._variables(), self.outputs.state)
        set_random_state(self.subject["backend"], state.random)
        try:
            self.progress = Progress.from_json(state.progress)
            if self.progress.position is not None:
                self.train.loader.load_state_dict(self.progress.position)
        except (DatasetClientError, KeyError, TypeError) as error:
            raise StateError(f"the state {self.outputs.state} cannot be resumed: {error}") from error

    def run(self) -> list[EpochRecord]:
        """Returns the record of each epoch, that of the untrained model first.

        Raises `DivergedError`, and `StoppedError` after a signal.
        """
        progress = self.progress
        self.saved_at = time.monotonic()
        if not progress.history:
            self._finish_epoch(epoch=0)
        if self.ranks.leads:
            write_history(self.outputs.history_csv, progress.history)
        while progress.epoch <= self.options.epochs and not self.out_of_patience():
            self._train_epoch()
            self._finish_epoch(epoch=progress.epoch)
        return progress.history

    def out_of_patience(self) -> bool:
        """Whether the last epochs brought nothing better."""
        trained = self.progress.history[1:]
        if self.options.patience is None or not trained:
            return False
        return trained[-1].epoch - best_epoch(self.progress.history).epoch >= self.options.patience

    def _train_epoch(self) -> None:
        """The epoch's steps, or what is left of them."""
        progress, trainer = self.progress, self.trainer
        if progress.loss_samples == 0:
            trainer.begin_epoch()
        self.train.loader.set_epoch(progress.epoch)
        done = progress.loss_samples // self.options.batch_size
        with EpochBar(progress.epoch, self.options.epochs, done, len(self.train), shown=self.show) as bar:
            for (x, y), waited in _timed(self.train):
                began = time.perf_counter()
                with self.ranks.scope():
                    loss = trainer.step(x, y)["loss"]
                progress.step += 1
                if not math.isfinite(loss):
                    raise self._diverged(progress.epoch, progress.loss_samples // self.options.batch_size + 1)
                examples = len(x) * self.ranks.ranks
                self._count(loss, examples, waited)
                self._tell(loss, examples)
                spent = time.perf_counter() - began + waited
                progress.stepping += spent
                progress.seconds += spent
                bar.move(loss)
                self._save_if_due()

    def _count(self, loss: float, examples: int, waited: float) -> None:
        progress = self.progress
        progress.samples += examples
        progress.loss_sum += loss * examples
        progress.loss_samples += examples
        progress.waited += waited

    def _tell(self, loss: float, examples: int) -> None:
        """Numbers and pictures of the epoch under way."""
        step, samples, every = self.progress.step, self.progress.samples, self.options.predictions_every
        if step % self.options.log_every == 0:
            for tracker in self.trackers:
                tracker.scalars(step, {"loss/batch": loss, "learning_rate": self._learning_rate()})
        if self.draw is not None and every and samples // every > (samples - examples) // every:
            self.judge.refresh(step)
            self.draw(self.judge.model, step, samples)

    def _finish_epoch(self, epoch: int) -> None:
        """Validate, record, keep what is better, and save; epoch 0 is the untrained model."""
        progress = self.progress
        began = time.perf_counter()
        self.judge.refresh(progress.step)
        # While the IoU of the epoch is still counted in the twin that may be the judge's, too.
        with self.ranks.scope():
            iou = float(self.trainer.iou.result()) if epoch else None
        measured = self.ranks.agree(evaluate(self.judge.trainer, self.validation))
        if not math.isfinite(measured["loss"]):
            raise self._diverged(epoch, None)
        record = EpochRecord(
            epoch=epoch,
            loss=progress.loss_sum / progress.loss_samples if epoch else None,
            iou=iou,
            val_loss=measured["loss"],
            val_iou=measured["iou"],
            learning_rate=self._learning_rate() if epoch else None,
            seconds=round(progress.seconds + time.perf_counter() - began, 3),
            waited=round(progress.waited / max(progress.stepping, 1e-9), 4) if epoch else None,
        )
        progress.history.append(record)
        is_best = epoch > 0 and best_epoch(progress.history) is record
        if is_best and self.ranks.leads:
            save_checkpoint(self.judge.model, self.outputs.checkpoint, {**self.origin, "epoch": epoch})
        if self.ranks.leads:
            write_history(self.outputs.history_csv, progress.history)
        for tracker in self.trackers:
            tracker.scalars(progress.step, _curves(record))
        if self.show:
            show_epoch(record, self.options.epochs, best=is_best)
        if epoch:
            progress.epoch += 1
        progress.begin_epoch()
        self.save()

    def save(self) -> None:
        """Write the state between two steps, which is the same on all ranks."""
        # Of an epoch that has not begun, the order is known without it.
        self.progress.position = self.train.loader.state_dict() if self.progress.loss_samples else None
        if self.ranks.leads:
            random = random_state(self.subject["backend"])
            save_state(self.outputs.state, self.subject, self.progress.to_json(), self._variables(), random)
        self.saved_at = time.monotonic()

    def _save_if_due(self) -> None:
        """Save after so many steps or seconds, and before stopping."""
        steps = self.options.save_steps
        stop = self._stop_signal()
        due = steps > 0 and self.progress.step % steps == 0
        if due or stop is not None or time.monotonic() - self.saved_at >= self.options.save_seconds:
            self.save()
        if stop is not None:
            raise StoppedError(
                f"stopped by a signal after step {self.progress.step}, in epoch {self.progress.epoch}; "
                f"{self.outputs.state} holds all of it: go on with resume",
                signal=stop,
            )

    def _stop_signal(self) -> int | None:
        """The signal to stop by. Ranks look together and now and then: none may leave the others in a step."""
        if self.ranks.ranks == 1:
            return self.stop.signal
        if self.progress.step % self.options.log_every:
            return None
        return self.ranks.highest(self.stop.signal or 0) or None

    def _variables(self) -> list[Any]:
        """All that changes while training: weights, seeds of random layers, the optimizer's, the running IoU."""
        return [*self.model.variables, *self.trainer.optimizer.variables, *self.trainer.iou.variables]

    def _learning_rate(self) -> float:
        if self.ranks.ranks > 1:  # without a computation that all ranks would have to share
            return float(self.rate(self.progress.step))
        return float(self.trainer.optimizer.learning_rate)

    def _diverged(self, epoch: int, batch: int | None) -> DivergedError:
        """The error that says where, what is kept, and what to try."""
        where = f"batch {batch} of epoch {epoch}" if batch is not None else f"the validation of epoch {epoch}"
        best = best_epoch(self.progress.history) if len(self.progress.history) > 1 else None
        checkpoint = self.outputs.checkpoint if best else None
        kept = f"{checkpoint} keeps epoch {best.epoch}" if best else "there is no checkpoint yet"
        begin = f'Begin anew, elsewhere or with overwrite, from init = "{checkpoint}"' if best else "Begin anew"
        return DivergedError(
            f"the loss is no longer a finite number in {where}; {kept}. {begin} with a lower learning_rate "
            f"(it is {self.options.learning_rate:g}), a larger batch_size (it is {self.options.batch_size}), "
            "clip_norm or warmup_steps; to resume leads here again",
            epoch=epoch,
            batch=batch,
            checkpoint=checkpoint,
        )


def evaluate(trainer: Trainer, batches: Iterable[Batch]) -> dict[str, float]:
    """'loss', the mean over the examples, and 'iou' over all of their pixels."""
    trainer.begin_epoch()
    loss = examples = iou = 0.0
    for x, y in batches:
        measured = trainer.measure(x, y)
        loss += measured["loss"] * len(x)
        examples += len(x)
        iou = measured["iou"]
    return {"loss": loss / examples, "iou": iou}


def best_epoch(history: Sequence[EpochRecord]) -> EpochRecord:
    """The record whose weights are kept: of equal ones the first, and never the untrained model's."""
    return max(history[1:], key=lambda record: record.score)


def _timed(batches: Iterable[Batch]) -> "Iterable[tuple[Batch, float]]":
    """Each batch, and the seconds that it was waited for."""
    waiting = iter(batches)
    while True:
        began = time.perf_counter()
        batch = next(waiting, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - began


def _curves(record: EpochRecord) -> dict[str, float]:
    """What trackers draw of an epoch."""
    values = {
        "loss/train": record.loss,
        "iou/train": record.iou,
        "loss/validation": record.val_loss,
        "iou/validation": record.val_iou,
    }
    return {tag: value for tag, value in values.items() if value is not None}
