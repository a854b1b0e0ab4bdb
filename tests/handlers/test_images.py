"""What raw roots really hold: either the right pixels come out, or a reason; never half a picture."""

import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from dataset_handlers.errors import BadSampleError
from dataset_handlers.images import decode_mask, decode_photo, encode_jpeg, encode_png, read_raw

PHOTO = np.ascontiguousarray(skimage.data.astronaut()[60:156, 150:278])
GREY = np.ascontiguousarray(PHOTO[..., 1])


def encoded(picture, kind, **options):
    stream = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(stream, kind, **options)
    return stream.getvalue()


FILES = {
    "jpeg": encoded(PHOTO, "JPEG", quality=90),
    "progressive": encoded(PHOTO, "JPEG", quality=90, progressive=True),
    "png": encoded(PHOTO, "PNG"),
    "grey png": encoded(GREY, "PNG"),
}


def outcome(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of damage that it can live with
        try:
            return decode_photo(data, "x.jpg")
        except BadSampleError:
            return None


@pytest.mark.parametrize("kind", FILES)
def test_a_truncated_file_is_refused_or_whole(kind):
    data = FILES[kind]
    whole = decode_photo(data, "x")
    lengths = {*range(0, len(data), max(1, len(data) // 200)), *range(len(data) - 30, len(data))}
    refused = 0
    for length in sorted(lengths):
        got = outcome(data[:length])
        refused += got is None
        assert got is None or np.array_equal(got, whole), length  # only a PNG's trailer can go without loss
    assert refused > 150


@pytest.mark.parametrize("kind", ["png", "grey png"])
def test_a_flipped_bit_in_a_png_is_refused_or_harmless(kind):
    data = bytearray(FILES[kind])
    whole = decode_photo(bytes(data), "x")
    random = np.random.default_rng(0)
    for _ in range(300):
        bit = int(random.integers(len(data) * 8))
        data[bit // 8] ^= 1 << bit % 8
        got = outcome(bytes(data))
        assert got is None or np.array_equal(got, whole)
        data[bit // 8] ^= 1 << bit % 8


def test_damaged_files_raise_nothing_else():
    random = np.random.default_rng(1)
    orientation = Image.Exif()
    orientation[0x0112] = 6
    sources = [
        *FILES.values(),
        encoded(PHOTO, "JPEG", exif=orientation),
        encoded(PHOTO, "TIFF"),
        encoded(PHOTO, "WEBP"),
    ]
    for data in sources:
        for _ in range(120):
            damaged = bytearray(data)
            for place in random.integers(0, min(len(data), 400), 3):
                damaged[place] = random.integers(256)
            outcome(bytes(damaged))


def test_an_exif_tag_of_a_wrong_type_is_refused_or_ignored():
    # IFD with one entry: Orientation as ASCII.
    tiff = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHI4s", 0x0112, 2, 2, b"6\0\0\0") + bytes(4)
    outcome(encoded(PHOTO, "JPEG", exif=b"Exif\0\0" + tiff))


@pytest.mark.parametrize(
    "data", [b"\0" * 500, b"just some text\n" * 20, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_picture_is_refused(data):
    for decode in (decode_photo, decode_mask):
        with pytest.raises(BadSampleError, match="photo.jpg: is none of JPEG, PNG"):
            decode(data, "photo.jpg")


def test_reasons_are_the_same_each_time():
    """They go into the manifest, and so into the sha256 of the archive."""
    jpeg = encoded(PHOTO, "JPEG")
    damaged = [b"nothing", jpeg[: len(jpeg) // 2], encoded(PHOTO, "PNG")[:-40], jpeg[:30], b"II*\0" + bytes(20)]
    for data in damaged:
        reasons = set()
        for _ in range(3):
            with pytest.raises(BadSampleError) as refusal:
                decode_photo(data, "a.jpg")
            reasons.add(str(refusal.value))
        (reason,) = reasons
        assert "0x" not in reason.replace("0x…", "")


def test_an_empty_file_is_called_empty(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(BadSampleError, match="a.jpg: the file is empty"):
        decode_photo(read_raw(tmp_path / "a.jpg"), "a.jpg")


def test_a_missing_file_and_a_folder_are_bad_samples(tmp_path):
    with pytest.raises(BadSampleError, match="gone.jpg: No such file"):
        read_raw(tmp_path / "gone.jpg")
    with pytest.raises(BadSampleError, match="Is a directory"):
        read_raw(tmp_path)


def test_grey_becomes_three_equal_channels():
    np.testing.assert_array_equal(decode_photo(FILES["grey png"], "x"), np.repeat(GREY[..., None], 3, 2))


def test_a_palette_is_looked_up():
    palette = Image.fromarray(PHOTO).quantize(64)
    np.testing.assert_array_equal(decode_photo(encoded(palette, "PNG"), "x"), np.asarray(palette.convert("RGB")))


def test_a_palette_with_transparency_and_alpha_lose_it():
    palette = Image.fromarray(PHOTO).quantize(16)
    data = encoded(palette, "PNG", transparency=bytes(range(16)))
    np.testing.assert_array_equal(outcome(data), np.asarray(palette.convert("RGB")))
    with_alpha = np.dstack([PHOTO, GREY])
    np.testing.assert_array_equal(decode_photo(encoded(with_alpha, "PNG"), "x"), PHOTO)


def test_cmyk_is_converted():
    red = Image.new("RGB", (16, 16), (255, 0, 0)).convert("CMYK")
    photo = decode_photo(encoded(red, "JPEG", quality=95), "x")
    assert photo.shape == (16, 16, 3)
    assert np.abs(photo.astype(int) - [255, 0, 0]).max() <= 4


def test_16_bits_keep_their_upper_eight():
    deep = (GREY.astype(np.uint16) << 8) + 77
    got = decode_photo(encoded(Image.fromarray(deep), "PNG"), "x")
    np.testing.assert_array_equal(got, np.repeat(GREY[..., None], 3, 2))
    np.testing.assert_array_equal(decode_mask(encoded(Image.fromarray(deep), "PNG"), "x"), GREY)
    _, colour = cv2.imencode(".png", (PHOTO[..., ::-1].astype(np.uint16) << 8) + 77)
    np.testing.assert_array_equal(decode_photo(colour.tobytes(), "x"), PHOTO)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    # What each value means (EXIF 2.3, 4.6.4): how the stored rows and columns lie in the upright picture.
    undo = {
        1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1), 6: lambda p: np.rot90(p, -1), 7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
        8: lambda p: np.rot90(p, 1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(PHOTO, "PNG", exif=exif)
    np.testing.assert_array_equal(decode_photo(data, "x", upright=True), undo[orientation](PHOTO))
    # What was annotated stays as it is stored: that is what annotations are drawn on.
    np.testing.assert_array_equal(decode_photo(data, "x"), PHOTO)


def test_pictures_too_long_for_a_warp_are_refused():
    with pytest.raises(BadSampleError, match="too many"):
        decode_photo(encoded(np.zeros((2, 33_000, 3), np.uint8), "PNG"), "x")


def bomb(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(2**31 - 1, 1), (100_000, 100_000), (16_385, 16_384)])
def test_a_huge_declared_size_is_refused_by_its_header(size):
    with pytest.raises(BadSampleError, match="x.png"):
        decode_photo(bomb(*size), "x.png")


def test_a_declared_size_that_the_data_does_not_fill_is_refused():
    with pytest.raises(BadSampleError, match="x.png"):
        decode_photo(bomb(500, 500), "x.png")


@pytest.mark.parametrize(
    "picture",
    [
        (GREY > 100).astype(np.uint8) * 255,
        np.zeros((7, 13), np.uint8),
        np.full((7, 13), 255, np.uint8),
        ((GREY > 100).astype(np.uint8) * 255)[..., None],
        GREY,
        np.where(GREY > 100, 254, 0).astype(np.uint8),
        np.where(GREY > 100, 255, 1).astype(np.uint8),
        GREY[:, ::-1],
        PHOTO,
        np.full((1, 1), 255, np.uint8),
    ],
    ids=["binary", "black", "white", "channel", "grey", "254", "1-255", "view", "colour", "pixel"],
)
def test_png_is_exact_to_every_decoder(picture):
    data = encode_png(picture)
    plain = picture[..., 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture
    with Image.open(io.BytesIO(data)) as opened:
        np.testing.assert_array_equal(np.asarray(opened.convert("RGB" if plain.ndim == 3 else "L")), plain)
        assert (opened.mode == "1") == (set(np.unique(plain)) <= {0, 255} and plain.ndim == 2)
    by_cv2 = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(by_cv2[..., ::-1] if plain.ndim == 3 else by_cv2, plain)


def test_jpeg_at_95_is_close():
    data = encode_jpeg(PHOTO, 95)
    got = decode_photo(data, "x").astype(int)
    # 4:2:0 blurs colour at edges; lightness is what 95 keeps: below 2 levels on average, for all channels below 4.
    lightness = np.array([0.299, 0.587, 0.114])
    assert np.abs((got - PHOTO) @ lightness).mean() < 2
    assert np.abs(got - PHOTO).mean() < 4
    assert encode_jpeg(PHOTO, 30) != data


def test_channels_are_not_swapped():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    for data in (encode_png(red), encode_jpeg(red, 95)):
        assert np.abs(decode_photo(data, "x").astype(int) - red).max() <= 3
