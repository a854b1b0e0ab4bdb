"""Losses that judge each pixel by itself; an example's is the mean over its pixels that are not void.

Probabilities are clipped to [1e-7, 1 - 1e-7], as Keras does: values are at most 16.1 per pixel and unit of
weight, and gradients are finite everywhere, 0 outside.
"""

from typing import Any

from keras import ops

from training.losses.truth import EPSILON, Target, read_target

Weights = tuple[float, ...] | None


def binary_cross_entropy(truth: Any, probability: Any, *, classes: int = 1, class_weights: Weights = None) -> Any:
    """−[w₁ t log p + w₀ (1 − t) log(1 − p)], the mean over the pixels of each example: (B,), at least 0.

    ``class_weights`` are (w₀, w₁), of the background and of the subject. The truth t may be soft.
    """
    return _mean(_binary_terms(read_target(truth, probability, classes), class_weights, gamma=0.0))


def cross_entropy(truth: Any, probability: Any, *, classes: int, class_weights: Weights = None) -> Any:
    """−w_c log p_c of each pixel's class c, the mean over the pixels of each example: (B,), at least 0."""
    return focal(truth, probability, classes=classes, class_weights=class_weights, gamma=0.0)


def focal(truth: Any, probability: Any, *, classes: int = 1, class_weights: Weights = None, gamma: float = 2.0) -> Any:
    """−w_c (1 − p_c)^γ log p_c of each pixel's class c, the mean over the pixels of each example: (B,).

    Lin et al. 2017, *Focal Loss for Dense Object Detection*; their α_t are the weights. With one class, a
    pixel whose soft truth is t is a subject's pixel by the share t and background by 1 − t.
    """
    target = read_target(truth, probability, classes)
    if classes == 1:
        return _mean(_binary_terms(target, class_weights, gamma))
    # the probability of the true class; 1 where void, which costs nothing
    right = ops.sum(target.truth * target.probability, axis=-1, keepdims=True) + (1 - target.known)
    terms = _surprise(right, gamma)
    if class_weights is not None:
        weights = ops.convert_to_tensor(class_weights, "float32")
        terms = terms * ops.sum(target.truth * weights, axis=-1, keepdims=True)
    return ops.sum(terms * target.known, axis=(1, 2, 3)) / target.pixels


def _binary_terms(target: Target, class_weights: Weights, gamma: float) -> Any:
    """What each pixel costs: (B, H, W, 1)."""
    background, subject = class_weights or (1.0, 1.0)
    missed = target.truth * _surprise(target.probability, gamma)
    invented = (1 - target.truth) * _surprise(1 - target.probability, gamma)
    return subject * missed + background * invented


def _surprise(probability: Any, gamma: float) -> Any:
    """−(1 − p)^γ log p."""
    probability = ops.clip(probability, EPSILON, 1 - EPSILON)
    information = -ops.log(probability)
    return information if gamma == 0 else ops.power(1 - probability, gamma) * information


def _mean(terms: Any) -> Any:
    return ops.mean(terms, axis=(1, 2, 3))
