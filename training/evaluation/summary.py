"""What is said of a split: each number a function of means over its photos, so that the bootstrap can resample it."""

from dataclasses import dataclass

import numpy as np

from training.evaluation.bootstrap import Means
from training.metrics import f_beta

#: An IoU of at least this much is counted; the usual limits for cut-outs that need no retouching.
LIMITS = (0.95, 0.97, 0.99)


@dataclass(frozen=True)
class Metric:
    """``key`` as in the JSON report; ``higher`` is whether higher is better; ``text`` says what it is."""

    key: str
    label: str
    higher: bool
    text: str


_SHARES = tuple(
    Metric(
        f"iou_{round(limit * 100)}",
        f"photos ≥ {limit:g} IoU",
        True,
        f"The share of photos whose own IoU is at least {limit:g}.",
    )
    for limit in LIMITS
)

SUBJECT_METRICS = (
    Metric("mean_iou", "mean IoU", True, "Intersection over union at threshold 0.5, the mean over photos."),
    Metric("pooled_iou", "pooled IoU", True, "All intersections over all unions: each pixel counts the same."),
    *_SHARES,
    Metric("precision", "precision", True, "Of the pixels found (p ≥ 0.5), the share of subject; mean over photos."),
    Metric("recall", "recall", True, "Of the subject's pixels, the share found (p ≥ 0.5); mean over photos."),
    Metric("f1", "F1 (Dice)", True, "Harmonic mean of precision and recall of each photo; mean over photos."),
    Metric("mae", "MAE", False, "Mean absolute difference of probability and truth (Perazzi et al. 2012)."),
    Metric(
        "max_f_beta",
        "max F-beta",
        True,
        "β² = 0.3, of each photo at 256 thresholds, averaged over photos, at the best threshold (Achanta et al. 2009).",
    ),
    Metric(
        "max_f_beta_of_means",
        "max F-beta of means",
        True,
        "The best F-beta of mean precision and mean recall: the figure of most papers, U²-Net's among them.",
    ),
    Metric("mean_f_beta", "mean F-beta", True, "The same, averaged over the thresholds."),
    Metric(
        "adaptive_f_beta", "adaptive F-beta", True, "The same, at twice the mean probability of each photo, at most 1."
    ),
    Metric("weighted_f_beta", "weighted F-beta", True, "Errors weighted by where they are (Margolin et al. 2014)."),
    Metric("s_measure", "S-measure", True, "Similarity of structure, by regions and objects (Fan et al. 2017)."),
    Metric(
        "max_e_measure", "max E-measure", True, "Enhanced alignment at the best of 256 thresholds (Fan et al. 2018)."
    ),
    Metric("mean_e_measure", "mean E-measure", True, "The same, averaged over the thresholds."),
    Metric("adaptive_e_measure", "adaptive E-measure", True, "The same, at the adaptive threshold of each photo."),
    Metric("boundary_iou", "boundary IoU", True, "IoU of the bands inside both contours (Cheng et al. 2021)."),
    Metric(
        "relaxed_boundary_f", "relaxed boundary F", True, "F-beta of the contours, 3 pixels of slack (Qin et al. 2019)."
    ),
)

MATTE_METRICS = (
    Metric("sad", "SAD", False, "Sum of absolute differences / 1000, of photos with soft masks (Rhemann et al. 2009)."),
    Metric("mse", "MSE", False, "Mean squared difference, of photos with soft masks (Rhemann et al. 2009)."),
    Metric("gradient_error", "gradient error", False, "Of photos with soft masks (Rhemann et al. 2009)."),
    Metric("connectivity_error", "connectivity error", False, "Of photos with soft masks (Rhemann et al. 2009)."),
)

CLASS_METRICS = (
    Metric("mean_iou", "mean IoU", True, "IoU of each class over all pixels, the mean over classes."),
    Metric("pixel_accuracy", "pixel accuracy", True, "The share of pixels with the right class (global accuracy)."),
    Metric("class_accuracy", "class accuracy", True, "Recall of each class over all pixels, the mean over classes."),
    Metric("photo_iou", "IoU of a photo", True, "The mean IoU of the classes of each photo; the mean over photos."),
    *_SHARES,
)

#: Taken as they are: a mean over photos.
_DIRECT = (
    *("precision", "recall", "f1", "mae", "adaptive_f_beta", "weighted_f_beta", "s_measure", "adaptive_e_measure"),
    *("boundary_iou", "relaxed_boundary_f", "sad", "mse", "gradient_error", "connectivity_error"),
)


def subject_statistic(means: Means) -> dict[str, np.ndarray]:
    """The numbers of `SUBJECT_METRICS`, and of `MATTE_METRICS` where there are soft masks, each (R,)."""
    union = means["union"]
    return {
        "mean_iou": means["iou"],
        "pooled_iou": np.where(union > 0, means["intersection"] / np.where(union > 0, union, 1), 1.0),
        **_shares(means),
        **{key: means[key] for key in _DIRECT if key in means},
        "max_f_beta": means["f_beta_curve"].max(axis=1),
        "max_f_beta_of_means": f_beta(means["precision_curve"], means["recall_curve"]).max(axis=1),
        "mean_f_beta": means["f_beta_curve"].mean(axis=1),
        "max_e_measure": means["e_measure_curve"].max(axis=1),
        "mean_e_measure": means["e_measure_curve"].mean(axis=1),
    }


def class_statistic(means: Means) -> dict[str, np.ndarray]:
    """The numbers of `CLASS_METRICS`, each (R,), and ``class_iou`` (R, K): NaN for a class that is not there at all."""
    confusion = means["confusion"]
    classes = round(confusion.shape[1] ** 0.5)
    confusion = confusion.reshape(-1, classes, classes)
    hit = np.diagonal(confusion, axis1=1, axis2=2)
    labelled, predicted, total = confusion.sum(axis=2), confusion.sum(axis=1), confusion.sum(axis=(1, 2))
    class_iou = _divided(hit, labelled + predicted - hit)
    return {
        "mean_iou": _mean_of_some(class_iou),
        "pixel_accuracy": _divided(hit.sum(axis=1), total),
        "class_accuracy": _mean_of_some(_divided(hit, labelled)),
        "photo_iou": means["iou"],
        **_shares(means),
        "class_iou": class_iou,
    }


def share_statistic(means: Means) -> dict[str, np.ndarray]:
    """What is said of groups of photos: IoU, and the share with an IoU of at least the lowest limit."""
    return {"iou": means["iou"], "iou_95": means["iou_95"]}


def _shares(means: Means) -> dict[str, np.ndarray]:
    return {metric.key: means[metric.key] for metric in _SHARES}


def at_limits(iou: float) -> dict[str, float]:
    """1 or 0 for each of `LIMITS`, by the key of its metric."""
    return {metric.key: float(iou >= limit) for metric, limit in zip(_SHARES, LIMITS, strict=True)}


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """NaN where there is nothing to divide by."""
    divided: np.ndarray = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
    return divided


def _mean_of_some(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis of what is no NaN; NaN where all are."""
    there = np.isfinite(values)
    return _divided(np.where(there, values, 0.0).sum(axis=-1), there.sum(axis=-1).astype(np.float64))
