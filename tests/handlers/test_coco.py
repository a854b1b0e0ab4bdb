"""COCO: masks as pycocotools draws them, and annotation files that are not as they should be."""

import json
import subprocess
import sys
import warnings

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO

from dataset_handlers.coco import CocoHandler
from dataset_handlers.errors import ConfigRefusedError, RawDataError
from dataset_handlers.labels.shapes import Polygons
from dataset_handlers.plan import Rejected, Sample
from dataset_handlers.transforms.geometry import Geometry
from tests.handlers.support import REPOSITORY, examples_of, make, quarantined

# pycocotools 2.0.11 implements __array__ as NumPy 1 wanted it.
OLD_ARRAY = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"


def draw_instances(annotations, height, width):
    return Polygons(tuple(annotations), (height, width)).draw(Geometry(np.eye(3), (height, width)))


@pytest.mark.filterwarnings(OLD_ARRAY)
@pytest.mark.parametrize("crowds", [True, False])
@pytest.mark.parametrize(
    ("folder", "categories"), [("coco", ["person"]), ("coco", ["dog", "car"]), ("coco_person", ["person"])]
)
def test_masks_equal_pycocotools_to_the_pixel(real_raw, tmp_path, capsys, folder, categories, crowds):
    config = {
        "raw_folder": folder,
        "categories": categories,
        "include_crowds": crowds,
        "input_attributes": ["image", "source_id"],
    }
    _, sealed = make(CocoHandler, config, real_raw, tmp_path)
    found = examples_of(tmp_path, sealed)
    assert not quarantined(sealed)
    coco = COCO(str(real_raw / folder / "annotations" / "instances_val2017.json"))
    wanted = coco.getCatIds(catNms=categories)
    expected = {}
    for image in coco.loadImgs(coco.getImgIds()):
        annotations = coco.loadAnns(coco.getAnnIds(image["id"], wanted, iscrowd=None if crowds else False))
        if annotations:
            union = np.maximum.reduce([coco.annToMask(annotation) for annotation in annotations])
            expected[f"val2017/{image['file_name'].removesuffix('.jpg')}"] = union
    crowded = any(item["iscrowd"] and item["category_id"] in wanted for item in coco.dataset["annotations"])
    assert crowded or folder != "coco" or categories != ["person"]  # else the two cases are one
    assert {example["source_id"].decode() for example in found} == set(expected)
    assert found
    for example in found:
        np.testing.assert_array_equal(example["mask"], expected[example["source_id"].decode()] * 255)
        assert example["image"].shape == (*example["mask"].shape, 3)


SQUARE = [2.0, 2.0, 12.0, 2.0, 12.0, 12.0, 2.0, 12.0]


@pytest.fixture
def raw(tmp_path):
    """Builds a COCO folder out of images and segmentations."""

    def build(images, annotations, part="val2017", categories=({"id": 1, "name": "thing"},), photos=None):
        folder = tmp_path / "raw" / "coco"
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "annotations").mkdir(exist_ok=True)
        names = [image.get("file_name") for image in images] if photos is None else photos
        for name in names:
            cv2.imwrite(str(folder / part / name), np.full((20, 30, 3), 90, np.uint8))
        content = {"images": images, "annotations": annotations, "categories": list(categories)}
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
        return tmp_path / "raw"

    return build


def image(number, **changes):
    return {"id": number, "file_name": f"{number}.png", "height": 20, "width": 30, **changes}


def annotation(number, segmentation=None, **changes):
    shape = [SQUARE] if segmentation is None else segmentation
    return {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "segmentation": shape, **changes}


def compress(*runs):
    """At most three runs as COCO writes them: no differences yet."""
    text = ""
    for run in runs:
        more = True
        while more:
            bits, run = run & 31, run >> 5
            more = run != (-1 if bits & 16 else 0)
            text += chr(48 + (bits | 32 * more))
    return text


THING = {"categories": ["thing"], "input_attributes": ["image", "source_id"], "max_quarantined_share": 1}


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([[1, 2, 3, 4]], "three points"),
        ([[]], "three points"),
        ({"size": [20, 31], "counts": [620]}, r"\[20, 31\]"),
        ({"size": [20, 30], "counts": [599]}, "599 pixels, the photo has 600"),
        ({"size": [20, 30], "counts": [601]}, "601 pixels"),
        ({"size": [20, 30], "counts": [-1, 601]}, "cannot be drawn"),
        ({"size": [20, 30], "counts": "garbage!"}, "means nothing"),
        ({"size": [20, 30], "counts": "zzzz"}, "cannot be drawn"),
        ({"size": [20, 30], "counts": "é"}, "cannot be drawn"),
        ({"size": [20, 30], "counts": "P"}, "cut off"),
        ({"size": [20, 30], "counts": compress(700, -100)}, "cannot be drawn"),
        ({"size": [20, 30], "counts": 7}, "cannot be drawn"),
        ({"size": [20, 30]}, "cannot be drawn"),
        ([[float("nan"), 0, 5, 5, 9, 9]], "no numbers"),
        ([[0, 0, 1e9, 0, 1e9, 1e9]], "far outside"),
        ([["a", "b", "c", "d", "e", "f"]], "cannot be drawn"),
        ([[[1, 1], [2, 2], [3, 3], [4, 4], [5, 5], [6, 6]]], "cannot be drawn"),
        ([1, 2, 3, 4, 5, 6], "cannot be drawn"),
        ("polygon", "cannot be drawn"),
    ],
)
def test_a_segmentation_that_cannot_be_drawn_is_quarantined_and_the_rest_built(raw, tmp_path, segmentation, reason):
    root = raw([image(1), image(2)], [annotation(1, segmentation), annotation(2)])
    _, sealed = make(CocoHandler, THING, root, tmp_path / "work")
    assert [example["source_id"] for example in examples_of(tmp_path / "work", sealed)] == [b"val2017/2"]
    (found,) = quarantined(sealed).items()
    assert found[0] == "val2017/1"
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(found[1])
    assert "annotation 1 " in found[1]


def test_drawing_what_pycocotools_dies_of_kills_no_process():
    # Each of these ended pycocotools 2.0.11 by a segmentation fault or kept it busy for ever.
    deadly = [
        [{"id": 1, "segmentation": [[0, 0, 1e12, 0, 1e12, 1e12]]}],
        [{"id": 1, "segmentation": [[float("nan"), 0, float("nan"), 0, 5, 5]]}],
        [
            {"id": 1, "segmentation": {"size": [20, 20], "counts": [50, 5]}},
            {"id": 2, "segmentation": {"size": [20, 20], "counts": [0, 400]}},
        ],
    ]
    code = f"""
from dataset_handlers.errors import BadSampleError
from tests.handlers.test_coco import draw_instances
nan = float("nan")
for annotations in {deadly!r}:
    try:
        draw_instances(annotations, 20, 20)
    except BadSampleError:
        print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, cwd=REPOSITORY)
    assert (done.returncode, done.stdout.split()) == (0, ["refused"] * 3)


@pytest.mark.filterwarnings(OLD_ARRAY)
def test_every_way_to_write_a_mask_draws_the_same():
    random = np.random.default_rng(0)
    for density in (0.0, 0.02, 0.5, 0.98, 1.0):
        mask = (random.random((37, 53)) < density).astype(np.uint8)
        compressed = rle.encode(np.asfortranarray(mask))
        compressed["counts"] = compressed["counts"].decode()
        flat = np.concatenate([[0], mask.ravel(order="F"), [2]])
        starts = np.flatnonzero(np.diff(flat))
        runs = np.diff(np.concatenate([[0], starts[starts < mask.size], [mask.size]])).tolist()
        runs = [0, *runs[1:]] if mask[0, 0] and runs[0] == 0 else runs
        for counts in (compressed["counts"], runs):
            code = {"size": [37, 53], "counts": counts}
            np.testing.assert_array_equal(draw_instances([{"id": 1, "segmentation": code}], 37, 53), mask * 255)


def test_missing_photos_and_wrong_sizes_are_quarantined(raw, tmp_path):
    images = [image(1), image(2), image(3, width=31), image(4)]
    root = raw(images, [annotation(n) for n in (1, 2, 3, 4)], photos=["1.png", "3.png", "4.png"])
    (root / "coco" / "val2017" / "4.png").write_bytes(b"text")
    _, sealed = make(CocoHandler, THING, root, tmp_path / "work")
    reasons = quarantined(sealed)
    assert reasons["val2017/2"] == "2.png: No such file or directory"
    assert reasons["val2017/3"] == "3.png has 30×20 pixels, its annotations are for 31×20"
    assert reasons["val2017/4"] == "4.png: is none of JPEG, PNG, BMP, TIFF, WEBP"
    assert [example["source_id"] for example in examples_of(tmp_path / "work", sealed)] == [b"val2017/1"]


@pytest.mark.parametrize("name", ["../../../secret.png", "/etc/passwd", "a/../../../secret.png"])
def test_a_photo_outside_the_raw_folder_is_not_read(raw, tmp_path, name):
    root = raw([image(1, file_name=name), image(2)], [annotation(1), annotation(2)], photos=["2.png"])
    cv2.imwrite(str(tmp_path / "secret.png"), np.zeros((20, 30, 3), np.uint8))
    plan, sealed = make(CocoHandler, THING | {"near_duplicates": "remove"}, root, tmp_path / "work")
    (rejected,) = plan.rejected
    assert (rejected.key, rejected.reason) == (
        "val2017/1",
        f"the annotations name a photo outside the raw folder: {name}",
    )
    assert not quarantined(sealed)
    assert not any("secret" in path or "passwd" in path for path, _ in plan.raw_files)


def test_a_raw_folder_may_be_made_of_links(raw, tmp_path):
    root = raw([image(1)], [annotation(1)])
    (root / "coco" / "val2017").rename(tmp_path / "elsewhere")
    (root / "coco" / "val2017").symlink_to(tmp_path / "elsewhere")
    _, sealed = make(CocoHandler, THING, root, tmp_path / "work")
    assert not quarantined(sealed)


def test_an_unknown_category_lists_those_there_are(raw):
    root = raw([image(1)], [annotation(1)], categories=[{"id": 1, "name": "thing"}, {"id": 2, "name": "dog"}])
    with pytest.raises(ConfigRefusedError) as caught:
        list(CocoHandler({"categories": ["cat", "dog"]}, str(root)).samples())
    assert caught.value.faults == [
        {"path": "/categories", "reason": "instances_val2017.json has no category 'cat'; it has dog, thing"}
    ]


@pytest.mark.parametrize(
    "part", ["val2017", "val_small", "validation2020", "train2017", "training", "test-dev", "testdev2017", "other"]
)
def test_the_part_decides_the_split(raw, part):
    root = raw([image(1)], [annotation(1)], part=part)
    (sample,) = CocoHandler({"categories": ["thing"]}, str(root)).samples()
    assert (
        sample.split == {"v": "validation", "t": "train", "o": "train"}[part[0]]
        if not part.startswith("test")
        else "test"
    )


def test_photos_of_one_name_in_two_folders_are_two_samples(raw):
    root = raw(
        [image(1, file_name="a/x.png"), image(2, file_name="b/x.png")], [annotation(1), annotation(2)], photos=[]
    )
    found = list(CocoHandler({"categories": ["thing"]}, str(root)).samples())
    assert [sample.key for sample in found] == ["val2017/a/x", "val2017/b/x"]


def test_images_that_lack_something_are_rejected(raw):
    broken = {"id": 1, "file_name": "1.png", "width": 30}
    root = raw(
        [broken, image(2, height="x"), image(3, file_name=7), image(4)],
        [annotation(n) for n in (1, 2, 3, 4)],
        photos=[],
    )
    found = list(CocoHandler({"categories": ["thing"]}, str(root)).samples())
    assert [type(item) for item in found] == [Rejected, Rejected, Rejected, Sample]
    assert "lacks 'height'" in found[0].reason


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        "7",
        "{}",
        '{"images": [], "annotations": []}',
        '{"images": [{}], "annotations": [], "categories": []}',
        '{"images": 5, "annotations": [], "categories": []}',
        '{"images": [], "annotations": [{"id": 1}], "categories": [{"id": 1, "name": "thing"}]}',
    ],
)
def test_what_is_no_coco_file_is_raw_data_at_fault(raw, content):
    root = raw([], [])
    (root / "coco" / "annotations" / "instances_val2017.json").write_text(content)
    with pytest.raises(RawDataError, match=r"instances_val2017\.json"):
        list(CocoHandler({"categories": ["thing"]}, str(root)).samples())


def test_a_category_without_a_name_is_passed_over(raw):
    root = raw([image(1)], [annotation(1)], categories=[{"id": 2}, {"id": 1, "name": "thing"}])
    assert len(list(CocoHandler({"categories": ["thing"]}, str(root)).samples())) == 1


def test_no_annotations_at_all(tmp_path):
    (tmp_path / "coco").mkdir()
    with pytest.raises(RawDataError, match="no annotations/instances"):
        list(CocoHandler({}, str(tmp_path)).samples())


def test_drawing_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert draw_instances([annotation(1)], 20, 30).sum() == 255 * 100
