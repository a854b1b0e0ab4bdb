"""Regions of JPEGs against whole decodes, by TurboJPEG, simplejpeg and Pillow."""

import ctypes
import io
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset_handlers import jpeg
from dataset_handlers.errors import BadSampleError
from dataset_handlers.jpeg import JpegError, decode_region, read_header
from dataset_handlers.photo import Photo
from dataset_handlers.transforms.geometry import augmentation
from tests.handlers.support import REPOSITORY

PHOTO = np.ascontiguousarray(skimage.data.astronaut())
SIZES = [(1, 1), (7, 5), (17, 33), (3, 70), (121, 203), (64, 96)]

needs_turbojpeg = pytest.mark.skipif(jpeg._turbojpeg() is None, reason="there is no library of TurboJPEG 3 here")


def by_pillow(photo, **options):
    stream = io.BytesIO()
    (photo if isinstance(photo, Image.Image) else Image.fromarray(photo)).save(stream, "JPEG", **options)
    return stream.getvalue()


def by_opencv(photo, factor):
    return cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor])[1].tobytes()


KINDS = {
    "4:4:4": lambda photo: by_pillow(photo, subsampling=0),
    "4:2:2": lambda photo: by_pillow(photo, subsampling=1),
    "4:2:0": lambda photo: by_pillow(photo, subsampling=2),
    "4:4:0": lambda photo: by_opencv(photo, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440),
    "4:1:1": lambda photo: by_opencv(photo, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411),
    "grey": lambda photo: by_pillow(np.ascontiguousarray(photo[..., 1])),
    "RGB": lambda photo: by_pillow(photo, subsampling=0, keep_rgb=True),
    "progressive": lambda photo: by_pillow(photo, progressive=True),
    "progressive 4:2:2": lambda photo: by_pillow(photo, progressive=True, subsampling=1),
    "restarts": lambda photo: by_pillow(photo, restart_marker_blocks=1),
    "restarts by row": lambda photo: by_pillow(photo, restart_marker_rows=1),
    "coarse": lambda photo: by_pillow(photo, quality=20, optimize=True),
}


def cut(size):
    return np.ascontiguousarray(PHOTO[40 : 40 + size[0], 100 : 100 + size[1]])


def whole(data, header, scale):
    """All of a photo at a DCT scale, by simplejpeg, which knows nothing of regions."""
    return jpeg._decode_whole(data, header, scale)


@needs_turbojpeg
@pytest.mark.parametrize("kind", KINDS)
def test_a_region_is_a_part_of_the_whole(kind):
    random = np.random.default_rng(0)
    for size in SIZES:
        data = KINDS[kind](cut(size))
        header = read_header(data)
        assert (header.height, header.width) == size
        for scale in (1, 2, 4, 8) if min(size) >= 16 else (1,):
            expected = whole(data, header, scale)
            assert expected.shape[:2] == (-(-size[0] // scale), -(-size[1] // scale))
            for _ in range(25):
                left, top = (int(random.integers(0, side)) // scale * scale for side in (size[1], size[0]))
                right, bottom = int(random.integers(left + 1, size[1] + 1)), int(random.integers(top + 1, size[0] + 1))
                got = decode_region(data, header, left, top, right, bottom, scale)
                part = expected[top // scale : -(-bottom // scale), left // scale : -(-right // scale)]
                np.testing.assert_array_equal(got, part)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_photo_is_pillows(kind):
    for size in SIZES:
        data = KINDS[kind](cut(size))
        pillow = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
        got = decode_region(data, read_header(data), 0, 0, size[1], size[0])
        # The same library decodes for Pillow, perhaps of another version.
        assert np.abs(got - pillow).max() <= 1


@needs_turbojpeg
@settings(max_examples=60, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    subsampling=st.integers(0, 2),
    progressive=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_regions_of_noise(size, subsampling, progressive, seed):
    random = np.random.default_rng(seed)
    noise = random.integers(0, 256, (*size, 3), np.uint8)
    data = by_pillow(noise, subsampling=subsampling, progressive=progressive, quality=95)
    header = read_header(data)
    left, top = int(random.integers(size[1])), int(random.integers(size[0]))
    right, bottom = int(random.integers(left, size[1])) + 1, int(random.integers(top, size[0])) + 1
    got = decode_region(data, header, left, top, right, bottom)
    np.testing.assert_array_equal(got, whole(data, header, 1)[top:bottom, left:right])


@needs_turbojpeg
def test_an_arithmetic_jpeg():
    """Rare, but within the standard (ITU-T T.81, annex D); browsers do not read it, libjpeg-turbo may."""
    library = jpeg._turbojpeg()._library
    quality, subsampling, arithmetic = 3, 4, 14
    library.tj3Init.restype = ctypes.c_void_p
    handle = library.tj3Init(0)
    for name, value in ((arithmetic, 1), (quality, 90), (subsampling, 2)):
        if library.tj3Set(handle, name, value):
            pytest.skip("this library writes no arithmetic coding")
    photo, written, size = cut((121, 203)), ctypes.c_void_p(), ctypes.c_size_t()
    library.tj3Compress8.argtypes = [
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int),
        *(ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_size_t)),
    ]
    failed = library.tj3Compress8(handle, photo.ctypes.data, 203, 0, 121, 0, ctypes.byref(written), ctypes.byref(size))
    if failed:
        pytest.skip("this library writes no arithmetic coding")
    data = ctypes.string_at(written, size.value)
    assert b"\xff\xc9" in data[:700]  # SOF9
    header = read_header(data)
    everything = decode_region(data, header, 0, 0, 203, 121)
    assert np.abs(everything.astype(int) - photo).mean() < 4
    np.testing.assert_array_equal(decode_region(data, header, 50, 60, 99, 80), everything[60:80, 50:99])


DATA = by_pillow(PHOTO, quality=90)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        DATA[:-2],
        DATA[: len(DATA) // 2],
        b"\x89PNG" + DATA[4:],
        DATA + b"\0" * 100,
        by_pillow(Image.fromarray(PHOTO).convert("CMYK")),
    ],
    ids=["empty", "start", "no frame", "no end", "half", "PNG", "tail", "CMYK"],
)
def test_what_is_left_to_pillow(data):
    assert read_header(data) is None


def test_damage_within_the_region_is_an_error_and_the_next_photo_is_well():
    header = read_header(DATA)
    middle = len(DATA) // 2
    cut_short = DATA[:middle] + b"\xff\xd9"
    with pytest.raises(JpegError):
        decode_region(cut_short, header, 0, 0, 512, 512)
    for length in (4, 100, 300, 1000):  # headers, too
        assert read_header(DATA[:length] + b"\xff\xd9") is None or length > 650
        assert read_header(DATA) == header
    assert read_header(b"\xff\xd8\xff\xd9") is None  # not the header of the photo before
    for scale in (1, 4):
        part = decode_region(DATA, header, 64, 64, 128, 128, scale)
        np.testing.assert_array_equal(
            part, whole(DATA, header, scale)[64 // scale : 128 // scale, 64 // scale : 128 // scale]
        )


def test_damage_never_raises_anything_else():
    random = np.random.default_rng(0)
    small = [KINDS[kind](cut((40, 56))) for kind in ("4:2:0", "progressive", "restarts", "grey")]
    outcomes = set()
    for number in range(400):
        data = bytearray(small[number % 4])
        for place in random.integers(2, len(data) - 2, 2):
            data[place] = random.integers(256)
        header = read_header(bytes(data))
        if header is None or header.height * header.width > 10**7:
            outcomes.add("not ours")
            continue
        try:
            decode_region(bytes(data), header, 0, 0, header.width, header.height)
            outcomes.add("decoded")
        except JpegError:
            outcomes.add("refused")
    assert outcomes == {"not ours", "decoded", "refused"}


_PIXELS = """
import hashlib, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from dataset_handlers import jpeg
from dataset_handlers.photo import Photo
from dataset_handlers.transforms.geometry import augmentation
found = jpeg._turbojpeg() is not None
digest = hashlib.sha256()
for path in sorted(Path(sys.argv[2]).iterdir()):
    photo = Photo(path.read_bytes(), path.name)
    digest.update(repr(photo.size).encode())
    for size, crop in (((37, 41), None), ((200, 300), (90, 80)), ((60, 60), (20, 20)), (None, (1, 3))):
        for degrees in (0.0, 17.0):
            if crop and size is None and min(photo.size) < 3:
                continue
            geometry = augmentation(photo.size, image_size=size, crop_size=crop, degrees=degrees)
            digest.update(photo.warp(geometry).tobytes())
print(found, digest.hexdigest())
"""


def test_pixels_are_the_same_without_turbojpeg(tmp_path):
    """A module of that name that brings no library stands before the real one."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for kind, encode in KINDS.items():
        for size in (*SIZES, (300, 401)):
            (photos / f"{kind.replace(':', '')} {size}.jpg").write_bytes(encode(cut(size)))
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "turbojpeg.py").touch()
    (tmp_path / "shown").mkdir()
    said = {}
    for name in ("shown", "hidden"):
        line = [sys.executable, "-c", _PIXELS, str(tmp_path / name), str(photos)]
        done = subprocess.run(line, cwd=REPOSITORY, env=os.environ, capture_output=True, text=True, check=True)
        said[name] = done.stdout.split()
    assert said["hidden"][0] == "False"
    assert said["shown"][0] == str(jpeg._turbojpeg() is not None)
    assert said["hidden"][1] == said["shown"][1]


def test_a_damaged_photo_says_which():
    data = DATA[: len(DATA) // 3] + b"\xff\xd9"
    geometry = augmentation((512, 512), image_size=(100, 100), crop_size=None)
    with pytest.raises(BadSampleError, match="broken.jpg: cannot be decoded"):
        Photo(data, "broken.jpg").warp(geometry)
    with pytest.raises(BadSampleError, match="broken.jpg: cannot be decoded"):
        Photo(data, "broken.jpg").pixels()
