"""Intersection over union inside the training loop, for any Keras backend: both metrics are named "iou".

Over a dataset, intersections and unions are added up before they are divided: each pixel counts the same,
and the result does not depend on the batches.
"""

from typing import Any

import keras
from keras import ops

from training.metrics.confusion import VOID

#: Counts are high · 2**20 + low in int32, which every backend has; float32 is exact only to 2**24.
_LOW_BITS = 20


class _PixelCounts(keras.metrics.Metric):  # type: ignore[misc]  # Keras has no types
    """Whole numbers of pixels, added up over batches; exact up to 2**51 pixels.

    A batch must have fewer than 2**31 - 2**20 pixels.
    """

    def __init__(self, shape: tuple[int, ...], name: str) -> None:
        super().__init__(name=name)
        self.low = self.add_variable(shape, "zeros", dtype="int32", name="low")
        self.high = self.add_variable(shape, "zeros", dtype="int32", name="high")

    def add_counts(self, counts: Any) -> None:
        """Add int32 counts of the shape of this metric's."""
        total = self.low + counts
        carry = total // 2**_LOW_BITS
        self.low.assign(total - carry * 2**_LOW_BITS)
        self.high.assign(self.high + carry)

    def totals(self) -> Any:
        """The counts so far, rounded to float32."""
        return ops.cast(self.high, "float32") * 2.0**_LOW_BITS + ops.cast(self.low, "float32")

    def refuse_weights(self, sample_weight: Any) -> None:
        """Raise `ValueError` for sample weights, which an IoU of pixels does not know."""
        if sample_weight is not None:
            raise ValueError(f"{type(self).__name__} takes no sample_weight")


class BinaryIoU(_PixelCounts):
    """`training.metrics.binary_iou` over all batches since ``reset_state``, for ``compile(metrics=…)``.

    ``update_state`` takes float in [0, 1] (B, H, W, 1), truth and prediction.
    """

    def __init__(self, threshold: float = 0.5, name: str = "iou") -> None:
        super().__init__((2,), name)  # of the intersection, of the union
        self.threshold = threshold

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch. Raises `ValueError` for sample weights."""
        self.refuse_weights(sample_weight)
        true = ops.convert_to_tensor(y_true) >= self.threshold
        predicted = ops.convert_to_tensor(y_pred) >= self.threshold
        both, either = ops.logical_and(true, predicted), ops.logical_or(true, predicted)
        self.add_counts(ops.stack([ops.sum(ops.cast(both, "int32")), ops.sum(ops.cast(either, "int32"))]))

    def result(self) -> Any:
        """The IoU so far, float32 in [0, 1]; 1 where nothing was to be found and nothing was."""
        totals = self.totals()
        intersection, union = totals[0], totals[1]
        return ops.where(union > 0, intersection / ops.maximum(union, 1.0), 1.0)

    def get_config(self) -> dict[str, Any]:
        """What ``from_config`` needs."""
        return {"threshold": self.threshold, "name": self.name}


class MeanIoU(_PixelCounts):
    """`training.metrics.mean_iou` over all batches since ``reset_state``: void pixels are left out.

    ``update_state`` takes class numbers, int (B, H, W, 1) in 0 … classes - 1 or 255 for void, and
    probabilities, float (B, H, W, classes), of which the largest is the class that was predicted (of equal
    ones the first).
    """

    def __init__(self, classes: int, name: str = "iou") -> None:
        super().__init__((3, classes), name)  # intersections, pixels of the truth, pixels predicted
        self.classes = classes

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch. Raises `ValueError` for sample weights."""
        self.refuse_weights(sample_weight)
        true = ops.cast(ops.squeeze(y_true, axis=-1), "int32")
        predicted = ops.cast(ops.argmax(y_pred, axis=-1), "int32")
        predicted = ops.where(true == VOID, VOID, predicted)
        hit = ops.where(true == predicted, true, VOID)
        self.add_counts(ops.stack([self._count(hit), self._count(true), self._count(predicted)]))

    def _count(self, numbers: Any) -> Any:
        """How many pixels there are of each class: int32 (classes,)."""
        return ops.stack([ops.sum(ops.cast(numbers == label, "int32")) for label in range(self.classes)])

    def result(self) -> Any:
        """The mean IoU so far, float32 in [0, 1], over the classes that were seen or predicted; 1 if none."""
        totals = self.totals()
        intersection = totals[0]
        union = totals[1] + totals[2] - intersection
        seen = ops.cast(union > 0, "float32")
        iou = intersection / ops.maximum(union, 1.0)
        return ops.where(ops.sum(seen) > 0, ops.sum(iou) / ops.maximum(ops.sum(seen), 1.0), 1.0)

    def get_config(self) -> dict[str, Any]:
        """What ``from_config`` needs."""
        return {"classes": self.classes, "name": self.name}


def create_metric(classes: int = 1) -> BinaryIoU | MeanIoU:
    """The metric that chooses the best checkpoint: `BinaryIoU` for one class, `MeanIoU` for more."""
    return BinaryIoU() if classes == 1 else MeanIoU(classes)
