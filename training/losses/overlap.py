"""Losses of how much two masks share, summed over the pixels of an example before anything is divided.

With several classes an example's loss is the mean over the classes that stand in its truth (weighted by
``class_weights``): one that does not has no overlap to speak of, and what is wrongly given to it is missed
by another.
"""

from typing import Any

from keras import ops

from training.losses.pixelwise import Weights, binary_cross_entropy, cross_entropy
from training.losses.truth import read_target, weighted_mean


def soft_dice(
    truth: Any, probability: Any, *, classes: int = 1, class_weights: Weights = None, smooth: float = 1.0
) -> Any:
    """1 − (2 Σ t p + s) / (Σ t + Σ p + s) over the pixels of each example: (B,), in [0, 1].

    One minus the Dice coefficient with probabilities in place of a yes or no (Milletari et al. 2016,
    *V-Net*, with plain sums in the denominator as in Drozdzal et al. 2016). Unlike cross-entropy it does not
    care how small a subject is. ``smooth``, in pixels, makes an empty mask that is predicted empty cost
    nothing.
    """
    shared, true, predicted, present = _sums(truth, probability, classes)
    return weighted_mean(1 - _ratio(2 * shared, true + predicted, smooth), present, class_weights)


def soft_iou(
    truth: Any, probability: Any, *, classes: int = 1, class_weights: Weights = None, smooth: float = 1.0
) -> Any:
    """1 − (Σ t p + s) / (Σ t + Σ p − Σ t p + s) over the pixels of each example: (B,), in [0, 1].

    One minus the intersection over union with probabilities in place of a yes or no (Rahman and Wang 2016).
    ``smooth`` as in `soft_dice`.
    """
    shared, true, predicted, present = _sums(truth, probability, classes)
    return weighted_mean(1 - _ratio(shared, true + predicted - shared, smooth), present, class_weights)


def bce_dice(
    truth: Any, probability: Any, *, classes: int = 1, class_weights: Weights = None, smooth: float = 1.0
) -> Any:
    """`binary_cross_entropy`, whose gradients are smooth, plus `soft_dice`, which follows the IoU.

    The weights are the cross-entropy's.
    """
    pixelwise = binary_cross_entropy(truth, probability, classes=classes, class_weights=class_weights)
    return pixelwise + soft_dice(truth, probability, classes=classes, smooth=smooth)


def ce_dice(truth: Any, probability: Any, *, classes: int, class_weights: Weights = None, smooth: float = 1.0) -> Any:
    """`cross_entropy` plus `soft_dice`, both weighted."""
    pixelwise = cross_entropy(truth, probability, classes=classes, class_weights=class_weights)
    return pixelwise + soft_dice(truth, probability, classes=classes, class_weights=class_weights, smooth=smooth)


def _sums(truth: Any, probability: Any, classes: int) -> tuple[Any, Any, Any, Any]:
    """Σ t p, Σ t, Σ p and which classes count, each (B, classes)."""
    target = read_target(truth, probability, classes)
    shared, true, predicted = (
        ops.sum(values, axis=(1, 2)) for values in (target.truth * target.probability, target.truth, target.probability)
    )
    present = ops.ones_like(true) if classes == 1 else ops.cast(true > 0, "float32")
    return shared, true, predicted, present


def _ratio(above: Any, below: Any, smooth: float) -> Any:
    """(above + smooth) / (below + smooth); 1 for 0 / 0."""
    empty = below + smooth == 0
    return ops.where(empty, 1.0, (above + smooth) / ops.where(empty, 1.0, below + smooth))
