"""The file formats, without TensorFlow."""

import contextlib
import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from client_archives import (
    FEATURES,
    chunk,
    encode_example,
    example,
    make_files,
    mask,
    mask_pixels,
    photo,
    record,
    unpack_to,
    varint,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset_client import Dataset, errors
from dataset_client.readers import canonical
from dataset_client.readers.example_proto import BytesList, FloatList, Int64List, decode_example, packed_integers
from dataset_client.readers.features import ImageFeature, TensorFeature, TextFeature, parse_features
from dataset_client.readers.images import decode_image
from dataset_client.readers.tfrecord import masked, read_records
from dataset_handlers import example_proto as handlers

FLOATS = st.floats(width=32, allow_nan=False)
LISTS = st.one_of(
    st.lists(st.binary(max_size=20), min_size=1),
    st.lists(FLOATS, min_size=1),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1),
)


@pytest.fixture
def dataset(tmp_path):
    return Dataset.open(unpack_to(tmp_path / "discs"))


# --- records ------------------------------------------------------------------------------------------------


def test_the_mask_of_a_known_crc():
    assert masked(0) == 0xA282EAD8
    assert masked(0xE3069283) == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32


def test_records_and_their_offsets(tmp_path):
    path = tmp_path / "r"
    path.write_bytes(record(b"abc") + record(b"") + record(b"x" * 1000))
    assert [(item.offset, len(item.data)) for item in read_records(path)] == [(0, 3), (19, 0), (35, 1000)]


def test_an_empty_file_has_no_records(tmp_path):
    (tmp_path / "r").write_bytes(b"")
    assert list(read_records(tmp_path / "r")) == []


@pytest.mark.parametrize("position", range(19, 19 + 20))
def test_every_flipped_bit_is_found_at_its_offset(tmp_path, position):
    data = bytearray(record(b"abc") + record(b"data"))
    data[position] ^= 4
    (tmp_path / "r").write_bytes(data)
    with pytest.raises(errors.IntegrityError, match="offset 19"):
        list(read_records(tmp_path / "r"))


@pytest.mark.parametrize("length", [*range(1, 20), *range(20, 39)])
def test_every_cut_is_found(tmp_path, length):
    data = record(b"abc") + record(b"data")
    if length == 19:
        return  # a cut between records: see below
    (tmp_path / "r").write_bytes(data[:length])
    with pytest.raises(errors.IntegrityError, match=r"offset (0|19): the file ends within"):
        list(read_records(tmp_path / "r"))


def test_a_shard_that_ends_between_records_is_found(dataset):
    path = dataset.files("train")[0]
    *_, last = read_records(path)
    os.truncate(path, last.offset)
    with pytest.raises(errors.IntegrityError, match=f"offset {last.offset}: the file ends after"):
        list(dataset.as_numpy_iterator("train"))


def test_a_length_beyond_the_file_allocates_nothing(tmp_path):
    import google_crc32c

    header = struct.pack("<Q", 1 << 60)
    crc = struct.pack("<I", masked(google_crc32c.value(header)))
    (tmp_path / "r").write_bytes(header + crc + b"data")
    with pytest.raises(errors.IntegrityError, match="ends within"):
        list(read_records(tmp_path / "r"))


# --- examples -----------------------------------------------------------------------------------------------


def values_of(values):
    if isinstance(values[0], bytes):
        return BytesList(tuple(values))
    return FloatList(tuple(values)) if isinstance(values[0], float) else Int64List(tuple(values))


@given(st.dictionaries(st.text(max_size=10), LISTS, max_size=5), st.booleans())
def test_examples_packed_and_unpacked(features, packed):
    decoded = decode_example(encode_example(features, packed))
    assert decoded == {name: values_of(values) for name, values in features.items()}


@given(st.binary(max_size=60))
def test_no_bytes_crash_the_decoder(data):
    try:
        decode_example(data)
    except ValueError:
        return


def by_place(data):
    """What `canonical` finds in an Example, read as `decode_example` reads it."""
    found = {}
    for name, spot in canonical.locate(data).items():
        match spot.kind:
            case canonical.NOTHING:
                values = None
            case canonical.BYTES:
                values = BytesList(tuple(data[begin:end] for begin, end in canonical.strings(data, spot)))
            case canonical.FLOATS:
                begin, end = canonical.packed(data, spot, canonical.FLOATS)
                values = FloatList(tuple(np.frombuffer(data[begin:end], "<f4").tolist()))
            case canonical.INTEGERS:
                begin, end = canonical.packed(data, spot, canonical.INTEGERS)
                values = Int64List(tuple(packed_integers(memoryview(data)[begin:end])))
        found[name.decode()] = values
    return found


WRITTEN = st.dictionaries(st.text(max_size=10), st.one_of(LISTS, st.just([])), min_size=1, max_size=5)


@given(WRITTEN, st.integers(0, 300))
def test_examples_that_we_write_are_read_alike_with_and_without_a_walk(features, size):
    """`canonical` knows the form of all that handlers write, and finds in it what `example_proto` reads."""
    written = features | {"photo": [bytes(size)]}
    data = handlers.encode_example(written)
    wanted = {name: values_of(values) if values else None for name, values in written.items()}
    assert by_place(data) == decode_example(data) == wanted


@settings(max_examples=300)
@given(WRITTEN, st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 255)), max_size=3), st.integers(0, 3))
def test_examples_of_another_form_are_left_to_the_walk(features, changes, cut):
    """`canonical` may refuse what `example_proto` reads, but what both read is the same."""
    data = bytearray(handlers.encode_example(features))
    for position, value in changes:
        data[position % len(data)] = value
    data = bytes(data[: len(data) - cut])
    with contextlib.suppress(canonical.OtherFormError, ValueError):
        assert repr(by_place(data)) == repr(decode_example(data))  # no number equals itself if it is none


def test_what_the_format_demands():
    def entry(name, feature):
        return chunk(1, chunk(1, chunk(1, name) + chunk(2, feature)))

    ints, floats = chunk(3, chunk(1, b"\x07")), chunk(2, chunk(1, struct.pack("<f", 0.5)))
    assert decode_example(entry(b"a", ints) + entry(b"a", floats)) == {"a": FloatList((0.5,))}  # last key wins
    assert decode_example(entry(b"a", ints + floats)) == {"a": FloatList((0.5,))}  # last member wins
    assert decode_example(entry(b"a", ints + ints)) == {"a": Int64List((7, 7))}  # equal members merge
    assert decode_example(entry(b"a", chunk(9, b"?") + ints)) == {"a": Int64List((7,))}  # unknown fields
    assert decode_example(entry(b"a", b"")) == {"a": None}
    assert decode_example(b"") == {}


@pytest.mark.parametrize(
    "data",
    [b"\x0a", b"\x0a\x05a", b"\xff" * 11, b"\x0b", varint(0), chunk(1, chunk(1, chunk(2, varint(1 << 3) + b"\x01")))],
)
def test_malformed_examples(data):
    with pytest.raises(ValueError):
        decode_example(data)


# --- features -----------------------------------------------------------------------------------------------


def test_features_of_every_kind():
    assert parse_features(FEATURES) == {
        "image": ImageFeature((None, None, 3), "jpeg"),
        "mask": ImageFeature((None, None, 1), "png"),
        "key": TextFeature(),
        "area": TensorFeature((), "int64"),
        "box": TensorFeature((4,), "float32"),
    }


@pytest.mark.parametrize(
    "feature",
    [
        {"pythonClassName": "x.Video", "video": {}},
        {"pythonClassName": "x.Tensor", "tensor": {"shape": {"dimensions": ["2"]}, "dtype": "string"}},
        {"pythonClassName": "x.Tensor", "tensor": {"shape": {"dimensions": ["-1", "-1"]}, "dtype": "int64"}},
        {"pythonClassName": "x.Tensor", "tensor": {"shape": {}, "dtype": "int64", "encoding": "zlib"}},
        {"pythonClassName": "x.Image", "image": {"shape": {"dimensions": ["-1", "-1", "3"]}, "dtype": "uint16"}},
        {"pythonClassName": "x.Image"},
        None,
    ],
)
def test_features_that_are_not_supported(feature):
    with pytest.raises(errors.UnsupportedFeatureError):
        parse_features({"featuresDict": {"features": {"a": feature}}})


@pytest.mark.parametrize(
    ("shape", "count", "resolved"),
    [((), 1, ()), ((), 2, None), ((4,), 4, (4,)), ((4,), 3, None), ((None, 2), 6, (3, 2)), ((None, 2), 5, None),
     ((None,), 0, (0,)), ((None, 0), 0, None), ((0, 3), 0, (0, 3))],
)  # fmt: skip
def test_shapes(shape, count, resolved):
    assert TensorFeature(shape, "int64").resolve_shape(count) == resolved


# --- numpy --------------------------------------------------------------------------------------------------


def test_examples_as_numpy(dataset):
    items = list(dataset.as_numpy_iterator("train"))
    assert len(items) == dataset.splits["train"] == 5
    for index, item in enumerate(items):
        assert item["image"].dtype == np.uint8
        assert (item["image"] == np.asarray(Image.open(io.BytesIO(photo(index))))).all()
        assert item["mask"].shape == (48, 64, 1)
        assert (item["mask"][:, :, 0] == mask_pixels(index)).all()
        assert item["key"] == f"photo-{index}-ü"
        assert (item["area"].dtype, item["area"]) == (np.int64, index * 1000 - 1)
        assert (item["box"].dtype, item["box"].shape) == (np.float32, (4,))
        assert item["box"][0] == 0.25 * index


@pytest.mark.parametrize("bits", [1, 8])
def test_masks_of_1_and_8_bits_are_0_and_255(bits):
    pixels = decode_image(mask(3, bits), ImageFeature((None, None, 1), "png"))
    assert (pixels.dtype, pixels.shape) == (np.uint8, (48, 64, 1))
    assert set(np.unique(pixels)) == {0, 255}


@settings(max_examples=300)
@given(
    st.sampled_from([mask(0, 1), mask(0, 8), photo(0)]),
    st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 255)), max_size=4),
    st.integers(1, 10**9),
)
def test_damaged_images_are_value_errors(image, changes, end):
    data = bytearray(image)
    for position, value in changes:
        data[position % len(data)] = value
    kind, channels = ("jpeg", 3) if image[:1] == b"\xff" else ("png", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about large images
        with contextlib.suppress(ValueError):
            decode_image(repair_png(bytes(data[: end % len(data) + 1])), ImageFeature((None, None, channels), kind))


def test_an_image_that_claims_to_be_huge_takes_no_memory(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as other libraries in the process may set it
    data = bytearray(mask(0, 8))
    data[16:24] = (60_000).to_bytes(4) * 2
    with pytest.raises(ValueError, match="60000 × 60000 pixels are more"):
        decode_image(repair_png(bytes(data)), ImageFeature((None, None, 1), "png"))
    with pytest.raises(ValueError, match="not shape"):
        decode_image(repair_png(bytes(data)), ImageFeature((48, 64, 1), "png"))


def repair_png(data):
    """``data`` with right checksums, so that damage gets past them, as far as it is a PNG."""
    out, position = [data[:8]], 8
    while (end := position + 12 + int.from_bytes(data[position : position + 4])) <= len(data):
        body = data[position + 4 : end - 4]
        out += [data[position : position + 4], body, struct.pack(">I", zlib.crc32(body))]
        position = end
    return b"".join(out) + data[position:]


@pytest.mark.parametrize(
    "data",
    [
        mask(0).replace(b"IDAT", b"IDA\xff"),  # SyntaxError
        repair_png(mask(0)[:16] + b"\x00\x01\x00\x00" * 2 + mask(0)[24:]),  # DecompressionBombError
    ],
)
def test_what_pillow_raises_besides_its_documentation(data):
    with pytest.raises(ValueError, match="cannot be decoded"):
        decode_image(data, ImageFeature((None, None, 1), "png"))


def test_an_image_of_another_size_than_promised():
    with pytest.raises(ValueError, match="shape"):
        decode_image(photo(0), ImageFeature((10, None, 3), "jpeg"))


@pytest.mark.parametrize(
    "change",
    [{"image": [b"no jpeg"]}, {"image": [photo(0)[:500]]}, {"image": []}, {"mask": [photo(0)]}, {"key": [b"\xff"]},
     {"area": [1.5]}, {"area": [1, 2]}, {"box": [1.0]}],
)  # fmt: skip
def test_examples_that_cannot_be_decoded_are_named(tmp_path, change):
    directory = unpack_to(tmp_path / "discs", splits={"train": 1})
    path = next(directory.glob("*.tfrecord-*"))
    path.write_bytes(record(encode_example(example(0))) + record(encode_example(example(1) | change)))
    dataset = Dataset(directory, Dataset.open(unpack_to(tmp_path / "whole", splits={"train": 1})).manifest, {})
    items = dataset.as_numpy_iterator("train")
    next(items)
    with pytest.raises(errors.IntegrityError, match=rf"{path.name}, offset [1-9]\d*: the example"):
        next(items)


def test_a_missing_dependency_names_the_extra():
    from dataset_client.readers.optional import require

    with pytest.raises(errors.MissingDependencyError, match=r"remote-dataset-pipeline\[readers\]"):
        require("no_such_module", extra="readers")


def test_the_files_are_those_of_the_manifest(dataset):
    _, files = make_files()
    assert {path.name for split in dataset.splits for path in dataset.files(split)} == {
        name for name in files if ".tfrecord" in name
    }
