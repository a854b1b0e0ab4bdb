"""Warps against numpy's slices, scikit-image and plain arithmetic."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import skimage.data
import skimage.transform
from hypothesis import given
from hypothesis import strategies as st

from dataset_handlers.geometry import (
    Geometry,
    about,
    augmentation,
    compose,
    crop_offset,
    rotation,
    scaling,
    transform_point,
    translation,
    warp,
)
from tests.handlers.support import REPOSITORY

PHOTO = np.ascontiguousarray(skimage.data.astronaut()[40:200, 120:330])
MASK = (PHOTO[..., 0] > 128).astype(np.uint8) * 255


def plain(source_size, **changes):
    options = {
        "image_size": None,
        "crop_size": None,
        "mirror": (False, False),
        "degrees": 0.0,
        "crop_position": (0.0, 0.0),
        "subject_centre": None,
    }
    return augmentation(source_size, **{**options, **changes})


def both(geometry):
    return warp(PHOTO, geometry), warp(MASK, geometry, nearest=True)


def check_exact(geometry, photo, mask):
    warped, warped_mask = both(geometry)
    np.testing.assert_array_equal(warped, photo)
    np.testing.assert_array_equal(warped_mask, mask)


def test_no_geometry_touches_nothing():
    geometry = plain(PHOTO.shape[:2])
    assert warp(PHOTO, geometry) is PHOTO
    assert warp(MASK, geometry, nearest=True) is MASK


@pytest.mark.parametrize(("horizontal", "vertical"), [(True, False), (False, True), (True, True)])
def test_flips_are_exact(horizontal, vertical):
    step = (slice(None, None, -1 if vertical else 1), slice(None, None, -1 if horizontal else 1))
    check_exact(plain(PHOTO.shape[:2], mirror=(horizontal, vertical)), PHOTO[step], MASK[step])


@given(
    st.integers(1, PHOTO.shape[0]),
    st.integers(1, PHOTO.shape[1]),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1, exclude_max=True),
    st.booleans(),
)
def test_crops_are_exact_slices(height, width, u, v, flip):
    geometry = plain(PHOTO.shape[:2], crop_size=(height, width), crop_position=(u, v), mirror=(flip, False))
    left = crop_offset(PHOTO.shape[1], width, u, None)
    top = crop_offset(PHOTO.shape[0], height, v, None)
    step = -1 if flip else 1
    window = slice(top, top + height), slice(left, left + width)
    check_exact(geometry, PHOTO[:, ::step][window], MASK[:, ::step][window])


@pytest.mark.parametrize(("x", "y"), [(3, 0), (0, 5), (7, 11)])
def test_whole_shifts_are_exact_and_mirror_at_the_edge(x, y):
    padded = np.pad(PHOTO, ((y, 0), (x, 0), (0, 0)), mode="symmetric")[: PHOTO.shape[0], : PHOTO.shape[1]]
    padded_mask = np.pad(MASK, ((y, 0), (x, 0)), mode="symmetric")[: PHOTO.shape[0], : PHOTO.shape[1]]
    check_exact(Geometry(translation(x, y), PHOTO.shape[:2]), padded, padded_mask)


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_quarter_turns_go_counter_clockwise_and_are_exact(degrees, turns):
    square = np.ascontiguousarray(PHOTO[:, :160])
    warped = warp(square, plain((160, 160), degrees=degrees))
    np.testing.assert_array_equal(warped, np.rot90(square, turns))


def test_doubling_repeats_each_mask_pixel_twice():
    # The photo's edges must fall where these do: pixel (i, j) becomes rows 2i, 2i+1 and columns 2j, 2j+1.
    doubled = warp(MASK, plain(MASK.shape, image_size=(2 * MASK.shape[0], 2 * MASK.shape[1])), nearest=True)
    np.testing.assert_array_equal(doubled, MASK.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("factor", [2, 3, 4, 5, 6])
def test_shrinking_by_a_whole_factor_is_the_mean_of_whole_blocks(factor):
    height, width = 160 // factor * factor, 210 // factor * factor
    photo = PHOTO[:height, :width]
    small = warp(photo, plain((height, width), image_size=(height // factor, width // factor)))
    blocks = photo.reshape(height // factor, factor, width // factor, factor, 3).mean((1, 3))
    assert np.abs(small - blocks).max() <= 0.51  # rounding alone


@pytest.mark.parametrize("factor", [2, 3, 5, 6])
def test_the_block_average_does_not_hang_on_the_last_bit_of_a_rotation(factor):
    noise = np.random.default_rng(0).integers(0, 256, (240, 240), np.uint8)

    def turned(degrees):
        return plain((240, 240), image_size=(240 // factor, 240 // factor), degrees=degrees)

    def factor_by_its_last_bit(degrees):
        return int(1 / np.hypot(*turned(degrees).matrix[:2, 0]))

    below = [degrees for degrees in np.linspace(1, 89, 89) if factor_by_its_last_bit(degrees) < factor]
    assert below or factor == 2  # there are angles at which rounding takes a factor for less than it is
    for degrees in below[:5]:
        nearby = degrees + 1e-9
        difference = warp(noise, turned(degrees)).astype(int) - warp(noise, turned(nearby))
        assert abs(difference).max() <= 8
        wanted = cv2.resize(noise, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
        turn = about(rotation(degrees), 120 / factor, 120 / factor)
        centred = compose(translation(-0.5, -0.5), turn, translation(0.5, 0.5))
        expected = cv2.warpAffine(wanted, centred[:2], wanted.shape[::-1], borderMode=cv2.BORDER_REFLECT)
        assert abs(warp(noise, turned(degrees)).astype(int) - expected).max() <= 8


def reference(photo, geometry):
    """The same by scikit-image, in floating point: its coordinates are pixel centres."""
    centred = translation(-0.5, -0.5) @ geometry.matrix @ translation(0.5, 0.5)
    return skimage.transform.warp(
        photo, skimage.transform.AffineTransform(centred).inverse, output_shape=geometry.size,
        order=1, mode="symmetric", preserve_range=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"degrees": 10.0},
        {"degrees": -77.0},
        {"image_size": (333, 512)},
        {"image_size": (120, 180)},
        {"image_size": (200, 300), "degrees": 30.0, "mirror": (True, False)},
        {"image_size": (300, 300), "crop_size": (128, 200), "crop_position": (0.3, 0.9)},
    ],
)
def test_resize_and_rotation_agree_with_scikit_image(changes):
    geometry = plain(PHOTO.shape[:2], **changes)
    difference = np.abs(warp(PHOTO, geometry) - reference(PHOTO, geometry))
    # OpenCV interpolates at 1/32 pixel: it may be off by 1/64 of the step between neighbours, at most 4 levels at
    # a black-and-white edge in each direction, and rounds.
    assert difference.mean() < 0.5
    assert difference.max() <= 8.5


angles = st.floats(-180, 180)
sizes = st.tuples(st.integers(20, 700), st.integers(20, 700))


@given(
    source=sizes, image=sizes, degrees=angles, mirror=st.tuples(st.booleans(), st.booleans()),
    u=st.floats(0, 1, exclude_max=True), v=st.floats(0, 1, exclude_max=True),
    crop=st.tuples(st.floats(0.1, 1), st.floats(0.1, 1)), at=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)  # fmt: skip
def test_one_matrix_is_the_steps_one_after_the_other(source, image, degrees, mirror, u, v, crop, at):
    crop_size = max(1, int(image[0] * crop[0])), max(1, int(image[1] * crop[1]))
    geometry = plain(
        source, image_size=image, degrees=degrees, mirror=mirror, crop_size=crop_size, crop_position=(u, v)
    )
    x, y = at[0] * source[1], at[1] * source[0]
    got = transform_point(geometry.matrix, x, y)
    x, y = x * image[1] / source[1], y * image[0] / source[0]
    x, y = image[1] - x if mirror[0] else x, image[0] - y if mirror[1] else y
    dx, dy, turn = x - image[1] / 2, y - image[0] / 2, np.radians(degrees)
    x = image[1] / 2 + dx * np.cos(turn) + dy * np.sin(turn)
    y = image[0] / 2 - dx * np.sin(turn) + dy * np.cos(turn)
    x -= int(u * (image[1] - crop_size[1] + 1))
    y -= int(v * (image[0] - crop_size[0] + 1))
    assert got == pytest.approx((x, y), abs=1e-9)
    assert geometry.size == crop_size


@given(st.integers(1, 500), st.data())
def test_a_window_never_leaves_the_canvas_and_holds_the_centre(canvas, data):
    crop = data.draw(st.integers(1, canvas))
    u = data.draw(st.floats(0, 1, exclude_max=True))
    centre = data.draw(st.floats(0, canvas))
    start = crop_offset(canvas, crop, u, centre)
    assert 0 <= start <= canvas - crop
    # Windows lie on whole pixels, so that a window of one pixel may miss a centre between two by half of one.
    assert start - 0.5 <= centre <= start + crop + 0.5
    if crop >= 3:
        assert start <= centre <= start + crop
    assert 0 <= crop_offset(canvas, crop, u, None) <= canvas - crop


def test_every_position_of_a_window_is_reached():
    offsets = {crop_offset(10, 4, u, None) for u in np.linspace(0, 1, 1000, endpoint=False)}
    assert offsets == set(range(7))
    assert crop_offset(10, 4, np.nextafter(1, 0), None) == 6


def test_a_crop_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="300×20 does not fit into 210×160"):
        plain(PHOTO.shape[:2], crop_size=(20, 300))


@given(
    st.lists(st.sampled_from([translation(3, 7), scaling(0.3, 2), rotation(33), about(rotation(-5), 8, 9)]), max_size=6)
)
def test_compose_is_the_matrix_product(matrices):
    product = np.eye(3)
    for matrix in matrices:
        product = product @ matrix
    np.testing.assert_allclose(compose(*matrices), product, rtol=1e-12, atol=1e-12)


_DIGEST = """
import hashlib
import cv2
import numpy as np
from dataset_handlers.composite import blend
from dataset_handlers.geometry import augmentation, warp
from dataset_handlers.photometry import exposure_table
random = np.random.default_rng(0)
photo = random.integers(0, 256, (427, 640, 3), np.uint8)
mask = (photo[..., 0] > 200).astype(np.uint8) * 255
digest = hashlib.sha256()
for number in range(24):
    size = [(2048, 2048), (512, 512), (333, 777), (96, 128)][number % 4]
    geometry = augmentation(
        (427, 640), image_size=size, crop_size=(90, 120), mirror=(bool(number & 1), bool(number & 2)),
        degrees=float(random.uniform(-180, 180)) * (number % 3), crop_position=(0.3, 0.7), subject_centre=(300.5, 201),
    )
    digest.update(geometry.matrix.tobytes() + warp(photo, geometry).tobytes())
    digest.update(warp(mask, geometry, nearest=True).tobytes() + exposure_table(number / 3 - 4).tobytes())
for number in range(40):
    subject = np.zeros((427, 640), np.uint8)
    centre, axes = (200 + 5 * number, 220), (60 + 2 * number, 90)
    cv2.ellipse(subject, centre, axes, 7.0 * number, 0, 360, 255, -1)
    digest.update(blend(photo, photo[::-1], subject, (1.0, 0.6, 2.5, 20.0)[number % 4]).tobytes())
print(digest.hexdigest())
"""


def test_the_processor_decides_no_bit():
    # OpenCV and BLAS choose code by what the processor can do; each can be told that it can do less.
    everything = {"OPENCV_CPU_DISABLE": "AVX,AVX2,FMA3,FP16,SSE4.1,SSE4.2", "OPENBLAS_CORETYPE": "Prescott"}
    digests = set()
    for environment in ({}, everything):
        done = subprocess.run(
            [sys.executable, "-c", _DIGEST], env={**os.environ, **environment},
            cwd=REPOSITORY, capture_output=True, text=True, check=True,
        )  # fmt: skip
        digests.add(done.stdout)
    assert len(digests) == 1
