"""Train a segmentation model on a `Dataset`, and leave what one needs to judge, use and continue it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from dataset_client import Dataset
from training import plots
from training.batches import Batches, few
from training.checkpoint import copy_weights, load_checkpoint
from training.data import Task, class_weights, read_task, spread
from training.errors import OptionsError
from training.files import atomic_path, write_json
from training.loop import Judge, TrainingLoop, best_epoch, evaluate
from training.losses import check_loss
from training.memory import memory_errors, to_train_with_less
from training.models import check_model, create_model
from training.optimizers import create_optimizer
from training.options import RUNNING, FitOptions
from training.outputs import Outputs
from training.pictures import sheet
from training.predict import predict_inputs
from training.progress import show_measured_on, show_resumed
from training.ranks import ALONE, Ranks
from training.readiness import require_ready
from training.report import describe, describe_origin
from training.result import EpochRecord, FitResult
from training.schedules import WarmUpAndDecay, depends_on_epochs
from training.signals import stop_requests
from training.state import read_state, require_same
from training.trackers import Tracker, closing_trackers, make_trackers
from training.trainer import Trainer, make_trainer

__all__ = ["EpochRecord", "FitOptions", "FitResult", "fit"]

_PICTURES = 6
_SHEET = 4


def fit(
    dataset: Dataset,
    output_dir: str | os.PathLike[str],
    options: FitOptions | None = None,
    *,
    progress: bool = False,
    trackers: Sequence[Tracker] = (),
    ranks: Ranks = ALONE,
) -> FitResult:
    """Train a segmentation model, keep the weights with the best validation IoU, and measure them.

    Into ``output_dir`` go ``best.keras``, ``history.csv``, ``state.npz``, an event file for TensorBoard,
    ``predictions/``, at the end ``history.png`` and ``predictions.png`` and, last of all, ``report.json``. On a CPU the
    same dataset, options and library versions give the same weights, however often the training is killed and resumed
    on the way. ``progress`` shows a bar and a line per epoch on stderr; ``trackers`` are told of it all, too. With
    several ``ranks`` (`training.ranks.join`), all call this with the same arguments; the first writes, shows and tells.

    SIGTERM and Ctrl-C end it after the step under way, with its state saved: `StoppedError`. Raises `OutputError`,
    `DatasetError`, `ModelError`, `OptionsError`, `CheckpointError` or `StateError` before training, `DivergedError` as
    soon as the loss is no longer finite (the last good checkpoint stays), and `MemoryExhaustedError`.
    """
    options = options or FitOptions()
    _check_ranks(options, ranks)
    outputs = require_ready(options, output_dir) if ranks.leads else Outputs(Path(output_dir))
    task = read_task(dataset, options)
    if task.train.examples < options.batch_size and ranks.ranks > 1:
        raise OptionsError(
            f"batch_size is {options.batch_size} and {task.train.name!r} has {task.train.examples} examples: "
            f"with {ranks.ranks} ranks there has to be a whole batch"
        )
    check_model(options.model, task.input_shape, task.classes, **options.model_options)
    check_model(options.model, (*task.validation.size, task.channels), task.classes, **options.model_options)
    check_loss(options.loss_for(task.classes), task.classes)
    weights = class_weights(dataset, task, options)
    subject = _subject(dataset, options)
    state = read_state(outputs.state) if options.resume and outputs.state.exists() else None
    if state is not None:
        require_same(state, subject, outputs.state)

    progress = progress and ranks.leads
    if progress:
        show_measured_on(task.train.name, task.validation.name)
    to_lower = to_train_with_less(options, task.input_shape)
    with stop_requests() as stop, memory_errors(f"training {options.model}", *to_lower):
        model, trainer, judge = _models(task, options, weights, ranks, resumed=state is not None)
        if state is None and ranks.leads:  # not before: the first weights may be from a checkpoint among them
            for path in outputs.existing():
                path.unlink()
        if ranks.leads:
            outputs.remove_unfinished()
        origin = describe_origin(dataset, task, judge.model, options)
        loop = TrainingLoop(
            model,
            trainer,
            judge,
            Batches(dataset, task, task.train, options, training=True, rank=ranks.rank, ranks=ranks.ranks),
            Batches(dataset, task, task.validation, options, training=False),
            options,
            outputs,
            subject,
            origin,
            stop,
            WarmUpAndDecay.of(options, epoch_steps=_epoch_steps(task, options)),
            show=progress,
            ranks=ranks,
        )
        if state is not None:
            with ranks.scope():
                loop.resume(state)
            del state  # as large as the model, thrice
            if progress:
                show_resumed(loop.progress.epoch, loop.progress.step)
        if ranks.leads:
            first_step = loop.progress.step + 1 if loop.progress.history else 0
            own = make_trackers(options, outputs, subject, first_step=first_step)
            loop.trackers = [*own, *trackers]
        with closing_trackers(loop.trackers):
            if ranks.leads:
                loop.draw = _Drawing(dataset, task, options, outputs, loop.trackers)
            history = loop.run()
            return _finish(dataset, task, options, loop, history)


def _models(
    task: Task, options: FitOptions, weights: tuple[float, ...] | None, ranks: Ranks, *, resumed: bool
) -> tuple[Any, Trainer, Judge]:
    """What learns, its compiled twin, and what is validated and kept."""
    keras.utils.set_random_seed(options.seed)
    with _precision(options), ranks.scope():
        model = create_model(options.model, task.input_shape, task.classes, **options.model_options)
        if options.init is not None and not resumed:
            copy_weights(load_checkpoint(options.init), model, options.init)
        optimizer = create_optimizer(options, epoch_steps=_epoch_steps(task, options))
        trainer = make_trainer(model, options, classes=task.classes, weights=weights, optimizer=optimizer)
        if options.ema is None and task.input_size == task.validation.size and ranks.ranks == 1:
            return model, trainer, Judge(model, trainer, model, trainer.optimizer)
    with _precision(options):
        shape = (*task.validation.size, task.channels)
        judged = create_model(options.model, shape, task.classes, **options.model_options)
        twin = make_trainer(judged, options, classes=task.classes, weights=weights)
    return model, trainer, Judge(judged, twin, model, trainer.optimizer, ranks)


def _epoch_steps(task: Task, options: FitOptions) -> int:
    return max(1, task.train.examples // options.batch_size)


def _check_ranks(options: FitOptions, ranks: Ranks) -> None:
    """Raise `OptionsError` for what several ranks cannot do."""
    if options.batch_size % ranks.ranks:
        raise OptionsError(f"batch_size is {options.batch_size}, which {ranks.ranks} ranks cannot share evenly")
    if options.ema is not None and ranks.ranks > 1:
        raise OptionsError("ema is for one process; leave it out where several ranks train")


@contextmanager
def _precision(options: FitOptions) -> Iterator[None]:
    """Layers made inside compute in the precision that is asked for; weights stay float32."""
    before = keras.config.dtype_policy()
    if options.mixed_precision is not None:
        keras.config.set_dtype_policy(f"mixed_{options.mixed_precision}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _subject(dataset: Dataset, options: FitOptions) -> dict[str, Any]:
    """What makes a training this one and no other: all that its weights depend on."""
    told = {name: value for name, value in options.to_json().items() if name not in RUNNING}
    if not depends_on_epochs(options):
        del told["epochs"]  # a training may go on for longer than was planned
    provenance = dataset.manifest.get("provenance")
    return {
        "dataset_id": dataset.dataset_id,
        "provenance": provenance.get("sha256") if isinstance(provenance, dict) else provenance,
        "backend": keras.backend.backend(),
        **told,
    }


class _Drawing:
    """Draws what a model makes of some examples of the validation split, while it learns."""

    def __init__(
        self, dataset: Dataset, task: Task, options: FitOptions, outputs: Outputs, trackers: Sequence[Tracker]
    ) -> None:
        self._batch_size, self._outputs, self._trackers = options.batch_size, outputs, trackers
        self._examples = few(dataset, task, task.validation, spread(task.validation.examples, _SHEET))

    def __call__(self, model: Any, step: int, samples: int) -> None:
        x = self._examples["x"]
        drawn = sheet(x[..., :3], self._examples["y"][..., 0], predict_inputs(model, x, batch_size=self._batch_size))
        path = self._outputs.prediction_sheet(samples)
        path.parent.mkdir(exist_ok=True)
        with atomic_path(path) as temporary:
            drawn.save(temporary, quality=88)
        for tracker in self._trackers:
            tracker.picture(step, path, (drawn.height, drawn.width))


def _finish(
    dataset: Dataset, task: Task, options: FitOptions, loop: TrainingLoop, history: list[EpochRecord]
) -> FitResult:
    """Read the checkpoint back, measure and draw it, and write the report."""
    outputs, judge = loop.outputs, loop.judge
    loop.ranks.highest(0)  # the leader has written the checkpoint, wherever the others are
    # Into the twin that is compiled already.
    copy_weights(load_checkpoint(outputs.checkpoint), judge.model, str(outputs.checkpoint))
    iou_after = evaluate(judge.trainer, loop.validation)["iou"]
    best = best_epoch(history)
    result = FitResult(outputs, tuple(history), best.epoch, history[0].val_iou, iou_after, task.validation.name)
    if not loop.ranks.leads:
        return result
    plots.draw_history(outputs.history_plot, history, best)
    examples = few(dataset, task, task.validation, spread(task.validation.examples, _PICTURES))
    predictions = predict_inputs(judge.model, examples["x"], batch_size=options.batch_size)
    plots.draw_predictions(outputs.predictions, examples["x"][..., :3], examples["y"], predictions, task.labels)
    write_json(outputs.report, describe(loop.origin, result, stopped_early=loop.out_of_patience()))
    return result
