"""One pass over a split: every predictor on every photo, and of each photo only its scores are kept.

That is about 4 KB for each photo and run, most of it curves; photos and predictions are gone after a few batches.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from training.evaluation.groups import Facts
from training.evaluation.photos import MaskLevels, Photo, PhotoReader, truth_of
from training.evaluation.predictor import Predictor
from training.evaluation.scoring import Row, Scorer


@dataclass(frozen=True, eq=False)
class Scores:
    """Of each photo the ``facts``, and of each predictor, in order, a table with a row for each photo."""

    facts: list[Facts]
    tables: list[dict[str, np.ndarray]]


def score_split(
    reader: PhotoReader,
    predictors: Sequence[Predictor],
    *,
    batch_size: int,
    scorer: Scorer,
    moved: Callable[[int], None],
) -> Scores:
    """Score all photos of a split; ``moved(n)`` is told of n more that are done.

    Raises a `DatasetError` where they cannot be, and what the predictors raise.
    """
    classes = predictors[0].classes
    facts: list[Facts] = []
    levels = MaskLevels(classes, reader.split)

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in reader.batches(batch_size):
            for photo in batch:
                levels.add(photo)
                facts.append(_facts(photo, classes))
            predicted = [predictor.predict(batch) for predictor in predictors]
            for place, photo in enumerate(batch):
                truth = truth_of(photo.mask, classes)
                for probabilities in predicted:
                    yield truth, probabilities[place]

    collected = [_Rows(len(reader)) for _ in predictors]
    with closing(scorer.map(pairs())) as rows:  # type: ignore[type-var]  # a generator, which its type does not say
        for number, row in enumerate(rows):
            collected[number % len(predictors)].add(row)
            if number % len(predictors) == len(predictors) - 1:
                moved(1)
    levels.check()
    return Scores(facts, [rows.table() for rows in collected])


class _Rows:
    """Rows that become a table of float32 curves and float64 numbers, allocated once."""

    def __init__(self, count: int) -> None:
        self.count, self.filled = count, 0
        self.columns: dict[str, np.ndarray] = {}

    def add(self, row: Row) -> None:
        if not self.columns:
            self.columns = {
                name: np.empty((self.count, *np.shape(value)), np.float32 if name.endswith("_curve") else np.float64)
                for name, value in row.items()
            }
        for name, value in row.items():
            self.columns[name][self.filled] = value
        self.filled += 1

    def table(self) -> dict[str, np.ndarray]:
        return self.columns


def _facts(photo: Photo, classes: int) -> Facts:
    share = float(np.count_nonzero(photo.mask >= 128) / photo.mask.size) if classes == 1 else None
    return Facts(photo.number, photo.key, photo.files, photo.size, share, photo.categories, photo.cluster)
