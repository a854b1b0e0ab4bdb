"""Boundary measures against their definitions, pixel by pixel, on real and on hand-made masks."""

import math

import numpy as np
import pytest

from tests.training.references.metrics_data import duts_pairs
from training.metrics import MetricError, boundary_iou, relaxed_boundary_f


def inner_rim(mask, width):
    """Pixels of the mask for which the square of so many rows and columns around is not wholly in it."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(mask, width), (2 * width + 1, 2 * width + 1))
    return mask & ~windows.all(axis=(2, 3))


def boundary_iou_of(truth, mask, ratio):
    width = max(1, round(ratio * math.hypot(*truth.shape)))
    a, b = inner_rim(truth, width), inner_rim(mask, width)
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def relaxed_f_of(truth, mask, tolerance):
    """BASNet, section 4.2: outlines by a 3×3 erosion, each pixel's distance to all of the other outline."""
    a, b = (np.argwhere(inner_rim(each, 1)) for each in (truth, mask))
    distances = np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2))
    recall, precision = (distances.min(axis=1) <= tolerance).mean(), (distances.min(axis=0) <= tolerance).mean()
    return 1.3 * precision * recall / (0.3 * precision + recall) if precision + recall else 0.0


def test_on_real_masks_both_are_their_definitions():
    for name, truth, prediction in duts_pairs(36, kinds=("near", "colour"), step=6):
        mask = prediction >= 0.5
        if truth.any() and mask.any():
            for ratio in (0.005, 0.02, 0.05):
                expected = pytest.approx(boundary_iou_of(truth, mask, ratio), abs=1e-12)
                assert boundary_iou(truth, prediction, ratio) == expected, name
            for tolerance in (1, 3, 4.5):
                expected = pytest.approx(relaxed_f_of(truth, mask, tolerance), abs=1e-12)
                assert relaxed_boundary_f(truth, prediction, tolerance) == expected, name


def square(top, left, size=6, shape=(30, 40)):
    mask = np.zeros(shape, bool)
    mask[top : top + size, left : left + size] = True
    return mask


def test_an_outline_off_by_the_tolerance_is_right_and_by_more_is_not():
    truth = square(10, 10)
    assert relaxed_boundary_f(truth, square(10, 13)) == 1
    assert relaxed_boundary_f(truth, square(10, 14)) < 1
    assert relaxed_boundary_f(truth, square(13, 13)) < 1  # in a straight line, the corners are 4.2 pixels off
    assert relaxed_boundary_f(truth, square(10, 30)) == 0


def test_the_interior_does_not_count_and_the_photos_edge_is_an_outline():
    ring = square(5, 5, 20) & ~square(9, 9, 12)
    assert boundary_iou(square(5, 5, 20), ring, dilation_ratio=0.02) < 1  # its inner outline is one too many
    solid, hollow = square(5, 5, 20), square(5, 5, 20) & ~square(14, 14, 2)
    assert boundary_iou(solid, hollow) > 0.8
    everything = np.ones((30, 40), bool)
    framed = everything & ~square(10, 10)
    assert 0 < boundary_iou(everything, framed) < 1


def test_empty_masks():
    nothing, something = np.zeros((9, 9)), square(2, 2, 3, (9, 9))
    for measure in (boundary_iou, relaxed_boundary_f):
        assert measure(nothing, nothing) == 1
        assert measure(nothing, something) == measure(something, nothing) == 0
        assert measure(np.ones((1, 1)), np.ones((1, 1))) == 1
        with pytest.raises(MetricError, match="not of one shape"):
            measure(np.zeros((2, 3)), np.zeros((3, 2)))
