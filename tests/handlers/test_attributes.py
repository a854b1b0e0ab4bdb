"""What examples can hold, made by coco and duts; and which photos are selected, against pycocotools."""

import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from dataset_handlers.coco import CocoHandler
from dataset_handlers.config import check_config
from dataset_handlers.duts import DutsHandler
from dataset_handlers.errors import ConfigRefusedError
from dataset_handlers.example_proto import decode_example
from dataset_handlers.images import decode_mask
from dataset_handlers.labels.trimap import trimap
from dataset_handlers.tfrecord import read_records
from tests.handlers.support import decode, make

# pycocotools 2.0.11 implements __array__ as NumPy 1 wanted it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

NAMES = ["person", "dog", "car", "chair"]


def fields_of(handler, config, raw, folder):
    """The lists of every example, by source_id."""
    config = {**config, "input_attributes": [*config.get("input_attributes", ["image"]), "source_id"]}
    _, sealed = make(handler, config, raw, folder)
    records = [decode_example(record) for shard in sealed for record in read_records(folder / "dataset" / shard.file)]
    return {fields["source_id"][0].decode(): fields for fields in records}


@pytest.fixture(scope="module")
def coco(real_raw):
    index = COCO()
    index.dataset = json.loads((real_raw / "coco" / "annotations" / "instances_val2017.json").read_bytes())
    index.createIndex()
    return index


def test_photos_as_png_and_raw_are_the_same_levels_and_jpeg_is_near(real_raw, tmp_path):
    config = {"limit": 6, "image_size": [90, 120], "crop_size": [64, 80], "rotation": [-20, 20], "exposure": [-1, 1]}
    made = {
        encoding: fields_of(DutsHandler, {**config, "image_encoding": encoding}, real_raw, tmp_path / encoding)
        for encoding in ("png", "raw", "jpeg")
    }
    assert len(made["png"]) == 6
    for key, fields in made["png"].items():
        photo = decode(fields["image"][0])
        raw = np.frombuffer(made["raw"][key]["image"][0], np.uint8).reshape(64, 80, 3)
        np.testing.assert_array_equal(raw, photo)
        assert 0 < np.abs(decode(made["jpeg"][key]["image"][0]).astype(int) - photo).mean() < 6
        assert made["raw"][key]["mask"] == fields["mask"]


@pytest.mark.parametrize(
    ("handler", "config", "word"),
    [
        (DutsHandler, {"input_attributes": ["alpha"]}, "'alpha'"),
        (DutsHandler, {"input_attributes": ["boxes", "image"]}, "'boxes'"),
        (DutsHandler, {"input_attributes": ["category"]}, "'category'"),
        (DutsHandler, {"input_attributes": ["cluster"]}, "'cluster'"),
        (CocoHandler, {"input_attributes": ["alpha"]}, "'alpha'"),
        (CocoHandler, {"input_attributes": ["cluster"]}, "'cluster'"),
        (CocoHandler, {"input_attributes": ["depth"]}, "'image'"),
        (CocoHandler, {"input_attributes": []}, "at least 1"),
        (DutsHandler, {"image_encoding": "raw"}, "image_size or crop_size"),
        (CocoHandler, {"subject_count": [2, 1]}, "least, most"),
        (CocoHandler, {"subject_share": [0.5, 0.2]}, "least, most"),
        (CocoHandler, {"carried": ["person"]}, "name it once"),
    ],
)
def test_what_is_not_there_is_refused(handler, config, word):
    with pytest.raises(ConfigRefusedError, match=word):
        check_config(handler.Config, config)


def test_soft_edges_are_the_publishers_levels(real_raw, tmp_path):
    config = {"limit": 10, "mask_edges": "soft", "input_attributes": ["mask", "trimap"], "trimap_widths": [0.0, 0.0]}
    levels = set()
    for key, fields in fields_of(DutsHandler, config, real_raw, tmp_path).items():
        part, stem = key.split("/")
        grey = decode_mask((real_raw / "duts" / part / f"{part}-Mask" / f"{stem}.png").read_bytes(), stem)
        mask = decode(fields["mask"][0])
        np.testing.assert_array_equal(mask, grey)
        levels |= set(np.unique(mask))
        # With no width, what is unknown is what is between, but for the last levels.
        np.testing.assert_array_equal(
            decode(fields["trimap"][0]), np.where(grey <= 5, 0, np.where(grey >= 250, 255, 128))
        )
    assert len(levels) > 20


def test_trimaps_and_clicks_are_of_the_mask_that_is_written(real_raw, tmp_path):
    config = {"limit": 8, "categories": ["dog"], "image_size": [160, 160], "flip_horizontal": 0.5, "rotation": [-9, 9]}
    config |= {"input_attributes": ["image", "trimap", "clicks"], "trimap_widths": [3.0, 6.0]}
    for fields in fields_of(CocoHandler, config, real_raw, tmp_path).values():
        mask = decode(fields["mask"][0])
        np.testing.assert_array_equal(decode(fields["trimap"][0]), trimap(mask, 3.0, 6.0, tolerance=5))
        positive, negative = (decode(fields[f"{kind}_clicks"][0]) for kind in ("positive", "negative"))
        assert positive.shape == negative.shape == mask.shape
        if mask.any():
            assert (positive == 0).any()
            assert (mask[positive == 0] == 255).all()
        assert (mask[negative == 0] == 0).all()


def test_boxes_and_categories_are_cocos(real_raw, coco, tmp_path):
    config = {"categories": NAMES, "include_crowds": False, "input_attributes": ["boxes", "category"], "limit": 40}
    for key, fields in fields_of(CocoHandler, config, real_raw, tmp_path).items():
        image = coco.imgs[int(key.split("/")[1])]
        wanted = coco.loadAnns(coco.getAnnIds(image["id"], coco.getCatIds(NAMES), iscrowd=False))
        boxes = np.reshape(fields["boxes"], (-1, 4)) * ([image["height"], image["width"]] * 2)
        expected = np.array([[y, x, y + h, x + w] for x, y, w, h in (item["bbox"] for item in wanted)])
        np.testing.assert_allclose(boxes, expected, atol=1.0)  # published boxes are rounded
        assert [name.decode() for name in fields["category"]] == [
            coco.cats[item["category_id"]]["name"] for item in wanted
        ]


def test_boxes_follow_the_photo_and_what_is_cut_away_has_none(real_raw, tmp_path):
    config = {"categories": ["person"], "limit": 30, "image_size": [300, 400], "crop_size": [100, 100]}
    config |= {"include_crowds": False, "flip_horizontal": 0.5, "rotation": [-30, 30], "scale": [0.8, 1.5]}
    config |= {"input_attributes": ["boxes"], "resize_mode": "fit"}
    none = 0
    for fields in fields_of(CocoHandler, config, real_raw, tmp_path).values():
        mask = decode(fields["mask"][0])
        boxes = np.reshape(fields.get("boxes", []), (-1, 4)) * 100
        none += len(boxes) == 0
        x, y, width, height = cv2.boundingRect(mask)
        if width * height:
            union = [*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)]
            np.testing.assert_allclose(union, [y, x, y + height, x + width], atol=2.5)
        assert ((boxes >= 0) & (boxes <= 100)).all()
    assert 0 < none < 30


def test_class_masks_are_painted_from_large_to_small(real_raw, coco, tmp_path):
    config = {"categories": NAMES, "mask_labels": "categories", "input_attributes": ["mask"], "limit": 60}
    numbers = {name: number for number, name in enumerate(sorted(NAMES), start=1)}
    labels = set()
    for key, fields in fields_of(CocoHandler, config, real_raw, tmp_path).items():
        image = coco.imgs[int(key.split("/")[1])]
        items = coco.loadAnns(coco.getAnnIds(image["id"], coco.getCatIds(NAMES)))
        painted = np.zeros((image["height"], image["width"]), np.uint8)
        pixels = [(coco.annToMask(item) > 0, numbers[coco.cats[item["category_id"]]["name"]]) for item in items]
        mask = decode(fields["mask"][0])
        labels |= set(np.unique(mask))
        # Of the labels that are there, the mask has one; where only one is, that; and all is covered.
        there = np.zeros((5, *painted.shape), bool)
        for shape, number in pixels:
            there[number] |= shape
        there[0] = ~there[1:].any(axis=0)
        assert np.take_along_axis(there, mask[None].astype(int), 0).all()
        areas = [(item["bbox"][2] * item["bbox"][3], *pair) for item, pair in zip(items, pixels, strict=True)]
        for _, shape, number in sorted(areas, key=lambda item: -item[0]):
            painted[shape] = number
        assert (painted != mask).mean() < 0.005  # boxes of nearly one area may be rounded the other way
    assert labels == {0, 1, 2, 3, 4}
    assert CocoHandler(config, "raw").label_names() == {number: name for name, number in numbers.items()}
    assert CocoHandler({"categories": NAMES}, "raw").label_names() == {}, "a mask of one subject"


def selected(config, raw):
    return {sample.key.split("/")[1]: sample for sample in CocoHandler(config, str(raw)).samples()}


def test_selection_is_what_pycocotools_counts(real_raw, coco):
    config = {"categories": ["person"], "subject_count": [1, 2], "subject_share": [0.05, 0.5]}
    config |= {"min_instance_area": 500.0, "min_photo_size": [400, 500]}
    expected = set()
    person = coco.getCatIds(["person"])
    for image in coco.imgs.values():
        items = coco.loadAnns(coco.getAnnIds(image["id"], person))
        large = [item for item in items if item["area"] >= 500]
        if not large or image["height"] < 400 or image["width"] < 500:
            continue
        if any(item["iscrowd"] for item in items) or not 1 <= len(large) <= 2:
            continue
        union = np.maximum.reduce([coco.annToMask(item) for item in large])
        if 0.05 <= union.mean() <= 0.5:
            expected.add(image["file_name"].removesuffix(".jpg"))
    found = selected(config, real_raw)
    assert set(found) == expected
    assert 5 < len(found) < len(coco.imgs)
    for sample in found.values():
        assert 1 <= len(sample.data["subjects"]) <= 2


def test_carried_things_are_those_that_touch(real_raw, coco, tmp_path):
    things = ["handbag", "backpack", "tie", "sports ball"]
    config = {"categories": ["person"], "carried": things, "include_crowds": False, "input_attributes": ["mask"]}
    plain = fields_of(CocoHandler, {**config, "carried": []}, real_raw, tmp_path / "plain")
    more = 0
    for key, fields in fields_of(CocoHandler, config, real_raw, tmp_path / "carried").items():
        number = int(key.split("/")[1])
        people = decode(plain[key]["mask"][0])
        near = cv2.dilate(people, np.ones((7, 7), np.uint8)) > 0
        expected = people > 0
        for item in coco.loadAnns(coco.getAnnIds(number, coco.getCatIds(things), iscrowd=False)):
            shape = coco.annToMask(item) > 0
            if (shape & near).any():
                expected = expected | shape
        np.testing.assert_array_equal(decode(fields["mask"][0]) > 0, expected)
        more += bool((expected != (people > 0)).any())
    assert more > 0
