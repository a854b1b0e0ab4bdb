"""Structural similarity as a loss, and BASNet's hybrid of three."""

from typing import Any

import numpy as np
from keras import ops

from training.losses.overlap import soft_iou
from training.losses.pixelwise import Weights, binary_cross_entropy
from training.losses.truth import Target, read_target

_WINDOW, _SIGMA = 11, 1.5  # pixels
_C1, _C2 = 0.01**2, 0.03**2  # Wang's constants for values in [0, 1]


def ssim_loss(truth: Any, probability: Any, *, classes: int = 1) -> Any:
    """1 − SSIM, the mean over the pixels of each example: (B,), in [0, 2].

    Wang et al. 2004, *Image quality assessment: from error visibility to structural similarity*: an 11×11
    Gaussian window, σ 1.5, constants 0.01² and 0.03²; outside the photo both masks are 0, as in the code
    that BASNet uses.
    """
    target = read_target(truth, probability, classes)
    return 1 - ops.mean(_similarity(target), axis=(1, 2, 3))


def basnet_hybrid(truth: Any, probability: Any, *, classes: int = 1, class_weights: Weights = None) -> Any:
    """Binary cross-entropy + (1 − SSIM) + (1 − soft IoU) of each example: (B,), at least 0.

    Qin et al. 2019, *BASNet: Boundary-Aware Salient Object Detection*: the three judge a pixel, its
    neighbourhood and the whole. BASNet sums it over its eight outputs: see
    `training.losses.sum_over_outputs`. The IoU is not smoothed, as there; an empty truth that is predicted
    empty costs nothing.
    """
    assert class_weights is None, "the catalog refuses them"
    pixelwise = binary_cross_entropy(truth, probability, classes=classes)
    whole = soft_iou(truth, probability, classes=classes, smooth=0.0)
    return pixelwise + ssim_loss(truth, probability, classes=classes) + whole


def _similarity(target: Target) -> Any:
    """The SSIM index of each pixel: (B, H, W, 1)."""
    t, p = target.truth, target.probability
    moments = _blur(ops.concatenate([t, p, t * t, p * p, t * p], axis=-1))
    mean_t, mean_p, square_t, square_p, product = ops.split(moments, 5, axis=-1)
    variances = square_t - mean_t**2 + square_p - mean_p**2
    covariance = product - mean_t * mean_p
    luminance = (2 * mean_t * mean_p + _C1) / (mean_t**2 + mean_p**2 + _C1)
    return luminance * (2 * covariance + _C2) / (variances + _C2)


def _blur(values: Any) -> Any:
    """The Gaussian mean around each pixel, 0 outside: (B, H, W, C).

    Depthwise, which GPUs mostly compute in float32; a full convolution may round its factors to 10 bits
    (TF32), and the variances are differences of its results. Adding up shifted copies would be exact too, but
    takes TensorFlow a hundred times as long with its gradient.
    """
    for shape in ((_WINDOW, 1, 1, 1), (1, _WINDOW, 1, 1)):
        kernel = np.tile(_BELL.reshape(shape), (1, 1, values.shape[-1], 1))
        values = ops.depthwise_conv(values, kernel, padding="same", data_format="channels_last")
    return values


def _bell() -> np.ndarray:
    """The Gaussian along one axis, sum 1: float32 (11,)."""
    steps = np.arange(_WINDOW) - _WINDOW // 2
    values = np.exp(-(steps**2) / (2 * _SIGMA**2))
    return np.asarray(values / values.sum(), np.float32)


_BELL = _bell()
