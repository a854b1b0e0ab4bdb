"""`dataset-handlers preview`: what the panels show, where they lie, and which examples are asked for."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dataset_handlers.authors.building import build_a_few
from dataset_handlers.authors.dataset import decode_fields, open_dataset
from dataset_handlers.authors.drawing import caption, overlay, panels
from dataset_handlers.authors.preview import contact_sheet
from dataset_handlers.errors import CorruptShardError, EmptySelectionError, RequestError
from dataset_handlers.example_proto import decode_example
from dataset_handlers.features import (
    BytesFeature,
    ImageFeature,
    TensorFeature,
    TextFeature,
    features_json,
    serialize,
)
from dataset_handlers.metadata import write_metadata
from dataset_handlers.shards import WorkFolder
from tests.handlers import broken_handlers
from tests.handlers.support import make

GREEN = np.full((40, 60, 3), (0, 200, 0), np.uint8)


def mask(rows=slice(10, 30), columns=slice(20, 40), level=255):
    drawn = np.zeros((40, 60, 1), np.uint8)
    drawn[rows, columns] = level
    return drawn


@pytest.fixture(scope="module")
def dataset(raw_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("preview")
    config = {"splits": {"train": 0.7, "test": 0.3}}
    plan, sealed = make(broken_handlers.Sound, config, raw_root, folder)
    write_metadata(WorkFolder(folder), plan, sealed)
    return open_dataset(folder)


def test_an_overlay_tints_the_subject_and_dims_the_rest():
    drawn = overlay(GREEN, mask()).astype(int)
    assert (drawn[0, 0] == (0, 90, 0)).all()
    assert drawn[20, 30, 0] > 100
    assert (drawn[20, 30] == np.rint(np.array((0, 200, 0)) * 0.55 + np.array((235, 60, 120)) * 0.45)).all()
    half = overlay(GREEN, mask(level=128)).astype(int)
    assert drawn[0, 0, 0] < half[20, 30, 0] < drawn[20, 30, 0], "soft masks tint as much as they cover"


def test_classes_have_colours_of_their_own():
    classes = mask(columns=slice(0, 10), level=1) + mask(columns=slice(20, 30), level=2)
    classes[:, 50:] = 255  # not decided
    drawn = overlay(GREEN, classes)
    colours = {tuple(drawn[20, column]) for column in (5, 25, 15, 55)}
    assert len(colours) == 3
    assert tuple(drawn[20, 55]) == tuple(drawn[20, 15])


def test_every_field_has_its_panel():
    distances = np.full((40, 60, 1), 255, np.uint8)
    distances[5, 5] = 0
    example = {
        "image": GREEN,
        "mask": mask(),
        "alpha": mask(),
        "trimap": mask(level=128),
        "positive_clicks": distances,
        "negative_clicks": distances[::-1],
        "depth": mask(level=77),
        "boxes": np.array([[0.25, 1 / 3, 0.75, 2 / 3]], np.float32),
        "source_id": "a/b",
        "category": [b"cat", b"dog", b"cat"],
        "cluster": 3,
        "score": 0.12345,
    }
    drawn = [np.asarray(picture) for picture in panels(example, (60, 40))]
    assert len(drawn) == 6
    photo, over, alpha, trimap, clicks, depth = drawn
    assert tuple(photo[10, 20]) == tuple(photo[29, 39]) == (255, 220, 0), "the box's corners"
    assert tuple(photo[9, 20]) == tuple(photo[20, 30]) == (0, 200, 0)
    assert (over[20, 30] != over[0, 0]).any()
    assert tuple(alpha[20, 30]) == (255, 255, 255)
    assert tuple(trimap[20, 30]) == (128, 128, 128)
    assert clicks[5, 5].argmax() == 1
    assert clicks[34, 5].argmax() == 0
    assert tuple(depth[20, 30]) == (77, 77, 77)
    assert caption(example) == "a/b · 2 cat, dog · cluster 3 · score 0.123"


def test_pictures_of_another_shape_keep_theirs():
    (tall,) = panels({"image": np.full((100, 50, 3), 10, np.uint8)}, (60, 40))
    pixels = np.asarray(tall)
    assert tuple(pixels[20, 30]) == (10, 10, 10)
    assert pixels[20, 0].min() > 200, "paper beside it"


def cells(sheet):
    """How many cells lie beside each other in the first row: runs of columns that are not all white."""
    pixels = np.asarray(sheet)[40:80]
    inked = (pixels != 255).any(axis=(0, 2))
    starts = np.flatnonzero(np.diff(inked.astype(int)) == 1)
    gaps = [not inked[start - 9 : start + 1].any() for start in starts]
    return sum(gaps)


def test_a_sheet_shows_as_many_as_asked_for(dataset):
    sheet = contact_sheet(dataset, count=5, columns=3)
    assert cells(sheet) == 3
    one = contact_sheet(dataset, ["test"], count=2)
    assert cells(one) == 2
    assert one.height < sheet.height / 2
    all_of_them = contact_sheet(dataset, ["test"], count=1000)
    assert all_of_them.width <= 1700
    assert np.array_equal(np.asarray(sheet), np.asarray(contact_sheet(dataset, count=5, columns=3)))


def test_the_first_cell_is_the_first_example(dataset):
    first = next(iter(dataset.examples("train")))
    sheet = contact_sheet(dataset, ["train"], count=1)
    photo, over = panels(first, (160, 160))
    left, top = 16, 34
    assert np.array_equal(np.asarray(sheet.crop((left, top, left + 160, top + 160))), np.asarray(photo))
    assert np.array_equal(np.asarray(sheet.crop((left + 163, top, left + 323, top + 160))), np.asarray(over))


def test_what_cannot_be_drawn_is_refused(dataset):
    for wrong in ({"count": 0}, {"count": 1001}, {"columns": 0}, {"splits": ["validation"]}):
        with pytest.raises(RequestError):
            contact_sheet(dataset, **wrong)


def test_datasets_without_pictures_are_refused(plugin_python, raw_root, tmp_path):
    from dataset_handlers.authors.building import build_a_few  # noqa: F401 - the command uses it, in the other interpreter

    command = [str(plugin_python), "-I", "-m", "dataset_handlers", "preview", "--dataset", "number"]
    done = subprocess.run(
        [*command, "--raw-root", str(raw_root), "--output", "x.png"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "holds nothing that can be drawn" in done.stderr
    assert EmptySelectionError.__name__ not in done.stderr


def preview(folder, *arguments):
    command = [sys.executable, "-I", "-m", "dataset_handlers", "preview", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def test_the_command_draws_what_was_built_and_what_was_not(dataset, raw_root, tmp_path):
    done = preview(tmp_path, dataset.path.parent, "--split", "test", "--count", 2, "--output", "built.png")
    assert (done.returncode, done.stdout) == (0, "built.png\n"), done.stderr
    with Image.open(tmp_path / "built.png") as drawn:
        assert np.array_equal(np.asarray(drawn), np.asarray(contact_sheet(dataset, ["test"], 2)))
    (tmp_path / "config.json").write_text('{"image_size": [32, 48], "input_attributes": ["image", "source_id"]}')
    done = preview(
        tmp_path,
        "--dataset",
        "duts",
        "--config",
        "config.json",
        "--raw-root",
        raw_root,
        "--count",
        3,
        "--output",
        "b.png",
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "b.png") as drawn:
        assert cells(drawn) >= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.png", "built.png", "config.json"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "give the folder of a dataset"),
        (["out", "--dataset", "duts"], "give the folder of a dataset"),
        (["--dataset", "duts"], "--raw-root"),
        (["nowhere"], "holds no dataset"),
    ],
)
def test_commands_that_say_too_little(tmp_path, arguments, word):
    done = preview(tmp_path, *arguments, "--output", "x.png")
    assert done.returncode == 1
    assert word in done.stderr
    assert not (tmp_path / "x.png").exists()


def test_a_picture_that_cannot_be_written(dataset, tmp_path):
    done = preview(tmp_path, dataset.path, "--count", 1, "--output", "nowhere/x.png")
    assert done.returncode == 1
    assert "nowhere/x.png cannot be written" in done.stderr


FEATURES = {
    "image": ImageFeature((None, 60, 3), "png"),
    "mask": ImageFeature((40, 60, 1), "png"),
    "name": TextFeature(),
    "number": TensorFeature(),
    "rows": TensorFeature((None, 2), "float32"),
    "bytes": BytesFeature(),
}
VALUES = {
    "image": GREEN, "mask": mask(), "name": "Äpfel", "number": -5, "rows": [[1, 2], [3, 4.5]], "bytes": b"\xff",
}  # fmt: skip


def fields_of(features):
    return features_json(features)["featuresDict"]["features"]


def test_every_kind_of_field_reads_back():
    read = decode_fields(fields_of(FEATURES), decode_example(serialize(FEATURES, VALUES)))
    for name in ("image", "mask", "rows"):
        assert np.array_equal(read[name], VALUES[name])
    assert (read["name"], read["number"], read["bytes"]) == ("Äpfel", -5, b"\xff")
    assert read["mask"].shape == (40, 60, 1)
    assert set(np.unique(read["mask"])) == {0, 255}


@pytest.mark.parametrize(
    ("name", "other", "value"),
    [
        ("image", ImageFeature((None, None, 3), "jpeg"), GREEN),
        ("image", ImageFeature((None, None, 3), "png"), GREEN[:, :50]),
        ("image", ImageFeature((None, None, 1), "png"), mask()),
        ("image", BytesFeature(), b"no picture"),
        ("name", BytesFeature(), b"\xff\xfe"),
        ("number", TensorFeature((2,)), [1, 2]),
        ("number", TensorFeature((), "float32"), 1.5),
        ("rows", TensorFeature((3,), "float32"), [1, 2, 3]),
        ("rows", TensorFeature((2,)), [1, 2]),
        ("bytes", TensorFeature(), 1),
    ],
)
def test_what_is_not_as_declared_is_named(name, other, value):
    record = serialize({**FEATURES, name: other}, {**VALUES, name: value})
    with pytest.raises(CorruptShardError, match=f"field '{name}'"):
        decode_fields(fields_of(FEATURES), decode_example(record))


def test_a_type_that_there_is_not_is_named():
    fields = fields_of({"rows": FEATURES["rows"]})
    fields["rows"]["tensor"]["dtype"] = "float33"
    record = serialize({"rows": FEATURES["rows"]}, {"rows": VALUES["rows"]})
    with pytest.raises(CorruptShardError, match="field 'rows'.*float33"):
        decode_fields(fields, decode_example(record))


@pytest.mark.parametrize(
    ("dataset", "config", "splits"),
    [
        ("duts", {"splits": {"train": 0.85, "test": 0.15}}, ["train", "test"]),
        ("composite", {"splits": {"train": 0.7, "test": 0.3}, "subjects_per_picture": [3, 3]}, ["train", "test"]),
        ("composite", {"subjects_per_picture": [2, 2]}, ["train", "test"]),
        ("duts", {"limit": 1}, None),
    ],
)
def test_a_few_samples_are_enough_for_every_split(raw_root, tmp_path, dataset, config, splits):
    if dataset == "composite":
        config = {**config, "subjects": "duts", "subject_scale": [0.3, 0.4], "feather": 0}
    made = build_a_few(dataset, {**config, "image_size": [64, 64]}, str(raw_root), 2, tmp_path)
    if splits:
        assert list(made.splits) == splits
    else:
        assert sum(made.splits.values()) == 1


def test_other_fields_than_declared_are_named():
    fields = {name: field for name, field in fields_of(FEATURES).items() if name != "bytes"}
    with pytest.raises(CorruptShardError, match="'bytes'"):
        decode_fields(fields, decode_example(serialize(FEATURES, VALUES)))
