"""What an evaluation is made of, each part by itself and without Keras."""

import gc
import json
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest

from tests.support import ROOT
from training import metrics
from training.errors import FeatureError, MemoryExhaustedError, OptionsError
from training.evaluation import EvaluationOptions
from training.evaluation.baselines import _THRESHOLDS, CentrePrior, ColourModel, _ious
from training.evaluation.bootstrap import Resamples, means_of, replicate
from training.evaluation.charts import Axes, Series, line_chart
from training.evaluation.choice import choose
from training.evaluation.disagreement import binary_disagreement, class_disagreement
from training.evaluation.groups import Facts, group
from training.evaluation.lineage import origins
from training.evaluation.photos import MaskLevels, Photo, PhotoReader
from training.evaluation.progress import Progress
from training.evaluation.runs import _names
from training.evaluation.scores import score_split
from training.evaluation.scoring import Scorer, workers_for
from training.evaluation.summary import (
    CLASS_METRICS,
    MATTE_METRICS,
    SUBJECT_METRICS,
    class_statistic,
    subject_statistic,
)
from training.evaluation.suspects import plain


def mean_only(means):
    return {"mean": means["x"]}


def test_intervals_cover_as_often_as_they_say():
    """95 % intervals of the mean of 60 draws of a skewed distribution: the percentile bootstrap is known to fall short
    of 95 % there by one or two in a hundred, and not by more.
    """
    resamples = Resamples.draw(60, 400, seed=0)
    covered = 0
    for trial in range(500):
        table = {"x": np.random.default_rng([1, trial]).beta(5, 1, 60)}
        low, high = replicate(table, mean_only, resamples)["mean"].interval(0.95)
        covered += low <= 5 / 6 <= high
    assert 0.90 <= covered / 500 <= 0.97


def test_an_interval_is_that_of_the_textbook():
    values = np.random.default_rng(5).normal(0.7, 0.1, 400)
    one = replicate({"x": values}, mean_only, Resamples.draw(400, 2000, seed=3))["mean"]
    low, high = one.interval(0.95)
    error = values.std() / 20
    assert one.value == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.15 * error)


def test_pairing_sees_what_two_intervals_hide():
    """Every photo is a little better, photos differ a lot: only the paired interval is without 0."""
    random = np.random.default_rng(0)
    hard = random.uniform(0.2, 0.9, 50)
    first, second = hard + 0.02 + random.normal(0, 0.01, 50), hard
    resamples = Resamples.draw(50, 1000, seed=0)
    a, b = (replicate({"x": values}, mean_only, resamples)["mean"] for values in (first, second))
    assert a.interval(0.95)[0] < b.interval(0.95)[1]
    low, high = (a - b).interval(0.95)
    assert 0.01 < low < 0.02 < high < 0.03


def test_curves_are_resampled_in_float32_and_their_means_are_those_of_float64(monkeypatch):
    monkeypatch.setattr("training.evaluation.bootstrap._CELLS", 70 * 30)  # blocks of 30, the last one of 10
    curve = np.random.default_rng(8).random((70, 9)).astype(np.float32)
    curve[3] = np.nan
    resamples = Resamples.draw(70, 100, seed=0)
    coarse, fine = (
        replicate({"x": values, "y": values[:, 0]}, dict, resamples) for values in (curve, curve.astype(np.float64))
    )
    for name in ("x", "y"):
        assert coarse[name].resampled.dtype == np.float32
        np.testing.assert_allclose(coarse[name].resampled, fine[name].resampled, rtol=1e-6)
        np.testing.assert_array_equal(coarse[name].value, fine[name].value)
    there = np.delete(np.arange(70), 3)
    counts = resamples.counts[:, there].astype(np.float64)
    expected = counts @ curve[there].astype(np.float64) / counts.sum(axis=1)[:, None]
    np.testing.assert_allclose(fine["x"].resampled, expected)


def test_resamples_are_a_function_of_their_seed():
    again = [Resamples.draw(30, 100, seed).counts for seed in (1, 1, 2)]
    assert (again[0] == again[1]).all()
    assert (again[0] != again[2]).any()
    assert (again[0].sum(axis=1) == 30).all()


def test_photos_without_a_value_are_left_out_and_one_photo_has_no_interval():
    table = {"x": np.array([0.2, np.nan, 0.4])}
    assert means_of(table)["x"][0] == pytest.approx(0.3)
    assert np.isnan(means_of({"x": np.array([np.nan])})["x"][0])
    one = replicate({"x": np.array([0.5])}, mean_only, Resamples.draw(1, 100, 0))["mean"]
    assert one.value == 0.5
    assert np.isnan(one.interval(0.95)).all()


def test_statistics_of_means_are_those_of_all_pixels():
    matrices = np.random.default_rng(2).integers(0, 9, (5, 3, 3))
    matrices[:, 2] = matrices[:, :, 2] = 0  # a class that is nowhere
    table = {"confusion": matrices.reshape(5, 9).astype(float), "iou": np.ones(5)}
    table |= dict.fromkeys(("iou_95", "iou_97", "iou_99"), np.ones(5))
    told = class_statistic(means_of(table))
    total = matrices.sum(axis=0)
    assert told["mean_iou"][0] == pytest.approx(metrics.mean_iou(total))
    assert told["pixel_accuracy"][0] == pytest.approx(metrics.pixel_accuracy(total))
    np.testing.assert_allclose(told["class_iou"][0], metrics.iou_per_class(total))
    empty = {name: np.zeros((1, 1)) for name in ["iou", "iou_95", "iou_97", "iou_99", "intersection", "union"]}
    empty |= {f"{name}_curve": np.zeros((1, 4)) for name in ("precision", "recall", "f_beta", "e_measure")}
    assert subject_statistic({k: v[0] if v.shape == (1, 1) else v for k, v in empty.items()})["pooled_iou"] == 1


def disc(centre, radius, size=(80, 100)):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2).astype(np.float32)


def test_sure_disagreement_counts_and_edges_and_doubt_do_not():
    subject = disc((40, 30), 18)
    assert binary_disagreement(subject, subject)["suspicion"] == 0
    assert binary_disagreement(subject, disc((40, 30), 19))["suspicion"] == 0  # a pixel along the edge
    assert binary_disagreement(subject, np.full_like(subject, 0.4))["suspicion"] == 0  # in doubt everywhere
    second = disc((40, 75), 15)
    found = binary_disagreement(subject, np.maximum(subject, second))
    assert found["extra"] == 0
    assert found["missing"] == pytest.approx(second.sum() / (subject + second).sum(), abs=0.03)
    box = [found[side] for side in ("top", "left", "bottom", "right")]
    assert box == pytest.approx([25 / 80, 60 / 100, 56 / 80, 91 / 100], abs=0.03)
    assert binary_disagreement(np.maximum(subject, second), subject)["extra"] > 0.3


def test_disagreement_of_classes_names_both_and_leaves_void_out():
    truth = np.zeros((40, 40), np.uint8)
    truth[:, 20:] = 2
    probability = np.zeros((40, 40, 3), np.float32)
    probability[:, :20, 0] = probability[:, 20:, 1] = 1
    found = class_disagreement(truth, probability, 255)
    assert (found["labelled"], found["seen"]) == (2, 1)
    assert found["suspicion"] == pytest.approx(0.5)
    truth[:, 20:] = 255
    assert class_disagreement(truth, probability, 255)["suspicion"] == 0


def photo(number=0, image=None, mask=None, **facts):
    image = np.zeros((8, 8, 3), np.uint8) if image is None else image
    return Photo(number, image, np.zeros(image.shape[:2], np.uint8) if mask is None else mask, **facts)


def test_a_centre_prior_is_stretched_and_calibrated():
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    share = (mask / 255.0)[:, :, None] * 0.3  # every place is ground more often than not
    prior = CentrePrior(1, np.concatenate([1 - share, share], axis=2), {})
    seen = photo(image=np.zeros((64, 96, 3), np.uint8), mask=np.repeat(mask, 2, axis=1)[:, 16:112])
    assert (prior.predict([seen])[0] < 0.5).all()
    prior.calibrate([photo(image=np.zeros((64, 64, 3), np.uint8), mask=mask)])
    (found,) = prior.predict([seen])
    assert found.shape == (64, 96, 1)
    assert found.dtype == np.float32
    assert (found[20:44, 30:66] >= 0.5).all()
    assert (found[:10] < 0.5).all()


def test_calibration_takes_the_best_threshold_of_all():
    random = np.random.default_rng(4)
    truth, subject = random.random((20, 30)) < 0.3, random.random((20, 30))
    subject[0, 0] = _THRESHOLDS[10]  # at a threshold is found
    expected = [
        metrics.binary_iou(truth.astype(float), (subject >= threshold).astype(float)) for threshold in _THRESHOLDS
    ]
    np.testing.assert_allclose(_ious(truth, subject), expected, rtol=1e-12)


def test_a_colour_model_is_bayes_rule():
    likelihoods = np.full((4096, 2), 1e-4)
    likelihoods[(255 >> 4) << 8] = (0.1, 0.4)  # red
    model = ColourModel(CentrePrior(1, np.full((64, 64, 2), 0.5) * [1.5, 0.5], {}), likelihoods)
    red = np.zeros((4, 4, 3), np.uint8)
    red[:, :, 0] = 250
    np.testing.assert_allclose(model.posterior(photo(image=red))[:, :, 1], 0.25 * 0.4 / (0.25 * 0.4 + 0.75 * 0.1))
    np.testing.assert_allclose(model.posterior(photo(image=red[:, :, ::-1]))[:, :, 1], 0.25)


def test_photos_are_grouped_by_size_category_and_cluster():
    def facts(share, *categories, cluster=None):
        return Facts(0, None, (), (8, 8), share, categories, cluster)

    groups = group([facts(0.05, "cat"), facts(0.1, "cat", "dog", cluster=10), facts(0.3), facts(0, cluster=9)])
    assert {name: list(places) for name, places in groups["size"].items()} == {
        "none": [3], "small: below 10%": [0], "medium: 10% to 30%": [1], "large: 30% or more": [2],
    }  # fmt: skip
    assert list(groups["category"]["cat"]) == [0, 1]
    assert list(groups["cluster"]) == ["9", "10"]
    assert "category" not in group([facts(0.5)])


def test_shown_photos_are_the_extremes_and_none_twice():
    first, second = np.array([0.1, 0.9, 0.5, 0.5, 0.8]), np.array([0.1, 0.9, 0.9, 0.5, 0.8])
    assert choose([first], 2) == {"worst": [0, 2], "best": [1, 4], "differ": []}
    assert choose([first, second], 1) == {"worst": [0], "best": [1], "differ": [2]}
    assert choose([first[:1]], 3) == {"worst": [0], "best": [], "differ": []}


@pytest.mark.parametrize(
    ("directories", "names"),
    [
        (("a/unet", "b/unet", "tiramisu"), ["unet (1)", "unet (2)", "tiramisu"]),
        (("a/unet", "b/unet", "unet (1)"), ["unet (2)", "unet (3)", "unet (1)"]),
        (("centre prior", "centre prior (1)"), ["centre prior (2)", "centre prior (1)"]),
    ],
)
def test_runs_of_one_name_are_told_apart_and_none_is_called_as_a_baseline(tmp_path, directories, names):
    assert _names([tmp_path / directory / "best.keras" for directory in directories]) == names


def test_lineage_names_samples_and_raw_files(make_dataset, ellipses):
    dataset = make_dataset({"train": ellipses(1, size=(8, 8)), "test": ellipses(3, size=(8, 8))})
    assert origins(dataset, "test")[0].key is None
    shard = "ellipses-test.tfrecord-00000-of-00001"
    lines = [
        {"shard": "another", "first": 0, "examples": 1, "key": "no", "files": {}},
        {"shard": shard, "first": 1, "examples": 2, "key": "a/b", "files": {"a/b.jpg": "0", "m/b.png": "1"}},
    ]
    (dataset.path / "lineage.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = list(PhotoReader(dataset, "test").photos([0, 1, 2]))
    assert [one.key for one in found] == [None, "a/b", "a/b"]
    assert found[2].files == ("a/b.jpg", "m/b.png")


def test_one_kind_of_mask_is_not_taken_for_the_other():
    numbers = photo(mask=np.full((8, 8), 2, np.uint8))
    levels = MaskLevels(1, "test")
    levels.add(numbers)
    with pytest.raises(FeatureError, match="numbers of classes, most likely"):
        levels.check()
    with pytest.raises(FeatureError, match="has class 2, the model tells 0 to 1 apart"):
        MaskLevels(2, "test").add(numbers)
    empty = MaskLevels(1, "test")
    empty.add(photo())
    empty.check()  # a split without a subject is a split


def pairs_of(count):
    random = np.random.default_rng(0)
    for _ in range(count):
        truth = disc(random.uniform(10, 22, 2), 7, (32, 32))
        yield truth, np.clip(truth * 0.8 + random.random((32, 32)) * 0.2, 0, 1).astype(np.float32)[:, :, None]


def test_processes_give_the_same_scores_in_the_same_order():
    here, there = (list(Scorer(workers).map(pairs_of(9))) for workers in (0, 1))
    assert len(there) == 9
    for one, other in zip(here, there, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


class _Deadly:
    """Whoever unpickles it, dies."""

    def __reduce__(self):
        return os._exit, (9,)


def test_a_killed_process_is_told_with_a_remedy():
    with pytest.raises(MemoryExhaustedError, match="fewer workers"):
        list(Scorer(1).map([(_Deadly(), np.zeros((4, 4, 1), np.float32))]))


def test_no_process_outlives_the_one_that_asks():
    """Its standard error stays open as long as any of them lives."""
    code = """
import os, signal
import numpy as np
from training.evaluation.scoring import Scorer
photo = np.zeros((4, 4), np.float32), np.zeros((4, 4, 1), np.float32)
next(Scorer(1).map([photo] * 9))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, cwd=ROOT)
    assert done.returncode == -9


def test_progress_is_told_in_lines_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr("training.evaluation.progress._SECONDS", 0)
    with Progress("evaluating", 3000, shown=True) as progress:
        progress.move(1000)
        progress.move(2000)
    with Progress("drawing", 1, shown=False) as quiet:
        quiet.move()
    with pytest.raises(KeyError), Progress("stopped", 9, shown=True):
        raise KeyError
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("evaluating         1,000 of 3,000 photos, ")
    assert last.startswith("evaluating         3,000 photos in ")


def test_few_photos_are_scored_in_this_process():
    assert workers_for(20, None) == 0
    assert workers_for(10**6, None) >= 1
    assert workers_for(20, 3) == 3


class _Half:
    name, classes, is_model = "half", 1, True

    def predict(self, photos):
        return [np.full((*one.size, 1), 0.5, np.float32) for one in photos]


def test_photos_are_not_kept(make_dataset, ellipses):
    """However long the split, only a few batches of it are in memory."""
    dataset = make_dataset({"test": ellipses(24, size=(8, 8)) * 5})
    reader = PhotoReader(dataset, "test")
    alive, most = weakref.WeakSet(), 0
    batches = reader.batches

    def watched(size):
        for batch in batches(size):
            alive.update(batch)
            yield batch

    def moved(_count):
        nonlocal most
        gc.collect(0)
        most = max(most, len(alive))

    reader.batches = watched
    scores = score_split(reader, [_Half()], batch_size=4, scorer=Scorer(0), moved=moved)
    assert len(scores.facts) == len(scores.tables[0]["iou"]) == 120
    assert most <= 12


def test_options_are_checked():
    for wrong in ({"batch_size": 0}, {"seed": -1}, {"confidence": 1.0}, {"split": ""}, {"workers": -1}):
        with pytest.raises(OptionsError, match=next(iter(wrong))):
            EvaluationOptions(**wrong)


def test_work_lists_run_no_formula():
    assert plain("=SUM(A1)") == "'=SUM(A1)"
    assert plain("a=b") == "a=b"


def test_charts_leave_out_what_is_no_number_and_escape():
    chart = line_chart(Axes("a < b", "x", "y"), [Series("<s>", [0, 0.5, 1], [0, float("nan"), 2], 7)])
    assert "nan" not in chart
    assert "a &lt; b" in chart
    assert "&lt;s&gt;" in chart
    assert "var(--series-2)" in chart


def test_the_command_imports_no_keras():
    code = "import sys, training.evaluation.command; print([m for m in ('keras', 'tensorflow') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_page_of_the_docs_explains_every_metric():
    page = (ROOT / "docs" / "evaluation.md").read_text()
    for metric in (*SUBJECT_METRICS, *MATTE_METRICS, *CLASS_METRICS):
        arrow = "↑" if metric.higher else "↓"
        assert f"| `{metric.key}` | {metric.label} {arrow} | {metric.text} |" in page
