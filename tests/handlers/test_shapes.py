"""Shapes against NumPy painting and pycocotools. That they move with the photo is in test_alignment.py."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle

from dataset_handlers.errors import BadSampleError
from dataset_handlers.labels.shapes import Classes, Matte, Polygons, Raster, bounding_box, box_through
from dataset_handlers.transforms.geometry import Geometry, augmentation, scaling, translation

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

SIZE = (60, 80)
IDENTITY = Geometry(np.eye(3), SIZE)
MASK = np.zeros(SIZE, np.uint8)
MASK[10:30, 20:50] = 255


def polygons(*flat):
    return Polygons(tuple({"id": n, "segmentation": [list(points)]} for n, points in enumerate(flat)), SIZE)


points = st.lists(st.floats(-20, 100), min_size=6, max_size=16).filter(lambda flat: len(flat) % 2 == 0)


@settings(max_examples=100, derandomize=True)
@given(st.lists(points, min_size=1, max_size=3))
def test_polygons_where_nothing_moves_are_pycocotools(flats):
    shape = polygons(*flats)
    drawn = [np.asarray(rle.decode(rle.frPyObjects([flat], *SIZE)))[..., 0] for flat in flats]
    union = np.maximum.reduce(drawn)
    np.testing.assert_array_equal(shape.draw(IDENTITY), union * 255)
    assert shape.area() == union.sum()


@settings(max_examples=100, derandomize=True)
@given(st.lists(st.integers(0, 300) | st.integers(0, 5), max_size=60), st.sampled_from([SIZE, (1, 7), (2000, 1500)]))
def test_runs_are_drawn_as_pycocotools_draws_them(lengths, size):
    ends = np.minimum(np.cumsum([0, *lengths]), size[0] * size[1])
    runs = [*np.diff(ends).tolist(), int(size[0] * size[1] - ends[-1])]
    code = rle.frPyObjects({"size": list(size), "counts": runs}, *size)
    crowd = {"id": 1, "segmentation": {"size": list(size), "counts": code["counts"].decode()}}
    drawn = Polygons((crowd,), size).draw(Geometry(np.eye(3), size))
    np.testing.assert_array_equal(drawn, np.asarray(rle.decode(code)) * 255)


@settings(max_examples=100, derandomize=True)
@given(points)
def test_a_box_holds_all_that_is_drawn_and_little_more(flat):
    shape = polygons(flat)
    drawn = bounding_box(shape.draw(IDENTITY))
    box = shape.box()
    if drawn is None:
        return
    assert box is not None
    for found, pixels, sign in zip(box, drawn, (1, 1, -1, -1), strict=True):
        assert (found - pixels) * sign <= 1  # pycocotools rounds edges by up to half a pixel
    inside = min(flat) >= 0 and max(flat[::2]) <= 80 and max(flat[1::2]) <= 60
    x0, y0, x1, y1 = box
    if inside:
        assert (x0, y0, x1, y1) == (min(flat[::2]), min(flat[1::2]), max(flat[::2]), max(flat[1::2]))
    else:
        assert box == drawn


def test_crowds_are_drawn_with_polygons():
    code = rle.encode(np.asfortranarray(MASK // 255))
    runs = {"id": 1, "segmentation": {"size": list(SIZE), "counts": code["counts"].decode()}}
    polygon = {"id": 2, "segmentation": [[60, 40, 70, 40, 70, 50, 60, 50]]}
    both = Polygons((runs, polygon), SIZE)
    expected = MASK.copy()
    expected[40:50, 60:70] = 255
    np.testing.assert_array_equal(both.draw(IDENTITY), expected)
    assert both.box() == (20, 10, 70, 50)
    doubled = Geometry(scaling(2, 2), (120, 160))
    np.testing.assert_array_equal(both.draw(doubled), expected.repeat(2, 0).repeat(2, 1))
    assert box_through(both, doubled) == (40, 20, 140, 100)


def test_classes_lie_over_one_another_in_their_order():
    other = np.zeros(SIZE, np.uint8)
    other[20:40, 40:60] = 255
    for first, second in ((1, 2), (2, 1)):
        shapes = {1: Raster(MASK), 2: Raster(other)}
        classes = Classes(((first, shapes[first]), (second, shapes[second])), SIZE)
        expected = np.zeros(SIZE, np.uint8)
        expected[shapes[first].mask > 0] = first
        expected[shapes[second].mask > 0] = second
        np.testing.assert_array_equal(classes.draw(IDENTITY), expected)
        assert classes.box() == (20, 10, 60, 40)
        mirrored = augmentation(SIZE, image_size=None, crop_size=None, mirror=(True, False))
        np.testing.assert_array_equal(classes.draw(mirrored), expected[:, ::-1])
    assert Classes((), SIZE).box() is None
    assert not Classes((), SIZE).draw(IDENTITY).any()


@pytest.mark.parametrize("shape", [Raster(MASK), Matte(MASK)])
def test_rasters_and_mattes_are_where_they_are(shape):
    assert shape.size == SIZE
    assert shape.box() == (20, 10, 50, 30)
    np.testing.assert_array_equal(shape.draw(IDENTITY), MASK)
    moved = Geometry(translation(-25, 5), SIZE)
    assert box_through(shape, moved) == (0, 15, 25, 35)
    np.testing.assert_array_equal(shape.draw(moved, cv2.BORDER_CONSTANT)[5:, :55], MASK[:-5, 25:])
    assert box_through(shape, Geometry(translation(-50, 0), SIZE)) is None


def test_labels_survive_any_warp():
    labels = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)
    geometry = augmentation(SIZE, image_size=(33, 91), crop_size=None, degrees=33.0, scale=0.7)
    assert set(np.unique(Raster(labels).draw(geometry))) <= set(np.unique(labels))


def test_a_polygon_far_away_or_of_two_points_is_a_bad_sample():
    for flat in ([1, 2, 3, 4], [0, 0, 1e7, 0, 1e7, 1e7], [float("inf"), 0, 1, 1, 2, 2]):
        with pytest.raises(BadSampleError, match="annotation 0 cannot be drawn"):
            polygons(flat).draw(IDENTITY)


def test_every_real_annotation_is_within_its_box(real_raw):
    content = json.loads((real_raw / "coco" / "annotations" / "instances_val2017.json").read_bytes())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    for item in content["annotations"][:400]:
        x, y, width, height = item["bbox"]
        box = Polygons((item,), sizes[item["image_id"]]).box()
        np.testing.assert_allclose(box, (x, y, x + width, y + height), atol=1.01)
