"""How good a mask is: measures of the field, each equal to its reference implementation.

::

    regions.py     the IoU of one subject
    confusion.py   class numbers: IoU per class, their mean, pixel accuracy, precision, recall, F1
    online.py      the same inside the training loop, as Keras metrics

All but `training.metrics.online` are plain numpy and import no Keras.
"""

from training.metrics.confusion import (
    VOID,
    PrecisionRecall,
    confusion_matrix,
    iou_per_class,
    mean_iou,
    pixel_accuracy,
    precision_recall_f1,
)
from training.metrics.regions import binary_iou

__all__ = [
    "VOID",
    "PrecisionRecall",
    "binary_iou",
    "confusion_matrix",
    "iou_per_class",
    "mean_iou",
    "pixel_accuracy",
    "precision_recall_f1",
]
