"""Where a model and a label disagree, and the model is sure: labels worth another look.

A confident model that contradicts a label is often right (*confident learning*, Northcutt, Jiang and Chuang 2021,
arXiv:1911.00068); labels are ranked by how much of them is contradicted. What is counted are pixels to which the model
gives the label's class a probability of at most 0.1. Thin disagreement, along edges, is a matter of taste and not
counted: only what is left after a morphological opening, with a square of about 2 % of the photo's shorter side.
"""

import numpy as np
from scipy import ndimage

#: A label's class this improbable is contradicted.
SURE = 0.1
_OPENING = 0.02


def binary_disagreement(truth: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Of a truth and a probability of the subject, float (H, W) in [0, 1].

    ``missing``: sure subject that the label leaves out; ``extra``: labelled subject that is sure ground; both as shares
    of what either the label or the model calls subject. ``suspicion`` is their sum, in [0, 1]. ``top``, ``left``,
    ``bottom`` and ``right``, as shares of height and width, bound the contradicted pixels; 0 where there are none.
    """
    subject = truth >= 0.5
    missing = _opened(~subject & (probability >= 1 - SURE))
    extra = _opened(subject & (probability <= SURE))
    union = max(int(np.count_nonzero(subject | (probability >= 0.5))), 1)
    shares = {"missing": np.count_nonzero(missing) / union, "extra": np.count_nonzero(extra) / union}
    return {**shares, "suspicion": min(1.0, sum(shares.values())), **_bounds(missing | extra)}


def class_disagreement(truth: np.ndarray, probability: np.ndarray, void: int) -> dict[str, float]:
    """Of class numbers (H, W) and probabilities (H, W, K): ``suspicion``, the share of the pixels that are not
    ``void`` whose class is contradicted, in [0, 1]; of most of these the class ``labelled`` and the class ``seen``,
    -1 where there are none; and bounds as of `binary_disagreement`.
    """
    known = truth != void
    of_label = np.take_along_axis(probability, np.where(known, truth, 0)[:, :, None].astype(np.int64), 2)[:, :, 0]
    where = _opened(known & (of_label <= SURE))
    labelled = seen = -1
    if where.any():
        classes = probability.shape[2]
        pairs = truth[where].astype(np.int64) * classes + probability[where].argmax(axis=1)
        labelled, seen = divmod(int(np.bincount(pairs).argmax()), classes)
    suspicion = np.count_nonzero(where) / max(int(np.count_nonzero(known)), 1)
    return {"suspicion": suspicion, "labelled": labelled, "seen": seen, **_bounds(where)}


def _opened(where: np.ndarray) -> np.ndarray:
    """Without what is thinner than the square."""
    side = max(3, round(_OPENING * min(where.shape)) | 1)
    if not where.any():
        return where
    # A square's erosion and dilation are running minima and maxima along rows and columns.
    eroded = ndimage.minimum_filter(where.astype(np.uint8), size=side, mode="nearest")
    opened: np.ndarray = ndimage.maximum_filter(eroded, size=side, mode="constant") > 0
    return opened


def _bounds(where: np.ndarray) -> dict[str, float]:
    rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    if not len(rows):
        return dict.fromkeys(("top", "left", "bottom", "right"), 0.0)
    height, width = where.shape
    return {
        "top": rows[0] / height,
        "left": columns[0] / width,
        "bottom": (rows[-1] + 1) / height,
        "right": (columns[-1] + 1) / width,
    }
