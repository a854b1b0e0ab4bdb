"""Photos decoded in part, at a smaller scale, once or again: the pixels are those of the whole photo."""

import io
import subprocess
import sys

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset_handlers import jpeg
from dataset_handlers.errors import BadSampleError
from dataset_handlers.images import decode_photo
from dataset_handlers.photo import Photo, _fill_beside
from dataset_handlers.transforms.geometry import Geometry, augmentation, compose, scaling, translation
from dataset_handlers.transforms.sampling import Region, Sampling, plan_sampling, resample, shows_frame, warp
from tests.handlers.support import REPOSITORY
from tests.handlers.test_jpeg import KINDS
from tests.handlers.test_jpeg import PHOTO as ASTRONAUT

PHOTO = np.ascontiguousarray(ASTRONAUT[30:331, 60:419])
FILES = {kind: encode(PHOTO) for kind, encode in KINDS.items()}


def encoded(picture, kind, **options):
    stream = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(stream, kind, **options)
    return stream.getvalue()


def from_whole(data, geometry, border):
    """The output from a whole decode, by the decoder that knows no regions."""
    header = jpeg.read_header(data)
    size = header.height, header.width
    mirrored = border != cv2.BORDER_CONSTANT
    plan = plan_sampling(geometry, size, dct=True, mirrored=mirrored)
    everything = Sampling(Region(0, 0, size[1], size[0]), plan.dct_scale, plan.blocks, plan.sigma)
    whole = jpeg._decode_whole(data, header, plan.dct_scale)
    if mirrored:
        return resample(whole, everything, geometry, border)
    output = resample(whole, everything, geometry, cv2.BORDER_REPLICATE).copy()
    output[~shows_frame(geometry, size)] = 0
    return output


@settings(max_examples=150, derandomize=True)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    image_size=st.none() | st.tuples(st.integers(10, 500), st.integers(10, 500)),
    mode=st.sampled_from(["stretch", "fit", "cover"]),
    degrees=st.just(0.0) | st.floats(-180, 180),
    scale=st.just(1.0) | st.floats(0.3, 3),
    shear=st.just(0.0) | st.floats(-30, 30),
    tilt=st.none() | st.lists(st.floats(-0.15, 0.15), min_size=8, max_size=8),
    window=st.none() | st.tuples(*[st.floats(-0.4, 1.2)] * 2, *[st.integers(1, 200)] * 2),
    border=st.sampled_from([cv2.BORDER_REFLECT, cv2.BORDER_CONSTANT]),
)
def test_a_region_changes_no_pixel(kind, image_size, mode, degrees, scale, shear, tilt, window, border):
    geometry = augmentation(
        PHOTO.shape[:2], image_size=image_size, crop_size=None, resize_mode=mode, degrees=degrees, scale=scale,
        shear=shear, tilt=tilt,
    )  # fmt: skip
    if window:  # anywhere: a part of it may lie outside of the frame, or of the canvas
        x, y, height, width = window
        shift = translation(-round(x * geometry.size[1]), -round(y * geometry.size[0]))
        geometry = Geometry(compose(shift, geometry.matrix), (height, width))
    data = FILES[kind]
    try:
        geometry.check()
    except ValueError:
        assume(not tilt)  # a window beside a tilted canvas may show the horizon
    got = Photo(data, "x").warp(geometry, border=border)
    np.testing.assert_array_equal(Photo(data, "x", reused=True).warp(geometry, border=border), got)
    difference = np.abs(from_whole(data, geometry, border).astype(int) - got)
    # OpenCV rounds coordinates to 1/1024 of a pixel after the region's corner is added: a tie may fall the other way.
    assert difference.max() <= 8
    assert (difference > 0).mean() <= 1e-3


def test_a_reused_photo_gives_what_a_new_one_gives():
    for data in (FILES["4:2:0"], encoded(PHOTO, "PNG")):
        reused = Photo(data, "x", reused=True)
        for number in range(12):
            geometry = augmentation(
                PHOTO.shape[:2], image_size=(40 * number + 30, 500 - 40 * number), crop_size=(25, 20),
                degrees=(number % 3) * 31.0, crop_position=(number / 12, 0.4),
            )  # fmt: skip
            np.testing.assert_array_equal(reused.warp(geometry), Photo(data, "x").warp(geometry))
        np.testing.assert_array_equal(reused.pixels(), Photo(data, "x").pixels())


def test_what_is_no_jpeg_is_warped_as_pixels_are():
    geometry = augmentation(PHOTO.shape[:2], image_size=(99, 140), crop_size=(60, 60), degrees=12.0)
    wanted = warp(PHOTO, geometry)
    for data in (encoded(PHOTO, "PNG"), encoded(PHOTO, "BMP"), encoded(PHOTO, "WEBP", lossless=True)):
        photo = Photo(data, "x")
        assert photo.size == PHOTO.shape[:2]
        np.testing.assert_array_equal(photo.pixels(), PHOTO)
        np.testing.assert_array_equal(photo.warp(geometry), wanted)
    np.testing.assert_array_equal(Photo.from_pixels(PHOTO).warp(geometry), wanted)
    np.testing.assert_array_equal(Photo.from_pixels(PHOTO).pixels(), PHOTO)


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_images(kind):
    difference = Photo(FILES[kind], "x").pixels().astype(int) - decode_photo(FILES[kind], "x")
    assert np.abs(difference).max() <= 1  # Pillow's is the same library, perhaps of another version


def test_filling_beside_the_photo():
    geometry = augmentation((301, 359), image_size=(200, 300), crop_size=None, resize_mode="fit")
    photo = Photo(FILES["4:4:4"], "x").warp(geometry, border=cv2.BORDER_CONSTANT, fill=77)
    beside = ~shows_frame(geometry, (301, 359))
    assert 0.1 < beside.mean() < 0.3
    assert (photo[beside] == 77).all()
    assert (photo[~beside] != 77).any()


SCALES = st.floats(0.05, 20).flatmap(lambda scale: st.sampled_from([scale, -scale]))
EDGES = st.one_of(st.integers(-60, 120).map(lambda n: n / 2), st.floats(-60, 120))


@settings(max_examples=200, derandomize=True)
@given(scales=st.tuples(SCALES, SCALES), corner=st.tuples(EDGES, EDGES), shear=st.sampled_from([0, 0, 0.2]))
def test_a_frame_without_rotation_is_filled_beside_as_any_other(scales, corner, shear):
    slanted = np.array([[1, shear, 0], [0, 1, 0], [0, 0, 1]])
    geometry = Geometry(compose(translation(*corner), slanted, scaling(*scales)), (37, 53))
    output = np.full((37, 53, 3), 7, np.uint8)
    _fill_beside(output, geometry, (20, 30), (1, 2, 3))
    wanted = np.where(shows_frame(geometry, (20, 30))[..., None], 7, (1, 2, 3))
    np.testing.assert_array_equal(output, wanted)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_upright_turns_as_the_tag_says_and_stored_rows_stay(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(PHOTO, "JPEG", quality=95, exif=exif)
    stored, turned = Photo(data, "x"), Photo(data, "x", upright=True)
    assert stored.size == PHOTO.shape[:2]
    turns = {1: 0, 3: 2, 6: -1, 8: 1}[orientation]
    expected = np.rot90(stored.pixels(), turns)
    assert turned.size == expected.shape[:2]
    assert np.abs(turned.pixels().astype(int) - expected).max() <= 1


def test_too_large_is_refused_by_the_header():
    tall = encoded(np.zeros((33_000, 2, 3), np.uint8), "JPEG")
    with pytest.raises(BadSampleError, match="tall.jpg: 2×33000 pixels are too many"):
        Photo(tall, "tall.jpg")


_HUGE = """
import resource, sys
from dataset_handlers.photo import Photo
from dataset_handlers.transforms.geometry import augmentation
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
photo = Photo(open(sys.argv[1], "rb").read(), "huge.jpg")
crop = photo.warp(augmentation(photo.size, image_size=None, crop_size=(320, 320), crop_position=(0.5, 0.2)))
small = photo.warp(augmentation(photo.size, image_size=(2048, 2048), crop_size=(320, 320), degrees=10.0))
print(photo.size, crop.mean() > 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(jpeg._turbojpeg() is None, reason="there is no library of TurboJPEG 3 here")
def test_a_crop_of_16k_by_16k_takes_little_memory(tmp_path):
    row = np.tile(np.ascontiguousarray(skimage.data.astronaut()[:256]), (1, 32, 1))
    file = tmp_path / "huge.jpg"
    file.write_bytes(encoded(np.tile(row, (64, 1, 1)), "JPEG", quality=40))
    done = subprocess.run(
        [sys.executable, "-c", _HUGE, str(file)], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    *said, kilobytes = done.stdout.split()
    assert said == ["(16384,", "16384)", "True"]
    # All of it would be 768 MiB.
    assert int(kilobytes) < 160 * 1024
