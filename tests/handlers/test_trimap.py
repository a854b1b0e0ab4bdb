"""Trimaps against distances measured pixel by pixel, and beside one that a person painted."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dataset_handlers.labels.trimap import grow, trimap

WIDTHS = st.sampled_from([0, 0.5, 1, 1.4, 1.5, 2, 2.3, 5, 7, 8, 11.7, 40])
SIZES = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
LEVELS = st.sampled_from([0, 0, 0, 1, 128, 254, 255, 255])


def squared_distances(region):
    """To the nearest pixel of the region, from every pixel; a large number where there is none."""
    rows, columns = np.indices(region.shape)
    found = np.argwhere(region)
    if not len(found):
        return np.full(region.shape, 10**9)
    return np.min([(rows - y) ** 2 + (columns - x) ** 2 for y, x in found], axis=0)


def brute_trimap(alpha, inner, outer):
    known_front = (alpha == 255) & (squared_distances(alpha < 255) > inner**2)
    known_back = (alpha == 0) & (squared_distances(alpha > 0) > outer**2)
    return np.where(known_front, 255, np.where(known_back, 0, 128))


@given(arrays.arrays(np.uint8, SIZES, elements=LEVELS), WIDTHS, WIDTHS)
def test_every_pixel_is_as_its_distances_say(alpha, inner, outer):
    made = trimap(alpha, inner, outer)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, brute_trimap(alpha, inner, outer))


@given(arrays.arrays(np.bool_, (40, 150), elements=st.booleans(), fill=st.just(False)), st.integers(0, 200_000))
def test_growing_is_exact_for_any_radius(region, squared):
    given_region = region.view(np.uint8) * np.uint8(255)
    expected = np.where(squared_distances(region) <= squared, 255, 0)
    np.testing.assert_array_equal(grow(given_region, squared), expected)


@pytest.mark.parametrize("width", [63, 64, 65, 127, 128, 320])
@pytest.mark.parametrize("radius", [7, 8, 9, 40, 63, 64, 65, 130])
def test_pixels_at_the_ends_of_rows_grow_into_no_other_row(width, radius):
    region = np.zeros((70, width), np.uint8)
    region[20, width - 1] = region[50, 0] = 255
    expected = np.where(squared_distances(region) <= radius**2, 255, 0)
    np.testing.assert_array_equal(grow(region, radius**2), expected)


def test_growing_leaves_what_it_was_given():
    for squared in (0, 9, 900):
        region = np.zeros((50, 50), np.uint8)
        region[25, 25] = 255
        grown = grow(region, squared)
        assert not np.shares_memory(grown, region)
        assert region.sum() == 255


def test_widths_are_measured_between_pixel_centres():
    mask = np.zeros((9, 9), np.uint8)
    mask[4, 4] = 255
    unknown = {width: int((trimap(mask, 0, width) == 128).sum()) for width in (0, 0.9, 1, 1.4, 1.5, 2)}
    assert unknown == {0: 0, 0.9: 0, 1: 4, 1.4: 4, 1.5: 8, 2: 12}
    assert int((trimap(255 - mask, 1, 0) == 128).sum()) == 4


def test_the_frame_is_no_edge():
    half = np.zeros((20, 20), np.uint8)
    half[:, :10] = 255
    made = trimap(half, 2, 3)
    assert (made == np.repeat([255, 128, 0], [8, 5, 7])).all()
    for level in (0, 255):
        assert (trimap(np.full((6, 7), level, np.uint8), 30, 30) == level).all()


def test_soft_alpha_is_unknown_without_any_width():
    alpha = np.array([[0, 1, 128, 254, 255]], np.uint8)
    np.testing.assert_array_equal(trimap(alpha, 0, 0), [[0, 128, 128, 128, 255]])


@pytest.mark.parametrize("widths", [(-1, 0), (0, -0.1), (float("nan"), 0), (0, float("inf"))])
def test_widths_that_are_none_are_refused(widths):
    with pytest.raises(ValueError, match="is a width"):
        trimap(np.zeros((4, 4), np.uint8), *widths)


@pytest.mark.parametrize(
    "alpha", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 1), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_pictures_that_are_no_alpha_are_refused(alpha):
    with pytest.raises(ValueError, match="alpha is"):
        trimap(alpha, 1, 1)


def test_real_masks_agree_with_an_exact_distance_transform(real_raw):
    """scipy's transform is exact; the masks are those of DUTS."""
    from scipy.ndimage import distance_transform_edt

    files = sorted((real_raw / "duts" / "DUTS-TE" / "DUTS-TE-Mask").glob("*.png"))[:5]
    assert files
    for file in files:
        mask = np.where(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) >= 128, 255, 0).astype(np.uint8)
        inside, outside = distance_transform_edt(mask), distance_transform_edt(255 - mask)
        for inner, outer in ((3, 6.5), (12.5, 25)):
            expected = np.where(inside > inner, 255, np.where((inside == 0) & (outside > outer), 0, 128))
            np.testing.assert_array_equal(trimap(mask, inner, outer), expected)


def test_beside_the_trimap_a_person_painted(real_raw):
    """The publisher's trimap of the lemur (levels 0, 102, 255) against its true alpha.

    What the publisher calls background has alpha 0, what it calls foreground 254 or 255, without exception. So with
    254 taken for opaque, no width at all, ours knows all that the publisher's knows and says the same of it; with
    25 pixels on either side, ours leaves open all that the publisher's leaves open.
    """
    alpha = cv2.imread(str(real_raw / "mattes" / "lemur_alpha.png"), cv2.IMREAD_UNCHANGED)
    painted = cv2.imread(str(real_raw / "mattes" / "lemur_trimap.png"), cv2.IMREAD_GRAYSCALE)
    assert set(np.unique(painted)) == {0, 102, 255}
    assert alpha[painted == 0].max() == 0
    assert alpha[painted == 255].min() == 254

    np.testing.assert_array_equal(trimap(alpha, 0, 0) == 128, (alpha > 0) & (alpha < 255))
    opaque = np.where(alpha >= 254, 255, alpha).astype(np.uint8)
    narrow, wide = trimap(opaque, 0, 0), trimap(opaque, 25, 25)
    known = painted != 102
    np.testing.assert_array_equal(narrow[known], painted[known])
    assert (narrow == 128).mean() < (painted == 102).mean()
    assert (wide[~known] == 128).all()


def test_nearly_opaque_is_opaque_within_the_tolerance():
    alpha = np.array([[0, 5, 6, 128, 249, 250, 255]], np.uint8)
    assert trimap(alpha, 0, 0, tolerance=5).tolist() == [[0, 0, 128, 128, 128, 255, 255]]
    assert trimap(alpha, 0, 0).tolist() == [[0, 128, 128, 128, 128, 128, 255]]
    for tolerance in (-1, 128):
        with pytest.raises(ValueError, match="tolerance"):
            trimap(alpha, 0, 0, tolerance)


def test_the_inside_of_a_measured_matte_is_known(real_raw):
    alpha = cv2.imread(str(real_raw / "mattes" / "lemur_alpha.png"), cv2.IMREAD_GRAYSCALE)
    strict, tolerant = ((trimap(alpha, 5, 5, tolerance) == 128).mean() for tolerance in (0, 5))
    assert tolerant < 0.5 * strict
