"""Measures of class numbers: one matrix counts the pixels, everything else is read off it.

Counts of a dataset are the sum of its photos' matrices, so each pixel counts the same; a measure of a photo
is that of its own matrix. Conventions for what would be 0 / 0 are stated at each function; they are those of
torchmetrics and scikit-learn.
"""

from dataclasses import dataclass

import numpy as np

from training.errors import MetricError

#: The class number of a pixel that nobody labelled: no metric and no loss counts it.
VOID = 255


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int, void: int = VOID) -> np.ndarray:
    """Count pixels by true class (rows) and predicted class (columns): int64 (classes, classes).

    ``truth`` and ``predicted`` are class numbers, integers or bool of one shape (any), in 0 … classes - 1;
    where ``truth`` is ``void``, neither counts. Raises `MetricError` for shapes that differ, numbers that
    are not whole, and numbers out of range.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape:
        raise MetricError(f"truth {truth.shape} and prediction {predicted.shape} are not of one shape")
    for name, numbers in (("truth", truth), ("prediction", predicted)):
        if numbers.dtype.kind not in "bui":
            raise MetricError(
                f"the {name} has to be class numbers (integers), not {numbers.dtype}: take the argmax first"
            )
    known = truth != void
    truth, predicted = truth[known].astype(np.int64), predicted[known].astype(np.int64)
    for name, numbers in (("truth", truth), ("prediction", predicted)):
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < classes:
            raise MetricError(
                f"the {name} has class numbers from {numbers.min()} to {numbers.max()}; with {classes} classes they "
                f"are 0 to {classes - 1}, and {void} in the truth for void"
            )
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def iou_per_class(matrix: np.ndarray) -> np.ndarray:
    """|truth ∧ predicted| / |truth ∨ predicted| of each class: float64 (classes,) in [0, 1].

    NaN for a class that was neither there nor predicted.
    """
    return _ratio(np.diag(matrix), matrix.sum(axis=0) + matrix.sum(axis=1) - np.diag(matrix), np.nan)


def mean_iou(matrix: np.ndarray) -> float:
    """The mean of `iou_per_class` over the classes that were there or predicted; 1 where none was.

    The "mean IoU" of CamVid, Cityscapes and PASCAL VOC, where ``matrix`` is the sum over the test set.
    """
    iou = iou_per_class(matrix)
    return float(np.nanmean(iou)) if np.isfinite(iou).any() else 1.0


def pixel_accuracy(matrix: np.ndarray) -> float:
    """The share of pixels whose class was found, in [0, 1] ("global accuracy"); 1 where no pixel counts."""
    total = matrix.sum()
    return float(np.trace(matrix) / total) if total else 1.0


@dataclass(frozen=True)
class PrecisionRecall:
    """Of each class, float64 (classes,) in [0, 1]; 0 where there is nothing to divide by.

    ``precision``: of the pixels predicted as the class, the share that is; ``recall``: of the pixels that
    are, the share predicted (its mean is the "class average accuracy" of CamVid); ``f1``: their harmonic
    mean, which is the Dice coefficient.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def precision_recall_f1(matrix: np.ndarray) -> PrecisionRecall:
    """Precision, recall and F1 of each class."""
    found, true, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return PrecisionRecall(
        precision=_ratio(found, predicted, 0.0),
        recall=_ratio(found, true, 0.0),
        f1=_ratio(2 * found, true + predicted, 0.0),
    )


def _ratio(above: np.ndarray, below: np.ndarray, otherwise: float) -> np.ndarray:
    """``above / below`` in float64; ``otherwise`` where ``below`` is 0."""
    ratio = np.full(below.shape, otherwise)
    np.divide(above, below, out=ratio, where=below != 0)
    return ratio
