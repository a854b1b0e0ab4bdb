"""How well the outline of a mask is drawn. The interior, which is most of the IoU, does not count here.

All take ``truth`` and ``prediction``, bool or float (H, W) in [0, 1], whose subject is where they are at
least 0.5, and raise `MetricError` for anything else. Beyond the photo there is no subject: where a mask is
cut off by the photo's edge, that is its outline.
"""

import numpy as np
from scipy import ndimage

from training.errors import MetricError
from training.metrics.pair import as_photo
from training.metrics.saliency import BETA_SQUARED


def boundary_iou(truth: np.ndarray, prediction: np.ndarray, dilation_ratio: float = 0.02) -> float:
    """The IoU in [0, 1] of the inner rims of both masks, d pixels wide (Cheng et al. 2021, *Boundary IoU*).

    d is ``dilation_ratio`` of the photo's diagonal, rounded, at least 1; a pixel is of the rim if a pixel
    that is not the subject's lies within d rows and columns of it. 1 where both masks are empty.
    """
    masks = _masks(truth, prediction)
    width = max(1, round(dilation_ratio * float(np.hypot(*masks[0].shape))))
    true, predicted = (_rim(mask, width) for mask in masks)
    union = np.count_nonzero(true | predicted)
    return np.count_nonzero(true & predicted) / union if union else 1.0


def relaxed_boundary_f(
    truth: np.ndarray, prediction: np.ndarray, tolerance: float = 3.0, beta_squared: float = BETA_SQUARED
) -> float:
    """F-beta in [0, 1] of outlines one pixel wide, of which a pixel is right if it lies near the other one.

    As in the papers of BASNet (Qin et al. 2019) and U²-Net, after Ehrig and Euzenat 2005: precision is the
    share of the predicted outline within ``tolerance`` pixels, in a straight line, of the true outline,
    recall the share of the true within that of the predicted. An outline is what a mask loses when it is
    eroded by a 3×3 square. 1 where both masks are empty, 0 where only one is.
    """
    true, predicted = (_rim(mask, 1) for mask in _masks(truth, prediction))
    if not true.any() or not predicted.any():
        return float(true.any() == predicted.any())
    precision = np.count_nonzero(predicted & _near(true, tolerance)) / np.count_nonzero(predicted)
    recall = np.count_nonzero(true & _near(predicted, tolerance)) / np.count_nonzero(true)
    below = beta_squared * precision + recall
    return (1 + beta_squared) * precision * recall / below if below else 0.0


def _masks(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    true, predicted = (as_photo(*item) >= 0.5 for item in (("truth", truth), ("prediction", prediction)))
    if true.shape != predicted.shape:
        raise MetricError(f"truth {true.shape} and prediction {predicted.shape} are not of one shape")
    return true, predicted


def _rim(mask: np.ndarray, width: int) -> np.ndarray:
    """The pixels of a mask that a pixel outside lies within ``width`` rows and columns of: bool (H, W)."""
    kept = mask.view(np.uint8)
    for axis in (0, 1):
        kept = ndimage.minimum_filter1d(kept, 2 * width + 1, axis=axis, mode="constant", cval=0)
    rim: np.ndarray = mask & (kept == 0)
    return rim


def _near(outline: np.ndarray, distance: float) -> np.ndarray:
    """Where a pixel of the outline is at most ``distance`` away: bool (H, W).

    Moves the outline by each step of a disk: a distance transform would measure all pixels, and a disk drawn at
    each pixel of the outline takes gigabytes where a prediction is noise.
    """
    reach = int(distance)
    steps = np.arange(-reach, reach + 1)
    height, width = outline.shape
    padded = np.zeros((height + 2 * reach, width + 2 * reach), bool)
    for row, column in np.argwhere(steps[:, None] ** 2 + steps**2 <= distance**2):  # already shifted by reach
        padded[row : row + height, column : column + width] |= outline
    return padded[reach : reach + height, reach : reach + width]
