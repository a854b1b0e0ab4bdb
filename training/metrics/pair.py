"""A truth and the saliency map that was predicted for it, read once for all measures of a photo."""

from dataclasses import dataclass

import numpy as np

from training.errors import MetricError

#: Levels of a saliency map, as it would be stored in eight bits; also the thresholds of a curve.
LEVELS = 256


@dataclass(frozen=True, eq=False)
class Pair:
    """What the measures of a photo share; N pixels, 256 thresholds."""

    truth: np.ndarray  #: bool (H, W)
    prediction: np.ndarray  #: float64 (H, W) in [0, 1]
    hits: np.ndarray  #: int64 (256,): pixels of the subject whose level is at least the index
    false_alarms: np.ndarray  #: int64 (256,): the same of the background

    @property
    def pixels(self) -> int:
        """N."""
        return self.truth.size

    @property
    def subject(self) -> int:
        """How many pixels the truth has."""
        return int(self.hits[0])

    def counts_at(self, threshold: float) -> tuple[int, int]:
        """Pixels of the subject and of the background at or above a threshold in [0, 1], unquantised."""
        above = self.prediction >= threshold
        hits, predicted = int(np.count_nonzero(above & self.truth)), int(np.count_nonzero(above))
        return hits, predicted - hits

    @property
    def adaptive_threshold(self) -> float:
        """Twice the mean of the prediction, at most 1 (Achanta et al. 2009)."""
        return min(2 * float(self.prediction.mean()), 1.0)


def read_pair(truth: np.ndarray, prediction: np.ndarray) -> Pair:
    """Read a truth, bool or float in [0, 1], and a prediction, float in [0, 1], both (H, W).

    A pixel belongs to the subject where the truth is at least 0.5. A level is ⌊255 p⌋, taken in the
    prediction's own precision, in which k / 255 is level k.

    Raises `MetricError` for other shapes, no pixels, and values that are not in [0, 1].
    """
    truth, prediction = as_photo("truth", truth), as_photo("prediction", prediction)
    if truth.shape != prediction.shape:
        raise MetricError(f"truth {truth.shape} and prediction {prediction.shape} are not of one shape")
    mask = truth if truth.dtype == bool else truth >= 0.5
    levels = (prediction * 255).astype(np.intp)
    histogram = np.bincount((levels + LEVELS * mask).ravel(), minlength=2 * LEVELS)
    at_least = histogram.reshape(2, LEVELS)[:, ::-1].cumsum(axis=1)[:, ::-1]
    return Pair(mask, prediction.astype(np.float64), hits=at_least[1], false_alarms=at_least[0])


def as_photo(name: str, values: np.ndarray) -> np.ndarray:
    """The array as bool or float (H, W) in [0, 1], or `MetricError`."""
    values = np.asarray(values)
    if values.ndim != 2 or not values.size:
        raise MetricError(f"the {name} is one photo's, (H, W) with at least a pixel, not {values.shape}")
    if values.dtype.kind not in "bf":
        raise MetricError(f"the {name} is bool or float in [0, 1], not {values.dtype}: divide eight bits by 255")
    if values.dtype.kind == "f" and not (values.min() >= 0 and values.max() <= 1):  # NaN is not
        raise MetricError(f"the {name} has values from {values.min()} to {values.max()}; they are to be in [0, 1]")
    return values.astype(np.float32) if values.dtype == np.float16 else values


def min_max_normalized(prediction: np.ndarray) -> np.ndarray:
    """The prediction stretched to reach from 0 to 1: (p − min) / (max − min); unchanged where it is constant.

    Published results of salient object detection are mostly of stretched maps (PySODMetrics does it by
    default, U²-Net's code before it writes them). It flatters a map that is faint all over, and hides one
    that is sure where there is nothing; no measure here does it by itself.
    """
    lowest, highest = prediction.min(), prediction.max()
    stretched: np.ndarray = prediction if lowest == highest else (prediction - lowest) / (highest - lowest)
    return stretched
