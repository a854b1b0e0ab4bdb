"""Real photos of DUTS-TE with their truths and predictions as models make them: near misses, noise, colour."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.support import REAL_RAW

KINDS = ("near", "noisy", "colour")
_BINS = 6  # per colour channel


def duts_pairs(count, kinds=KINDS, step=1):
    """(name, truth bool (H, W), prediction float64 (H, W)) of the first photos; every ``step``-th pixel."""
    folder = REAL_RAW / "duts" / "DUTS-TE"
    if not folder.is_dir():
        pytest.skip("DUTS is not at ../shared/data/raw/duts")
    pairs = []
    for index, mask in enumerate(sorted((folder / "DUTS-TE-Mask").glob("*.png"))[:count]):
        truth = np.asarray(Image.open(mask).convert("L"))[::step, ::step] >= 128
        photo = np.asarray(Image.open(folder / "DUTS-TE-Image" / f"{mask.stem}.jpg").convert("RGB"))[::step, ::step]
        random = np.random.default_rng(index)
        for kind in kinds:
            pairs.append((f"{mask.stem} {kind}", truth, _PREDICTIONS[kind](truth, photo, random)))
    assert len(pairs) == count * len(kinds), "there are fewer photos"
    return pairs


def _near(truth, photo, random):
    """The truth a few pixels off, soft and a little dim, as of a good model at half the resolution."""
    shifted = np.roll(truth, random.integers(-6, 7, 2), axis=(0, 1)).astype(np.float64)
    return ndimage.gaussian_filter(shifted * random.uniform(0.6, 1), random.uniform(1, 5)).clip(0, 1)


def _noisy(truth, photo, random):
    """Half sure everywhere, with holes and islands, as of a model that has only begun to learn."""
    noise = ndimage.gaussian_filter(random.normal(0, 1, truth.shape), 4)
    return (0.25 + 0.45 * truth + 0.3 * noise / noise.std()).clip(0, 1)


def _colour(truth, photo, random):
    """How much more often a pixel's colour stands in the middle of the photo than at its border."""
    height, width = truth.shape
    numbers = np.ravel_multi_index(tuple(np.moveaxis(photo.astype(int) * _BINS // 256, 2, 0)), (_BINS,) * 3)
    middle = np.zeros(truth.shape, bool)
    middle[height // 4 : -height // 4, width // 4 : -width // 4] = True
    inside, outside = (
        np.bincount(numbers[where], minlength=_BINS**3) / np.count_nonzero(where) + 1e-4 for where in (middle, ~middle)
    )
    return ndimage.gaussian_filter((inside / (inside + outside))[numbers], 1.5).clip(0, 1)


_PREDICTIONS = {"near": _near, "noisy": _noisy, "colour": _colour}
