"""Matte errors against independent brute force, on a real matte and on hand-made ones."""

import math
from collections import deque

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.support import REAL_RAW
from training.metrics import MetricError, connectivity_error, gradient_error, mse, sad


def gradient_of(matte):
    """Convolved with x e^(-(x² + y²) / 2σ²), 9×9, norm 1, one pixel after the other."""
    steps = range(-4, 5)
    kernel = np.array([[-x * math.exp(-(x * x + y * y) / (2 * 1.4**2)) for x in steps] for y in steps])
    kernel /= math.sqrt((kernel**2).sum())
    padded = np.pad(matte, 4, mode="edge")
    magnitude = np.zeros(matte.shape)
    for row, column in np.ndindex(matte.shape):
        window = padded[row : row + 9, column : column + 9][::-1, ::-1]
        magnitude[row, column] = math.hypot((window * kernel).sum(), (window * kernel.T).sum())
    return magnitude


def largest_region(mask):
    """By flooding, four neighbours."""
    left, best = {tuple(pixel) for pixel in np.argwhere(mask)}, set()
    for start in np.argwhere(mask):
        if tuple(start) not in left:
            continue
        region, queue = set(), deque([tuple(start)])
        left.discard(tuple(start))
        while queue:
            row, column = queue.popleft()
            region.add((row, column))
            for near in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                if near in left:
                    left.discard(near)
                    queue.append(near)
        if len(region) > len(best):
            best = region
    return best


def connectivity_of(truth, prediction, region):
    level, left = np.ones(truth.shape), np.ones(truth.shape, bool)
    for step in range(1, 11):
        bulk = largest_region((truth >= step / 10) & (prediction >= step / 10))
        for pixel in np.ndindex(truth.shape):
            if left[pixel] and pixel not in bulk:
                level[pixel], left[pixel] = (step - 1) / 10, False
    degrees = [1 - (matte - level) * (matte - level >= 0.15) for matte in (truth, prediction)]
    return np.abs(degrees[0] - degrees[1])[region].sum() / 1000


def real_matte():
    """A furry outline, quartered; the unknown part of its trimap; and a prediction that blurs and loses hairs."""
    folder = REAL_RAW / "mattes"
    if not folder.is_dir():
        pytest.skip("there is no matte at ../shared/data/raw/mattes")
    truth, trimap = (np.asarray(Image.open(folder / f"lemur_{name}.png").convert("L")) for name in ("alpha", "trimap"))
    truth, trimap = truth[: truth.shape[0] // 2 : 4, ::4] / 255, trimap[: trimap.shape[0] // 2 : 4, ::4]
    noise = np.random.default_rng(0).normal(0, 0.05, truth.shape)
    return truth, (ndimage.gaussian_filter(truth, 1) + noise).clip(0, 1), (trimap > 0) & (trimap < 255)


def hand_made(seed):
    random = np.random.default_rng(seed)
    truth = ndimage.gaussian_filter(random.random((20, 24)), 2)
    truth = (truth - truth.min()) / (truth.max() - truth.min())
    prediction = (truth + random.normal(0, 0.15, truth.shape)).clip(0, 1)
    return truth, prediction, random.random(truth.shape) < 0.7


@pytest.mark.parametrize("source", ["real", 0, 1, 2])
def test_errors_are_their_definitions(source):
    truth, prediction, region = real_matte() if source == "real" else hand_made(source)
    assert 0 < np.count_nonzero(region) < region.size
    for chosen in (None, region):
        counted = np.ones(truth.shape, bool) if chosen is None else chosen
        off = (prediction - truth)[counted]
        assert sad(truth, prediction, chosen) == pytest.approx(np.abs(off).sum() / 1000, rel=1e-12)
        assert mse(truth, prediction, chosen) == pytest.approx((off**2).mean(), rel=1e-12)
        expected = ((gradient_of(truth) - gradient_of(prediction)) ** 2)[counted].sum() / 1000
        assert gradient_error(truth, prediction, chosen) == pytest.approx(expected, rel=1e-9)
        expected = connectivity_of(truth, prediction, counted)
        assert connectivity_error(truth, prediction, chosen) == pytest.approx(expected, rel=1e-9)


def test_an_island_is_not_connected_however_opaque():
    truth = np.zeros((10, 20))
    truth[2:8, 2:8] = 1
    prediction = truth.copy()
    prediction[4:6, 14:16] = 1
    assert connectivity_error(truth, prediction) == pytest.approx(4 / 1000)
    joined = prediction.copy()
    truth_joined = truth.copy()
    joined[4, 8:14] = truth_joined[4, 8:16] = 1
    truth_joined[4:6, 14:16] = 1
    assert connectivity_error(truth_joined, joined) == 0


def test_mattes_that_share_nothing_and_mattes_that_are_equal():
    left, right = np.zeros((4, 8)), np.zeros((4, 8))
    left[:, :4] = right[:, 4:] = 1
    assert connectivity_error(left, right) == pytest.approx(32 / 1000)
    for error in (sad, mse, gradient_error, connectivity_error):
        assert error(left, left) == 0
        assert error(np.ones((1, 1)), np.ones((1, 1))) == 0


def test_what_cannot_be_compared_is_refused():
    matte = np.zeros((2, 3))
    for error in (sad, mse, gradient_error, connectivity_error):
        with pytest.raises(MetricError, match="region"):
            error(matte, matte, np.zeros((3, 2), bool))
        with pytest.raises(MetricError, match="at least a pixel"):
            error(matte, matte, np.zeros((2, 3), bool))
        with pytest.raises(MetricError, match="trimap == 128"):
            error(matte, matte, np.full((2, 3), 128))
        with pytest.raises(MetricError, match="in \\[0, 1\\]"):
            error(matte, matte + 2)
