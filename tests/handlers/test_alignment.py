"""A photo that is its own mask stays so, whatever geometry is applied; and polygons, alpha and boxes stay with it.

The photo is a drawn shape, grey RGB, equal to its mask. After the warp the photo is cut at half grey, and compared with
the warped mask. The two are resampled differently (averaged and interpolated against nearest neighbour), so their edges
may differ within the pixel in which the edge lies: by half an output pixel where the picture shrinks, by half a source
pixel where it grows. A pixel may therefore differ only if its centre is no farther from the true edge than that (and
the 1/32 pixel to which OpenCV rounds coordinates, and what the area filter rounds off a curved edge).
"""

import math

import cv2
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dataset_handlers.augmentation import Draws
from dataset_handlers.duts import DutsHandler
from dataset_handlers.labels.shapes import Matte, Polygons, Raster, bounding_box, box_through
from dataset_handlers.photo import Photo
from dataset_handlers.plan import Sample
from dataset_handlers.scene import Scene
from dataset_handlers.transforms.geometry import Geometry, augmentation, compose, rotation, scaling, translation
from dataset_handlers.transforms.sampling import warp

WIDTH, HEIGHT = 359, 301  # no multiple of any block that is averaged


def draw(angle=0.3):
    """A blob, half off the right edge's middle, and a bar: smooth edges in all directions, one touching the border."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(mask, (150, 140), (95, 62), math.degrees(angle), 0, 360, 255, -1)
    cv2.circle(mask, (WIDTH - 10, 60), 48, 255, -1)
    cv2.rectangle(mask, (40, 240), (220, HEIGHT), 255, -1)
    return mask


MASK = draw()
PHOTO = np.repeat(MASK[..., None], 3, 2)


MARGIN = 12


def differences(geometry):
    """Where cut photo and mask differ; how far (output pixels) each pixel is from the mask's edge; photo and mask.

    Edges count that lie just outside the window, too: one of the two may have fallen into it.
    """
    photo, mask = warp(PHOTO, geometry), warp(MASK, geometry, nearest=True)
    assert photo.shape[:2] == mask.shape == geometry.size
    assert set(np.unique(mask)) <= {0, 255}
    height, width = geometry.size
    larger = Geometry(translation(MARGIN, MARGIN) @ geometry.matrix, (height + 2 * MARGIN, width + 2 * MARGIN))
    distance = distance_to_edge(warp(MASK, larger, nearest=True))[MARGIN:-MARGIN, MARGIN:-MARGIN]
    return (photo[..., 1] >= 128) != (mask > 0), distance, photo, mask


def distance_to_edge(mask):
    """Distance of each pixel's centre to the nearest boundary between pixels of different value, in pixels."""
    height, width = mask.shape
    inside = cv2.distanceTransform((np.pad(mask, 1, mode="edge") > 0).astype(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform((np.pad(mask, 1, mode="edge") == 0).astype(np.uint8), cv2.DIST_L2, 5)
    return (np.maximum(inside, outside) - 0.5)[1 : height + 1, 1 : width + 1]


def stretch(geometry):
    """How many output pixels a source pixel is long, where it is longest: by moving points a little."""
    height, width = geometry.size
    y, x = (axis.ravel() for axis in np.mgrid[0:height:5j, 0:width:5j])
    back = np.linalg.inv(geometry.matrix)
    source = back @ np.stack([x, y, np.ones_like(x)])
    source /= source[2]
    longest = 0.0
    for angle in np.linspace(0, np.pi, 12, endpoint=False):
        moved = geometry.matrix @ (source + 1e-4 * np.array([[np.cos(angle)], [np.sin(angle)], [0]]))
        longest = max(longest, np.hypot(moved[0] / moved[2] - x, moved[1] / moved[2] - y).max() * 1e4)
    return longest


def check(geometry):
    differ, distance, _, _ = differences(geometry)
    if not differ.any():
        return
    # Half an output pixel, or half a source pixel where that is larger, along the diagonal at worst; pixel centres
    # of the innermost row beside an edge are half a pixel from it, and the edge itself is known to a quarter.
    band = 0.5 * math.sqrt(2) * max(1.0, stretch(geometry)) + 0.75
    assert distance[differ].max() <= band


@pytest.mark.parametrize("scale", [1 / 6, 1 / 5, 1 / 4, 1 / 3, 0.4, 0.5, 0.55, 0.7, 0.9, 1.0, 1.003, 1.3, 1.7])
@pytest.mark.parametrize("degrees", [0.0, 10.0, 45.0, 90.0])
def test_over_a_whole_picture_the_grain_averages_out(scale, degrees):
    geometry = augmentation(
        (HEIGHT, WIDTH), image_size=(round(HEIGHT * scale), round(WIDTH * scale)), crop_size=None,
        degrees=degrees,
    )  # fmt: skip
    _, _, photo, mask = differences(geometry)
    assert np.abs(displacement(photo[..., 1], mask)).max() <= 0.25


def displacement(photo, mask):
    """By how many pixels (x, y) the photo is off the mask (Lucas and Kanade 1981); None where edges do not tell."""
    smooth = [cv2.GaussianBlur(picture.astype(np.float64) / 255, (0, 0), 1.5) for picture in (photo, mask)]
    gradient = np.stack(np.gradient((smooth[0] + smooth[1]) / 2)[::-1]).reshape(2, -1)
    products = gradient @ gradient.T
    if np.linalg.eigvalsh(products)[0] < 2:  # some ten pixels of edge in each direction
        return None
    return -np.linalg.solve(products, gradient @ (smooth[0] - smooth[1]).ravel())


def test_displacement_is_measured():
    mask = np.ascontiguousarray(MASK[:200, :240])
    for x, y in ((0, 0), (1, 0), (0, -1), (-1, 1)):
        np.testing.assert_allclose(displacement(np.roll(mask, (y, x), (0, 1)), mask), [x, y], atol=0.1)


shares = st.floats(0, 1, exclude_max=True)


tilts = st.none() | st.lists(st.floats(-0.1, 0.1), min_size=8, max_size=8)


@settings(max_examples=100, derandomize=True)
@given(
    resize=st.tuples(st.floats(1 / 6, 1.7), st.floats(1 / 6, 1.7)),
    mode=st.sampled_from(["stretch", "fit", "cover"]),
    mirror=st.tuples(st.booleans(), st.booleans()),
    scale=st.just(1.0) | st.floats(0.5, 1.5),
    shear=st.just(0.0) | st.floats(-30, 30),
    degrees=st.just(0.0) | st.floats(-180, 180),
    tilt=tilts,
    crop=st.none() | st.tuples(st.floats(0.4, 1), st.floats(0.4, 1)),
    position=st.tuples(shares, shares),
    centred=st.booleans(),
)
@example((1 / 6, 1 / 6), "stretch", (False, False), 1.0, 0.0, 40.0, None, None, (0.0, 0.0), False)
@example((1 / 6, 1 / 6), "stretch", (True, False), 1.0, 0.0, -130.0, None, None, (0.0, 0.0), False)
@example((1 / 3, 1 / 3), "stretch", (False, True), 1.0, 0.0, 90.0, None, None, (0.0, 0.0), False)
@example((0.5, 0.5), "stretch", (True, True), 1.0, 0.0, 45.0, None, (0.8, 0.8), (0.5, 0.5), True)
def test_photo_and_mask_stay_aligned(resize, mode, mirror, scale, shear, degrees, tilt, crop, position, centred):
    size = max(1, round(HEIGHT * resize[0])), max(1, round(WIDTH * resize[1]))
    window = (max(1, int(size[0] * crop[0])), max(1, int(size[1] * crop[1]))) if crop else None
    options = {"image_size": size, "resize_mode": mode, "mirror": mirror, "degrees": degrees}
    options |= {"scale": scale, "shear": shear, "tilt": tilt, "crop_position": position}
    x, y, width, height = cv2.boundingRect(MASK)
    centre = (x + width / 2, y + height / 2) if centred else None
    check(augmentation((HEIGHT, WIDTH), crop_size=window, crop_centre=centre, **options))
    # The band would let a shift of the whole pass. That is measured before the crop, which moves by whole pixels: in a
    # small window all edges may lie alike between sample points.
    whole = augmentation((HEIGHT, WIDTH), crop_size=None, **options)
    _, _, photo, mask = differences(whole)
    shift = displacement(photo[..., 1], mask)
    assert shift is None or np.abs(shift).max() <= 0.5 * max(1.0, stretch(whole))


@pytest.mark.parametrize("factor", [2, 3, 4, 5, 6])
def test_the_mirrored_border_is_aligned_too(factor):
    # A straight edge near the border, pushed over it: photo and mask must mirror at the same line.
    mask = np.zeros((240, 240), np.uint8)
    mask[:, : 4 * factor] = 255
    photo = np.repeat(mask[..., None], 3, 2)
    size = 240 // factor, 240 // factor
    geometry = augmentation(
        (240, 240), image_size=size, crop_size=None,
    )  # fmt: skip
    shift = np.array([[1, 0, 10], [0, 1, 0], [0, 0, 1.0]])
    shifted = type(geometry)(shift @ geometry.matrix, size)
    cut = warp(photo, shifted)[..., 0] >= 128
    np.testing.assert_array_equal(cut, warp(mask, shifted, nearest=True) > 0)
    assert cut[0].sum() == 8  # four pixels, and their mirror image


@settings(max_examples=60, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(120, 500),
    crop=st.floats(0.3, 1),
    flip=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_a_centred_crop_contains_the_subjects_centre(seed, size, crop, flip):
    random = np.random.default_rng(seed)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    x, y = int(random.integers(20, WIDTH - 20)), int(random.integers(20, HEIGHT - 20))
    cv2.rectangle(mask, (x - 12, y - 12), (x + 11, y + 11), 255, -1)
    side = max(3, int(size * crop))
    handler = DutsHandler(
        {"image_size": [size, size], "crop_size": [side, side], "random_crop_centered": True, "flip_horizontal": flip},
        "raw",
    )
    scene = Scene(Photo.from_pixels(np.repeat(mask[..., None], 3, 2)), Raster(mask))
    warped = handler.make_example(Sample("a", {}), scene, Draws(random))["mask"]
    # The centre of the (symmetric) subject is in the window, so at least a quarter of the subject is.
    expected = (24 * size / WIDTH) * (24 * size / HEIGHT)
    assume(expected > 30)
    visible = cv2.countNonZero(warped) / min(expected, side * side)
    assert visible >= 0.15


@pytest.mark.parametrize("mode", ["stretch", "fit", "cover"])
def test_a_subject_in_the_middle_of_a_crop_on_it(mode):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[100:140, 200:230] = 255
    handler = DutsHandler(
        {"image_size": [400, 500], "resize_mode": mode, "crop_size": [120, 130], "crop_mode": "subject"}, "raw"
    )
    scene = Scene(Photo.from_pixels(np.repeat(mask[..., None], 3, 2)), Raster(mask))
    warped = handler.make_example(Sample("a", {}), scene, Draws(np.random.default_rng(0)))["mask"]
    x0, y0, x1, y1 = bounding_box(warped)
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((65, 60), abs=1)


def test_where_a_photo_does_not_fill_its_canvas_it_ends_where_its_mask_ends():
    white = np.full((30, 40, 3), 255, np.uint8)
    for options in ({}, {"degrees": 31.0}, {"scale": 0.7, "tilt": [0.1, -0.05, 0, 0, 0, 0.1, 0.03, 0]}):
        geometry = augmentation((30, 40), image_size=(240, 200), crop_size=None, resize_mode="fit", **options)
        photo = Photo.from_pixels(white).warp(geometry, border=cv2.BORDER_CONSTANT)
        mask = warp(white[..., 0].copy(), geometry, nearest=True, border=cv2.BORDER_CONSTANT)
        # It neither fades towards black nor is cut elsewhere; OpenCV's centres are exact to 1/1024 source pixel.
        assert set(np.unique(photo)) == {0, 255}
        assert (photo[..., 0] != mask).mean() <= 1e-4


LEAF = [[60.5, 40.2, 200.1, 30.9, 310.7, 120.3, 280.2, 240.8, 150.4, 270.5, 90.3, 180.6]]
EDGE = [[300.0, 150.0, WIDTH, 140.0, WIDTH, HEIGHT, 250.0, HEIGHT]]
geometries = {
    "mode": st.sampled_from(["stretch", "fit", "cover"]),
    "resize": st.tuples(st.floats(0.3, 2), st.floats(0.3, 2)),
    "mirror": st.tuples(st.booleans(), st.booleans()),
    "scale": st.just(1.0) | st.floats(0.4, 1.8),
    "shear": st.just(0.0) | st.floats(-30, 30),
    "degrees": st.just(0.0) | st.floats(-180, 180),
    "tilt": tilts,
}


def geometry_of(mode, resize, mirror, scale, shear, degrees, tilt):
    size = max(1, round(HEIGHT * resize[0])), max(1, round(WIDTH * resize[1]))
    return augmentation(
        (HEIGHT, WIDTH), image_size=size, crop_size=None, resize_mode=mode, mirror=mirror, scale=scale, shear=shear,
        degrees=degrees, tilt=tilt,
    )  # fmt: skip


@settings(max_examples=100, derandomize=True)
@given(border=st.sampled_from([cv2.BORDER_REFLECT, cv2.BORDER_CONSTANT]), **geometries)
def test_polygons_are_where_their_raster_is_mirrored_ones_too(border, **options):
    geometry = geometry_of(**options)
    shape = Polygons(({"id": 1, "segmentation": LEAF}, {"id": 2, "segmentation": EDGE}), (HEIGHT, WIDTH))
    moved = shape.draw(geometry, border)
    raster = warp(shape.draw(Geometry(np.eye(3), (HEIGHT, WIDTH))), geometry, nearest=True, border=border)
    assert moved.shape == raster.shape == geometry.size
    # A raster's edges are off by half a source pixel, pycocotools' by half an output pixel. Differences are as thin.
    width = 2 * math.ceil(stretch(geometry) / 2 + 0.75) + 1
    thick = cv2.morphologyEx((moved != raster).astype(np.uint8), cv2.MORPH_OPEN, np.ones((width, width), np.uint8))
    assert not thick.any()


@settings(max_examples=40, derandomize=True)
@given(**geometries)
def test_boxes_are_the_extent_of_what_is_drawn(**options):
    geometry = geometry_of(**options)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[50:200, 80:170] = 255
    for segmentation in (LEAF, EDGE):
        polygon = Polygons(({"id": 1, "segmentation": segmentation},), (HEIGHT, WIDTH))
        drawn = bounding_box(polygon.draw(geometry, cv2.BORDER_CONSTANT))
        check_box(box_through(polygon, geometry), drawn, 2.0)  # a tip thinner than a pixel is not drawn
    for shape in (Raster(mask), Matte(mask)):
        drawn = bounding_box(warp(mask, geometry, nearest=True, border=cv2.BORDER_CONSTANT))
        check_box(box_through(shape, geometry), drawn, 0)


def check_box(box, drawn, tolerance):
    if box is None or drawn is None:
        only = box or drawn
        assert only is None or min(only[2] - only[0], only[3] - only[1]) <= tolerance
        return
    np.testing.assert_allclose(box, drawn, atol=tolerance)


def test_a_box_is_of_what_is_seen_of_a_polygon_not_of_its_vertices():
    # A frame's corner within the bounding box of a triangle that does not come near it; and one that comes in below.
    triangle = Polygons(({"id": 1, "segmentation": [[0, 250, 250, 0, 250, 250]]},), (HEIGHT, WIDTH))
    assert box_through(triangle, Geometry(np.eye(3), (100, 100))) is None
    x0, y0, x1, y1 = box_through(triangle, Geometry(np.eye(3), (150, 150)))
    assert (x0, y0, x1, y1) == pytest.approx((100, 100, 150, 150), abs=1)
    leaving = Polygons(({"id": 1, "segmentation": [[-50, 20, 30, 20, 30, 60, -50, 60]]},), (HEIGHT, WIDTH))
    assert leaving.box() == (0, 20, 30, 60)
    # Room beside the photo stays empty, though the polygon would reach into it.
    room = Geometry(translation(40, 0), (HEIGHT, WIDTH + 40))
    assert not leaving.draw(room, cv2.BORDER_CONSTANT)[:, :40].any()
    assert box_through(leaving, room) == (40, 20, 70, 60)


@pytest.mark.parametrize("depth", [0.0, 1e-12, 0.0009, -0.001])
def test_polygons_that_reach_behind_the_camera_are_drawn_as_rasters(depth):
    # Vertices there would come out anywhere, or end pycocotools.
    tilted = Geometry(np.array([[1, 0, 0], [0, 1, 0], [-(1 - depth) / WIDTH, 0, 1.0]]), (100, 100))
    shape = Polygons(({"id": 1, "segmentation": EDGE}, {"id": 2, "segmentation": LEAF}), (HEIGHT, WIDTH))
    raster = shape.draw(Geometry(np.eye(3), (HEIGHT, WIDTH)))
    for border in (cv2.BORDER_REFLECT, cv2.BORDER_CONSTANT):
        drawn = shape.draw(tilted, border)
        differ = (drawn != warp(raster, tilted, nearest=True, border=border)).astype(np.uint8)
        assert not cv2.erode(differ, np.ones((3, 3), np.uint8)).any()


@settings(max_examples=60, derandomize=True)
@given(**geometries)
def test_alpha_is_where_the_photo_is(**options):
    """A matte that is a channel of the photo goes through the same filter: they stay the same to the level."""
    geometry = geometry_of(**options)
    soft = cv2.GaussianBlur(MASK, (0, 0), 2)
    photo = np.repeat(soft[..., None], 3, 2)
    np.testing.assert_array_equal(Matte(soft).draw(geometry), Photo.from_pixels(photo).warp(geometry)[..., 1])
    assert Matte(soft).size == (HEIGHT, WIDTH)


def test_a_quarter_turn_of_polygons_is_exact():
    square = Polygons(({"id": 1, "segmentation": [[10, 20, 60, 20, 60, 50, 10, 50]]},), (100, 100))
    turned = compose(translation(50, 50), rotation(90), translation(-50, -50))
    for matrix in (turned, compose(translation(100, 0), scaling(-1, 1)), scaling(2, 3)):
        geometry = Geometry(matrix, (300, 200))
        raster = warp(square.draw(Geometry(np.eye(3), (100, 100))), geometry, nearest=True, border=cv2.BORDER_CONSTANT)
        np.testing.assert_array_equal(square.draw(geometry, cv2.BORDER_CONSTANT), raster)
