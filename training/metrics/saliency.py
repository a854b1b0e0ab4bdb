"""The measures of salient object detection, of one photo at a time, as PySODMetrics computes them.

All take ``truth``, bool or float (H, W), whose subject is where it is at least 0.5, and ``prediction``,
float (H, W) in [0, 1], and raise `MetricError` for anything else. A dataset's value is the mean over its
photos; a curve is averaged before its maximum is taken. Where published figures are to be compared with,
see `min_max_normalized`.

Curves are float64 (256,): entry t is of the mask of all pixels with ⌊255 p⌋ ≥ t. They come from two
histograms, so their cost does not depend on the number of thresholds.
"""

from dataclasses import dataclass

import numpy as np

from training.metrics.pair import Pair, min_max_normalized, read_pair
from training.metrics.structure import s_measure_of
from training.metrics.weighted import weighted_f_beta_of

__all__ = [
    "BETA_SQUARED",
    "SaliencyScores",
    "adaptive_e_measure",
    "adaptive_f_beta",
    "e_measure_curve",
    "f_beta",
    "f_beta_curve",
    "mae",
    "max_f_beta",
    "mean_f_beta",
    "min_max_normalized",
    "precision_recall_curve",
    "s_measure",
    "saliency_scores",
    "weighted_f_beta",
]

#: The weight that the field gives recall against precision (Achanta et al. 2009): precision counts for more.
BETA_SQUARED = 0.3

_EPS = np.spacing(1.0)


@dataclass(frozen=True, eq=False)
class SaliencyScores:
    """All measures of one photo, float in [0, 1]; only of `mae` is less better. Curves are as above."""

    mae: float
    precision: np.ndarray
    recall: np.ndarray
    f_beta: np.ndarray
    adaptive_f_beta: float
    s_measure: float
    e_measure: np.ndarray
    adaptive_e_measure: float
    weighted_f_beta: float

    @property
    def max_f_beta(self) -> float:
        """The largest of `f_beta`: the photo's, at the threshold that suits it best."""
        return float(self.f_beta.max())

    @property
    def mean_f_beta(self) -> float:
        """The mean of `f_beta` over the thresholds."""
        return float(self.f_beta.mean())

    @property
    def max_e_measure(self) -> float:
        """The largest of `e_measure`."""
        return float(self.e_measure.max())

    @property
    def mean_e_measure(self) -> float:
        """The mean of `e_measure` over the thresholds."""
        return float(self.e_measure.mean())


def saliency_scores(truth: np.ndarray, prediction: np.ndarray) -> SaliencyScores:
    """All measures of a photo; what they share is computed once."""
    pair = read_pair(truth, prediction)
    precision, recall = _precision_recall(pair)
    return SaliencyScores(
        mae=_mae(pair),
        precision=precision,
        recall=recall,
        f_beta=f_beta(precision, recall),
        adaptive_f_beta=_adaptive_f_beta(pair),
        s_measure=s_measure_of(pair),
        e_measure=_e_measure(pair, pair.hits, pair.false_alarms),
        adaptive_e_measure=_adaptive_e_measure(pair),
        weighted_f_beta=weighted_f_beta_of(pair),
    )


def mae(truth: np.ndarray, prediction: np.ndarray) -> float:
    """The mean absolute error in [0, 1] (Perazzi et al. 2012, *Saliency Filters*)."""
    return _mae(read_pair(truth, prediction))


def precision_recall_curve(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall at each threshold; 0 where nothing is predicted, or nothing was to be found."""
    return _precision_recall(read_pair(truth, prediction))


def f_beta(precision: np.ndarray, recall: np.ndarray, beta_squared: float = BETA_SQUARED) -> np.ndarray:
    """(1 + β²) P R / (β² P + R) of two arrays of one shape; 0 where both are 0.

    Of the mean precision and recall curves of a dataset, its maximum is the max F-beta of U²-Net's and
    BASNet's papers; that of PySODMetrics is the maximum of the mean of the photos' curves.
    """
    above = (1 + beta_squared) * precision * recall
    below = beta_squared * precision + recall
    ratio: np.ndarray = np.zeros_like(above)
    np.divide(above, below, out=ratio, where=below > 0)
    return ratio


def f_beta_curve(truth: np.ndarray, prediction: np.ndarray, beta_squared: float = BETA_SQUARED) -> np.ndarray:
    """F-beta at each threshold (Achanta et al. 2009, *Frequency-tuned salient region detection*).

    0 throughout for an empty truth.
    """
    return f_beta(*precision_recall_curve(truth, prediction), beta_squared)


def max_f_beta(truth: np.ndarray, prediction: np.ndarray, beta_squared: float = BETA_SQUARED) -> float:
    """The largest of `f_beta_curve`."""
    return float(f_beta_curve(truth, prediction, beta_squared).max())


def mean_f_beta(truth: np.ndarray, prediction: np.ndarray, beta_squared: float = BETA_SQUARED) -> float:
    """The mean of `f_beta_curve`."""
    return float(f_beta_curve(truth, prediction, beta_squared).mean())


def adaptive_f_beta(truth: np.ndarray, prediction: np.ndarray, beta_squared: float = BETA_SQUARED) -> float:
    """F-beta at twice the prediction's mean (at most 1), of the values as they are; 0 where nothing is hit."""
    return _adaptive_f_beta(read_pair(truth, prediction), beta_squared)


def s_measure(truth: np.ndarray, prediction: np.ndarray, alpha: float = 0.5) -> float:
    """The structure measure in [0, 1] (Fan et al. 2017): α · object-aware + (1 − α) · region-aware.

    1 − the prediction's mean for an empty truth, the mean for a full one.
    """
    return s_measure_of(read_pair(truth, prediction), alpha)


def e_measure_curve(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The enhanced-alignment measure at each threshold (Fan et al. 2018).

    Both masks, less their means, are multiplied pixel by pixel, so that pixels and the whole are judged at
    once. For an empty truth it is the share of pixels left out, for a full one the share taken in. It
    divides by N − 1 (or 1), as the authors do: a perfect mask has N / (N − 1), not 1.
    """
    pair = read_pair(truth, prediction)
    return _e_measure(pair, pair.hits, pair.false_alarms)


def adaptive_e_measure(truth: np.ndarray, prediction: np.ndarray) -> float:
    """The E-measure at twice the prediction's mean (at most 1), of the values as they are."""
    return _adaptive_e_measure(read_pair(truth, prediction))


def weighted_f_beta(truth: np.ndarray, prediction: np.ndarray, beta_squared: float = 1.0) -> float:
    """The weighted F-measure in [0, 1] (Margolin et al. 2014, *How to Evaluate Foreground Maps?*).

    0 for an empty truth.
    """
    return weighted_f_beta_of(read_pair(truth, prediction), beta_squared)


def _mae(pair: Pair) -> float:
    return float(np.abs(pair.prediction - pair.truth).mean())


def _precision_recall(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    predicted = np.maximum(pair.hits + pair.false_alarms, 1)  # where 0, so are the hits
    return pair.hits / predicted, pair.hits / max(pair.subject, 1)


def _adaptive_f_beta(pair: Pair, beta_squared: float = BETA_SQUARED) -> float:
    hits, false_alarms = pair.counts_at(pair.adaptive_threshold)
    if not hits:
        return 0.0
    precision, recall = hits / (hits + false_alarms), hits / pair.subject
    return (1 + beta_squared) * precision * recall / (beta_squared * precision + recall)


def _adaptive_e_measure(pair: Pair) -> float:
    hits, false_alarms = pair.counts_at(pair.adaptive_threshold)
    return float(_e_measure(pair, np.array(hits), np.array(false_alarms)))


def _e_measure(pair: Pair, hits: np.ndarray, false_alarms: np.ndarray) -> np.ndarray:
    """The E-measure of masks with so many hits and false alarms, of any shape.

    A pixel's alignment depends only on which of four kinds it is, so four values and their counts do.
    """
    predicted = hits + false_alarms
    degenerate = {0: pair.pixels - predicted, pair.pixels: predicted}
    total = degenerate.get(pair.subject)
    if total is None:
        mean_truth, mean_mask = pair.subject / pair.pixels, predicted / pair.pixels
        misses = pair.subject - hits
        rejections = pair.pixels - pair.subject - false_alarms
        total = (
            hits * _alignment(1 - mean_truth, 1 - mean_mask)
            + false_alarms * _alignment(-mean_truth, 1 - mean_mask)
            + misses * _alignment(1 - mean_truth, -mean_mask)
            + rejections * _alignment(-mean_truth, -mean_mask)
        )
    return np.asarray(total / max(pair.pixels - 1, 1))


def _alignment(truth: float, mask: np.ndarray) -> np.ndarray:
    """How well two values agree, each less its mean: 1 for the same, 0 for opposites, ¼ for unrelated."""
    agreement = 2 * truth * mask / (truth**2 + mask**2 + _EPS)
    enhanced: np.ndarray = (agreement + 1) ** 2 / 4
    return enhanced
