"""The structure measure of Fan et al. 2017, *Structure-measure: A New Way to Evaluate Foreground Maps*."""

import numpy as np

from training.metrics.pair import Pair

_EPS = float(np.spacing(1.0))


def s_measure_of(pair: Pair, alpha: float = 0.5) -> float:
    """The S-measure in [0, 1]; see `training.metrics.saliency.s_measure`.

    Where the authors' code divides by 0, the limit is taken: one pixel has no spread, and a quarter without
    pixels, where the subject's centre is in the last row or column, has no weight.
    """
    if pair.subject == 0:
        return 1 - float(pair.prediction.mean())
    if pair.subject == pair.pixels:
        return float(pair.prediction.mean())
    return max(0.0, alpha * _object_aware(pair) + (1 - alpha) * _region_aware(pair))


def _object_aware(pair: Pair) -> float:
    """How uniform and how sure the prediction is within the subject and, turned round, outside."""
    share = pair.subject / pair.pixels
    inside, outside = pair.prediction[pair.truth], 1 - pair.prediction[~pair.truth]
    return share * _uniformity(inside) + (1 - share) * _uniformity(outside)


def _uniformity(values: np.ndarray) -> float:
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + spread + _EPS)


def _region_aware(pair: Pair) -> float:
    """The similarity of four quarters that meet at the subject's centre of mass, weighted by their size."""
    height, width = pair.truth.shape
    # halves round to even, and the pixel of the centre belongs to the upper left quarter
    row = round(float(_mean_index(pair.truth.sum(axis=1)))) + 1
    column = round(float(_mean_index(pair.truth.sum(axis=0)))) + 1
    total = 0.0
    for rows in (slice(0, row), slice(row, height)):
        for columns in (slice(0, column), slice(column, width)):
            truth, prediction = pair.truth[rows, columns], pair.prediction[rows, columns]
            if truth.size:
                total += truth.size / pair.pixels * _similarity(truth, prediction)
    return total


def _mean_index(counts: np.ndarray) -> float:
    """The mean index of things counted by index."""
    return float((counts * np.arange(len(counts))).sum() / counts.sum())


def _similarity(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Structural similarity of two regions as wholes (Wang et al. 2004, without its constants): [−1, 1].

    1 where neither varies; 0 where one does and the product of their means or covariance is 0.
    """
    mean_t, mean_p = float(truth.mean()), float(prediction.mean())
    degrees = max(truth.size - 1, 1)
    # sums of squares about a mean that was rounded are not 0 where they should be
    centred = prediction - mean_p if prediction.min() != prediction.max() else np.zeros_like(prediction)
    variance_t = truth.size * mean_t * (1 - mean_t) / degrees
    variance_p = float(np.square(centred).sum()) / degrees
    # Σ (p − p̄)(t − t̄) = Σ (p − p̄) t; exactly 0 where the truth does not vary
    covariance = float(centred[truth].sum()) / degrees if 0 < mean_t < 1 else 0.0
    above = 4 * mean_t * mean_p * covariance
    below = (mean_t**2 + mean_p**2) * (variance_t + variance_p)
    if above:
        return above / (below + _EPS)
    return 0.0 if below else 1.0
