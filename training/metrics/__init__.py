"""How good a mask is: measures of the field, each equal to its reference implementation.

::

    regions.py     the IoU of one subject
    confusion.py   class numbers: IoU per class, their mean, pixel accuracy, precision, recall, F1
    saliency.py    a saliency map: MAE, F-beta, S-measure, E-measure, weighted F-beta
      pair.py structure.py weighted.py     what it is made of
    boundary.py    outlines: boundary IoU, relaxed boundary F-beta
    matte.py       alpha mattes: SAD, MSE, gradient and connectivity error
    online.py      IoUs inside the training loop, as Keras metrics

All but `training.metrics.online` are plain numpy and SciPy and import no Keras. `MetricError` says what two
arrays lack to be compared.
"""

from training.errors import MetricError
from training.metrics.boundary import boundary_iou, relaxed_boundary_f
from training.metrics.confusion import (
    VOID,
    PrecisionRecall,
    confusion_matrix,
    iou_per_class,
    mean_iou,
    pixel_accuracy,
    precision_recall_f1,
)
from training.metrics.matte import connectivity_error, gradient_error, mse, sad
from training.metrics.pair import min_max_normalized
from training.metrics.regions import binary_iou
from training.metrics.saliency import (
    BETA_SQUARED,
    SaliencyScores,
    adaptive_e_measure,
    adaptive_f_beta,
    e_measure_curve,
    f_beta,
    f_beta_curve,
    mae,
    max_f_beta,
    mean_f_beta,
    precision_recall_curve,
    s_measure,
    saliency_scores,
    weighted_f_beta,
)

__all__ = [
    "BETA_SQUARED",
    "VOID",
    "MetricError",
    "PrecisionRecall",
    "SaliencyScores",
    "adaptive_e_measure",
    "adaptive_f_beta",
    "binary_iou",
    "boundary_iou",
    "confusion_matrix",
    "connectivity_error",
    "e_measure_curve",
    "f_beta",
    "f_beta_curve",
    "gradient_error",
    "iou_per_class",
    "mae",
    "max_f_beta",
    "mean_f_beta",
    "mean_iou",
    "min_max_normalized",
    "mse",
    "pixel_accuracy",
    "precision_recall_curve",
    "precision_recall_f1",
    "relaxed_boundary_f",
    "s_measure",
    "sad",
    "saliency_scores",
    "weighted_f_beta",
]
