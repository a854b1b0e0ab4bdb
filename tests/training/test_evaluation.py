"""`dataset-train evaluate` as a person calls it: its numbers against ones computed here, its page, its refusals."""

import csv
import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from dataset_client import open_dataset
from dataset_handlers.features import ImageFeature, TensorFeature, TextFeature, TextListFeature
from training import metrics
from training.cli import main

# Keras 3.15 asks TensorFlow's variables for arrays in a way that numpy 2.4 is to deprecate.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

SIZE = (32, 40)
WRONG = 3  # the example whose label is another's
FEATURES = {
    "image": ImageFeature((None, None, 3), "png"),
    "mask": ImageFeature((None, None, 1), "png"),
    "source_id": TextFeature(),
    "category": TextListFeature(),
    "cluster": TensorFeature(),
}


def save_model(path, weights, bias, shape=(*SIZE, 3), origin=None):
    """A checkpoint of one 1×1 convolution: ``weights`` (3, classes) of the photo's channels, of 0 to 255."""
    import keras

    from training.checkpoint import save_checkpoint

    weights, bias = np.asarray(weights, np.float32), np.asarray(bias, np.float32)
    photo = keras.Input(shape)
    activation = "sigmoid" if len(bias) == 1 else "softmax"
    layer = keras.layers.Conv2D(len(bias), 1, activation=activation, name="mask")
    model = keras.Model(photo, layer(photo))
    layer.set_weights([weights.reshape(1, 1, *weights.shape), bias])
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(model, path, origin or {})
    return path


def warmth(path, threshold=35.0, **options):
    """A model that takes what is redder than blue for the subject: sure of itself, and right about ellipses."""
    return save_model(path, [[1 / 8], [0], [-1 / 8]], [-threshold / 8], **options)


def evaluate(*arguments):
    return main(["evaluate", *map(str, arguments), "--quiet"])


@pytest.fixture(scope="module")
def scene(tmp_path_factory, write_dataset, ellipses):
    """A dataset with one wrong label, a good model and a worse one, and an evaluation of both beside baselines."""
    folder = tmp_path_factory.mktemp("evaluation")
    test = ellipses(12, size=SIZE, seed=7)
    test[WRONG]["mask"] = np.roll(test[WRONG]["mask"], 18, axis=1)
    for number, example in enumerate(test):
        name = "<b>odd</b> & 'quoted'" if number == WRONG else f"photo/{number}"
        example |= {"source_id": name, "category": ["oval", "warm"] if number % 2 else ["oval"], "cluster": number % 3}
    train = ellipses(10, size=SIZE, seed=1)
    for example in train:
        example |= {"source_id": "train", "category": [], "cluster": 0}
    dataset = write_dataset(folder / "dataset", {"train": train, "test": test, "empty": []}, FEATURES)
    good = warmth(folder / "good" / "best.keras")
    worse = warmth(folder / "worse" / "best.keras", threshold=150.0)
    out = folder / "out"
    status = evaluate(
        good.parent, worse, "--dataset", dataset.path, "--output", out, "--baselines", "--resamples", 300, "--seed", 4
    )
    assert status == 0
    report = json.loads((out / "evaluation.json").read_text())
    return dataset, good, worse, out, report


def predictions(checkpoint, dataset):
    """Truth float32 and prediction of each test photo, by Keras itself."""
    import keras

    model = keras.models.load_model(checkpoint, compile=False)
    examples = list(dataset.as_numpy_iterator("test"))
    photos = np.stack([example["image"] for example in examples]).astype(np.float32)
    probabilities = model.predict(photos, verbose=0)[:, :, :, 0]
    return [(e["mask"][:, :, 0].astype(np.float32) / 255, p) for e, p in zip(examples, probabilities, strict=True)]


def test_the_numbers_are_those_of_the_metrics(scene):
    dataset, good, _, _, report = scene
    pairs = predictions(good, dataset)
    ious = np.array([metrics.binary_iou(*pair) for pair in pairs])
    expected = {
        "mean_iou": ious.mean(),
        "pooled_iou": metrics.binary_iou(*(np.stack(side) for side in zip(*pairs, strict=True))),
        "iou_95": (ious >= 0.95).mean(),
        "iou_99": (ious >= 0.99).mean(),
        "mae": np.mean([metrics.mae(*pair) for pair in pairs]),
        "max_f_beta": np.mean([metrics.f_beta_curve(*pair) for pair in pairs], axis=0).max(),
        "mean_f_beta": np.mean([metrics.mean_f_beta(*pair) for pair in pairs]),
        "adaptive_f_beta": np.mean([metrics.adaptive_f_beta(*pair) for pair in pairs]),
        "weighted_f_beta": np.mean([metrics.weighted_f_beta(*pair) for pair in pairs]),
        "s_measure": np.mean([metrics.s_measure(*pair) for pair in pairs]),
        "max_e_measure": np.mean([metrics.e_measure_curve(*pair) for pair in pairs], axis=0).max(),
        "adaptive_e_measure": np.mean([metrics.adaptive_e_measure(*pair) for pair in pairs]),
        "boundary_iou": np.mean([metrics.boundary_iou(*pair) for pair in pairs]),
        "relaxed_boundary_f": np.mean([metrics.relaxed_boundary_f(*pair) for pair in pairs]),
    }
    run = report["runs"][0]
    for name, value in expected.items():
        told = run["results"][name]
        assert told["value"] == pytest.approx(value, abs=2e-6), name
        assert told["low"] <= told["value"] <= told["high"], name
    assert 0.5 < run["results"]["mean_iou"]["low"] < run["results"]["mean_iou"]["high"]
    curves = np.array([metrics.precision_recall_curve(*pair) for pair in pairs]).mean(axis=0)
    assert run["results"]["max_f_beta_of_means"]["value"] == pytest.approx(metrics.f_beta(*curves).max(), abs=2e-6)
    np.testing.assert_allclose(run["curves"]["precision"], curves[0], atol=1e-4)
    assert sum(run["iou_histogram"]) == 12
    assert run["iou_at_least"][0] == 1
    assert run["iou_at_least"][95] == pytest.approx((ious >= 0.95).mean(), abs=1e-6)


def test_groups_are_of_their_photos_only(scene):
    dataset, good, _, _, report = scene
    ious = np.array([metrics.binary_iou(*pair) for pair in predictions(good, dataset)])
    groups = report["runs"][0]["groups"]
    assert [(one["name"], one["photos"]) for one in groups["category"]] == [("oval", 12), ("warm", 6)]
    assert groups["category"][1]["iou"]["value"] == pytest.approx(ious[1::2].mean(), abs=1e-6)
    assert [(one["name"], one["photos"]) for one in groups["cluster"]] == [("0", 4), ("1", 4), ("2", 4)]
    assert groups["cluster"][2]["iou"]["value"] == pytest.approx(ious[2::3].mean(), abs=1e-6)
    shares = [(e["mask"] >= 128).mean() for e in dataset.as_numpy_iterator("test")]
    assert sum(one["photos"] for one in groups["size"]) == 12
    assert {one["name"]: one["photos"] for one in groups["size"]}["medium: 10% to 30%"] == sum(
        0.1 <= share < 0.3 for share in shares
    )


def test_a_wrong_label_heads_the_work_list(scene):
    _, _, _, out, report = scene
    first = report["suspects"][0]
    assert first["number"] == WRONG
    assert first["suspicion"] > 0.5
    assert first["what"] == "label and model surely mean different things"
    assert all(other["suspicion"] < first["suspicion"] / 2 for other in report["suspects"][1:])
    rows = list(csv.DictReader((out / "suspects.csv").read_text().splitlines()))
    assert rows[0]["source_id"] == "<b>odd</b> & 'quoted'"
    assert float(rows[0]["suspicion"]) == pytest.approx(first["suspicion"], abs=1e-4)
    assert report["examples"]["worst"][0]["number"] == WRONG


def test_runs_are_compared_photo_by_photo(scene):
    dataset, good, worse, _, report = scene
    names = [run["name"] for run in report["runs"]]
    assert names == ["good", "worse", "centre prior", "colour model"]
    (other,) = [one for one in report["differences"] if one["minus"] == "worse"]
    assert other["run"] == "good"
    ious = [np.array([metrics.binary_iou(*pair) for pair in predictions(path, dataset)]) for path in (good, worse)]
    told = other["results"]["mean_iou"]
    assert told["value"] == pytest.approx((ious[0] - ious[1]).mean(), abs=2e-6)
    spread = (ious[0] - ious[1]).std() / 12**0.5
    assert told["high"] - told["low"] == pytest.approx(2 * 1.96 * spread, rel=0.35)


def test_baselines_know_the_training_split_only(scene):
    dataset, _, _, _, report = scene
    prior, colour = report["runs"][2:]
    for run in (prior, colour):
        assert run["kind"] == "baseline"
        assert run["fitted_on"] == {"dataset_id": dataset.dataset_id, "split": "train", "examples": 10}
    assert 0.3 < prior["results"]["mean_iou"]["value"] < 0.8
    assert colour["results"]["mean_iou"]["value"] > prior["results"]["mean_iou"]["value"]


def test_the_report_says_where_it_is_from(scene):
    dataset, good, _, _, report = scene
    import hashlib

    assert report["dataset"]["dataset_id"] == dataset.dataset_id
    assert report["dataset"]["provenance"] == {"sha256": "f" * 64}
    assert report["runs"][0]["sha256"] == hashlib.sha256(good.read_bytes()).hexdigest()
    assert report["options"]["seed"] == 4
    assert report["photo_sizes"] == {"least": [*SIZE], "most": [*SIZE]}
    assert report["software"]["version"]
    assert str(good.parent.parent) not in json.dumps(report)


def test_the_page_needs_nothing_and_escapes_everything(scene):
    _, _, _, out, report = scene
    page = (out / "evaluation.html").read_text()
    assert not re.search(r"<script|https?:|<link|url\(", page)
    assert "<b>odd</b>" not in page
    assert html.escape("<b>odd</b> & 'quoted'") in page
    assert set(re.findall(r'src="(data:image/\w+;base64),', page)) == {
        "data:image/jpeg;base64",
        "data:image/png;base64",
    }
    shown = sum(len(photos) for photos in report["examples"].values()) + len(report["suspects"])
    assert page.count("<img") == 4 * shown
    for metric in report["metrics"]:
        assert metric["label"] in page


def test_a_browser_shows_the_page(scene, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium")
    out = scene[3]
    picture = tmp_path / "page.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
    command = [browser, *flags, "--window-size=1240,1600", f"--screenshot={picture}", str(out / "evaluation.html")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    from PIL import Image

    with Image.open(picture) as shot:
        assert len(np.unique(np.asarray(shot.convert("L")))) > 50  # text, lines and charts, no blank page


def test_scores_of_each_photo_are_there(scene):
    dataset, good, _, out, _ = scene
    rows = list(csv.DictReader((out / "scores.csv").read_text().splitlines()))
    assert len(rows) == 12 * 4
    told = [float(row["iou"]) for row in rows if row["run"] == "good"]
    assert told == pytest.approx([metrics.binary_iou(*pair) for pair in predictions(good, dataset)], abs=1e-5)


def test_no_work_is_written_over_unless_told(scene, tmp_path, capsys):
    dataset, good, *_ = scene
    (tmp_path / "evaluation.json").write_text("{}")
    arguments = (good, "--dataset", dataset.path, "--output", tmp_path, "--resamples", 100, "--batch-size", 5)
    assert evaluate(*arguments) == 1
    assert "holds another evaluation (evaluation.json)" in capsys.readouterr().err
    assert (tmp_path / "evaluation.json").read_text() == "{}"
    assert evaluate(*arguments, "--overwrite") == 0
    again = json.loads((tmp_path / "evaluation.json").read_text())
    # other batches, the same numbers
    assert again["runs"][0]["results"]["mean_iou"]["value"] == scene[4]["runs"][0]["results"]["mean_iou"]["value"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "evaluation.html", "evaluation.json", "scores.csv", "suspects.csv",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ({}, ("--split", "val"), "no split 'val'"),
        ({}, ("--split", "empty"), "the split 'empty' is empty"),
        ({}, ("--split", "train", "--baselines"), "which flatters them"),
        ({}, ("--resamples", "9"), "resamples is a whole number of at least 100"),
        ({"shape": (16, 16, 3)}, (), "takes photos of 16×16, and example 0 is 32×40"),
        ({"classes": 3}, (), "no mask of split 'test' has a class besides 0"),
        ({"channels": 5}, (), "sees positive_clicks, negative_clicks besides the photo"),
        ({"damaged": True}, (), "damaged"),
        ({"absent": True}, (), "there is no checkpoint"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(scene, tmp_path, capsys, model, arguments, message):
    dataset = scene[0]
    path = tmp_path / "model" / "best.keras"
    if model.get("damaged"):
        path.parent.mkdir()
        path.write_bytes(b"PK damaged")
    elif "classes" in model:
        save_model(path, np.zeros((3, 3)), np.zeros(3))
    elif "channels" in model:
        save_model(path, np.zeros((5, 1)), np.zeros(1), shape=(*SIZE, 5))
    elif not model.get("absent"):
        warmth(path, shape=model.get("shape", (*SIZE, 3)))
    out = tmp_path / "out"
    assert evaluate(path, "--dataset", dataset.path, "--output", out, *arguments) == 1
    error = capsys.readouterr().err
    assert message in error, error
    assert "Traceback" not in error
    assert not out.exists() or not list(out.iterdir())


def test_out_of_memory_says_what_to_lower_and_leaves_nothing(scene, tmp_path, capsys, monkeypatch):
    import keras

    def exhausted(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.")  # as JAX does

    dataset, good = scene[:2]
    monkeypatch.setattr(keras.Model, "predict_on_batch", exhausted)
    out = tmp_path / "out"
    assert evaluate(good, "--dataset", dataset.path, "--output", out, "--batch-size", 7) == 1
    assert "out of memory while evaluating good: lower batch_size (it is 7)" in capsys.readouterr().err
    assert not out.exists() or not list(out.iterdir())


def test_a_model_of_another_size_may_be_asked_to_resize(scene, tmp_path):
    dataset = scene[0]
    small = warmth(tmp_path / "small" / "best.keras", shape=(24, 24, 3))
    arguments = (small, "--dataset", dataset.path, "--output", tmp_path / "out", "--resize", "--resamples", 100)
    assert evaluate(*arguments) == 0
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert report["options"]["resize"] is True
    assert report["runs"][0]["results"]["mean_iou"]["value"] > 0.7  # at 32×40: at 24×24 it could not be told


def test_a_run_that_knows_the_split_is_called_out(scene, tmp_path, capsys):
    dataset = scene[0]
    told = {"dataset_id": dataset.dataset_id, "train_split": {"name": "train"}, "validation_split": {"name": "test"}}
    known = warmth(tmp_path / "known" / "best.keras", origin={"dataset": told, "model": {"name": "unet"}})
    assert evaluate(known, "--dataset", dataset.path, "--output", tmp_path / "out", "--resamples", 100) == 0
    warning = "the best epoch of known was chosen on 'test': its numbers are optimistic"
    assert warning in capsys.readouterr().err
    assert html.escape(warning) in (tmp_path / "out" / "evaluation.html").read_text()


@pytest.fixture(scope="module")
def classes(tmp_path_factory, write_dataset, ellipses):
    """Masks of three classes and void: ground, left and right half of the ellipse; class 2 looks like class 1."""
    folder = tmp_path_factory.mktemp("classes")

    def numbered(count, seed):
        made = ellipses(count, size=SIZE, seed=seed)
        for example in made:
            mask = (example["mask"] > 0).astype(np.uint8)
            mask[:, SIZE[1] // 2 :] *= 2
            mask[:2] = 255
            example["mask"] = mask
        return made

    dataset = write_dataset(folder / "dataset", {"train": numbered(4, 1), "test": numbered(6, 2)})
    model = save_model(folder / "run" / "best.keras", [[-1 / 8, 1 / 8, 0], [0, 0, 0], [1 / 8, -1 / 8, 0]], [8, 0, -60])
    out = folder / "out"
    names = "--class-names", "ground,left,right"
    status = evaluate(model, "--dataset", dataset.path, "--output", out, *names, "--baselines", "--resamples", 200)
    assert status == 0
    return dataset, model, out, json.loads((out / "evaluation.json").read_text())


def test_several_classes_are_counted_without_void(classes):
    import keras

    dataset, path, _, report = classes
    model = keras.models.load_model(path, compile=False)
    matrix = np.zeros((3, 3), np.int64)
    for example in dataset.as_numpy_iterator("test"):
        predicted = model.predict(example["image"][None].astype(np.float32), verbose=0)[0].argmax(axis=2)
        matrix += metrics.confusion_matrix(example["mask"][:, :, 0], predicted, 3)
    run = report["runs"][0]
    assert run["confusion"] == matrix.tolist()
    assert matrix.sum() == 6 * (SIZE[0] - 2) * SIZE[1]
    assert run["results"]["mean_iou"]["value"] == pytest.approx(metrics.mean_iou(matrix), abs=1e-6)
    assert run["results"]["pixel_accuracy"]["value"] == pytest.approx(metrics.pixel_accuracy(matrix), abs=1e-6)
    told = [one["value"] for one in run["per_class"]]
    assert told == pytest.approx(metrics.iou_per_class(matrix), abs=1e-6)
    assert run["per_class"][2]["value"] == 0  # it never predicts that class
    recall = metrics.precision_recall_f1(matrix).recall.mean()
    assert run["results"]["class_accuracy"]["value"] == pytest.approx(recall, abs=1e-6)


def test_the_page_of_several_classes_names_them(classes):
    _, _, out, report = classes
    page = (out / "evaluation.html").read_text()
    assert "Confusion matrix of run" in page
    for name in ("ground", "left", "right"):
        assert f"{name}</th>" in page
    assert report["suspects"][0]["what"] == "labelled right, where the model surely sees left"


def test_soft_masks_have_errors_of_mattes(write_dataset, ellipses, tmp_path):
    soft = ellipses(3, size=SIZE)
    soft[0]["mask"] = (soft[0]["mask"] * 0.6).astype(np.uint8)
    dataset = write_dataset(tmp_path / "dataset", {"test": soft})
    model = warmth(tmp_path / "best.keras")
    assert evaluate(model, "--dataset", dataset.path, "--output", tmp_path / "out", "--resamples", 100) == 0
    results = json.loads((tmp_path / "out" / "evaluation.json").read_text())["runs"][0]["results"]
    truth, predicted = predictions(model, open_dataset(dataset.path))[0]
    for name in ("sad", "mse", "gradient_error", "connectivity_error"):  # of the one photo with soft edges
        assert results[name]["value"] == pytest.approx(getattr(metrics, name)(truth, predicted), abs=2e-6)
