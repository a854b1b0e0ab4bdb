"""Every measure against the implementation that the field cites, on real photos.

They are not installed everywhere: pip install pysodmetrics torchmetrics scikit-learn opencv-python-headless.
"""

import warnings

import numpy as np
import pytest

from tests.training.references.metrics_data import duts_pairs
from training.metrics import (
    boundary_iou,
    confusion_matrix,
    iou_per_class,
    mean_iou,
    min_max_normalized,
    pixel_accuracy,
    precision_recall_f1,
    saliency_scores,
)

PHOTOS = 60


@pytest.fixture(scope="module")
def sod():
    return pytest.importorskip("py_sod_metrics", reason="PySODMetrics is not installed")


def sod_reference(sod, truth, prediction, normalize):
    """What PySODMetrics says, its curves turned round: it counts thresholds down from 255."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Fmeasure is to be replaced by FmeasureV2
        measures = [sod.MAE(), sod.Fmeasure(), sod.Smeasure(), sod.Emeasure(), sod.WeightedFmeasure()]
    for measure in measures:
        measure.step(prediction, truth, normalize=normalize)
    mae, f, s, e, weighted = (measure.get_results() for measure in measures)
    return {
        "mae": mae["mae"],
        "precision": f["pr"]["p"][::-1],
        "recall": f["pr"]["r"][::-1],
        "f_beta": f["fm"]["curve"][::-1],
        "max_f_beta": f["fm"]["curve"].max(),
        "mean_f_beta": f["fm"]["curve"].mean(),
        "adaptive_f_beta": f["fm"]["adp"],
        "s_measure": s["sm"],
        "e_measure": e["em"]["curve"][::-1],
        "max_e_measure": e["em"]["curve"].max(),
        "mean_e_measure": e["em"]["curve"].mean(),
        "adaptive_e_measure": e["em"]["adp"],
        "weighted_f_beta": weighted["wfm"],
    }


def assert_same(scores, reference, name):
    for measure, expected in reference.items():
        np.testing.assert_allclose(getattr(scores, measure), expected, rtol=0, atol=1e-6, err_msg=f"{measure}, {name}")


def test_saliency_measures_are_those_of_pysodmetrics(sod):
    for name, truth, prediction in duts_pairs(PHOTOS):
        assert_same(saliency_scores(truth, prediction), sod_reference(sod, truth, prediction, normalize=False), name)


def test_saliency_measures_of_float32_are_those_of_pysodmetrics(sod):
    for name, truth, exact in duts_pairs(PHOTOS, kinds=("near", "noisy")):
        prediction = exact.astype(np.float32)
        # of float32 its own means are rounded: a pixel changes sides of the adaptive threshold, and a constant
        # quarter of the photo seems to vary, which moves the S-measure by that quarter's weight
        reference = sod_reference(sod, truth, prediction.astype(np.float64), normalize=False)
        assert_same(saliency_scores(truth, prediction), reference, name)


def test_saliency_measures_of_stretched_pngs_are_those_of_pysodmetrics(sod):
    for name, truth, exact in duts_pairs(PHOTOS, kinds=("near", "colour")):
        png = np.rint(exact * 255).astype(np.uint8)
        ours = saliency_scores(truth, min_max_normalized(png / 255))
        assert_same(ours, sod_reference(sod, truth.astype(np.uint8) * 255, png, normalize=True), name)


@pytest.mark.parametrize("truth", ["empty", "full", "one pixel"])
@pytest.mark.parametrize("prediction", ["nothing", "half", "everything", "slope"])
def test_degenerate_photos_are_as_in_pysodmetrics(sod, truth, prediction):
    mask = np.full((12, 16), truth == "full")
    mask[5, 7] |= truth == "one pixel"
    slope = np.linspace(0, 1, mask.size).reshape(mask.shape)
    values = {"nothing": slope * 0, "half": slope * 0 + 0.5, "everything": slope * 0 + 1, "slope": slope}[prediction]
    assert_same(
        saliency_scores(mask, values), sod_reference(sod, mask, values, normalize=False), f"{truth}, {prediction}"
    )


def class_maps():
    """Real masks cut into five classes by position, with a rim of void, and a prediction that errs: 0 … 4, 255."""
    truths, predictions = [], []
    for _, truth, prediction in duts_pairs(36, kinds=("near", "noisy"), step=4):
        rows, columns = np.indices(truth.shape)
        quarter = (rows > truth.shape[0] // 2) * 2 + (columns > truth.shape[1] // 2)
        true = np.where(truth, quarter + 1, 0)
        true[:3] = 255
        truths.append(true.ravel())
        predictions.append(np.where(prediction >= 0.5, quarter + 1, 0).ravel())
    return np.concatenate(truths), np.concatenate(predictions)


def test_class_measures_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    truth, predicted = class_maps()
    known = truth != 255
    labels = range(5)
    matrix = confusion_matrix(truth, predicted, 5)
    np.testing.assert_array_equal(matrix, sklearn.confusion_matrix(truth[known], predicted[known], labels=labels))
    scores = precision_recall_f1(matrix)
    expected = sklearn.precision_recall_fscore_support(truth[known], predicted[known], labels=labels)
    for ours, theirs in zip((scores.precision, scores.recall, scores.f1), expected, strict=False):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    jaccard = sklearn.jaccard_score(truth[known], predicted[known], labels=labels, average=None)
    np.testing.assert_allclose(iou_per_class(matrix), jaccard, rtol=0, atol=1e-12)
    assert mean_iou(matrix) == pytest.approx(jaccard.mean(), abs=1e-12)
    assert pixel_accuracy(matrix) == pytest.approx(sklearn.accuracy_score(truth[known], predicted[known]), abs=1e-12)


def test_class_measures_are_those_of_torchmetrics():
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification", reason="torchmetrics is not installed")
    import torch

    truth, predicted = class_maps()
    known = truth != 255
    arguments = (torch.from_numpy(predicted[known]), torch.from_numpy(truth[known]), 6)  # class 5 never occurs
    matrix = confusion_matrix(truth, predicted, 6)
    each = torchmetrics.multiclass_jaccard_index(*arguments, average="none")
    np.testing.assert_allclose(np.nan_to_num(iou_per_class(matrix)), each, rtol=0, atol=1e-6)
    macro = torchmetrics.multiclass_jaccard_index(*arguments, average="macro")
    assert mean_iou(matrix) == pytest.approx(float(macro), abs=1e-6)
    micro = torchmetrics.multiclass_accuracy(*arguments, average="micro")
    assert pixel_accuracy(matrix) == pytest.approx(float(micro), abs=1e-6)
    f1 = torchmetrics.multiclass_f1_score(*arguments, average="none")
    np.testing.assert_allclose(precision_recall_f1(matrix).f1, f1, rtol=0, atol=1e-6)


def test_boundary_iou_is_that_of_repeated_erosion_by_opencv():
    """As the authors of boundary IoU do it: d erosions by a 3×3 square in a frame of zeros."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    for name, truth, prediction in duts_pairs(30, kinds=("near", "colour")):
        rims = []
        for mask in (truth, prediction >= 0.5):
            width = max(1, round(0.02 * float(np.hypot(*mask.shape))))
            framed = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
            eroded = cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1]
            rims.append(mask & (eroded == 0))
        expected = np.count_nonzero(rims[0] & rims[1]) / np.count_nonzero(rims[0] | rims[1])
        assert boundary_iou(truth, prediction) == pytest.approx(expected, abs=1e-12), name
