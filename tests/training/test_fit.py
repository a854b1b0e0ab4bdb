"""Whole trainings on easy photos: they learn, leave what they promise, and stop when they must."""

import csv
import json
import shutil
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from training import FitOptions
from training.batches import few
from training.checkpoint import load_checkpoint, read_origin
from training.data import read_task
from training.errors import (
    BackendError,
    CheckpointError,
    DatasetError,
    DivergedError,
    MemoryExhaustedError,
    ModelShapeError,
    OptionsError,
    OutputError,
    PhotoError,
)
from training.fit import fit
from training.memory import is_out_of_memory, memory_errors, to_train_with_less
from training.metrics import binary_iou, confusion_matrix, mean_iou
from training.models import create_model
from training.optimizers import create_optimizer
from training.predict import predict_files, predict_inputs
from training.schedules import WarmUpAndDecay

# Keras 3.15 on TensorFlow 2.21: NumPy 2 wishes for a copy keyword that tf.Variable.__array__ does not have.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

TINY = {"base_filters": 4, "depth": 1}


class Recorder:
    """A tracker that keeps what it is told."""

    def __init__(self, at=None):
        self.told, self.pictures, self.closed, self.at = [], [], [], at or {}

    def scalars(self, step, values):
        self.told.append((step, dict(values)))
        if step in self.at and "loss/batch" in values:
            self.at[step]()

    def picture(self, step, path, size):
        with Image.open(path) as image:
            self.pictures.append((step, path.name, image.size == size[::-1]))

    def close(self, error):
        self.closed.append(error)

    def of(self, tag):
        return {step: values[tag] for step, values in self.told if tag in values}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_dataset, ellipses):
    """Four photos, learned by heart: (dataset, options, result, recorder)."""
    folder = tmp_path_factory.mktemp("trained")
    dataset = write_dataset(folder / "dataset", {"train": ellipses(4), "test": ellipses(2, seed=1)})
    options = FitOptions(
        epochs=20,
        batch_size=2,
        learning_rate=5e-3,
        seed=3,
        validation_split="train",
        model_options={"base_filters": 8, "depth": 2},
        predictions_every=30,
        log_every=5,
    )
    recorder = Recorder()
    return dataset, options, fit(dataset, folder / "run", options, trackers=[recorder]), recorder


def test_learns_four_photos_by_heart(trained):
    _, options, result, _ = trained
    assert result.iou_before < 0.7
    assert result.iou_after > 0.9
    assert [record.epoch for record in result.history] == list(range(options.epochs + 1))
    best = max(result.history[1:], key=lambda record: record.val_iou)
    assert result.best_epoch == best.epoch
    assert result.iou_after == pytest.approx(best.val_iou, abs=1e-6)


def test_leaves_what_it_promises_and_nothing_else(trained):
    dataset, options, result, _ = trained
    outputs = result.outputs
    names = {"best.keras", "state.npz", "history.csv", "history.png", "predictions.png", "report.json", "predictions"}
    found = {path.name for path in outputs.directory.iterdir()}
    events = {name for name in found if name.startswith("events.out.tfevents.")}
    assert (found - events, len(events)) == (names, 1)

    rows = list(csv.DictReader(outputs.history_csv.read_text().splitlines()))
    assert list(rows[0]) == ["epoch", "loss", "iou", "val_loss", "val_iou", "learning_rate", "seconds", "waited"]
    assert rows[0]["loss"] == rows[0]["iou"] == ""
    assert [float(row["val_iou"]) for row in rows] == [record.val_iou for record in result.history]

    report = json.loads(outputs.report.read_text())
    assert report["dataset"]["dataset_id"] == dataset.dataset_id
    assert report["dataset"]["provenance"] == dataset.manifest["provenance"]
    assert report["dataset"]["validation_split"] == {"name": "train", "examples": 4}
    assert report["model"]["options"]["base_filters"] == 8
    assert FitOptions(**report["options"]) == options
    assert report["result"]["iou_after"] == result.iou_after
    assert report["software"]["backend"] == keras.backend.backend()
    assert report["software"]["version"]
    assert report["software"]["backend_version"]

    for picture in (outputs.history_plot, outputs.predictions):
        with Image.open(picture) as image:
            assert image.size[0] > 500


def test_trackers_are_told_of_losses_and_pictures_while_it_runs(trained):
    _, _, result, recorder = trained
    assert recorder.closed == [None]
    assert list(recorder.of("loss/batch")) == list(range(5, 41, 5))
    assert list(recorder.of("iou/validation").values()) == [record.val_iou for record in result.history]
    assert recorder.pictures == [(15, "000000030.jpg", True), (30, "000000060.jpg", True)]


def test_the_checkpoint_says_what_it_was_trained_on(trained):
    dataset, options, result, _ = trained
    origin = read_origin(result.outputs.checkpoint)
    assert origin["dataset"]["dataset_id"] == dataset.dataset_id
    assert origin["dataset"]["provenance"] == dataset.manifest["provenance"]
    assert (origin["model"]["name"], origin["model"]["classes"], origin["seed"]) == ("unet", 1, 3)
    assert origin["model"]["input_features"] == ["image"]
    assert origin["epoch"] == result.best_epoch
    assert FitOptions(**origin["options"]) == options


def test_the_checkpoint_alone_gives_the_iou_that_was_reported(trained):
    dataset, options, result, _ = trained
    task = read_task(dataset, options)
    examples = few(dataset, task, task.train, np.arange(4))
    masks = predict_inputs(load_checkpoint(result.outputs.checkpoint), examples["x"], batch_size=3)
    assert masks.dtype == np.float32
    assert binary_iou(examples["y"] / 255, masks) == pytest.approx(result.iou_after, abs=1e-6)


def test_predicts_files_of_any_size(trained, tmp_path, ellipses):
    example = ellipses(1, size=(150, 200), seed=0)[0]
    photo = tmp_path / "photo.jpg"
    Image.fromarray(example["image"]).save(photo, quality=95)
    (written,) = predict_files(trained[2].outputs.checkpoint, [photo], tmp_path / "masks")
    with pytest.raises(OutputError, match="is there already"):
        predict_files(trained[2].outputs.checkpoint, [photo], tmp_path / "masks")
    assert written == tmp_path / "masks" / "photo.png"
    with Image.open(written) as mask:
        assert (mask.mode, mask.size) == ("L", (200, 150))
        assert binary_iou(example["mask"][:, :, 0] / 255, np.asarray(mask) / 255) > 0.7


def test_photos_that_cannot_be_predicted_are_refused_first(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"not a photo")
    with pytest.raises(PhotoError, match=r"a\.jpg"):
        predict_files("unused", [tmp_path / "a.jpg"], tmp_path / "masks")
    with pytest.raises(PhotoError, match=r"b\.jpg"):
        predict_files("unused", [tmp_path / "b.jpg"], tmp_path / "masks")
    with pytest.raises(OutputError, match="would both become"):
        predict_files("unused", ["x/a.jpg", "y/a.png"], tmp_path / "masks")
    with pytest.raises(OutputError, match="take its place"):
        predict_files("unused", [tmp_path / "a.png"], tmp_path)


@pytest.fixture(scope="module")
def classes_trained(tmp_path_factory, write_dataset, ellipses):
    """Three classes with void, clicks, parts of photos, averaged weights, all in one: (dataset, options, result)."""
    from dataset_handlers.features import ImageFeature

    folder = tmp_path_factory.mktemp("classes")
    plane = ImageFeature((None, None, 1), "png")
    features = {
        "image": ImageFeature((None, None, 3), "jpeg"),
        **dict.fromkeys(("mask", "positive_clicks", "negative_clicks"), plane),
    }
    examples = []
    for number, example in enumerate(ellipses(4, size=(24, 32)) * 6):
        mask = (example["mask"] // 255) * np.uint8(1 + number % 2)
        mask[0] = 255
        clicks = np.full((24, 32, 1), 255 * (number % 2), np.uint8)
        examples.append(
            {"image": example["image"], "mask": mask, "positive_clicks": clicks, "negative_clicks": 255 - clicks}
        )
    dataset = write_dataset(folder / "dataset", {"train": examples, "validation": examples[:4]}, features)
    dataset.manifest["labels"] = {"1": "left", "2": "right"}
    dataset.manifest["statistics"] = {"train": {"label_pixels": {"0": 1000, "1": 400, "2": 400}}}
    options = FitOptions(
        epochs=5,
        batch_size=4,
        learning_rate=1e-2,
        optimizer="rmsprop",
        schedule="exponential",
        weight_decay=1e-4,
        warmup_steps=8,
        clip_norm=1.0,
        accumulate=2,
        ema=0.8,
        class_weights="median",
        inputs=["clicks"],
        augmentation={"crop": [16, 16], "flip": 0.5},
        model_options={"base_filters": 8, "depth": 1},
        predictions_every=40,
        mixed_precision="bfloat16",
    )
    return dataset, options, fit(dataset, folder / "run", options)


def test_learns_classes_from_parts_of_photos_and_clicks(classes_trained):
    dataset, options, result = classes_trained
    assert result.iou_after > result.iou_before + 0.2
    model = load_checkpoint(result.outputs.checkpoint)
    assert (model.input_shape, model.output_shape) == ((None, 24, 32, 5), (None, 24, 32, 3))
    task = read_task(dataset, options)
    examples = few(dataset, task, task.validation, np.arange(4))
    predicted = predict_inputs(model, examples["x"], batch_size=4).argmax(axis=-1)
    matrix = confusion_matrix(examples["y"][..., 0], predicted, 3)
    assert mean_iou(matrix) == pytest.approx(result.iou_after, abs=1e-6)
    rates = [record.learning_rate for record in result.history[1:]]
    assert rates[0] == pytest.approx(1e-2 * 7 / 8, rel=1e-5)
    assert rates[4] == pytest.approx(1e-2 * 0.995**5, rel=1e-5)
    with pytest.raises(CheckpointError, match="takes 5 channels, 2 beside the photo's"):
        predict_files(result.outputs.checkpoint, [], result.outputs.directory / "masks")


def test_first_weights_may_come_from_the_checkpoint_that_is_overwritten_and_patience_ends_a_training(
    trained, make_dataset, ellipses, tmp_path
):
    _, options, result, _ = trained
    size = {"size": (32, 32)}
    smaller = make_dataset({"train": ellipses(4, **size), "validation": ellipses(2, seed=1, **size)})
    checkpoint, left_over = tmp_path / "best.keras", tmp_path / "predictions" / ".000000500.01234567.jpg"
    left_over.parent.mkdir()
    for path in (left_over, tmp_path / "report.json"):
        path.write_bytes(b"of another training")
    shutil.copy(result.outputs.checkpoint, checkpoint)
    with pytest.raises(CheckpointError, match=r"checkpoint of the same model"):
        fit(smaller, tmp_path, FitOptions(init=str(checkpoint), overwrite=True))
    assert checkpoint.read_bytes() == result.outputs.checkpoint.read_bytes()
    follow = FitOptions(
        epochs=9,
        patience=1,
        learning_rate=1e-12,
        init=str(checkpoint),
        overwrite=True,
        model_options=options.model_options,
        predictions_every=0,
    )
    again = fit(smaller, tmp_path, follow)
    assert again.iou_before > 0.6
    assert len(again.history) < 9
    assert not left_over.exists()
    assert json.loads(again.outputs.report.read_text())["result"]["stopped_early"] is True


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(make_dataset, ellipses, tmp_path):
    dataset = make_dataset({"train": ellipses(4, size=(16, 16)), "test": ellipses(1, size=(16, 16))})
    options = FitOptions(
        model_options=TINY,
        epochs=2,
        batch_size=2,
        learning_rate=1e30,
        warmup_steps=0,
        schedule="polynomial",
        power=60.0,
        optimizer="sgd",
    )
    recorder = Recorder()
    message = r"batch 2 of epoch 1; there is no checkpoint yet\. Begin anew with a lower"
    with pytest.raises(DivergedError, match=message) as caught:
        fit(dataset, tmp_path / "run", options, trackers=[recorder])
    assert (caught.value.epoch, caught.value.batch, caught.value.checkpoint) == (1, 2, None)
    assert recorder.closed == [caught.value]


def test_what_does_not_fit_is_refused_before_anything_is_overwritten(make_dataset, ellipses, tmp_path, monkeypatch):
    dataset = make_dataset({"train": ellipses(1, size=(16, 16)), "test": ellipses(1, size=(16, 16))})
    old = tmp_path / "best.keras"
    old.write_bytes(b"precious")
    with pytest.raises(OutputError):
        fit(dataset, tmp_path, FitOptions(model_options=TINY))
    with pytest.raises(ModelShapeError, match="depth 4 or less"):
        fit(dataset, tmp_path, FitOptions(model_options={"depth": 5}, overwrite=True))
    with pytest.raises(DatasetError, match="no split 'dev'"):
        fit(dataset, tmp_path, FitOptions(validation_split="dev", overwrite=True))
    with pytest.raises(OptionsError, match="'ce' is not for one class"):
        fit(dataset, tmp_path, FitOptions(loss="ce", overwrite=True))
    with pytest.raises(OutputError, match=r"without its state \(state\.npz\)"):
        fit(dataset, tmp_path, FitOptions(resume=True))
    with pytest.raises(OptionsError, match="'dice' takes no class_weights"):
        fit(dataset, tmp_path, FitOptions(loss="dice", class_weights=[1, 2], model_options=TINY, overwrite=True))
    with pytest.raises(OptionsError, match=r"sgd cannot take .*momentum"):
        fit(
            dataset,
            tmp_path,
            FitOptions(optimizer="sgd", optimizer_options={"momentum": 2}, model_options=TINY, overwrite=True),
        )
    with pytest.raises(CheckpointError, match=r"no checkpoint .*none\.keras"):
        fit(dataset, tmp_path, FitOptions(init=tmp_path / "none.keras", model_options=TINY, overwrite=True))
    monkeypatch.setitem(sys.modules, "mlflow", None)  # as where it is not installed
    with pytest.raises(BackendError, match="mlflow is asked for and not installed"):
        fit(dataset, tmp_path, FitOptions(mlflow=True, overwrite=True))
    assert old.read_bytes() == b"precious"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        type("ResourceExhaustedError", (Exception,), {})("OOM when allocating tensor"),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 bytes."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_out_of_memory_says_what_to_lower(error):
    with (
        pytest.raises(MemoryExhaustedError, match=r"training unet: lower batch_size \(it is 8.*64×48\), or set mixed"),
        memory_errors("training unet", *to_train_with_less(FitOptions(), (64, 48, 3))),
    ):
        raise error


def test_tensorflow_says_out_of_memory_as_expected():
    tf = pytest.importorskip("tensorflow", reason="tests/training run on TensorFlow, elsewhere this is not to be asked")
    with pytest.raises(tf.errors.ResourceExhaustedError) as caught:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[9]")
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(ValueError("out of memory lane"))


@pytest.mark.parametrize(
    ("options", "steps", "expected"),
    [
        ({}, [0, 99], [1, 1]),
        ({"warmup_steps": 4}, [0, 1, 3, 4, 50], [0.25, 0.5, 1, 1, 1]),
        ({"schedule": "exponential", "decay": 0.5}, [0, 10, 20], [1, 0.5, 0.25]),
        ({"schedule": "cosine"}, [0, 50, 100, 120], [1, 0.5, 0, 0]),
        ({"schedule": "polynomial", "power": 2.0, "warmup_steps": 20}, [9, 20, 60, 100], [0.5, 1, 0.25, 0]),
    ],
)
def test_schedules_are_their_formulas(options, steps, expected):
    rate = WarmUpAndDecay(FitOptions(learning_rate=0.3, **options), total_steps=100, epoch_steps=10)
    assert [float(rate(step)) for step in steps] == pytest.approx([0.3 * factor for factor in expected], abs=1e-6)


def test_a_warm_up_longer_than_the_training_is_refused():
    with pytest.raises(OptionsError, match="warmup_steps is 100, and the whole training has 100 steps"):
        WarmUpAndDecay(FitOptions(schedule="cosine", warmup_steps=100), total_steps=100, epoch_steps=10)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "sgd"])
def test_optimizers_are_made_as_asked(name):
    optimizer = create_optimizer(
        FitOptions(optimizer=name, weight_decay=1e-4, clip_norm=2, ema=0.9, accumulate=3, learning_rate=0.1),
        epoch_steps=10,
    )
    assert (type(optimizer).__name__.lower(), optimizer.weight_decay, optimizer.global_clipnorm) == (name, 1e-4, 2)
    assert (optimizer.ema_momentum, optimizer.gradient_accumulation_steps) == (0.9, 3)
    assert float(optimizer.learning_rate) == pytest.approx(0.1)
    assert create_optimizer(FitOptions(optimizer=name), epoch_steps=1).gradient_accumulation_steps is None


def test_models_of_other_kinds_are_no_checkpoints(tmp_path):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "dense.keras")
    with pytest.raises(CheckpointError, match="not photos to masks"):
        load_checkpoint(tmp_path / "dense.keras")
    assert read_origin(tmp_path / "dense.keras") is None
    create_model("unet", (16, 16, 3), 2, **TINY).save(tmp_path / "two.keras")
    photo = tmp_path / "a.png"
    Image.new("RGB", (20, 10)).save(photo)
    (written,) = predict_files(tmp_path / "two.keras", [photo], tmp_path / "masks")
    with Image.open(written) as mask:
        assert mask.size == (20, 10)
        assert set(np.unique(np.asarray(mask))) <= {0, 1}
