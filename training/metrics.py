"""Intersection over union (the Jaccard index) of one subject: |truth ∧ prediction| / |truth ∨ prediction|.

A pixel belongs to the subject where its value is at least the threshold, in the truth as in the prediction.
Over a dataset, intersections and unions are added up before they are divided: each pixel counts the same,
and the result does not depend on the batches. Where both are empty, the IoU is 1: nothing was to be found,
and nothing was.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

#: Counts are high · 2**20 + low in int32, which every backend has; float32 is exact only to 2**24.
_LOW_BITS = 20


def binary_iou(truth: np.ndarray, prediction: np.ndarray, threshold: float = 0.5) -> float:
    """The IoU in [0, 1] of two arrays of one shape, with values in [0, 1]. Raises `ValueError` if shapes
    differ.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth {truth.shape} and prediction {prediction.shape} are not of one shape")
    true, predicted = truth >= threshold, prediction >= threshold
    union = np.count_nonzero(true | predicted)
    return np.count_nonzero(true & predicted) / union if union else 1.0


class BinaryIoU(keras.metrics.Metric):  # type: ignore[misc]  # Keras has no types
    """`binary_iou` over all batches since ``reset_state``, for ``compile(metrics=…)``; exact up to 2**51
    pixels.

    ``update_state`` takes float in [0, 1] (B, H, W, 1), fewer than 2**31 - 2**20 pixels per batch.
    """

    def __init__(self, threshold: float = 0.5, name: str = "iou") -> None:
        super().__init__(name=name)
        self.threshold = threshold
        # (2,): of the intersection, of the union
        self.low = self.add_variable((2,), "zeros", dtype="int32", name="low")
        self.high = self.add_variable((2,), "zeros", dtype="int32", name="high")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch. Raises `ValueError` for sample weights, which an IoU of pixels does not know."""
        if sample_weight is not None:
            raise ValueError("BinaryIoU takes no sample_weight")
        true = ops.convert_to_tensor(y_true) >= self.threshold
        predicted = ops.convert_to_tensor(y_pred) >= self.threshold
        counts = ops.stack(
            [
                ops.sum(ops.cast(ops.logical_and(true, predicted), "int32")),
                ops.sum(ops.cast(ops.logical_or(true, predicted), "int32")),
            ]
        )
        total = self.low + counts
        carry = total // 2**_LOW_BITS
        self.low.assign(total - carry * 2**_LOW_BITS)
        self.high.assign(self.high + carry)

    def result(self) -> Any:
        """The IoU so far, float32 in [0, 1]."""
        totals = ops.cast(self.high, "float32") * 2.0**_LOW_BITS + ops.cast(self.low, "float32")
        intersection, union = totals[0], totals[1]
        return ops.where(union > 0, intersection / ops.maximum(union, 1.0), 1.0)

    def get_config(self) -> dict[str, Any]:
        """What ``from_config`` needs."""
        return {"threshold": self.threshold, "name": self.name}
