"""Errors of an alpha matte (Rhemann et al. 2009, *A Perceptually Motivated Online Benchmark for Image Matting*).

As the evaluation code of *Deep Image Matting* (Xu et al. 2017) computes them, which the field has used
since; `gradient_error` says where it differs. All take ``truth`` and ``prediction``, float (H, W) in [0, 1],
and ``region``, bool (H, W): the pixels that count, which is the unknown part of a trimap, or None for all.
Filters and connected regions still see the whole photo. Less is better. All raise `MetricError` for other
shapes and values, and an empty region.
"""

import math

import numpy as np
from scipy import ndimage

from training.errors import MetricError
from training.metrics.pair import as_photo

_SIGMA = 1.4  # pixels
_STEPS = 10
_TOLERANCE = 0.15


def sad(truth: np.ndarray, prediction: np.ndarray, region: np.ndarray | None = None) -> float:
    """The sum of absolute differences, in thousands of pixels."""
    truth, prediction, region = _read(truth, prediction, region)
    return float(np.abs(prediction - truth)[region].sum()) / 1000


def mse(truth: np.ndarray, prediction: np.ndarray, region: np.ndarray | None = None) -> float:
    """The mean squared difference, in [0, 1]."""
    truth, prediction, region = _read(truth, prediction, region)
    return float(((prediction - truth) ** 2)[region].mean())


def gradient_error(truth: np.ndarray, prediction: np.ndarray, region: np.ndarray | None = None) -> float:
    """The sum of squared differences of the mattes' gradient magnitudes, divided by 1000.

    Gradients are by first derivatives of a Gaussian (σ 1.4 pixels, 9×9, of unit L2 norm), edges repeated.
    Mattes are taken as they are; the code of *Deep Image Matting* first stretches each to reach from 0 to 1,
    which changes nothing where both do.
    """
    truth, prediction, region = _read(truth, prediction, region)
    return float(((_gradient(prediction) - _gradient(truth)) ** 2)[region].sum()) / 1000


def connectivity_error(truth: np.ndarray, prediction: np.ndarray, region: np.ndarray | None = None) -> float:
    """The sum of differences in how connected pixels are to the bulk of the subject, divided by 1000.

    A pixel is connected up to the level l, in tenths, if at each level up to it it lies in the largest
    4-connected region (of equal ones the first, by rows) where both mattes reach that level; its
    connectivity in a matte is 1 − (α − l) where α − l ≥ 0.15, else 1. At levels that both mattes reach
    nowhere, nothing is connected.
    """
    truth, prediction, region = _read(truth, prediction, region)
    level = _connected_level(np.minimum(truth, prediction))
    difference = _disconnection(prediction - level) - _disconnection(truth - level)
    return float(np.abs(difference)[region].sum()) / 1000


def _read(
    truth: np.ndarray, prediction: np.ndarray, region: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both mattes in float64, and the region."""
    true, predicted = as_photo("truth", truth), as_photo("prediction", prediction)
    chosen = np.ones(true.shape, bool) if region is None else np.asarray(region)
    if not true.shape == predicted.shape == chosen.shape:
        raise MetricError(
            f"truth {true.shape}, prediction {predicted.shape} and region {chosen.shape} are not of one shape"
        )
    if chosen.dtype != bool or not chosen.any():
        raise MetricError("the region is bool, with at least a pixel: trimap == 128 for eight bits")
    return true.astype(np.float64), predicted.astype(np.float64), chosen


def _gradient(matte: np.ndarray) -> np.ndarray:
    """The magnitude of the gradient, (H, W)."""
    # as far as the Gaussian's density is above a hundredth
    reach = math.ceil(_SIGMA * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * _SIGMA * 0.01)))
    steps = np.arange(-reach, reach + 1)
    bell = np.exp(-(steps**2) / (2 * _SIGMA**2))
    slope = -steps * bell
    bell, slope = bell / np.linalg.norm(bell), slope / np.linalg.norm(slope)
    along = (
        ndimage.convolve1d(
            ndimage.convolve1d(matte, bell, axis=1 - axis, mode="nearest"), slope, axis=axis, mode="nearest"
        )
        for axis in (0, 1)
    )
    magnitude: np.ndarray = np.hypot(*along)
    return magnitude


def _connected_level(both: np.ndarray) -> np.ndarray:
    """Up to which level in 0, 0.1, … 1 each pixel is connected, of the lesser of both mattes: (H, W)."""
    level = np.zeros_like(both)
    connected = np.ones(both.shape, bool)
    for step in range(1, _STEPS + 1):
        regions, count = ndimage.label(both >= step / _STEPS)
        if not count:
            break
        connected &= regions == np.bincount(regions.ravel())[1:].argmax() + 1
        level[connected] = step / _STEPS
    return level


def _disconnection(excess: np.ndarray) -> np.ndarray:
    """How far a matte rises above the level to which it is connected; a little is none."""
    return np.where(excess >= _TOLERANCE, excess, 0.0)
