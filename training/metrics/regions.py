"""Intersection over union (the Jaccard index) of one subject: |truth ∧ prediction| / |truth ∨ prediction|.

A pixel belongs to the subject where its value is at least the threshold, in the truth as in the prediction.
Where both are empty, the IoU is 1: nothing was to be found, and nothing was.
"""

import numpy as np

from training.errors import MetricError


def binary_iou(truth: np.ndarray, prediction: np.ndarray, threshold: float = 0.5) -> float:
    """The IoU in [0, 1] of two arrays of one shape, with values in [0, 1]. Raises `MetricError` if
    shapes differ.
    """
    if truth.shape != prediction.shape:
        raise MetricError(f"truth {truth.shape} and prediction {prediction.shape} are not of one shape")
    true, predicted = truth >= threshold, prediction >= threshold
    union = np.count_nonzero(true | predicted)
    return np.count_nonzero(true & predicted) / union if union else 1.0
