"""Schemas check what they encode."""

import math

import numpy as np
import pytest

from dataset_handlers.errors import HandlerError
from dataset_handlers.example_proto import decode_example
from dataset_handlers.features import (
    BytesFeature,
    ImageFeature,
    TensorFeature,
    TextFeature,
    TextListFeature,
    features_json,
    serialize,
)
from tests.handlers.support import decode

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


@pytest.mark.parametrize(
    ("feature", "value"),
    [
        (TensorFeature(), [1]),
        (TensorFeature((2,)), [1, 2, 3]),
        (TensorFeature((None, 2)), [[1, 2, 3]]),
        (TensorFeature(), 1.5),
        (TensorFeature(), math.nan),
        (TensorFeature(), "7"),
        (TensorFeature(), 2**70),
        (TensorFeature(), np.uint64(2**63)),
        (TensorFeature(dtype="float32"), "0.5"),
        (TensorFeature((None, 4), "float32"), np.zeros((2, 3), np.float32)),
        (TensorFeature((None, 4), "float32"), []),
        (TensorFeature((2, 4, 3), "uint8"), PIXELS[:, :3]),
        (TensorFeature((2, 4, 3), "uint8"), PIXELS.astype(np.uint16)),
        (TensorFeature((2, 4, 3), "uint8"), PIXELS.astype(np.int8)),
        (TensorFeature((2, 4, 3), "uint8"), PIXELS / 255),
        (ImageFeature((None, None, 3), "png"), np.zeros((4, 4), np.uint8)),
        (ImageFeature((4, 5, 1), "png"), np.zeros((4, 4), np.uint8)),
        (ImageFeature((None, None, 3), "png"), np.zeros((4, 4, 3), np.float32)),
        (ImageFeature((None, None, 3), "png"), np.zeros((1, 4, 4, 3), np.uint8)),
    ],
)
def test_what_does_not_fit_is_refused(feature, value):
    with pytest.raises(HandlerError, match="declared"):
        feature.encode(value)


@pytest.mark.parametrize(
    ("feature", "value", "stored"),
    [
        (TensorFeature(), np.int32(-3), [-3]),
        (TensorFeature(), True, [1]),
        (TensorFeature((None,)), [], []),
        (TensorFeature((2, 2)), [[1, 2], [3, 4]], [1, 2, 3, 4]),
        (TensorFeature((2,), "float32"), [1, 0.5], [1.0, 0.5]),
        (TensorFeature((), "float32"), 0.1, [float(np.float32(0.1))]),
        (TensorFeature((None, 4), "float32"), np.float32([[0, 0.25, 1, 0.5]] * 2), [0.0, 0.25, 1.0, 0.5] * 2),
        (TensorFeature((None, 4), "float32"), np.zeros((0, 4), np.float32), []),
        (TensorFeature((2, 4, 3), "uint8"), PIXELS, [bytes(range(24))]),
        (TensorFeature((None, 4, 3), "uint8"), PIXELS[:0], [b""]),
        (TensorFeature((4, 2), "uint8"), PIXELS[..., 1].T, [bytes([1, 13, 4, 16, 7, 19, 10, 22])]),
        (TensorFeature((), "uint8"), np.uint8(200), [b"\xc8"]),
        (TextListFeature(), ["dog", "", "grün"], [b"dog", b"", "grün".encode()]),
        (TextListFeature(), [], []),
        (TextFeature(), "grün", ["grün".encode()]),
        (BytesFeature(), bytearray(b"\0\xff"), [b"\0\xff"]),
    ],
)
def test_what_fits_comes_back(feature, value, stored):
    assert feature.encode(value) == stored
    assert decode_example(serialize({"x": feature}, {"x": value})) == {"x": stored}


def test_an_example_holds_its_fields_and_no_others():
    features = {"a": TensorFeature(), "b": TextFeature()}
    for example in ({"a": 1}, {"a": 1, "b": "x", "c": 2}, {}):
        with pytest.raises(HandlerError, match=r"\['a', 'b'\] was declared"):
            serialize(features, example)


def test_planes_are_exact_pngs():
    plane = ImageFeature((2, 4, 1), "png")
    for levels in (PIXELS[..., 0], PIXELS[..., :1], np.uint8([[0, 255, 0, 0], [255] * 4])):
        np.testing.assert_array_equal(decode(plane.encode(levels)[0]), levels.reshape(2, 4))


@pytest.mark.parametrize("shape", [(4, None), (None, None, 3)])
def test_a_shape_that_could_not_be_restored_is_refused(shape):
    with pytest.raises(ValueError, match="beyond its first dimension"):
        TensorFeature(shape, "uint8")


def test_the_schema_is_in_the_order_of_names():
    schema = features_json({"b": TextListFeature(), "a": TensorFeature((2, 3), "uint8")})
    fields = schema["featuresDict"]["features"]
    assert list(fields) == ["a", "b"]
    assert fields["a"]["tensor"] == {"shape": {"dimensions": ["2", "3"]}, "dtype": "uint8", "encoding": "bytes"}
    assert fields["b"]["sequence"]["length"] == "-1"
