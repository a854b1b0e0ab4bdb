"""Blur, noise, JPEG artefacts and holes against float64 formulas, scipy and Pillow."""

import hashlib
import io
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats
from skimage.filters import gaussian

from dataset_handlers.transforms.effects import add_noise, blur, drop_rectangles, jpeg_artifacts, noise_table
from tests.handlers.support import REPOSITORY


@pytest.fixture(scope="module")
def photos(real_raw):
    """Three real photos, one of odd width and height."""
    files = sorted((real_raw / "coco" / "val2017").glob("*.jpg"))[:3]
    found = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    return [*found[:2], found[2][:201, :333]]


def some(*size, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.5, 7.0])
def test_blur_is_a_gaussian(photos, sigma):
    for photo in photos:
        exact = ndimage.gaussian_filter(photo.astype(np.float64), (sigma, sigma, 0), mode="reflect", truncate=8)
        error = np.abs(blur(photo, sigma) - exact)
        assert error.max() <= 2
        assert error.mean() <= 0.35
    np.testing.assert_allclose(
        gaussian(photos[2], sigma, mode="reflect", truncate=8, preserve_range=True, channel_axis=2), exact
    )


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.5, 7.0])
def test_blur_of_the_hardest_picture(sigma):
    # Black and white at random: the most that short kernels and coarse weights can do.
    hardest = np.where(some(160, 160) > 128, 255, 0).astype(np.uint8)
    exact = ndimage.gaussian_filter(hardest.astype(np.float64), (sigma, sigma, 0), mode="reflect", truncate=8)
    assert np.abs(blur(hardest, sigma) - exact).max() <= 4


def test_blur_keeps_plain_pictures_and_refuses_less_than_none():
    for level in (0, 1, 127, 255):
        plain = np.full((40, 51, 3), level, np.uint8)
        for sigma in (0.1, 0.7, 3.0, 15.0):
            np.testing.assert_array_equal(blur(plain, sigma), plain)
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="negative"):
            blur(plain, wrong)


@pytest.mark.parametrize("sigma", [0.2, 1.0, 5.0, 25.0, 50.0])
def test_noise_is_a_gaussian_rounded_to_levels(sigma):
    table = noise_table(sigma)
    assert table.shape == (65536,)
    assert (np.diff(table) >= 0).all()
    # The distribution function, at every level that can be told from certainty.
    levels = np.arange(-255, 255)
    share = np.searchsorted(table, levels, side="right") / 65536
    assert np.abs(share - stats.norm.cdf((levels + 0.5) / sigma)).max() <= 2**-17 + 1e-12
    if sigma >= 1:
        # Sheppard's correction: rounding adds a twelfth to the variance.
        assert table.astype(float).std() == pytest.approx(math.sqrt(sigma**2 + 1 / 12), rel=1e-3)
        assert stats.kurtosis(table.astype(float)) == pytest.approx(0, abs=0.02)
    assert abs(table.astype(float).mean()) <= 1e-3


def test_noise_is_independent_in_pixels_and_channels():
    plain = np.full((400, 500, 3), 128, np.uint8)
    noise = add_noise(plain, 12.0, np.random.default_rng(8)).astype(float) - 128
    count = noise.size
    assert abs(noise.mean()) < 5 * 12 / math.sqrt(count)
    # The deviation of a Gaussian sample's standard deviation is sigma / sqrt(2 n).
    assert abs(noise.std() - math.sqrt(144 + 1 / 12)) < 5 * 12 / math.sqrt(2 * count)
    observed = np.bincount((noise + 128).astype(int).ravel(), minlength=256)
    expected = np.diff(stats.norm.cdf((np.arange(257) - 128.5) / 12)) * count
    busy = expected > 20
    squares = (observed[busy] - expected[busy]) ** 2 / expected[busy]
    assert squares.sum() < stats.chi2.ppf(1 - 1e-6, busy.sum())
    for shift, axis in ((1, 0), (1, 1), (2, 1), (1, 2)):
        correlation = (noise * np.roll(noise, shift, axis)).mean() / noise.var()
        assert abs(correlation) < 5 / math.sqrt(count)


def test_noise_is_added_and_clipped_and_depends_on_the_generator_alone():
    photo = some(37, 51)
    draws = np.random.default_rng(3).integers(0, 2**64, size=(photo.size + 3) // 4, dtype=np.uint64)
    shifts = np.array([0, 16, 32, 48], np.uint64)
    indices = ((draws[:, None] >> shifts) & np.uint64(0xFFFF)).ravel()[: photo.size].astype(int)
    wanted = np.clip(photo + noise_table(90.0)[indices].reshape(photo.shape), 0, 255)
    assert (wanted == 0).any()
    assert (wanted == 255).any()
    noisy = add_noise(photo, 90.0, np.random.default_rng(3))
    np.testing.assert_array_equal(noisy, wanted)
    assert (add_noise(photo, 90.0, np.random.default_rng(4)) != noisy).any()


def test_known_noise():
    # The stream of draws is part of what a seed promises.
    noise = add_noise(np.full((1, 2, 3), 100, np.uint8), 10.0, np.random.Generator(np.random.PCG64(1)))
    assert noise.ravel().tolist() == [113, 99, 106, 100, 104, 107]


def test_noise_out_of_range_is_refused():
    for wrong in (-0.5, 256.0, float("nan")):
        with pytest.raises(ValueError, match="noise"):
            add_noise(some(2, 2), wrong, np.random.default_rng(1))


@pytest.mark.parametrize("quality", [5, 30, 75, 90, 96, 100])
def test_jpeg_artifacts_are_those_of_pillow(photos, quality):
    for photo in photos:
        file = io.BytesIO()
        Image.fromarray(photo).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        wanted = np.asarray(Image.open(file)).astype(int)
        ours = jpeg_artifacts(photo, quality).astype(int)
        if quality >= 96:
            np.testing.assert_array_equal(ours, wanted)
            continue
        # The faster DCT rounds some coefficients to the other side; what it does to the photo is nearly as exact.
        error = np.abs(wanted - photo).mean()
        assert np.abs(ours - photo).mean() == pytest.approx(error, rel=0.03 if quality <= 75 else 0.1)
        assert np.abs(ours - wanted).mean() < error


def test_worse_quality_is_worse(photos):
    errors = [np.abs(jpeg_artifacts(photos[0], q).astype(int) - photos[0]).mean() for q in (95, 60, 30, 10, 1)]
    assert errors == sorted(errors)
    assert errors[0] < errors[-1] / 4
    for wrong in (0, 101):
        with pytest.raises(ValueError, match="quality"):
            jpeg_artifacts(photos[0], wrong)


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (100, 80)])
@pytest.mark.parametrize(("count", "share", "fill"), [(0, 0.5, 9), (1, 0.25, 0), (7, 0.1, 200), (2, 1.0, 255)])
def test_rectangles_are_dropped_where_the_draws_say(size, count, share, fill):
    photo = some(*size)
    dropped = drop_rectangles(photo, count, share, np.random.default_rng(6), fill)
    wanted = np.zeros(size, bool)
    height, width = (max(1, round(side * share)) for side in size)
    for u, v in np.random.default_rng(6).random((count, 2)):
        row, column = int(u * size[0]), int(v * size[1])
        rows, columns = np.indices(size)
        inside = (rows - row >= -(height // 2)) & (rows - row < height - height // 2)
        wanted |= inside & (columns - column >= -(width // 2)) & (columns - column < width - width // 2)
    assert (dropped[wanted] == fill).all()
    np.testing.assert_array_equal(dropped[~wanted], photo[~wanted])
    assert not np.shares_memory(dropped, photo)


def test_centres_of_rectangles_cover_the_whole_photo_evenly():
    hits, random = np.zeros((4, 6)), np.random.default_rng(2)
    for _ in range(4800):
        hits += drop_rectangles(np.zeros((4, 6, 3), np.uint8), 1, 0.01, random, 1)[..., 0]
    assert hits.sum() == 4800
    assert stats.chisquare(hits.ravel()).pvalue > 1e-6


def test_rectangles_out_of_range_are_refused():
    for count, share, fill in ((-1, 0.5, 0), (1, 0.0, 0), (1, 1.1, 0), (1, 0.5, 256)):
        with pytest.raises(ValueError, match="out of range"):
            drop_rectangles(some(4, 4), count, share, np.random.default_rng(1), fill)


CHANGES = {
    "blur": lambda photo: blur(photo, 1.3),
    "noise": lambda photo: add_noise(photo, 9.0, np.random.default_rng(1)),
    "jpeg": lambda photo: jpeg_artifacts(photo, 40),
    "holes": lambda photo: drop_rectangles(photo, 3, 0.3, np.random.default_rng(1), 128),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (31, 1), (33, 47)])
def test_any_size_and_view_is_changed_and_the_input_stays(change, size):
    wide = some(size[0], 2 * size[1])
    wide.setflags(write=False)
    for photo in (wide[:, : size[1]], wide[:, ::2], wide[:, size[1] - 1 :: -1]):
        before = photo.copy()
        changed = change(photo)
        assert (changed.shape, changed.dtype) == (photo.shape, np.uint8)
        np.testing.assert_array_equal(photo, before)
        np.testing.assert_array_equal(changed, change(before))


def test_neutral_parameters_return_the_photo_and_draw_nothing():
    photo, random = some(9, 11), np.random.default_rng(1)
    assert blur(photo, 0.0) is photo
    assert add_noise(photo, 0.0, random) is photo
    np.testing.assert_array_equal(drop_rectangles(photo, 0, 0.5, random), photo)
    assert random.random() == np.random.default_rng(1).random()


_DIGEST = """
import hashlib, numpy as np
from dataset_handlers.transforms import effects, photometry
digest = hashlib.sha256()
random = np.random.default_rng(1)
for number, size in enumerate([(1, 1), (7, 31), (119, 203), (320, 320)]):
    noise = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    for photo in (noise, effects.blur(noise, 1.5)):
        changes = [effects.blur(photo, sigma) for sigma in (0.3, 1, 2.7, 9)]
        changes += [effects.add_noise(photo, sigma, random) for sigma in (0.7, 12.5, 120)]
        changes += [effects.jpeg_artifacts(photo, quality) for quality in (7, 50, 95)]
        changes += [effects.drop_rectangles(photo, 5, 0.2, random, 77)]
        changes += [photometry.adjust_saturation(photo, factor) for factor in (0, 0.123, 1.777, 7.9)]
        changes += [photometry.rotate_hue(photo, degrees) for degrees in (-171, -33.3, 1, 59.9, 88, 120)]
        changes += [photometry.shuffle_channels(photo, (2, 0, 1)), photometry.equalize(photo)]
        changes += [photometry.clahe(photo, limit, tiles) for limit, tiles in ((1.5, 8), (4, 3))]
        for step in range(50):
            exposure, brightness, contrast, gamma = random.random(4) * (4, 0.5, 2, 2) + (-2, -0.25, 0, 0.1)
            table = photometry.tone_table(exposure, brightness, contrast, gamma)
            changes += [table, photometry.apply_table(photo[:9], table)]
        for change in changes:
            digest.update(change.tobytes())
print(digest.hexdigest())
"""

#: Every library that chooses code by what the processor can do is told that it can do less.
POORER = {
    "OPENCV_CPU_DISABLE": "AVX,AVX2,FMA3,FP16,SSE4.1,SSE4.2",
    "OPENCV_IPP": "disabled",
    "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 X86_V3 X86_V4",
    "JSIMD_FORCENONE": "1",
}


def test_the_processor_decides_no_bit():
    digests = set()
    for environment in ({}, POORER):
        done = subprocess.run(
            [sys.executable, "-c", _DIGEST], env={**os.environ, **environment},
            cwd=REPOSITORY, capture_output=True, text=True, check=True,
        )  # fmt: skip
        digests.add(done.stdout)
    assert len(digests) == 1
    assert len(digests.pop().strip()) == hashlib.sha256().digest_size * 2
