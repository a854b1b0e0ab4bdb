"""What any model should beat: two predictors that know nothing of shapes, fitted on the training split.

*Centre prior*: how often each place of a photo belongs to each class in the training split: one map, stretched to every
photo. Subjects of photographs are near the centre, so this is a strong guess where there is one subject (it is the
"centre bias" of saliency; Tatler 2007, *The central fixation bias in scene viewing*).

*Colour model*: a naive Bayes classifier of each pixel by its colour and its place. Of each class the training split
gives a histogram of colours, 16 × 16 × 16 cells of RGB, each count one higher than it is (Laplace's rule); a pixel's
probability of class k is ∝ P(k | place) · P(colour | k), with P(k | place) the centre prior. Each pixel is judged by
itself, nothing is smoothed.

With one subject, both are calibrated: the threshold with the best mean IoU on photos of the training split (up to 400
of them, evenly spread) is moved to 0.5 by two straight lines. Without that a centre prior, whose values may never reach
0.5, would find nothing and be no baseline at all. The evaluated split plays no part in any of this.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from training.evaluation.photos import MaskLevels, Photo, PhotoReader
from training.metrics import VOID

_GRID = 64  # the centre prior has 64 × 64 places
_CELLS = 16
_CALIBRATED_ON = 400
_THRESHOLDS = np.arange(0.05, 0.951, 0.01)
_BATCH = 8


class CentrePrior:
    """P(class | place): ``frequencies`` float64 (64, 64, K), K the classes, or ground and one subject."""

    is_model = False
    name = "centre prior"

    def __init__(self, classes: int, frequencies: np.ndarray, fitted_on: Mapping[str, Any]) -> None:
        self.classes, self.frequencies, self.fitted_on = classes, frequencies, fitted_on
        self.threshold = 0.5

    def prior(self, size: tuple[int, int]) -> np.ndarray:
        """Float64 (H, W, K), which adds up to 1 over K."""
        height, width = size
        planes = [Image.fromarray(plane.astype(np.float32)) for plane in np.moveaxis(self.frequencies, 2, 0)]
        resized = [np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR)) for plane in planes]
        stretched = np.stack(resized, axis=2).astype(np.float64).clip(1e-6, None)
        normalised: np.ndarray = stretched / stretched.sum(axis=2, keepdims=True)
        return normalised

    def posterior(self, photo: Photo) -> np.ndarray:
        """What it makes of a photo before calibration, float64 (H, W, K)."""
        return self.prior(photo.size)

    def predict(self, photos: Sequence[Photo]) -> list[np.ndarray]:
        """See `training.evaluation.predictor.Predictor`."""
        return [self._calibrated(self.posterior(photo)) for photo in photos]

    def describe(self) -> dict[str, Any]:
        """What it is, as JSON types."""
        calibration = {"threshold": round(float(self.threshold), 2)} if self.classes == 1 else {}
        return {"kind": "baseline", "fitted_on": dict(self.fitted_on), **calibration}

    def calibrate(self, photos: Iterable[Photo]) -> None:
        """Choose the threshold with the best mean IoU on these photos."""
        totals, count = np.zeros(len(_THRESHOLDS)), 0
        for photo in photos:
            totals += _ious(photo.mask >= 128, self.posterior(photo)[:, :, 1])
            count += 1
        if count:
            self.threshold = float(_THRESHOLDS[int(np.argmax(totals))])

    def _calibrated(self, posterior: np.ndarray) -> np.ndarray:
        """Float32 (H, W, classes)."""
        if self.classes > 1:
            return np.asarray(posterior, np.float32)
        moved: np.ndarray = np.interp(posterior[:, :, 1:], (0.0, self.threshold, 1.0), (0.0, 0.5, 1.0))
        return np.asarray(moved, np.float32)


class ColourModel(CentrePrior):
    """P(class | place, colour): ``likelihoods`` float64 (4096, K) is P(colour | class)."""

    name = "colour model"

    def __init__(self, prior: CentrePrior, likelihoods: np.ndarray) -> None:
        super().__init__(prior.classes, prior.frequencies, prior.fitted_on)
        self.likelihoods = likelihoods

    def posterior(self, photo: Photo) -> np.ndarray:
        """What it makes of a photo before calibration, float64 (H, W, K)."""
        joint = self.prior(photo.size) * self.likelihoods[_colours(photo.image)]
        normalised: np.ndarray = joint / joint.sum(axis=2, keepdims=True)
        return normalised


#: What reports call them; no run is called the same.
BASELINES = (CentrePrior.name, ColourModel.name)


def fit_baselines(reader: PhotoReader, classes: int, moved: Callable[[int], None]) -> list[CentrePrior]:
    """Both baselines, fitted on ``reader``, the training split; ``moved(n)`` is told of n more photos read.

    Raises `FeatureError` for masks that are not of ``classes``.
    """
    kinds = max(classes, 2)
    places, known = np.zeros((_GRID, _GRID, kinds)), np.zeros((_GRID, _GRID, 1))
    colours = np.ones((_CELLS**3, kinds))
    levels = MaskLevels(classes, reader.split)
    for batch in reader.batches(_BATCH):
        for photo in batch:
            levels.add(photo)
            labels = (photo.mask >= 128).astype(np.uint8) if classes == 1 else photo.mask
            counts = labels != VOID
            known[:, :, 0] += _on_grid(counts)
            for kind in range(kinds):
                places[:, :, kind] += _on_grid(labels == kind)
            cells = _colours(photo.image)[counts].astype(np.int64) * kinds + labels[counts]
            colours += np.bincount(cells, minlength=colours.size).reshape(colours.shape)
        moved(len(batch))
    levels.check()
    fitted_on = {"dataset_id": reader.dataset.dataset_id, "split": reader.split, "examples": len(reader)}
    frequencies = (places + 1 / kinds) / (known + 1)  # a place that is never labelled knows nothing
    prior = CentrePrior(classes, frequencies, fitted_on)
    colour = ColourModel(prior, colours / colours.sum(axis=0))
    if classes == 1:
        numbers = np.unique(np.linspace(0, len(reader) - 1, min(len(reader), _CALIBRATED_ON)).round().astype(int))
        for model in (prior, colour):
            model.calibrate(reader.photos(numbers.tolist()))
    return [prior, colour]


def _ious(truth: np.ndarray, subject: np.ndarray) -> np.ndarray:
    """The IoU at each of the thresholds, float64; ``truth`` bool, ``subject`` float, both (H, W)."""
    reached = np.searchsorted(_THRESHOLDS, subject.ravel(), side="right")  # how many thresholds a pixel is at or above
    counts = [
        np.bincount(reached[where.ravel()], minlength=len(_THRESHOLDS) + 1)[::-1].cumsum()[::-1][1:]
        for where in (truth, ~truth)
    ]
    union = np.count_nonzero(truth) + counts[1]
    ious: np.ndarray = np.divide(counts[0], union, out=np.ones(len(_THRESHOLDS)), where=union > 0)
    return ious


def _on_grid(where: np.ndarray) -> np.ndarray:
    """The share of each place that is True, (64, 64)."""
    levels = Image.fromarray(where.astype(np.float32))
    return np.asarray(levels.resize((_GRID, _GRID), Image.Resampling.BOX), np.float64)


def _colours(image: np.ndarray) -> np.ndarray:
    """The cell of each pixel's colour, uint16 (H, W) below 4096, of uint8 (H, W, 3)."""
    red, green, blue = (image[:, :, channel].astype(np.uint16) >> 4 for channel in range(3))
    cells: np.ndarray = (red * _CELLS + green) * _CELLS + blue
    return cells
