"""The saliency measures from their papers' definitions, pixel by pixel and threshold by threshold.

What the field's own implementation says of real photos is in test_metrics_reference.py.
"""

import math

import numpy as np
import pytest

from training.metrics import (
    MetricError,
    adaptive_e_measure,
    adaptive_f_beta,
    e_measure_curve,
    f_beta_curve,
    mae,
    max_f_beta,
    mean_f_beta,
    min_max_normalized,
    precision_recall_curve,
    s_measure,
    saliency_scores,
    weighted_f_beta,
)


def blob(seed, height=14, width=18):
    """An ellipse, and a prediction that half knows it; values on thresholds among them."""
    random = np.random.default_rng(seed)
    rows, columns = np.indices((height, width))
    truth = ((rows - random.uniform(4, 9)) / 4) ** 2 + ((columns - random.uniform(5, 12)) / 5) ** 2 < 1
    prediction = (truth * 0.5 + random.normal(0.2, 0.2, truth.shape)).clip(0, 1)
    prediction[random.random(truth.shape) < 0.3] = random.integers(0, 256) / 255
    return truth, prediction


def masks_by_threshold(prediction):
    return [np.floor(prediction * 255) >= threshold for threshold in range(256)]


def f_of(truth, mask, beta_squared=0.3):
    hit = np.count_nonzero(truth & mask)
    if not hit:
        return 0.0
    precision, recall = hit / np.count_nonzero(mask), hit / np.count_nonzero(truth)
    return (1 + beta_squared) * precision * recall / (beta_squared * precision + recall)


def e_of(truth, mask):
    """Fan et al. 2018, equations 2 to 5, by matrices."""
    a, b = truth - truth.mean(), mask - mask.mean()
    aligned = 2 * a * b / (a * a + b * b + 2.2e-16)
    return ((1 + aligned) ** 2 / 4).sum() / (truth.size - 1)


def s_of(truth, prediction, alpha=0.5):
    """Fan et al. 2017, equations 1 to 8."""

    def similarity(values):
        return 2 * values.mean() / (values.mean() ** 2 + 1 + values.std(ddof=1))

    share = truth.mean()
    object_aware = share * similarity(prediction[truth]) + (1 - share) * similarity(1 - prediction[~truth])
    row, column = (int(np.round(index.mean())) + 1 for index in np.nonzero(truth))
    region_aware = 0.0
    for rows in (slice(None, row), slice(row, None)):
        for columns in (slice(None, column), slice(column, None)):
            x, y = prediction[rows, columns].ravel(), truth[rows, columns].astype(float).ravel()
            covariance = np.cov(x, y)
            below = (x.mean() ** 2 + y.mean() ** 2) * (covariance[0, 0] + covariance[1, 1])
            above = 4 * x.mean() * y.mean() * covariance[0, 1]
            region_aware += x.size / truth.size * (above / below if below else 1.0)
    return max(0.0, alpha * object_aware + (1 - alpha) * region_aware)


def weighted_f_of(truth, prediction):
    """Margolin et al. 2014, section 4, with a loop over the pixels."""
    inside = np.argwhere(truth)
    errors = np.abs(prediction - truth)
    bell = {(r, c): math.exp(-(r * r + c * c) / 50) for r in range(-3, 4) for c in range(-3, 4)}
    total = sum(bell.values())

    def nearest(pixel):
        return tuple(inside[((inside - pixel) ** 2).sum(axis=1).argmin()])

    height, width = truth.shape
    cost = np.zeros(truth.shape)
    for row, column in np.ndindex(truth.shape):
        if truth[row, column]:
            around = sum(
                weight * errors[nearest((row + r, column + c))]
                for (r, c), weight in bell.items()
                if 0 <= row + r < height and 0 <= column + c < width
            )
            cost[row, column] = min(errors[row, column], around / total)
        else:
            distance = math.dist((row, column), nearest((row, column)))
            cost[row, column] = errors[row, column] * (2 - math.exp(math.log(0.5) / 5 * distance))
    hits = truth.sum() - cost[truth].sum()
    precision, recall = hits / (hits + cost[~truth].sum()), 1 - cost[truth].mean()
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("seed", range(6))
def test_curves_are_one_pass_per_threshold(seed):
    truth, prediction = blob(seed)
    masks = masks_by_threshold(prediction)
    np.testing.assert_allclose(f_beta_curve(truth, prediction), [f_of(truth, mask) for mask in masks], atol=1e-12)
    np.testing.assert_allclose(e_measure_curve(truth, prediction), [e_of(truth, mask) for mask in masks], atol=1e-12)
    precision, recall = precision_recall_curve(truth, prediction)
    hits = [np.count_nonzero(truth & mask) for mask in masks]
    np.testing.assert_allclose(recall, np.array(hits) / truth.sum(), atol=1e-12)
    np.testing.assert_allclose(precision, [h / max(m.sum(), 1) for h, m in zip(hits, masks, strict=True)], atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_measures_of_a_photo_are_their_definitions(seed):
    truth, prediction = blob(seed)
    adaptive = prediction >= min(1, 2 * prediction.mean())
    scores = saliency_scores(truth, prediction)
    assert scores.mae == mae(truth, prediction) == pytest.approx(np.abs(truth - prediction).mean(), abs=1e-12)
    assert scores.adaptive_f_beta == adaptive_f_beta(truth, prediction) == pytest.approx(f_of(truth, adaptive))
    assert scores.adaptive_e_measure == adaptive_e_measure(truth, prediction) == pytest.approx(e_of(truth, adaptive))
    assert scores.s_measure == s_measure(truth, prediction) == pytest.approx(s_of(truth, prediction), abs=1e-9)
    assert s_measure(truth, prediction, alpha=0.8) == pytest.approx(s_of(truth, prediction, 0.8), abs=1e-9)
    assert scores.weighted_f_beta == weighted_f_beta(truth, prediction)
    assert scores.max_f_beta == max_f_beta(truth, prediction) == scores.f_beta.max()
    assert scores.mean_f_beta == mean_f_beta(truth, prediction) == pytest.approx(scores.f_beta.mean())
    assert (scores.max_e_measure, scores.mean_e_measure) == (scores.e_measure.max(), scores.e_measure.mean())


@pytest.mark.parametrize("turned", [False, True])
def test_the_weighted_f_measure_is_its_definition(turned):
    """Of truths with a straight edge: elsewhere two pixels may be equally near, and either is right."""
    for seed, edge in enumerate((1, 4, 9)):
        _, prediction = blob(seed)
        truth = np.indices(prediction.shape)[1] < edge
        truth, prediction = (truth.T, prediction.T) if turned else (truth, prediction)
        assert weighted_f_beta(truth, prediction) == pytest.approx(weighted_f_of(truth, prediction), abs=1e-12)


def test_a_perfect_map_has_perfect_scores():
    truth, _ = blob(0)
    scores = saliency_scores(truth, truth.astype(np.float32))
    assert (scores.mae, scores.max_f_beta, scores.adaptive_f_beta) == (0, 1, 1)
    assert scores.weighted_f_beta == pytest.approx(1)
    assert scores.s_measure == pytest.approx(1)
    assert scores.max_e_measure == pytest.approx(truth.size / (truth.size - 1))  # as its authors divide


def test_every_level_of_eight_bits_stays_that_level():
    """⌊255 (k / 255)⌋ is k in either precision: a map that was stored as a PNG is not moved down by a level."""
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for dtype in (np.float32, np.float64):
        _, recall = precision_recall_curve(np.ones(levels.shape, bool), levels.astype(dtype) / dtype(255))
        np.testing.assert_array_equal(recall * 256, 256 - np.arange(256))


@pytest.mark.parametrize("place", [(13, 17), (0, 0), (13, 0), (5, 17)])
def test_a_subject_of_one_pixel_even_in_a_corner_has_a_finite_s_measure(place):
    truth = np.zeros((14, 18), bool)
    truth[place] = True
    right, wrong = truth.astype(float), 1.0 - truth
    assert s_measure(truth, right) == pytest.approx(1, abs=1e-3)
    assert 0 <= s_measure(truth, wrong) < s_measure(truth, np.full(truth.shape, 0.3)) < 1


def test_empty_full_and_smallest_truths():
    prediction = np.full((4, 5), 0.25)
    empty = saliency_scores(np.zeros((4, 5), bool), prediction)
    assert (empty.mae, empty.s_measure) == (0.25, 0.75)
    assert (empty.max_f_beta, empty.adaptive_f_beta, empty.weighted_f_beta) == (0, 0, 0)
    full = saliency_scores(np.ones((4, 5), bool), prediction)
    assert (full.mae, full.s_measure, full.max_f_beta) == (0.75, 0.25, 1)
    one = saliency_scores(np.ones((1, 1)), np.ones((1, 1)))
    assert (one.mae, one.s_measure, one.max_f_beta, one.max_e_measure) == (0, 1, 1, 1)


def test_a_soft_truth_is_cut_at_one_half():
    truth, prediction = blob(2)
    soft = np.where(truth, 0.5, 0.49)
    np.testing.assert_array_equal(saliency_scores(soft, prediction).f_beta, f_beta_curve(truth, prediction))


def test_stretching_reaches_from_0_to_1_and_leaves_constants():
    np.testing.assert_allclose(min_max_normalized(np.array([[0.2, 0.4, 0.6]])), [[0, 0.5, 1]])
    np.testing.assert_array_equal(min_max_normalized(np.full((2, 2), 0.3)), np.full((2, 2), 0.3))


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), "not of one shape"),
        (np.zeros((2, 3, 1)), np.zeros((2, 3, 1)), "one photo's"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "at least a pixel"),
        (np.zeros((2, 3)), np.zeros((2, 3), np.uint8), "divide eight bits by 255"),
        (np.zeros((2, 3)), np.full((2, 3), 1.5), "to 1.5; they are to be in"),
        (np.zeros((2, 3)), np.full((2, 3), np.nan), "from nan"),
        (np.full((2, 3), -1.0), np.zeros((2, 3)), "the truth has values from -1.0"),
    ],
)
def test_what_cannot_be_compared_is_refused(truth, prediction, message):
    with pytest.raises(MetricError, match=message):
        saliency_scores(truth, prediction)
