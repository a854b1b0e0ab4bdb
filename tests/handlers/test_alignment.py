"""A photo that is its own mask stays so, whatever geometry is applied.

The photo is a drawn shape, grey RGB, equal to its mask. After the warp the photo is cut at half grey, and compared with
the warped mask. The two are resampled differently (averaged and interpolated against nearest neighbour), so their edges
may differ within the pixel in which the edge lies: by half an output pixel where the picture shrinks, by half a source
pixel where it grows. A pixel may therefore differ only if its centre is no farther from the true edge than that (and
the 1/32 pixel to which OpenCV rounds coordinates, and what the area filter rounds off a curved edge).
"""

import math

import cv2
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dataset_handlers.duts import DutsHandler
from dataset_handlers.geometry import Geometry, augmentation, translation, warp
from dataset_handlers.segmentation import subject_centre

WIDTH, HEIGHT = 359, 301  # no multiple of any block that is averaged


def draw(angle=0.3):
    """A blob, half off the right edge's middle, and a bar: smooth edges in all directions, one touching the border."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(mask, (150, 140), (95, 62), math.degrees(angle), 0, 360, 255, -1)
    cv2.circle(mask, (WIDTH - 10, 60), 48, 255, -1)
    cv2.rectangle(mask, (40, 240), (220, HEIGHT), 255, -1)
    return mask


MASK = draw()
PHOTO = np.repeat(MASK[..., None], 3, 2)


MARGIN = 12


def differences(geometry):
    """Where cut photo and mask differ; how far (output pixels) each pixel is from the mask's edge; photo and mask.

    Edges count that lie just outside the window, too: one of the two may have fallen into it.
    """
    photo, mask = warp(PHOTO, geometry), warp(MASK, geometry, nearest=True)
    assert photo.shape[:2] == mask.shape == geometry.size
    assert set(np.unique(mask)) <= {0, 255}
    height, width = geometry.size
    larger = Geometry(translation(MARGIN, MARGIN) @ geometry.matrix, (height + 2 * MARGIN, width + 2 * MARGIN))
    distance = distance_to_edge(warp(MASK, larger, nearest=True))[MARGIN:-MARGIN, MARGIN:-MARGIN]
    return (photo[..., 1] >= 128) != (mask > 0), distance, photo, mask


def distance_to_edge(mask):
    """Distance of each pixel's centre to the nearest boundary between pixels of different value, in pixels."""
    height, width = mask.shape
    inside = cv2.distanceTransform((np.pad(mask, 1, mode="edge") > 0).astype(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform((np.pad(mask, 1, mode="edge") == 0).astype(np.uint8), cv2.DIST_L2, 5)
    return (np.maximum(inside, outside) - 0.5)[1 : height + 1, 1 : width + 1]


def check(geometry):
    differ, distance, _, _ = differences(geometry)
    if not differ.any():
        return
    stretch = [math.hypot(geometry.matrix[0, axis], geometry.matrix[1, axis]) for axis in (0, 1)]
    # Half an output pixel, or half a source pixel where that is larger, along the diagonal at worst; pixel centres
    # of the innermost row beside an edge are half a pixel from it, and the edge itself is known to a quarter.
    band = 0.5 * math.sqrt(2) * max(1.0, *stretch) + 0.75
    assert distance[differ].max() <= band


@pytest.mark.parametrize("scale", [1 / 6, 1 / 5, 1 / 4, 1 / 3, 0.4, 0.5, 0.55, 0.7, 0.9, 1.0, 1.003, 1.3, 1.7])
@pytest.mark.parametrize("degrees", [0.0, 10.0, 45.0, 90.0])
def test_over_a_whole_picture_the_grain_averages_out(scale, degrees):
    geometry = augmentation(
        (HEIGHT, WIDTH), image_size=(round(HEIGHT * scale), round(WIDTH * scale)), crop_size=None,
        mirror=(False, False), degrees=degrees, crop_position=(0.0, 0.0), subject_centre=None,
    )  # fmt: skip
    _, _, photo, mask = differences(geometry)
    assert np.abs(displacement(photo[..., 1], mask)).max() <= 0.25


def displacement(photo, mask):
    """By how many pixels (x, y) the photo is off the mask (Lucas and Kanade 1981); None where edges do not tell."""
    smooth = [cv2.GaussianBlur(picture.astype(np.float64) / 255, (0, 0), 1.5) for picture in (photo, mask)]
    gradient = np.stack(np.gradient((smooth[0] + smooth[1]) / 2)[::-1]).reshape(2, -1)
    products = gradient @ gradient.T
    if np.linalg.eigvalsh(products)[0] < 2:  # some ten pixels of edge in each direction
        return None
    return -np.linalg.solve(products, gradient @ (smooth[0] - smooth[1]).ravel())


def test_displacement_is_measured():
    mask = np.ascontiguousarray(MASK[:200, :240])
    for x, y in ((0, 0), (1, 0), (0, -1), (-1, 1)):
        np.testing.assert_allclose(displacement(np.roll(mask, (y, x), (0, 1)), mask), [x, y], atol=0.1)


shares = st.floats(0, 1, exclude_max=True)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    scale=st.tuples(st.floats(1 / 6, 1.7), st.floats(1 / 6, 1.7)),
    uniform=st.booleans(),
    mirror=st.tuples(st.booleans(), st.booleans()),
    degrees=st.just(0.0) | st.floats(-180, 180),
    crop=st.none() | st.tuples(st.floats(0.4, 1), st.floats(0.4, 1)),
    position=st.tuples(shares, shares),
    centred=st.booleans(),
)
@example((1 / 6, 1 / 6), True, (False, False), 40.0, None, (0.0, 0.0), False)
@example((1 / 6, 1 / 6), True, (True, False), -130.0, None, (0.0, 0.0), False)
@example((1 / 3, 1 / 3), True, (False, True), 90.0, None, (0.0, 0.0), False)
@example((0.5, 0.5), True, (True, True), 45.0, (0.8, 0.8), (0.5, 0.5), True)
def test_photo_and_mask_stay_aligned(scale, uniform, mirror, degrees, crop, position, centred):
    vertical, horizontal = (scale[0], scale[0]) if uniform else scale
    size = max(1, round(HEIGHT * vertical)), max(1, round(WIDTH * horizontal))
    window = (max(1, int(size[0] * crop[0])), max(1, int(size[1] * crop[1]))) if crop else None
    options = {"image_size": size, "mirror": mirror, "degrees": degrees, "crop_position": position}
    centre = subject_centre(MASK) if centred else None
    check(augmentation((HEIGHT, WIDTH), crop_size=window, subject_centre=centre, **options))
    # The band would let a shift of the whole pass. That is measured before the crop, which moves by whole pixels: in a
    # small window all edges may lie alike between sample points.
    whole = augmentation((HEIGHT, WIDTH), crop_size=None, subject_centre=None, **options)
    _, _, photo, mask = differences(whole)
    shift = displacement(photo[..., 1], mask)
    stretch = np.hypot(*whole.matrix[:2, :2])
    assert shift is None or np.abs(shift).max() <= 0.5 * max(1.0, *stretch)


@pytest.mark.parametrize("factor", [2, 3, 4, 5, 6])
def test_the_mirrored_border_is_aligned_too(factor):
    # A straight edge near the border, pushed over it: photo and mask must mirror at the same line.
    mask = np.zeros((240, 240), np.uint8)
    mask[:, : 4 * factor] = 255
    photo = np.repeat(mask[..., None], 3, 2)
    size = 240 // factor, 240 // factor
    geometry = augmentation(
        (240, 240), image_size=size, crop_size=None, mirror=(False, False), degrees=0.0,
        crop_position=(0.0, 0.0), subject_centre=None,
    )  # fmt: skip
    shift = np.array([[1, 0, 10], [0, 1, 0], [0, 0, 1.0]])
    shifted = type(geometry)(shift @ geometry.matrix, size)
    cut = warp(photo, shifted)[..., 0] >= 128
    np.testing.assert_array_equal(cut, warp(mask, shifted, nearest=True) > 0)
    assert cut[0].sum() == 8  # four pixels, and their mirror image


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(120, 500),
    crop=st.floats(0.3, 1),
    flip=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_a_centred_crop_contains_the_subjects_centre(seed, size, crop, flip):
    random = np.random.default_rng(seed)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    x, y = int(random.integers(20, WIDTH - 20)), int(random.integers(20, HEIGHT - 20))
    cv2.rectangle(mask, (x - 12, y - 12), (x + 11, y + 11), 255, -1)
    side = max(3, int(size * crop))
    handler = DutsHandler(
        {"image_size": [size, size], "crop_size": [side, side], "random_crop_centered": True, "flip_horizontal": flip},
        "raw",
    )
    _, warped = handler.augment(np.repeat(mask[..., None], 3, 2), mask, random)
    # The centre of the (symmetric) subject is in the window, so at least a quarter of the subject is.
    expected = (24 * size / WIDTH) * (24 * size / HEIGHT)
    assume(expected > 30)
    visible = cv2.countNonZero(warped) / min(expected, side * side)
    assert visible >= 0.15


def test_augmentations_are_drawn_in_their_ranges_and_at_their_rates():
    random = np.random.default_rng(0)
    handler = DutsHandler({"flip_horizontal": 0.25}, "raw")
    flipped = 0
    for _ in range(400):
        _, mask = handler.augment(PHOTO, MASK, random)
        flipped += int(not np.array_equal(mask, MASK))
    assert 60 <= flipped <= 140  # 100 ± 8.7 (one sigma)
