"""Every decoder gives the same pixels: ours, Pillow, TensorFlow."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import simplejpeg
from client_archives import photo
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset_client.readers.features import ImageFeature
from dataset_client.readers.images import decode_image
from dataset_client.readers.png import plane_size, read_plane

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs, at import
    tf = pytest.importorskip("tensorflow")

SIZES = [(48, 64), (47, 61), (1, 1), (8, 9), (17, 3)]
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def picture(height, width):
    rng = np.random.default_rng([height, width])
    y, x = np.mgrid[:height, :width]
    edges = np.stack([x * 5 % 256, y * 7 % 256, (x * y) % 256], axis=-1)
    return (edges + rng.integers(0, 60, (height, width, 3))).clip(0, 255).astype(np.uint8)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def by_pillow(data, channels):
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert(MODES[channels]))
    return pixels[..., None] if channels == 1 else pixels


def check(data, channels, encoding, *, fast):
    """Equal to Pillow's pixels, with room to decode into and without; ``fast`` says whether that room is used."""
    wanted = by_pillow(data, channels)
    feature = ImageFeature((None, None, channels), encoding)
    room = np.full(wanted.shape, 77, np.uint8)
    found = decode_image(memoryview(data), feature, room)
    assert (found is room) == fast
    for pixels in (found, decode_image(data, feature), decode_image(data, ImageFeature((None, None, channels), ""))):
        assert (pixels.dtype, pixels.flags.writeable) == (np.uint8, True)
        np.testing.assert_array_equal(pixels, wanted)
    return wanted


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("options", [{"quality": 95}, {"quality": 40}, {"quality": 90, "progressive": True}])
def test_jpeg_photos(size, sampling, options):
    data = saved(Image.fromarray(picture(*size)), "jpeg", subsampling=sampling, **options)
    wanted = check(data, 3, "jpeg", fast=True)
    theirs = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    np.testing.assert_array_equal(theirs, wanted)


@pytest.mark.parametrize("sampling", ["440", "411"])
def test_rare_sampling(sampling):
    check(simplejpeg.encode_jpeg(picture(47, 61), 90, colorsubsampling=sampling), 3, "jpeg", fast=True)


def test_grey_jpegs():
    data = saved(Image.fromarray(picture(47, 61)).convert("L"), "jpeg", quality=95)
    check(data, 3, "jpeg", fast=True)
    check(data, 1, "jpeg", fast=True)


def test_jpegs_that_are_left_to_pillow():
    colour = saved(Image.fromarray(picture(47, 61)), "jpeg")
    check(colour, 1, "jpeg", fast=False)  # its grey is not the file's
    check(colour, 4, "jpeg", fast=False)
    check(saved(Image.fromarray(picture(47, 61)).convert("CMYK"), "jpeg"), 3, "jpeg", fast=False)
    check(colour + b"what cameras leave behind", 3, "jpeg", fast=True)


def test_a_rotation_noted_beside_the_pixels_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    check(saved(Image.fromarray(picture(47, 61)), "jpeg", exif=exif), 3, "jpeg", fast=True)


def test_a_jpeg_that_is_cut_off_is_an_error():
    for feature in (ImageFeature((None, None, 3), "jpeg"), ImageFeature((48, 64, 3), "")):
        with pytest.raises(ValueError, match="cannot be decoded"):
            decode_image(photo(0)[:-200], feature)


def plane_png(bits, *, filters=0, depth=1, chunk=10**9, extra=b"", level=1):
    """A PNG of one bit a pixel as handlers write it, and in ways in which they do not."""
    height, width = bits.shape
    rows = np.full((height, 1 + (width + 7) // 8), filters, np.uint8)
    rows[:, 1:] = np.packbits(bits, axis=1)
    stream = zlib.compress(rows.tobytes(), level)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)), (b"tEXt", extra)][: 1 + bool(extra)]
    chunks += [(b"IDAT", stream[at : at + chunk]) for at in range(0, len(stream), chunk)] + [(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


@settings(max_examples=100)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.sampled_from([7, 60, 10**9]))
def test_masks_of_one_bit(height, width, seed, chunk):
    bits = np.random.default_rng(seed).random((height, width)) < 0.5
    wanted = check(plane_png(bits, chunk=chunk), 1, "png", fast=True)
    np.testing.assert_array_equal(wanted[..., 0], bits * np.uint8(255))


def test_tensorflow_sees_the_same_mask():
    data = plane_png(picture(47, 61)[..., 0] > 99)
    np.testing.assert_array_equal(tf.io.decode_png(data, channels=1).numpy(), check(data, 1, "png", fast=True))


def test_pngs_that_are_left_to_pillow():
    bits = picture(20, 31)[..., 0] > 99
    check(plane_png(bits, filters=2), 1, "png", fast=False)
    check(plane_png(bits, extra=b"a\0b"), 1, "png", fast=False)
    check(plane_png(bits), 3, "png", fast=False)
    colour = Image.fromarray(picture(20, 31))
    for mode, channels in (("L", 1), ("RGB", 3), ("RGBA", 4), ("P", 3), ("LA", 1), ("RGB", 1)):
        check(saved(colour.convert(mode), "png"), channels, "png", fast=False)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4), st.integers(1, 10**6))
def test_damaged_masks_are_pillows_pixels_or_errors(changes, end):
    """What our own reader reads, it reads as Pillow does; all else it leaves alone."""
    data = bytearray(plane_png(picture(20, 31)[..., 0] > 99))
    for position, value in changes:
        data[position % len(data)] = value
    data = bytes(data[: end % len(data) + 1 if end % 3 else None])
    size = plane_size(memoryview(data))
    if size is None or size[0] * size[1] > 10**6:
        return
    room = np.empty((*size, 1), np.uint8)
    if read_plane(memoryview(data), room):
        np.testing.assert_array_equal(room, by_pillow(data, 1))
