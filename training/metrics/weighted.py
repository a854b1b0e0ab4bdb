"""The weighted F-measure of Margolin et al. 2014, *How to Evaluate Foreground Maps?*."""

import math

import numpy as np
from scipy import ndimage

from training.metrics.pair import Pair

_REACH, _SIGMA = 3, 5.0  # pixels: a 7×7 Gaussian
_EPS = float(np.spacing(1.0))


def weighted_f_beta_of(pair: Pair, beta_squared: float = 1.0) -> float:
    """The weighted F-measure in [0, 1]; see `training.metrics.saliency.weighted_f_beta`.

    An error within the subject is forgiven as far as its neighbours are right (pixels depend on each
    other); one outside weighs from 1 next to the subject up to 2 far away (pixels are not equally
    important).
    """
    if not pair.subject:
        return 0.0
    truth = pair.truth
    nearest = ndimage.distance_transform_edt(~truth, return_distances=False, return_indices=True)
    errors = np.abs(pair.prediction - truth)
    inside = np.minimum(errors[truth], _neighbours_errors(truth, errors, nearest)[truth])
    rows, columns = np.nonzero(~truth)
    distance = np.hypot(nearest[0][rows, columns] - rows, nearest[1][rows, columns] - columns)
    outside = float((errors[rows, columns] * (2 - np.exp(math.log(0.5) / 5 * distance))).sum())
    hits = pair.subject - float(inside.sum())
    recall = 1 - float(inside.mean())
    precision = hits / (hits + outside + _EPS)
    return (1 + beta_squared) * recall * precision / (recall + beta_squared * precision + _EPS)


def _neighbours_errors(truth: np.ndarray, errors: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """The Gaussian mean of the errors around each pixel of the subject; outside it, arbitrary: (H, W).

    A pixel outside stands in with the error of its ``nearest`` pixel of the subject, so that the subject's
    edge is judged by the subject alone; beyond the photo there is no error.
    """
    window = _around(truth)
    rows, columns = (indices[window] for indices in nearest)
    mean = errors[rows, columns]  # a pixel of the subject is its own nearest
    for axis in (0, 1):
        mean = ndimage.convolve1d(mean, _BELL, axis=axis, mode="constant", cval=0.0)
    spread = np.zeros_like(errors)
    spread[window] = mean
    return spread


def _around(truth: np.ndarray) -> tuple[slice, slice]:
    """The subject's box, wider by the reach of the Gaussian."""
    boxes = []
    for axis in (1, 0):
        occupied = np.flatnonzero(truth.any(axis=axis))
        boxes.append(slice(max(int(occupied[0]) - _REACH, 0), int(occupied[-1]) + _REACH + 1))
    return boxes[0], boxes[1]


def _bell() -> np.ndarray:
    """The Gaussian along one axis: its outer product with itself is the 7×7 one, sum 1."""
    values = np.exp(-(np.arange(-_REACH, _REACH + 1) ** 2) / (2 * _SIGMA**2))
    normalized: np.ndarray = values / values.sum()
    return normalized


_BELL = _bell()
