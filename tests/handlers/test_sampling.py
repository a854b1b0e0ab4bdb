"""Shrinking against the exact integral over each output pixel and against Pillow; composed against step by step.

Measured on six COCO photos, upright and turned by 10 and 45 degrees: mean absolute error in levels of 255 against the
integral, the mean over the photos (and the worst photo): factor 1.1: 0.7 (1.4), 1.5: 1.5 (2.6), 2: 3.2 (5.2),
2.5: 2.6 (4.6), 3.7: 3.5 (5.1), 5.5: 4.6 (6.8), 8: 5.5 (8.7), 12: 5.6 (8.0). It is sharpness that goes, not alias that
comes: bilinear interpolation between averages of whole output pixels.
"""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset_handlers.images import encode_png
from dataset_handlers.photo import Photo
from dataset_handlers.transforms.geometry import (
    Geometry,
    about,
    augmentation,
    compose,
    perspective,
    rotation,
    scaling,
    shearing,
    translation,
)
from dataset_handlers.transforms.sampling import plan_sampling, resample, shows_frame, warp

RESAMPLING = Image.Resampling


@pytest.fixture(scope="module")
def files(real_raw):
    """The bytes of eight real photos."""
    return [file.read_bytes() for file in sorted((real_raw / "coco" / "val2017").glob("*.jpg"))[:8]]


def integral(photo, geometry, grid=8):
    """Each output pixel's mean over ``grid`` × ``grid`` points of its footprint, the photo being squares of colour."""
    finer = compose(scaling(grid, grid), geometry.matrix)
    height, width = geometry.size
    centred = translation(-0.5, -0.5) @ finer @ translation(0.5, 0.5)
    points = cv2.warpPerspective(
        photo, centred, (width * grid, height * grid), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT
    )
    return points.reshape(height, grid, width, grid, -1).mean((1, 3), dtype=np.float32)


def shrunk(size, factor, degrees=0.0):
    height, width = size
    return augmentation(
        size, image_size=(round(height / factor), round(width / factor)), crop_size=None, degrees=degrees
    )


#: Factor, and bounds of the mean over photos and of the worst photo.
BOUNDS = [
    (1.1, 1, 2), (1.5, 2, 3), (1.95, 2.5, 3.5), (2, 3.5, 5.5), (2.5, 3, 5), (3.7, 3.8, 5.5), (5.5, 5, 7), (8, 5.8, 9),
    (12, 6, 9),
]  # fmt: skip


@pytest.mark.parametrize("degrees", [0.0, 10.0, 45.0])
@pytest.mark.parametrize(("factor", "average", "worst"), BOUNDS)
def test_shrunk_photos_are_near_the_integral(files, factor, average, worst, degrees):
    for scaled in (True, False) if factor >= 2 else (False,):  # by less, a JPEG is decoded as it is
        errors = []
        for data in files[: 6 if factor >= 2 else 3]:
            whole = Photo(data, "x").pixels()
            photo = Photo(data, "x") if scaled else Photo.from_pixels(whole)
            geometry = shrunk(photo.size, factor, degrees)
            errors.append(np.abs(photo.warp(geometry) - integral(whole, geometry)).mean())
        assert np.mean(errors) < average
        assert max(errors) < worst


@pytest.mark.parametrize("factor", [1.3, 1.95, 2, 3.7, 8, 12])
def test_shrunk_photos_are_near_what_pillow_makes_of_them(files, factor):
    """BOX is the integral, LANCZOS is sharper, BILINEAR (a triangle) softer than both: we are next to it."""
    errors = {RESAMPLING.BOX: [], RESAMPLING.BILINEAR: [], RESAMPLING.LANCZOS: []}
    for data in files[:6]:
        photo = Photo(data, "x")
        geometry = shrunk(photo.size, factor)
        ours = photo.warp(geometry).astype(int)
        for kind, found in errors.items():
            wanted = Image.fromarray(photo.pixels()).resize(geometry.size[::-1], kind)
            found.append(np.abs(ours - np.asarray(wanted)).mean())
    assert np.mean(errors[RESAMPLING.BILINEAR]) < 3.5
    assert np.mean(errors[RESAMPLING.BOX]) < 4.5
    assert np.mean(errors[RESAMPLING.LANCZOS]) < 5.5


def zone_plate(side):
    """Rings that reach the finest grid of pixels, half a cycle per pixel, at the edges' middles."""
    y, x = np.mgrid[:side, :side] + 0.5 - side / 2
    return np.repeat((127.5 + 127.5 * np.cos(np.pi * (x * x + y * y) / side)).astype(np.uint8)[..., None], 3, 2)


@pytest.mark.parametrize("factor", [1.5, 1.75, 2, 2.5, 3.7, 5.5, 8, 12])
def test_rings_too_fine_for_the_output_alias_less_than_areas_do(factor):
    side = 480
    small = round(side / factor)
    y, x = np.mgrid[:small, :small] + 0.5 - small / 2
    radius = np.hypot(x, y) * factor
    finer = (radius > side / 2 / factor * 1.1) & (radius < side / 2 * 0.98)
    plate = zone_plate(side)
    ours = warp(plate, shrunk((side, side), factor))[..., 0]
    areas = np.asarray(Image.fromarray(plate).resize((small, small), RESAMPLING.BOX))[..., 0]
    nothing = cv2.resize(plate, (small, small), interpolation=cv2.INTER_LINEAR)[..., 0]
    assert ours[finer].std() <= areas[finer].std() + 0.1
    assert ours[finer].std() <= 40
    assert ours[finer].mean() == pytest.approx(127.5, abs=2)
    assert nothing[finer].std() >= ours[finer].std()


@pytest.mark.parametrize("factor", [1.6, 1.75, 2, 2.5, 3, 4, 5.5, 7.9, 12])
@pytest.mark.parametrize("degrees", [0.0, 10.0, 45.0])
def test_a_checkerboard_of_single_pixels_becomes_grey(factor, degrees):
    y, x = np.mgrid[:480, :480]
    board = np.repeat(((x + y) % 2 * 255).astype(np.uint8)[..., None], 3, 2)
    small = warp(board, shrunk((480, 480), factor, degrees))[8:-8, 8:-8].astype(int)
    # Turned, and by less than two, some of it is within what the output can show.
    bound = 20 if factor >= 2 else 70 if factor == 1.75 else 115
    assert np.abs(small - 127.5).max() <= bound


@pytest.mark.parametrize("factor", [1.0, 1.1, 1.5, 1.9, 2, 2.5, 3, 4, 5.5, 8, 12, 0.5, 0.3])
@pytest.mark.parametrize("source", ["jpeg", "png", "pixels"])
def test_nothing_moves(factor, source):
    spot = np.zeros((481, 639, 3), np.float64)
    y, x = np.mgrid[:481, :639] + 0.5
    centre = 300.37, 231.81
    spot += (250 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 40**2)))[..., None]
    spot = np.rint(spot).astype(np.uint8)
    encoded = {
        "jpeg": lambda: Photo(cv2.imencode(".jpg", spot, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes(), "x"),
        "png": lambda: Photo(encode_png(spot), "x"),
        "pixels": lambda: Photo.from_pixels(spot),
    }[source]()
    geometry = shrunk((481, 639), factor)
    weights = np.maximum(encoded.warp(geometry)[..., 1].astype(float) - 3, 0)
    rows, columns = np.mgrid[: geometry.size[0], : geometry.size[1]] + 0.5
    found = (columns * weights).sum() / weights.sum(), (rows * weights).sum() / weights.sum()
    expected = centre[0] * geometry.size[1] / 639, centre[1] * geometry.size[0] / 481
    assert found == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(
    "turn", [{}, {"degrees": 25.0}, {"shear": 12.0, "scale": 1.3}, {"degrees": -8.0, "tilt": [0.04, 0, 0, -0.05] * 2}]
)
def test_composed_is_the_steps_one_after_the_other(files, turn):
    """One warp against a warp per step: each step blurs once more, so it is the steps that are off."""
    errors = []
    for data in files[:6]:
        whole = Photo(data, "x").pixels()
        size = whole.shape[:2]
        target = (int(size[0] * 1.2), int(size[1] * 1.25))
        composed = warp(whole, augmentation(size, image_size=target, crop_size=None, mirror=(True, False), **turn))
        image = cv2.resize(whole, target[::-1], interpolation=cv2.INTER_LINEAR)[:, ::-1]
        middle = target[1] / 2, target[0] / 2
        steps = [
            *([scaling(turn["scale"], turn["scale"])] if "scale" in turn else []),
            *([shearing(turn["shear"])] if "shear" in turn else []),
            *([rotation(turn["degrees"])] if "degrees" in turn else []),
        ]
        matrices = [about(step, *middle) for step in steps]
        matrices += [perspective(target, turn["tilt"])] if "tilt" in turn else []
        for matrix in matrices:
            centred = translation(-0.5, -0.5) @ matrix @ translation(0.5, 0.5)
            image = cv2.warpPerspective(
                image, centred, target[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
            )
        inner = (slice(target[0] // 4, -target[0] // 4), slice(target[1] // 4, -target[1] // 4))
        errors.append(np.abs(composed[inner].astype(int) - image[inner]).mean())
    # Measured: 0.6, 1.8, 1.9 and 2.4 levels on average.
    assert np.mean(errors) < (1 if not turn else 3)
    assert max(errors) < (1.5 if not turn else 6)


def test_a_sixth_is_a_sixth_whatever_the_last_bit():
    for factor in range(2, 13):
        size = 24 * factor, 36 * factor
        for degrees in (0.0, 33.0, 45.0, 90.0):
            sampling = plan_sampling(
                augmentation(size, image_size=(24, 36), crop_size=None, degrees=degrees), size, dct=False
            )
            assert sampling.blocks == (factor, factor)
            assert sampling.sigma == (0.0, 0.0)


@settings(max_examples=150, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    target=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    degrees=st.just(0.0) | st.floats(-180, 180),
    scale=st.just(1.0) | st.floats(0.1, 10),
    shift=st.tuples(st.floats(-500, 500), st.floats(-500, 500)) | st.just((0.0, 0.0)),
    mirrored=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_region_changes_no_pixel(size, target, degrees, scale, shift, mirrored, seed):
    """Also for windows that leave the frame, or are far outside of it."""
    picture = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    geometry = augmentation(size, image_size=target, crop_size=None, degrees=degrees, scale=scale)
    geometry = Geometry(compose(translation(*shift), geometry.matrix), geometry.size)
    sampling = plan_sampling(geometry, size, dct=False, mirrored=mirrored)
    border = cv2.BORDER_REFLECT if mirrored else cv2.BORDER_REPLICATE
    part = resample(sampling.region.of(picture), sampling, geometry, border)
    everything = type(sampling)(type(sampling.region)(0, 0, size[1], size[0]), 1, sampling.blocks, sampling.sigma)
    whole = resample(picture, everything, geometry, border)
    shown = np.ones(geometry.size, bool) if mirrored else shows_frame(geometry, size)
    # OpenCV rounds coordinates to 1/1024 of a pixel after adding the region's corner: ties may fall the other way.
    differ = np.abs(part.astype(int) - whole)[shown]
    assert differ.size == 0 or differ.max() <= 10
    assert differ.size == 0 or (differ > 0).mean() <= 0.01


def test_the_frame_is_where_masks_end():
    ones = np.full((30, 41), 255, np.uint8)
    for options in ({}, {"degrees": 12.3}, {"scale": 0.4, "tilt": [0.02, 0.1, 0, -0.1, 0.05, 0, -0.03, 0]}):
        geometry = augmentation((30, 41), image_size=(97, 89), crop_size=None, resize_mode="fit", **options)
        mask = warp(ones, geometry, nearest=True, border=cv2.BORDER_CONSTANT) > 0
        assert (shows_frame(geometry, (30, 41)) != mask).mean() <= 1e-3


@pytest.mark.parametrize("mirror", [(False, False), (True, True)])
def test_a_plain_resize_of_any_size_is_decoded_small(mirror):
    # The inverse of the matrix often ends a last bit beyond the frame; that is not outside of it.
    random = np.random.default_rng(0)
    for height, width in random.integers(700, 6000, (300, 2)).tolist():
        geometry = augmentation((height, width), image_size=(300, 320), crop_size=None, mirror=mirror)
        sampling = plan_sampling(geometry, (height, width), dct=True)
        assert sampling.dct_scale > 1, (height, width)
        assert max(sampling.sigma) < 1, (height, width)
