"""Matrices and single warps against numpy's slices, scikit-image, OpenCV, Pillow and plain arithmetic.

What is filtered, decoded and composed is in test_sampling.py.
"""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import skimage.data
import skimage.filters
import skimage.transform
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dataset_handlers.transforms.geometry import (
    Geometry,
    about,
    augmentation,
    compose,
    corners,
    crop_offset,
    inverse,
    perspective,
    resizing,
    rotation,
    scaling,
    shearing,
    square_to_quad,
    transform_point,
    transform_points,
    translation,
)
from dataset_handlers.transforms.sampling import warp
from tests.handlers.support import REPOSITORY

PHOTO = np.ascontiguousarray(skimage.data.astronaut()[40:200, 120:330])
MASK = (PHOTO[..., 0] > 128).astype(np.uint8) * 255


def plain(source_size, **changes):
    options = {
        "image_size": None,
        "crop_size": None,
        "crop_position": (0.0, 0.0),
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
    for picture, nearest in ((PHOTO, False), (MASK, True)):
        warped = warp(picture, geometry, nearest=nearest)
        np.testing.assert_array_equal(warped, picture)
        assert np.shares_memory(warped, picture)  # nothing is copied


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


def reference(photo, geometry, factors=(1.0, 1.0)):
    """The same by scikit-image, in floating point: its coordinates are pixel centres.

    ``factors``, along y and x, say how much it shrinks (by less than two): that much detail is taken away before.
    """
    sigma = [np.sqrt((factor**2 - 1) / 6) for factor in factors]
    filtered = skimage.filters.gaussian(photo.astype(float), sigma, mode="nearest", channel_axis=-1)
    centred = translation(-0.5, -0.5) @ geometry.matrix @ translation(0.5, 0.5)
    return skimage.transform.warp(
        filtered, skimage.transform.ProjectiveTransform(centred).inverse, output_shape=geometry.size,
        order=1, mode="symmetric", preserve_range=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "factors"),
    [
        ({"degrees": 10.0}, (1, 1)),
        ({"degrees": -77.0}, (1, 1)),
        ({"image_size": (333, 512)}, (1, 1)),
        ({"image_size": (120, 180)}, (160 / 120, 210 / 180)),
        ({"image_size": (200, 300), "degrees": 30.0, "mirror": (True, False)}, (1, 1)),
        ({"image_size": (300, 300), "crop_size": (128, 200), "crop_position": (0.3, 0.9)}, (1, 1)),
        ({"scale": 1.7}, (1, 1)),
        ({"scale": 0.6}, (1 / 0.6, 1 / 0.6)),
        ({"shear": 25.0}, (1, 1)),
        ({"shear": -40.0, "image_size": (320, 420)}, (1, 1)),
        ({"image_size": (320, 420), "tilt": [0.05, -0.02, -0.06, 0.04, 0.03, 0.07, -0.05, -0.01]}, (1, 1)),
        ({"image_size": (400, 400), "resize_mode": "fit"}, (1, 1)),
        ({"image_size": (400, 300), "resize_mode": "cover"}, (1, 1)),
        ({"image_size": (400, 500), "scale": 1.2, "shear": 9.0, "degrees": -33.0, "mirror": (True, True)}, (1, 1)),
    ],
)
def test_warps_agree_with_scikit_image(changes, factors):
    geometry = plain(PHOTO.shape[:2], **changes)
    difference = np.abs(warp(PHOTO, geometry) - reference(PHOTO, geometry, factors))
    # OpenCV interpolates at 1/32 pixel: it may be off by 1/64 of the step between neighbours, at most 4 levels at
    # a black-and-white edge in each direction, and rounds. Its Gaussian is short by the tails beyond 2.5 sigma.
    assert difference.mean() < (0.5 if max(factors) == 1 else 0.7)
    assert difference.max() <= 8.5


@pytest.mark.parametrize(
    "changes",
    [
        {"degrees": 20.0},
        {"scale": 1.4},
        {"shear": 15.0},
        {"image_size": (400, 600)},
        {"image_size": (320, 420), "tilt": [0.05, -0.02, -0.06, 0.04, 0.03, 0.07, -0.05, -0.01]},
    ],
)
def test_warps_agree_with_pillow(changes):
    geometry = plain(PHOTO.shape[:2], **changes)
    back = np.linalg.inv(geometry.matrix)
    data = tuple((back / back[2, 2]).ravel()[:8])  # Pillow, too, counts from the corners of pixels
    wanted = Image.fromarray(PHOTO).transform(
        geometry.size[::-1], Image.Transform.PERSPECTIVE, data, Image.Resampling.BILINEAR
    )
    # Beyond the frame Pillow leaves black, and what is half a pixel from it is not interpolated.
    seen = np.asarray(Image.new("L", (210, 160), 255).transform(
        geometry.size[::-1], Image.Transform.PERSPECTIVE, data, Image.Resampling.NEAREST
    ))  # fmt: skip
    inner = cv2.erode(seen, np.ones((7, 7), np.uint8), borderValue=0) > 0
    difference = np.abs(warp(PHOTO, geometry).astype(float) - np.asarray(wanted))[inner]
    assert inner.mean() > 0.4
    assert difference.mean() < 1  # Pillow cuts fractions off
    assert difference.max() <= 9.5


def by_opencv(points, source, image, mirror, scale, shear, degrees, tilt):
    """Points through one step at a time, each as OpenCV's own functions have it."""
    height, width = image
    size = np.array([width, height])
    points = points * size / source[::-1]
    for axis in (0, 1):
        if mirror[axis]:
            points[:, axis] = size[axis] - points[:, axis]
    middle = (width / 2, height / 2)
    scaled = cv2.getRotationMatrix2D(middle, 0, scale)
    points = cv2.transform(points[None], scaled)[0]
    points[:, 0] -= (points[:, 1] - height / 2) * np.tan(np.radians(shear))
    points = cv2.transform(points[None], cv2.getRotationMatrix2D(middle, degrees, 1))[0]
    frame = np.array(corners(image), np.float32)
    moved = frame + np.array(tilt, np.float32).reshape(4, 2) * size
    return cv2.perspectiveTransform(points[None], cv2.getPerspectiveTransform(frame, moved.astype(np.float32)))[0]


angles = st.floats(-180, 180)
sizes = st.tuples(st.integers(20, 700), st.integers(20, 700))


@given(
    source=sizes, image=sizes, degrees=angles, mirror=st.tuples(st.booleans(), st.booleans()),
    scale=st.floats(0.1, 10), shear=st.floats(-60, 60), tilt=st.lists(st.floats(-0.15, 0.15), min_size=8, max_size=8),
    u=st.floats(0, 1, exclude_max=True), v=st.floats(0, 1, exclude_max=True),
    crop=st.tuples(st.floats(0.1, 1), st.floats(0.1, 1)), at=st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)),
)  # fmt: skip
def test_one_matrix_is_the_steps_one_after_the_other(
    source, image, degrees, mirror, scale, shear, tilt, u, v, crop, at
):
    crop_size = max(1, int(image[0] * crop[0])), max(1, int(image[1] * crop[1]))
    geometry = plain(
        source, image_size=image, degrees=degrees, mirror=mirror, scale=scale, shear=shear, tilt=tilt,
        crop_size=crop_size, crop_position=(u, v),
    )  # fmt: skip
    # A point that ends within the canvas: others may lie near the horizon, where nothing is exact.
    ends = np.array([[at[0] * image[1], at[1] * image[0]]])
    whole = plain(source, image_size=image, degrees=degrees, mirror=mirror, scale=scale, shear=shear, tilt=tilt)
    start = np.array([transform_point(inverse(whole.matrix), *ends[0])])
    wanted = by_opencv(start, source, image, mirror, scale, shear, degrees, tilt)[0]
    wanted -= int(u * (image[1] - crop_size[1] + 1)), int(v * (image[0] - crop_size[0] + 1))
    # OpenCV takes the four corners in single precision.
    assert transform_point(geometry.matrix, *start[0]) == pytest.approx(wanted, abs=2e-3)
    np.testing.assert_array_equal(
        transform_points(geometry.matrix, start)[0], transform_point(geometry.matrix, *start[0])
    )
    assert geometry.size == crop_size


@given(source=sizes, target=sizes)
def test_fit_shows_all_and_cover_fills_all(source, target):
    for mode, inside in (("fit", True), ("cover", False)):
        matrix = resizing(source, target, mode)
        (x0, y0), _, (x1, y1), _ = (transform_point(matrix, *corner) for corner in corners(source))
        assert (x1 - x0) / (y1 - y0) == pytest.approx(source[1] / source[0])  # proportions stay
        assert (x0 + x1) / 2 == pytest.approx(target[1] / 2)
        assert (y0 + y1) / 2 == pytest.approx(target[0] / 2)
        room = min(x0, y0, target[1] - x1, target[0] - y1)
        assert room == pytest.approx(0, abs=1e-9) or (room > 0) == inside
        tight = (x1 - x0) / target[1], (y1 - y0) / target[0]
        assert (max if inside else min)(tight) == pytest.approx(1)


def test_shear_leans_to_the_right_and_keeps_rows():
    assert transform_point(shearing(45), 0, -10) == pytest.approx((10, -10))
    assert transform_point(shearing(45), 7, 0) == (7, 0)


@given(st.lists(st.floats(-0.15, 0.15), min_size=8, max_size=8), sizes)
def test_perspective_moves_the_four_corners(tilt, size):
    for corner, (x, y), index in zip(corners(size), corners(size), range(4), strict=True):
        wanted = x + tilt[2 * index] * size[1], y + tilt[2 * index + 1] * size[0]
        assert transform_point(perspective(size, tilt), *corner) == pytest.approx(wanted, abs=1e-6)


def test_corners_of_no_area_are_refused():
    with pytest.raises(ValueError, match="no area"):
        square_to_quad([(0, 0), (1, 1), (2, 2), (3, 3)])


@given(st.lists(st.floats(-0.15, 0.15), min_size=8, max_size=8), st.floats(0.1, 10), angles, st.floats(-60, 60))
def test_no_tilt_that_may_be_asked_for_looks_behind_the_horizon(tilt, scale, degrees, shear):
    geometry = plain((480, 640), image_size=(300, 333), tilt=tilt, scale=scale, degrees=degrees, shear=shear)
    for x, y in geometry.seen_corners:
        assert np.isfinite((x, y)).all()


def test_behind_the_horizon_is_refused():
    # The top's corners all but meet: above them, the ground ends.
    whole = plain((300, 300), tilt=[0.45, 0.3, -0.45, 0.3, 0.3, 0.1, -0.3, 0.1])
    sky = Geometry(whole.matrix, (50, 300))  # all of it is beyond
    for geometry in (whole, sky):
        for use in (Geometry.check, lambda some: warp(PHOTO, some), lambda some: warp(MASK, some, nearest=True)):
            with pytest.raises(ValueError, match="behind the camera"):
                use(geometry)
    Geometry(compose(translation(0, -250), whole.matrix), (50, 300)).check()


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
from dataset_handlers.transforms.geometry import augmentation
from dataset_handlers.transforms.sampling import warp
from dataset_handlers.transforms.photometry import exposure_table
random = np.random.default_rng(0)
photo = random.integers(0, 256, (427, 640, 3), np.uint8)
mask = (photo[..., 0] > 200).astype(np.uint8) * 255
digest = hashlib.sha256()
for number in range(24):
    size = [(2048, 2048), (512, 512), (333, 777), (96, 128)][number % 4]
    geometry = augmentation(
        (427, 640), image_size=size, crop_size=(90, 120), mirror=(bool(number & 1), bool(number & 2)),
        degrees=float(random.uniform(-180, 180)) * (number % 3), crop_position=(0.3, 0.7), crop_centre=(300.5, 201),
        scale=1 + number % 5 / 7, shear=number % 4 * 5.0, tilt=random.uniform(-0.1, 0.1, 8) if number & 4 else None,
        resize_mode=("stretch", "fit", "cover")[number % 3],
    )
    digest.update(geometry.matrix.tobytes() + warp(photo, geometry).tobytes())
    digest.update(warp(mask, geometry, nearest=True).tobytes() + exposure_table(number / 3 - 4).tobytes())
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
