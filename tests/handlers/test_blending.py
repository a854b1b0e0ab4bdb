"""Blending against references in floating point, exact solvers, and composites whose true colours are known."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import color

from dataset_handlers.errors import BadSampleError
from dataset_handlers.transforms.blending import decontaminate, feathered, match_light, over
from dataset_handlers.transforms.poisson import poisson
from tests.handlers.support import REPOSITORY


def smooth(seed, height=90, width=110, sigma=3.0, low=0, high=255):
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((height, width, 3)), (0, 0), sigma)
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    return np.rint(low + noise * (high - low)).astype(np.uint8)


def ellipse(height=90, width=110, centre=(50, 45), axes=(30, 22)):
    mask = np.zeros((height, width), np.uint8)
    return cv2.ellipse(mask, centre, axes, 25, 0, 360, 255, -1)


def blob(seed, height=90, width=110):
    """A ragged mask with holes and islands, some at the picture's edge."""
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((height, width)), (0, 0), 4)
    return np.where(noise > np.median(noise), 255, 0).astype(np.uint8)


def read(path, size):
    photo = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    return cv2.resize(photo, size[::-1], interpolation=cv2.INTER_AREA)


# feathered


@given(st.integers(0, 9), st.sampled_from([0.6, 1.0, 2.5]), st.integers(-20, 110))
@settings(max_examples=25)
def test_the_opacity_rises_inwards_from_the_edge(seed, sigma, x):
    mask = ellipse(centre=(x, 20 + 5 * seed), axes=(34, 30))
    if 2 * np.count_nonzero(mask) < 3000:
        return
    opacity = feathered(mask, sigma)
    blurred = cv2.GaussianBlur(mask, (0, 0), sigma).astype(int)  # of the whole: the window must not show
    np.testing.assert_array_equal(opacity, np.where(mask == 255, np.clip(2 * blurred - 255, 0, 255), 0))
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    inner = depth > 2.6 * sigma + 1
    assert (opacity[inner] >= 245).all()


def test_no_feather_is_the_mask_and_thin_subjects_are_refused():
    mask = ellipse()
    np.testing.assert_array_equal(feathered(mask, 0), mask)
    thin = np.zeros((60, 60), np.uint8)
    thin[30:33] = 255
    with pytest.raises(BadSampleError, match="too thin, for a feather of 3 pixels; lower it"):
        feathered(thin, 3)
    assert not feathered(np.zeros((5, 5), np.uint8), 1).any()


# over


def test_over_is_rounded_exactly_for_every_level():
    opacity, level = np.meshgrid(np.arange(256), np.arange(256))
    opacity = opacity.astype(np.uint8)
    for under in (0, 1, 100, 254, 255):
        subject = np.repeat(level[..., None], 3, 2).astype(np.uint8)
        background = np.full_like(subject, under)
        share = opacity[..., None] / 255.0
        exact = subject * share + background * (1 - share)
        made = over(background, subject, opacity)
        assert np.abs(made - exact).max() <= 0.5 + 1e-9
        np.testing.assert_array_equal(made[:, 0], background[:, 0])
        np.testing.assert_array_equal(made[:, 255], subject[:, 255])


@pytest.mark.parametrize("size", [(1, 1), (7, 5000), (300, 301)])
def test_over_does_all_rows_and_leaves_its_inputs_alone(size):
    random = np.random.default_rng(1)
    background, subject = random.integers(0, 256, (2, *size, 3), np.uint8)
    opacity = random.integers(0, 256, size, np.uint8)
    before = background.tobytes() + subject.tobytes() + opacity.tobytes()
    share = opacity[..., None].astype(int)
    np.testing.assert_array_equal(
        over(background, subject, opacity), (background * (255 - share) + subject * share + 127) // 255
    )
    assert before == background.tobytes() + subject.tobytes() + opacity.tobytes()
    np.testing.assert_array_equal(over(background, subject, np.zeros_like(opacity)), background)


# decontaminate


def edge_error(photo, truth, alpha):
    """Mean error of colours over the mixed pixels, as they count in a composite."""
    mixed = (alpha > 0) & (alpha < 255)
    error = np.abs(photo[mixed].astype(float) - truth[mixed]).mean(1)
    return np.average(error, weights=alpha[mixed].astype(float))


@pytest.mark.parametrize(("factor", "old"), [(6, (0, 200, 0)), (3, None)])
def test_the_old_background_is_taken_out_of_soft_edges(factor, old):
    truth = smooth(1, 240, 320, 12 if old else 40, 90, 250)
    alpha = cv2.GaussianBlur(ellipse(240, 320, (160, 120), (90, 70)), (0, 0), 4)
    background = smooth(2, 240, 320, 40) if old is None else np.full_like(truth, old)
    photo = over(background, truth, alpha)
    clean = decontaminate(photo, alpha)
    assert edge_error(clean, truth, alpha) * factor < edge_error(photo, truth, alpha)
    np.testing.assert_array_equal(clean[alpha == 255], photo[alpha == 255])
    # On a new background: what is left of the old one.
    new = np.full_like(truth, (255, 0, 255))
    wanted = over(new, truth, alpha).astype(float)
    halo, left = (np.abs(over(new, image, alpha) - wanted).sum() for image in (photo, clean))
    assert left * factor < halo


def test_hair_of_a_real_matte_loses_a_green_background(real_raw):
    alpha = cv2.imread(str(real_raw / "mattes" / "lemur_alpha.png"), cv2.IMREAD_UNCHANGED)
    green = np.zeros((*alpha.shape, 3), np.uint8)
    green[..., 1] = 200
    for name in ("Aqua.jpg", "Blinds.jpg", "Wood.jpg"):
        truth = read(real_raw / "backgrounds" / name, alpha.shape)
        photo = over(green, truth, alpha)
        assert edge_error(decontaminate(photo, alpha), truth, alpha) * 2.5 < edge_error(photo, truth, alpha)


def test_hard_masks_and_tiny_pictures_pass():
    photo = smooth(5)
    assert decontaminate(photo, ellipse()) is photo
    for size in ((1, 1), (1, 40), (3, 2)):
        random = np.random.default_rng(0)
        small, alpha = random.integers(0, 256, (*size, 3), np.uint8), random.integers(1, 255, size, np.uint8)
        assert decontaminate(small, alpha).shape == small.shape


# match_light


def lab_statistics(photo, chosen):
    lab = color.rgb2lab(photo)[chosen]
    return lab.mean(0), lab.std(0)


def test_light_is_matched_by_mean_and_deviation():
    background, subject = smooth(1, 160, 200, 6, 60, 160), smooth(2, 160, 200, 6, 70, 190)
    subject[..., 2] //= 2
    opacity = ellipse(160, 200, (100, 80), (50, 35))
    before = subject.copy()
    made = match_light(subject, opacity, background, 1)
    np.testing.assert_array_equal(subject, before)
    x, y, w, h = cv2.boundingRect(opacity)
    margin = max(w, h) // 2
    around = np.zeros(opacity.shape, bool)
    around[max(0, y - margin) : y + h + margin, max(0, x - margin) : x + w + margin] = True
    wanted, have = lab_statistics(background, around), lab_statistics(made, opacity == 255)
    started = lab_statistics(subject, opacity == 255)
    shift = np.clip(wanted[0] - started[0], (-30, -12, -12), (30, 12, 12))
    assert np.abs(shift).max() > 5
    np.testing.assert_allclose(have[0], started[0] + shift, atol=1.5)
    gain = np.clip(wanted[1] / started[1], 2 / 3, 1.5)
    np.testing.assert_allclose(have[1] / started[1], gain, rtol=0.15)
    half = lab_statistics(match_light(subject, opacity, background, 0.5), opacity == 255)
    np.testing.assert_allclose(half[0], started[0] + shift / 2, atol=1.5)


def test_light_moves_no_farther_than_stated():
    opacity = ellipse()
    night, noon = np.full((90, 110, 3), 5, np.uint8), smooth(3, low=120, high=200)
    before, after = (lab_statistics(image, opacity == 255)[0] for image in (noon, match_light(noon, opacity, night, 1)))
    assert 25 < before[0] - after[0] < 31


def test_light_of_strength_0_is_the_subject_itself():
    subject, background = smooth(1), smooth(2)
    assert match_light(subject, ellipse(), background, 0) is subject
    assert match_light(subject, np.zeros((90, 110), np.uint8), background, 1) is subject
    made = match_light(subject, ellipse(), subject, 1e-9)  # next to nothing is next to nothing, without a jump
    np.testing.assert_array_equal(made, subject)


# poisson


def exact(background, subject, mask, mixed):
    """Perez et al., solved directly in double precision."""
    base, patch = (np.pad(image.astype(float), ((1, 1), (1, 1), (0, 0)), "edge") for image in (background, subject))
    inside = np.pad(mask > 0, 1)
    y, x = np.nonzero(inside)
    index = np.full(inside.shape, -1)
    index[y, x] = np.arange(len(y))
    matrix = scipy.sparse.eye(len(y), format="lil") * 4
    right = np.zeros((len(y), 3))
    for down, across in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        there = (y + down, x + across)
        own, other = patch[y, x] - patch[there], base[y, x] - base[there]
        right += np.where(np.abs(other) > np.abs(own), other, own) if mixed else own
        number = index[there]
        matrix[np.flatnonzero(number >= 0), number[number >= 0]] = -1
        right[number < 0] += base[there][number < 0]
    made = base.copy()
    made[y, x] = scipy.sparse.linalg.spsolve(matrix.tocsc(), right)
    return np.clip(made[1:-1, 1:-1], 0, 255)


FULL = np.full((90, 110), 255, np.uint8)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("mask", [ellipse(), ellipse(centre=(100, 10)), blob(0), blob(1), FULL], ids=range(5))
def test_poisson_solves_the_equation_to_within_a_level(mask, mixed):
    background, subject = smooth(1, sigma=2), smooth(2, sigma=2)
    made = poisson(background, subject, mask, mixed=mixed)
    assert np.abs(made - exact(background, subject, mask, mixed)).max() <= 1
    np.testing.assert_array_equal(made[mask == 0], background[mask == 0])


@pytest.mark.parametrize("box", [(10, 30, 20, 50), (11, 30, 20, 51), (0, 1, 0, 1), (5, 6, 0, 110), (0, 90, 109, 110)])
def test_poisson_shifts_nothing(box):
    top, bottom, left, right = box
    subject = smooth(4, sigma=1.5)
    mask = np.zeros((90, 110), np.uint8)
    mask[top:bottom, left:right] = 255
    # On itself, a little darker, the subject comes back darker, to the pixel.
    background = subject // 2 + 60
    np.testing.assert_allclose(poisson(subject, subject, mask), subject, atol=0)
    made = poisson(background, subject, mask).astype(float)
    if min(bottom - top, right - left) > 10:
        patch = np.s_[top + 3 : bottom - 3, left + 3 : right - 3]
        fits = [
            np.abs(np.diff(made[patch], axis=0) - np.diff(np.roll(subject, shift, (0, 1))[patch].astype(float), axis=0))
            for shift in [(0, 0), (1, 0), (0, 1), (-1, 0), (0, -1)]
        ]
        assert fits[0].mean() * 2 < min(fit.mean() for fit in fits[1:])


def test_poisson_agrees_with_opencv_away_from_the_edge():
    background, subject = smooth(1, 160, 200, 6), smooth(2, 160, 200, 6)
    mask = np.zeros((160, 200), np.uint8)
    mask[30:131, 40:161] = 255
    theirs = cv2.seamlessClone(subject, background, mask.copy(), (100, 80), cv2.NORMAL_CLONE)  # it spoils its mask
    ours = poisson(background, subject, mask)
    error = np.abs(theirs.astype(int) - ours)[40:121, 50:151]
    assert error.mean() < 5
    assert np.abs(theirs.astype(int) - over(background, subject, mask))[40:121, 50:151].mean() > 4 * error.mean()


def test_poisson_of_nothing_is_refused():
    with pytest.raises(BadSampleError, match="nothing to blend"):
        poisson(smooth(1), smooth(2), np.zeros((90, 110), np.uint8))


_DIGEST = """
import hashlib, cv2, numpy as np
from dataset_handlers.transforms.blending import decontaminate, feathered, match_light, over
from dataset_handlers.transforms.poisson import poisson
digest = hashlib.sha256()
for n in range(3):
    random = np.random.default_rng(n)
    a, b = (cv2.GaussianBlur(random.integers(0, 256, (97, 131, 3), np.uint8), (0, 0), 2) for _ in range(2))
    mask = cv2.ellipse(np.zeros((97, 131), np.uint8), (60, 40), (50, 30), 20 * n, 0, 360, 255, -1)
    soft = cv2.GaussianBlur(mask, (0, 0), 3)
    ragged = (a[..., 0] > 127).astype(np.uint8)
    made = (feathered(mask, 1 + n / 2), over(a, b, soft), decontaminate(a, soft), match_light(a, soft, b, 0.7),
            poisson(a, b, ragged), poisson(a, b, mask, mixed=True))
    digest.update(b"".join(image.tobytes() for image in made))
print(digest.hexdigest())
"""


def test_the_processor_decides_no_bit():
    poorer = {"OPENCV_CPU_DISABLE": "AVX,AVX2,FMA3,FP16,SSE4.1,SSE4.2", "OPENBLAS_CORETYPE": "Prescott"}
    # IPP, inside OpenCV, looks at the processor on its own; so does NumPy.
    others = {"OPENCV_IPP": "sse42", "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3"}
    digests = set()
    for environment in ({}, {"OPENCV_IPP": "disabled"}, {**poorer, **others}):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _DIGEST], env={**os.environ, **environment},
            cwd=REPOSITORY, capture_output=True, text=True, check=True,
        )  # fmt: skip
        digests.add(done.stdout)
    assert len(digests) == 1
