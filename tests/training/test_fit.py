"""A whole training on easy photos: it learns, leaves what it promises, repeats, and stops when it must."""

import csv
import json

import keras
import numpy as np
import pytest
from PIL import Image

from training import FitOptions
from training.checkpoint import load_checkpoint
from training.data import load_splits
from training.errors import (
    CheckpointError,
    DatasetError,
    DivergedError,
    ModelShapeError,
    OutputError,
    PhotoError,
)
from training.fit import fit
from training.loop import TrainingLoop
from training.metrics import binary_iou
from training.models import create_model
from training.outputs import prepare_outputs
from training.predict import predict_files, predict_photos, spread

# Keras 3.15 on TensorFlow 2.21: NumPy 2 wishes for a copy keyword that tf.Variable.__array__ does not have.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

TINY = {"base_filters": 4, "depth": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_dataset, ellipses):
    """Four photos, learned by heart: (dataset, options, result)."""
    folder = tmp_path_factory.mktemp("trained")
    dataset = write_dataset(folder / "dataset", {"train": ellipses(4), "test": ellipses(2, seed=1)})
    options = FitOptions(
        epochs=20,
        batch_size=2,
        learning_rate=5e-3,
        seed=3,
        validation_split="train",
        model_options={"base_filters": 8, "depth": 2},
    )
    return dataset, options, fit(dataset, folder / "run", options)


def test_learns_four_photos_by_heart(trained):
    _, options, result = trained
    assert result.iou_before < 0.7
    assert result.iou_after > 0.9
    assert [record.epoch for record in result.history] == list(range(options.epochs + 1))
    best = max(result.history[1:], key=lambda record: record.val_iou)
    assert result.best_epoch == best.epoch
    assert result.iou_after == pytest.approx(best.val_iou, abs=1e-6)


def test_leaves_what_it_promises_and_nothing_else(trained):
    dataset, options, result = trained
    outputs = result.outputs
    names = {"best.keras", "history.csv", "history.png", "predictions.png", "report.json"}
    assert {path.name for path in outputs.directory.iterdir()} == names

    rows = list(csv.DictReader(outputs.history_csv.read_text().splitlines()))
    assert rows[0].keys() == {"epoch", "loss", "iou", "val_loss", "val_iou", "seconds"}
    assert rows[0]["loss"] == rows[0]["iou"] == ""
    assert [float(row["val_iou"]) for row in rows] == [record.val_iou for record in result.history]

    report = json.loads(outputs.report.read_text())
    assert report["dataset"]["dataset_id"] == dataset.dataset_id
    assert report["dataset"]["provenance"] == dataset.manifest["provenance"]
    assert report["dataset"]["validation_split"] == {"name": "train", "examples": 4}
    assert report["model"]["options"] == {"base_filters": 8, "depth": 2}
    assert report["options"] == options.to_json()
    assert report["result"]["iou_after"] == result.iou_after
    assert report["software"]["backend"] == keras.backend.backend()
    assert report["software"]["version"]
    assert report["software"]["backend_version"]

    for picture in (outputs.history_plot, outputs.predictions):
        with Image.open(picture) as image:
            assert image.size[0] > 500


def test_the_checkpoint_alone_gives_the_iou_that_was_reported(trained):
    dataset, _, result = trained
    split, _ = load_splits(dataset, "train", "train")
    masks = predict_photos(load_checkpoint(result.outputs.checkpoint), split.images, batch_size=2)
    assert masks.dtype == np.float32
    assert binary_iou(split.masks / 255, masks) == pytest.approx(result.iou_after, abs=1e-6)


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


def test_a_damaged_or_foreign_checkpoint_is_refused(trained, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_checkpoint(tmp_path / "best.keras")
    whole = trained[2].outputs.checkpoint.read_bytes()
    (tmp_path / "half.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path / "half.keras")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "dense.keras")
    with pytest.raises(CheckpointError, match="not photos to masks"):
        load_checkpoint(tmp_path / "dense.keras")
    create_model("unet", (16, 16, 3), 2, **TINY).save(tmp_path / "two.keras")
    with pytest.raises(CheckpointError, match="tells 2 classes apart"):
        predict_files(tmp_path / "two.keras", [], tmp_path / "masks")


def test_the_same_training_twice_gives_the_same_weights(make_dataset, ellipses, tmp_path):
    dataset = make_dataset({"train": ellipses(5, size=(16, 16)), "validation": ellipses(2, size=(16, 16))})
    options = FitOptions(epochs=2, batch_size=2, model_options=TINY)
    first, again = (fit(dataset, tmp_path / name, options) for name in ("a", "b"))
    assert [record.val_loss for record in first.history] == [record.val_loss for record in again.history]
    weights = [load_checkpoint(result.outputs.checkpoint).get_weights() for result in (first, again)]
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(make_dataset, ellipses, tmp_path):
    train, validation = load_splits(make_dataset({"train": ellipses(4, size=(16, 16))}), "train", "train")
    options = FitOptions(epochs=3, batch_size=2, model_options=TINY)
    outputs = prepare_outputs(tmp_path / "run", overwrite=False)
    model = create_model("unet", (16, 16, 3), **TINY)

    class Poisoned(type(train)):  # weights turn to NaN before the second epoch
        def order(self, seed, epoch):
            if epoch == 2:
                model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
            return super().order(seed, epoch)

    poisoned = Poisoned(train.name, train.images, train.masks)
    with pytest.raises(DivergedError, match=r"batch 1 of epoch 2; .*best\.keras keeps epoch 1\. Lower") as caught:
        TrainingLoop(model, poisoned, validation, options, outputs).run()
    assert (caught.value.epoch, caught.value.batch) == (2, 1)
    assert caught.value.checkpoint == outputs.checkpoint
    assert all(np.isfinite(weight).all() for weight in load_checkpoint(outputs.checkpoint).get_weights())
    assert len(outputs.history_csv.read_text().splitlines()) == 1 + 2


def test_what_does_not_fit_is_refused_before_anything_is_overwritten(make_dataset, ellipses, tmp_path):
    dataset = make_dataset({"train": ellipses(1, size=(16, 16)), "test": ellipses(1, size=(16, 16))})
    old = tmp_path / "best.keras"
    old.write_bytes(b"precious")
    with pytest.raises(OutputError):
        fit(dataset, tmp_path, FitOptions(model_options=TINY))
    with pytest.raises(ModelShapeError, match="depth 4 or less"):
        fit(dataset, tmp_path, FitOptions(model_options={"depth": 5}, overwrite=True))
    with pytest.raises(DatasetError, match="no split 'dev'"):
        fit(dataset, tmp_path, FitOptions(validation_split="dev", overwrite=True))
    assert old.read_bytes() == b"precious"


@pytest.mark.parametrize(("count", "most", "chosen"), [(1, 6, [0]), (3, 6, [0, 1, 2]), (11, 3, [0, 5, 10])])
def test_examples_for_the_picture_are_spread(count, most, chosen):
    assert spread(count, most).tolist() == chosen
