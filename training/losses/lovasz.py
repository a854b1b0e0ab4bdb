"""The Lovász extension of the Jaccard loss (Berman et al. 2018, *The Lovász-Softmax loss*).

1 − IoU is a function of the *set* of wrong pixels. Its Lovász extension carries it over to errors between 0
and 1: sort the errors m₁ ≥ m₂ ≥ …, let J_i be the Jaccard loss were the first i pixels wrong and all others
right, and sum m_i (J_i − J_{i−1}). It is convex in the errors and equals 1 − IoU where all are 0 or 1.
"""

from typing import Any

from keras import ops

from training.losses.pixelwise import Weights
from training.losses.truth import read_target, weighted_mean


def lovasz(truth: Any, probability: Any, *, classes: int = 1, class_weights: Weights = None) -> Any:
    """The Lovász-Softmax loss of each example by itself ("per image"): (B,), in [0, 1].

    With one class: of the sigmoid's probability, errors |t − p|, for the subject alone; a truth without a
    subject costs the largest probability in it. With more: errors of p_c against one-hot, the mean over the
    classes that stand in the example's truth. It is a loss of sets: a soft truth counts as subject from 0.5.
    Exact up to 2**24 pixels per example.
    """
    target = read_target(truth, probability, classes)
    true = ops.cast(target.truth >= 0.5, "float32")
    # void pixels are 0 in both: of no error and sorted last, they cost nothing and change nothing before them
    errors = ops.abs(true - target.probability)
    size = (-1, ops.shape(true)[1] * ops.shape(true)[2], classes)
    true, errors = (ops.transpose(ops.reshape(values, size), (0, 2, 1)) for values in (true, errors))
    order = ops.argsort(-ops.stop_gradient(errors), axis=-1)
    steps = _jaccard_steps(ops.take_along_axis(true, order, axis=-1))
    values = ops.sum(ops.take_along_axis(errors, order, axis=-1) * steps, axis=-1)
    present = ops.ones_like(values) if classes == 1 else ops.cast(ops.any(true > 0, axis=-1), "float32")
    return weighted_mean(values, present, class_weights)


def _jaccard_steps(true: Any) -> Any:
    """J_i − J_{i−1} along the last axis, for pixels in the order of their errors: float32 (…, pixels).

    With I pixels of the truth after the i-th and a union of U up to it, J = 1 − I / U. A pixel of the truth
    takes one from I: a step of 1 / U. Any other adds one to U: a step of I / (U (U − 1)). Computed like this
    and not as a difference, each step is right to the last bits of float32.
    """
    total = ops.sum(true, axis=-1, keepdims=True)
    left = total - ops.cumsum(true, axis=-1)
    union = total + ops.cumsum(1 - true, axis=-1)
    grown = left / (union * ops.maximum(union - 1, 1.0))
    steps = ops.where(true > 0, 1 / ops.maximum(union, 1.0), grown)
    # no truth at all: the first wrong pixel takes the IoU from 1 (nothing of nothing) to 0
    only_first = ops.cast(ops.cumsum(1 - true, axis=-1) == 1, "float32")
    return ops.where(total > 0, steps, only_first)
