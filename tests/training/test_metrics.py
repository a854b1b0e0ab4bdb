"""IoU of one subject and of classes, by numpy and in the training loop, against brute force."""

import subprocess
import sys

import numpy as np
import pytest

from tests.support import ROOT
from training.metrics import (
    MetricError,
    binary_iou,
    confusion_matrix,
    iou_per_class,
    mean_iou,
    pixel_accuracy,
    precision_recall_f1,
)
from training.metrics.online import BinaryIoU, MeanIoU, create_metric


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
    with pytest.raises(MetricError, match="not of one shape"):
        binary_iou(np.zeros((2, 2)), np.zeros((2, 1)))
    with pytest.raises(ValueError, match="sample_weight"):
        BinaryIoU().update_state(np.zeros((1, 2, 2, 1)), np.zeros((1, 2, 2, 1)), sample_weight=np.ones(1))


def test_is_restored_from_its_config():
    assert BinaryIoU.from_config(BinaryIoU(0.3, name="x").get_config()).get_config() == {
        "threshold": 0.3,
        "name": "x",
    }


def class_batch(seed, classes, count=2, side=7):
    """Class numbers with void among them, (B, H, W, 1), and probabilities, (B, H, W, classes)."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes - 1, (count, side, side, 1))  # the last class is never there
    truth[random.random(truth.shape) < 0.2] = 255
    probability = random.random((count, side, side, classes)).astype(np.float32) ** 3
    return truth, probability / probability.sum(axis=-1, keepdims=True)


def brute_force_counts(truth, predicted, classes):
    matrix = [[0] * classes for _ in range(classes)]
    for t, p in zip(truth.ravel(), predicted.ravel(), strict=True):
        if t != 255:
            matrix[t][p] += 1
    return matrix


@pytest.mark.parametrize("classes", [2, 5])
def test_classes_are_counted_as_by_brute_force_over_many_batches(classes):
    metric = MeanIoU(classes)
    matrix = np.zeros((classes, classes), np.int64)
    for seed in range(6):
        truth, probability = class_batch(seed, classes)
        predicted = probability.argmax(axis=-1)[..., None]
        counted = confusion_matrix(truth, predicted, classes)
        assert counted.tolist() == brute_force_counts(truth, predicted, classes)
        matrix += counted
        metric.update_state(truth, probability)
    hits = [matrix[c, c] for c in range(classes)]
    unions = [matrix[c].sum() + matrix[:, c].sum() - matrix[c, c] for c in range(classes)]
    expected = [hit / union for hit, union in zip(hits, unions, strict=True)]
    np.testing.assert_allclose(iou_per_class(matrix), expected, atol=1e-12)
    assert mean_iou(matrix) == pytest.approx(np.mean(expected), abs=1e-12)
    assert float(metric.result()) == pytest.approx(mean_iou(matrix), abs=1e-6)
    assert pixel_accuracy(matrix) == pytest.approx(sum(hits) / matrix.sum(), abs=1e-12)
    scores = precision_recall_f1(matrix)
    for c in range(classes):
        precision, recall = hits[c] / matrix[:, c].sum(), hits[c] / matrix[c].sum() if matrix[c].sum() else 0
        f1 = 2 * precision * recall / (precision + recall) if hits[c] else 0
        assert (scores.precision[c], scores.recall[c], scores.f1[c]) == pytest.approx((precision, recall, f1))


def test_a_class_that_is_nowhere_is_no_class_of_the_mean():
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0])
    matrix = confusion_matrix(truth, predicted, 3)
    np.testing.assert_array_equal(iou_per_class(matrix), [2 / 3, 1 / 2, np.nan])
    assert mean_iou(matrix) == pytest.approx((2 / 3 + 1 / 2) / 2)
    metric = MeanIoU(3)
    metric.update_state(truth.reshape(1, 2, 2, 1), np.eye(3, dtype=np.float32)[predicted].reshape(1, 2, 2, 3))
    assert float(metric.result()) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_nothing_but_void_is_perfect():
    void = np.full((1, 2, 2, 1), 255)
    matrix = confusion_matrix(void, np.zeros_like(void), 3)
    assert not matrix.any()
    assert mean_iou(matrix) == pixel_accuracy(matrix) == 1
    metric = MeanIoU(3)
    metric.update_state(void, np.full((1, 2, 2, 3), 1 / 3, np.float32))
    assert float(metric.result()) == 1


def test_the_metric_of_the_loop_follows_the_number_of_classes():
    assert isinstance(create_metric(1), BinaryIoU)
    many = create_metric(7)
    assert isinstance(many, MeanIoU)
    assert many.name == create_metric(1).name == "iou"
    assert MeanIoU.from_config(many.get_config()).get_config() == {"classes": 7, "name": "iou"}
    with pytest.raises(ValueError, match="sample_weight"):
        many.update_state(np.zeros((1, 2, 2, 1)), np.zeros((1, 2, 2, 7)), sample_weight=np.ones(1))


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (np.zeros(3, int), np.zeros(4, int), "not of one shape"),
        (np.zeros(3, int), np.zeros(3), "take the argmax first"),
        (np.array([0, 4]), np.array([0, 0]), "the truth has class numbers from 0 to 4; with 3 classes they are 0 to 2"),
        (np.array([0, 1]), np.array([0, -1]), "the prediction has class numbers from -1 to 0"),
    ],
)
def test_class_numbers_that_cannot_be_counted_are_refused(truth, predicted, message):
    with pytest.raises(MetricError, match=message):
        confusion_matrix(truth, predicted, 3)


def test_importing_metrics_and_losses_imports_no_keras():
    code = "import sys, training.losses, training.metrics; print('keras' in sys.modules, 'scipy' in sys.modules)"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert seen.stdout.split() == ["False", "True"]
