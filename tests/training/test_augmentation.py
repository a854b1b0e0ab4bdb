"""Augmentation: what is drawn, that labels follow the photo, and that it is a function of its generator."""

import numpy as np
import pytest

from training.augmentation import Augmentation
from training.errors import OptionsError


def apply(augmentation, photo, mask, *, inputs=None, smooth=True, seed=0):
    inputs = photo[:, :, :0] if inputs is None else inputs
    return augmentation.apply(photo, inputs, mask, smooth, np.random.default_rng(seed))


@pytest.fixture
def gradient():
    """A photo whose first two channels tell row and column, and a mask of its columns."""
    rows, columns = np.mgrid[:20, :30].astype(np.uint8)
    return np.stack([rows, columns, rows], axis=2), columns[:, :, None]


def test_nothing_is_changed_by_default(gradient):
    photo, mask = gradient
    changed, _, same = apply(Augmentation(), photo, mask)
    np.testing.assert_array_equal(changed, photo)
    np.testing.assert_array_equal(same, mask)


@pytest.mark.parametrize(
    ("options", "view"),
    [
        ({"flip": 1}, np.s_[:, ::-1]),
        ({"flip_vertical": 1}, np.s_[::-1]),
        ({"flip": 1, "flip_vertical": 1}, np.s_[::-1, ::-1]),
    ],
)
def test_flips_all_planes_alike(gradient, options, view):
    photo, mask = gradient
    changed, inputs, flipped = apply(Augmentation(**options), photo, mask, inputs=mask)
    for got, was in ((changed, photo), (inputs, mask), (flipped, mask)):
        np.testing.assert_array_equal(got, was[view])


def test_crops_are_windows_of_the_photo_and_all_of_them_occur(gradient):
    photo, mask = gradient
    corners = set()
    for seed in range(200):
        changed, _, cut = apply(Augmentation(crop=(18, 28)), photo, mask, seed=seed)
        top, left = int(changed[0, 0, 0]), int(changed[0, 0, 1])
        corners.add((top, left))
        np.testing.assert_array_equal(changed, photo[top : top + 18, left : left + 28])
        np.testing.assert_array_equal(cut, mask[top : top + 18, left : left + 28])
    assert corners == {(top, left) for top in range(3) for left in range(3)}


@pytest.mark.parametrize("scale", [(2.0, 2.0), (0.5, 0.5), (0.3, 3.0)])
def test_a_scaled_window_keeps_labels_on_the_photo_and_class_numbers_whole(gradient, scale):
    photo, mask = gradient
    coarse = (mask // 10 * 100).astype(np.uint8)
    for seed in range(20):
        changed, _, cut = apply(Augmentation(crop=(8, 12), scale=scale), photo, coarse, smooth=False, seed=seed)
        assert (changed.shape, cut.shape) == ((8, 12, 3), (8, 12, 1))
        assert set(np.unique(cut)) <= {0, 100, 200}
        # The label under each pixel is that of the column which the photo shows there, but at its edges.
        column = changed[:, :, 1].astype(float)
        inside = np.abs(column % 10 - 4.5) < 2
        np.testing.assert_array_equal(cut[:, :, 0][inside], column[inside] // 10 * 100)


def test_light_changes_the_photo_alone():
    photo, mask = np.full((4, 4, 3), 100, np.uint8), np.full((4, 4, 1), 100, np.uint8)
    factors = set()
    for seed in range(50):
        changed, inputs, same = apply(Augmentation(brightness=0.2), photo, mask, inputs=mask, seed=seed)
        assert same is not changed
        np.testing.assert_array_equal(same, mask)
        np.testing.assert_array_equal(inputs, mask)
        factors.add(int(changed[0, 0, 0]))
    assert min(factors) >= 80
    assert max(factors) <= 120
    assert max(factors) - min(factors) > 30
    half = np.concatenate([photo - 50, photo + 50])
    contrasted = apply(Augmentation(contrast=0.5), half, half[:, :, :1], seed=3)[0]
    assert int(contrasted[0, 0, 0]) + int(contrasted[-1, 0, 0]) == pytest.approx(200, abs=1)
    assert contrasted[0, 0, 0] != 50


def test_one_generator_gives_one_result(gradient):
    photo, mask = gradient
    all_of_it = Augmentation(flip=0.5, flip_vertical=0.5, crop=(9, 9), scale=(0.8, 1.3), brightness=0.3, contrast=0.2)
    first, again, other = (apply(all_of_it, photo, mask, seed=seed)[0] for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"flip": 2}, "flip is how often"),
        ({"flip": True}, "flip is how often"),
        ({"brightness": 1}, r"brightness is in \[0, 1\)"),
        ({"crop": 224}, "crop is"),
        ({"crop": (0, 8)}, "crop is"),
        ({"scale": (2, 1)}, "scale is"),
        ({"scale": "ab"}, "scale is"),
        ({"scale": (0.5, 1)}, "begin at 1, or set augmentation.crop"),
        ({"blur": 1}, "no option blur; it has: flip"),
    ],
)
def test_what_cannot_be_is_refused(wrong, message):
    with pytest.raises(OptionsError, match=message):
        Augmentation.of(wrong)
