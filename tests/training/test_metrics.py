"""IoU and losses, against brute force."""

import math

import numpy as np
import pytest

from training.errors import OptionsError
from training.losses import LOSSES, create_loss
from training.metrics import binary_iou
from training.metrics.online import BinaryIoU


def brute_force(truth, prediction, threshold=0.5):
    pairs = [(t >= threshold, p >= threshold) for t, p in zip(truth.ravel(), prediction.ravel(), strict=True)]
    union = sum(t or p for t, p in pairs)
    return sum(t and p for t, p in pairs) / union if union else 1.0


def random_batch(seed, count=3, side=9):
    random = np.random.default_rng(seed)
    truth = (random.random((count, side, side, 1)) < random.random()).astype(np.float32)
    prediction = random.random((count, side, side, 1)).astype(np.float32)
    prediction[random.random(prediction.shape) < 0.1] = 0.5  # on the threshold
    return truth, prediction


@pytest.mark.parametrize("threshold", [0.25, 0.5])
def test_numpy_and_keras_agree_with_brute_force_over_many_batches(threshold):
    metric = BinaryIoU(threshold)
    batches = [random_batch(seed) for seed in range(20)]
    for truth, prediction in batches:
        assert binary_iou(truth, prediction, threshold) == brute_force(truth, prediction, threshold)
        metric.update_state(truth, prediction)
    truth, prediction = (np.concatenate(side) for side in zip(*batches, strict=True))
    assert float(metric.result()) == pytest.approx(brute_force(truth, prediction, threshold), abs=1e-7)
    assert binary_iou(truth, prediction, threshold) == brute_force(truth, prediction, threshold)


def test_does_not_depend_on_the_batches():
    truth, prediction = random_batch(7, count=10)
    whole, parts = BinaryIoU(), BinaryIoU()
    whole.update_state(truth, prediction)
    for begin, end in ((0, 1), (1, 4), (4, 10)):
        parts.update_state(truth[begin:end], prediction[begin:end])
    assert float(whole.result()) == float(parts.result())


def test_nothing_to_find_and_nothing_found_is_perfect():
    nothing = np.zeros((1, 4, 4, 1), np.float32)
    metric = BinaryIoU()
    assert float(metric.result()) == 1.0
    metric.update_state(nothing, nothing)
    assert float(metric.result()) == binary_iou(nothing, nothing) == 1.0
    metric.update_state(nothing, nothing + 1)
    assert float(metric.result()) == 0.0
    metric.reset_state()
    assert float(metric.result()) == 1.0


def test_counts_stay_exact_past_what_float32_can_count():
    metric = BinaryIoU()
    metric.high.assign([1 << 12, 1 << 12])  # 2**32 pixels, all found: a float32 would swallow the next few
    everything = np.ones((1, 3, 1, 1), np.float32)
    for _ in range(5):
        metric.update_state(everything, everything)
    metric.update_state(everything, np.zeros_like(everything))
    low, high = np.asarray(metric.low), np.asarray(metric.high)
    assert (high.astype(np.int64) * 2**20 + low).tolist() == [2**32 + 15, 2**32 + 18]


def test_carries_into_the_high_part():
    metric = BinaryIoU()
    metric.low.assign([2**20 - 1, 2**20 - 1])
    metric.update_state(np.ones((1, 2, 1, 1)), np.ones((1, 2, 1, 1)))
    assert np.asarray(metric.low).tolist() == [1, 1]
    assert np.asarray(metric.high).tolist() == [1, 1]


def test_shapes_that_differ_and_weights_are_refused():
    with pytest.raises(ValueError, match="not of one shape"):
        binary_iou(np.zeros((2, 2)), np.zeros((2, 1)))
    with pytest.raises(ValueError, match="sample_weight"):
        BinaryIoU().update_state(np.zeros((1, 2, 2, 1)), np.zeros((1, 2, 2, 1)), sample_weight=np.ones(1))


def test_is_restored_from_its_config():
    assert BinaryIoU.from_config(BinaryIoU(0.3, name="x").get_config()).get_config() == {
        "threshold": 0.3,
        "name": "x",
    }


def bce(truth, prediction):
    terms = [
        -(t * math.log(p) + (1 - t) * math.log(1 - p)) for t, p in zip(truth.ravel(), prediction.ravel(), strict=True)
    ]
    return sum(terms) / len(terms)


def dice(truth, prediction):
    overlap = sum(float(t) * float(p) for t, p in zip(truth.ravel(), prediction.ravel(), strict=True))
    return 1 - (2 * overlap + 1) / (float(truth.sum()) + float(prediction.sum()) + 1)


@pytest.mark.parametrize(
    ("name", "expected"), [("bce", bce), ("dice", dice), ("bce+dice", lambda t, p: bce(t, p) + dice(t, p))]
)
def test_losses_are_their_formulas_for_each_example(name, expected):
    truth, prediction = random_batch(3)
    prediction = prediction.clip(0.01, 0.99)
    losses = np.asarray(create_loss(name)(truth, prediction))
    assert losses.shape == (3,)
    np.testing.assert_allclose(losses, [expected(t, p) for t, p in zip(truth, prediction, strict=True)], rtol=1e-4)


def test_an_empty_mask_predicted_empty_costs_nothing():
    nothing = np.zeros((1, 8, 8, 1), np.float32)
    for name in (name for name in LOSSES if not name.startswith("ce")):
        assert float(create_loss(name)(nothing, nothing)[0]) == pytest.approx(0, abs=1e-5)


def test_unknown_loss_names_those_there_are():
    with pytest.raises(OptionsError, match="bce, ce, focal"):
        create_loss("hinge")
