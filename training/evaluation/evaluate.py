"""Evaluate runs on a split of a dataset: score, resample, choose what to show, write."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dataset_client import Dataset
from training.backend import require_backend
from training.data import require_split, spread
from training.errors import CheckpointError, OptionsError
from training.evaluation.baselines import fit_baselines
from training.evaluation.choice import choose
from training.evaluation.drawing import Pictures, draw
from training.evaluation.files import scores_csv
from training.evaluation.model_predictor import ModelPredictor
from training.evaluation.options import EvaluationOptions
from training.evaluation.outputs import EvaluationOutputs, prepare_evaluation
from training.evaluation.page import render_page
from training.evaluation.photos import MaskLevels, PhotoReader
from training.evaluation.predictor import Predictor
from training.evaluation.progress import Progress
from training.evaluation.report import class_names_of, describe_evaluation
from training.evaluation.results import run_replicates
from training.evaluation.runs import Run, find_runs
from training.evaluation.scores import score_split
from training.evaluation.scoring import Scorer, workers_for
from training.evaluation.suspects import find_suspects, suspects_csv
from training.files import write_json, write_text

#: Photos that are looked at before the first is scored.
_LOOKED_AT = 32


@dataclass(frozen=True)
class EvaluationResult:
    """A finished evaluation: its files, and the ``report`` as it is in ``evaluation.json``."""

    outputs: EvaluationOutputs
    report: dict[str, Any]


def evaluate_runs(
    dataset: Dataset,
    runs: Sequence[str | os.PathLike[str]],
    output_dir: str | os.PathLike[str],
    options: EvaluationOptions | None = None,
    *,
    train_dataset: Dataset | None = None,
    progress: bool = False,
) -> EvaluationResult:
    """Evaluate the models of ``runs``, directories of trainings or ``.keras`` files, on one split, photo by photo.

    Into ``output_dir`` go ``evaluation.html``, ``scores.csv``, ``suspects.csv`` and, last of all, ``evaluation.json``.
    Truth and prediction are compared at the size of the dataset's photos. The same dataset, checkpoints and options
    give the same numbers. Photos are read as they are needed and not kept. ``train_dataset`` is the dataset that
    baselines are fitted on; None is ``dataset`` itself. ``progress`` shows on stderr how far it is.

    Raises before the first photo is scored: `OutputError`, `SplitError` for a split that is missing or empty,
    `CheckpointError` for a model that does not fit the dataset, `OptionsError`, `BackendError`; and while photos are
    read `FeatureError` or `ImageSizeError`. Then nothing has been written.
    """
    options = options or EvaluationOptions()
    require_backend()
    if not runs:
        raise OptionsError("there is no run to evaluate: name a training's directory, or a .keras file")
    found = find_runs(runs)
    outputs = prepare_evaluation(output_dir, overwrite=options.overwrite)
    reader = PhotoReader(dataset, options.split)
    learned_from = train_dataset or dataset
    if options.baselines:
        _check_baselines(dataset, learned_from, options)
    models = _load(found, reader, options)
    classes = models[0].classes
    names = class_names_of(dataset, classes, options.class_names)

    predictors: list[Predictor] = [*models]
    if options.baselines:
        training = PhotoReader(learned_from, options.train_split)
        with Progress("fitting baselines", len(training), shown=progress) as bar:
            predictors += fit_baselines(training, classes, bar.move)
    workers = workers_for(len(reader) * len(predictors), options.workers)
    with Progress("evaluating", len(reader), shown=progress) as bar:
        scores = score_split(
            reader,
            predictors,
            batch_size=options.batch_size,
            scorer=Scorer(workers, stretch=options.stretch),
            moved=bar.move,
        )

    with Progress("resampling", len(predictors), shown=progress, unit="runs") as bar:
        replicates = run_replicates(scores.tables, classes, options, bar.move)
    of_models = [table for table, predictor in zip(scores.tables, predictors, strict=True) if predictor.is_model]
    suspects = find_suspects(scores.facts, dict(zip((run.name for run in found), of_models, strict=True)), names)
    chosen = choose([table["iou"] for table in of_models], options.examples)
    report = describe_evaluation(dataset, predictors, found, scores, replicates, chosen, suspects, names, options)

    numbers = sorted({*(n for group in chosen.values() for n in group), *_shown(suspects, options)})
    with Progress("drawing", len(numbers), shown=progress) as bar:
        pictures: Pictures = draw(reader, models, numbers, batch_size=options.batch_size, moved=bar.move)
    page = render_page(report, pictures)

    if outputs.report.exists():
        outputs.report.unlink()  # it is written last, and says that the others are whole
    write_text(outputs.scores, scores_csv(scores, [predictor.name for predictor in predictors]))
    write_text(outputs.suspects, suspects_csv(suspects))
    write_text(outputs.page, page)
    write_json(outputs.report, report)
    return EvaluationResult(outputs, report)


def _load(runs: Iterable[Run], reader: PhotoReader, options: EvaluationOptions) -> list[ModelPredictor]:
    """The models, each checked against the first model and, so that what does not fit is refused at once, against
    a few photos, evenly spread.
    """
    photos = list(reader.photos(spread(len(reader), _LOOKED_AT).tolist()))
    models: list[ModelPredictor] = []
    for run in runs:
        model = ModelPredictor(run, batch_size=options.batch_size, resize=options.resize)
        for photo in photos:
            model.check(photo)
        if models and model.classes != models[0].classes:
            raise CheckpointError(
                f"the model of {run.name} tells {model.classes} classes apart, that of {models[0].name} "
                f"{models[0].classes}: evaluate them apart"
            )
        models.append(model)
    levels = MaskLevels(models[0].classes, reader.split)
    for photo in photos:
        levels.add(photo)
    if levels.classes == 1:  # that no class but 0 is there, only the whole split can tell
        levels.check()
    return models


def _check_baselines(dataset: Dataset, learned_from: Dataset, options: EvaluationOptions) -> None:
    """Raise `SplitError` or `OptionsError` where baselines could not be fitted honestly."""
    require_split(learned_from.splits, options.train_split)
    if learned_from.dataset_id == dataset.dataset_id and options.split == options.train_split:
        raise OptionsError(
            f"baselines would be fitted on {options.split!r}, the split to evaluate, which flatters them: "
            "evaluate another split, name another train_split, or leave baselines out"
        )


def _shown(suspects: Sequence[Any], options: EvaluationOptions) -> list[int]:
    return [suspect.photo.number for suspect in suspects[: options.suspects]]
