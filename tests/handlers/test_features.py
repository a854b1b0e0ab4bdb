"""Schemas check what they encode."""

import math

import numpy as np
import pytest

from dataset_handlers.errors import HandlerError
from dataset_handlers.example_proto import decode_example
from dataset_handlers.features import BytesFeature, ImageFeature, TensorFeature, TextFeature, serialize


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
        (TensorFeature(dtype="float32"), "0.5"),
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
