"""Simulated clicks: the rules they keep, what each strategy looks like, and their distance maps."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_handlers.labels.clicks import STRATEGIES, ClickRules, distance_map, simulate_clicks
from dataset_handlers.labels.shapes import Polygons
from dataset_handlers.transforms.geometry import Geometry

REFERENCE = (375, 500)  # the rules' distances are pixels of this size


def blobs(seed, size, share):
    """Smooth random regions, a share of the picture."""
    noise = np.random.default_rng(seed).random(size)
    noise = cv2.GaussianBlur(noise, (0, 0), 0.02 * sum(size) + 0.5)
    return np.where(noise <= np.quantile(noise, share), 255, 0).astype(np.uint8)


def disc_mask(size, centre, radius):
    return cv2.circle(np.zeros(size, np.uint8), centre, radius, 255, -1)


def away(points, region):
    """Distance of each point to the nearest pixel of the region."""
    rows, columns = np.nonzero(region)
    return np.array([np.hypot(columns - x, rows - y).min(initial=np.inf) for x, y in points])


def spacing(points):
    """The least distance between two of the points."""
    differences = (points[:, None] - points).astype(float)
    distances = np.hypot(differences[..., 0], differences[..., 1])
    return distances[~np.eye(len(points), dtype=bool)].min(initial=np.inf)


def values(picture, points):
    return picture[points[:, 1], points[:, 0]]


@settings(max_examples=80)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([(60, 90), (320, 320), (33, 200), (7, 7), (1, 40)]),
    share=st.floats(0, 1),
    strategy=st.sampled_from(STRATEGIES),
)
def test_clicks_keep_the_rules(seed, size, share, strategy):
    rules = ClickRules()
    mask, others = blobs(seed, size, share), blobs(seed + 1, size, 0.3)
    clicks = simulate_clicks(mask, others, strategy, np.random.default_rng(seed), rules)
    scale = (size[0] * size[1] / (REFERENCE[0] * REFERENCE[1])) ** 0.5

    for points in (clicks.positive, clicks.negative):
        assert points.dtype == np.int32
        assert points.ndim == 2
        assert points.shape[1] == 2
        assert spacing(points) >= rules.step * scale
        assert len({tuple(point) for point in points}) == len(points)
    assert (values(mask, clicks.positive) == 255).all()
    assert (values(mask, clicks.negative) == 0).all()
    assert (len(clicks.positive) >= 1) == bool(mask.any())
    assert len(clicks.positive) <= rules.positive
    assert len(clicks.negative) <= getattr(rules, strategy) or strategy == "objects"

    free = (others > 0) & (mask == 0)
    on_objects = strategy == "objects" and free.any()
    home = free if on_objects else mask == 0
    if on_objects:
        assert home[clicks.negative[:, 1], clicks.negative[:, 0]].all()
        assert len(clicks.negative) <= rules.objects
    elif mask.any():
        assert (away(clicks.negative, mask) <= max(1, rules.band_width * scale)).all()
    # The margin is kept wherever there is a pixel that keeps it.
    if (cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=int(rules.margin * scale) + 2) > 0).any():
        assert (away(clicks.positive, mask == 0) >= rules.margin * scale).all()
    if on_objects and cv2.erode(np.uint8(free), np.ones((3, 3)), iterations=int(rules.margin * scale) + 2).any():
        assert (away(clicks.negative, ~free) >= rules.margin * scale).all()


def test_counts_take_every_value_they_may():
    mask, others = disc_mask((320, 320), (110, 160), 80), disc_mask((320, 320), (260, 160), 50)
    random = np.random.default_rng(3)
    rules = ClickRules(positive=3, band=2, objects=2, boundary=4)
    counts = {strategy: [] for strategy in STRATEGIES}
    for strategy in STRATEGIES:
        for _ in range(60):
            clicks = simulate_clicks(mask, others, strategy, random, rules)
            counts[strategy].append((len(clicks.positive), len(clicks.negative)))
    assert {positive for pairs in counts.values() for positive, _ in pairs} == {1, 2, 3}
    assert {negative for _, negative in counts["band"]} == {0, 1, 2}
    assert {negative for _, negative in counts["objects"]} == {0, 1, 2}
    assert {negative for _, negative in counts["boundary"]} == {4}


def test_distances_are_kept_to_the_pixel():
    """At the reference size, a margin of 5 allows distance 5 and nothing less; likewise step and band."""
    mask = np.zeros(REFERENCE, np.uint8)
    mask[100:111, 100:111] = 255  # its centre alone is 6 from the outside, the 3 × 3 around it 5 and more
    random = np.random.default_rng(1)
    seen = {tuple(simulate_clicks(mask, None, "band", random, ClickRules(positive=1)).positive[0]) for _ in range(200)}
    assert seen == {(x, y) for x in (104, 105, 106) for y in (104, 105, 106)}

    narrow = ClickRules(band=1, margin=3, band_width=3)
    found = [simulate_clicks(mask, None, "band", random, narrow).negative for _ in range(100)]
    assert {float(d) for points in found for d in away(points, mask)} == {3.0}

    row = np.zeros(REFERENCE, np.uint8)
    row[50, 10:21] = 255  # 11 pixels: two clicks ten apart fit at the ends alone
    pairs = [simulate_clicks(row, None, "band", random, ClickRules(positive=2)).positive for _ in range(300)]
    assert {tuple(sorted(pair[:, 0].tolist())) for pair in pairs if len(pair) == 2} == {(10, 20)}


def test_free_pixels_are_drawn_alike():
    mask = np.zeros((6, 6), np.uint8)
    mask[1, 1:5] = mask[4, 2] = mask[5, 5] = 255
    random = np.random.default_rng(7)
    rules = ClickRules(positive=1)
    drawn = [tuple(simulate_clicks(mask, None, "band", random, rules).positive[0].tolist()) for _ in range(3000)]
    counts = np.unique(np.array(drawn), axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert np.abs(counts - 500).max() < 5 * 500**0.5


def test_band_clicks_are_near_the_object_and_object_clicks_on_others():
    mask, others = disc_mask((400, 400), (80, 200), 40), disc_mask((400, 400), (330, 200), 40)
    random = np.random.default_rng(5)
    many = {
        strategy: np.concatenate([simulate_clicks(mask, others, strategy, random).negative for _ in range(40)])
        for strategy in STRATEGIES
    }
    assert (values(others, many["objects"]) == 255).all()
    assert (values(others, many["band"]) == 0).all()
    assert away(many["band"], mask).max() <= 40 * 400 / (375 * 500) ** 0.5
    assert away(many["objects"], mask).min() > 100


def test_boundary_clicks_surround_the_object():
    mask = disc_mask((320, 320), (160, 160), 60)
    for seed in range(10):
        clicks = simulate_clicks(mask, None, "boundary", np.random.default_rng(seed))
        angles = np.sort(np.arctan2(clicks.negative[:, 1] - 160, clicks.negative[:, 0] - 160))
        gaps = np.diff(np.append(angles, angles[0] + 2 * np.pi))
        assert len(clicks.negative) == 10
        assert gaps.max() < np.radians(75)
    scattered = [
        simulate_clicks(mask, None, "band", np.random.default_rng(seed), ClickRules(band=10)).negative
        for seed in range(30)
    ]
    assert min(spacing(points) for points in scattered if len(points) > 5) < spacing(clicks.negative)


def test_each_boundary_click_is_the_farthest_from_those_before():
    mask = blobs(11, (50, 70), 0.3)
    rules = ClickRules(step=0, margin=0, band_width=60)
    negative = simulate_clicks(mask, None, "boundary", np.random.default_rng(2), rules).negative
    scale = (mask.size / (375 * 500)) ** 0.5
    candidates = np.argwhere(mask == 0)[:, ::-1]
    candidates = candidates[away(candidates, mask) <= 60 * scale]
    for number in range(1, len(negative)):
        nearest = ((candidates[:, None] - negative[:number]) ** 2).sum(axis=2).min(axis=1)
        assert tuple(candidates[np.argmax(nearest)]) == tuple(negative[number])


def test_without_other_objects_the_band_is_clicked():
    mask = disc_mask((200, 200), (100, 100), 40)
    hidden = disc_mask((200, 200), (100, 100), 20)
    for others in (None, np.zeros_like(mask), hidden):
        made = simulate_clicks(mask, others, "objects", np.random.default_rng(4))
        expected = simulate_clicks(mask, None, "band", np.random.default_rng(4))
        np.testing.assert_array_equal(made.negative, expected.negative)
        np.testing.assert_array_equal(made.positive, expected.positive)
        assert len(made.negative)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (64, 48)])
def test_empty_full_and_one_pixel_masks(strategy, size):
    random = np.random.default_rng(0)
    empty, full = np.zeros(size, np.uint8), np.full(size, 255, np.uint8)
    assert len(simulate_clicks(empty, None, strategy, random).positive) == 0
    assert len(simulate_clicks(empty, None, strategy, random).negative) == 0
    clicks = [simulate_clicks(full, full, strategy, random) for _ in range(20)]
    assert all(len(click.positive) >= 1 for click in clicks)
    assert not any(len(click.negative) for click in clicks)
    single = empty.copy()
    single[-1, -1] = 255
    clicks = [simulate_clicks(single, None, strategy, random) for _ in range(20)]
    assert all(click.positive.tolist() == [[size[1] - 1, size[0] - 1]] for click in clicks)
    assert any(len(click.negative) for click in clicks) == (single.size > 1)


def test_the_frame_is_no_edge():
    mask = np.zeros(REFERENCE, np.uint8)
    mask[:6] = 255  # only the top row is five away from the background
    random = np.random.default_rng(0)
    rows = [simulate_clicks(mask, None, "band", random).positive[:, 1] for _ in range(100)]
    assert set(np.concatenate(rows).tolist()) == {0, 1}


def test_a_margin_that_leaves_nothing_is_halved():
    mask = np.zeros(REFERENCE, np.uint8)
    mask[100:105, 200:300] = 255  # at most 3 from the outside: 5 leaves none, 2.5 the middle row
    random = np.random.default_rng(0)
    rows = [simulate_clicks(mask, None, "band", random).positive[:, 1] for _ in range(30)]
    assert set(np.concatenate(rows).tolist()) == {102}
    # The same for the background: a gap of five rows, of which one is 2.5 from either side.
    rows = [simulate_clicks(255 - mask, None, "band", random).negative[:, 1] for _ in range(30)]
    assert set(np.concatenate(rows).tolist()) == {102}


def test_clicks_are_the_same_for_the_same_randomness():
    """The last are written down, so that a machine or library version that clicks elsewhere is noticed."""
    mask, others = disc_mask((120, 160), (70, 60), 35), disc_mask((120, 160), (140, 60), 15)
    for strategy in STRATEGIES:
        first, again = (simulate_clicks(mask, others, strategy, np.random.default_rng(9)) for _ in range(2))
        np.testing.assert_array_equal(first.positive, again.positive)
        np.testing.assert_array_equal(first.negative, again.negative)
    assert first.positive.tolist() == [[74, 81], [80, 88], [78, 48]]
    assert first.negative.tolist() == [
        [94, 21],
        [46, 101],
        [29, 36],
        [110, 85],
        [58, 14],
        [24, 72],
        [116, 49],
        [81, 106],
        [34, 55],
        [106, 66],
    ]


def test_masks_are_left_as_they_were():
    mask, others = disc_mask((90, 90), (40, 40), 20), disc_mask((90, 90), (75, 75), 10)
    mask.flags.writeable = others.flags.writeable = False
    for strategy in STRATEGIES:
        simulate_clicks(mask, others, strategy, np.random.default_rng(0))


@pytest.mark.parametrize(
    "change", [{"positive": 0}, {"band": -1}, {"step": -1.0}, {"margin": float("nan")}, {"band_width": float("inf")}]
)
def test_rules_that_make_no_sense_are_refused(change):
    with pytest.raises(ValueError, match="click|distances"):
        replace(ClickRules(), **change)


def test_wrong_calls_are_refused():
    mask, random = np.zeros((5, 5), np.uint8), np.random.default_rng(0)
    with pytest.raises(ValueError, match="strategies"):
        simulate_clicks(mask, None, "everywhere", random)
    with pytest.raises(ValueError, match="masks"):
        simulate_clicks(mask.astype(bool), None, "band", random)
    with pytest.raises(ValueError, match="masks"):
        simulate_clicks(mask, np.zeros((5, 6), np.uint8), "band", random)
    with pytest.raises(ValueError, match="points"):
        distance_map(np.zeros((2, 3), np.int32), (5, 5))
    with pytest.raises(ValueError, match="points"):
        distance_map(np.zeros((2, 2)), (5, 5))
    with pytest.raises(ValueError, match="limit"):
        distance_map(np.zeros((2, 2), np.int32), (5, 5), limit=256)


@given(
    points=st.lists(st.tuples(st.integers(-300, 600), st.integers(-300, 600)), max_size=6),
    size=st.tuples(st.integers(1, 40), st.integers(1, 400)),
    limit=st.integers(1, 255),
)
def test_maps_are_distances_rounded_and_cut(points, size, limit):
    made = distance_map(np.array(points, np.int32).reshape(-1, 2), size, limit)
    rows, columns = np.indices(size)
    nearest = np.min([np.hypot(columns - x, rows - y) for x, y in points], axis=0, initial=np.inf)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, np.minimum(np.rint(nearest), limit) if points else np.full(size, limit))


def test_a_map_without_clicks_is_at_the_limit_everywhere():
    assert (distance_map(np.empty((0, 2), np.int32), (3, 4)) == 255).all()


def test_maps_agree_with_the_distance_transform():
    points = np.array([[20, 30], [300, 10], [150, 200]], np.int32)
    zeros = np.full((240, 320), 255, np.uint8)
    zeros[points[:, 1], points[:, 0]] = 0
    exact = cv2.distanceTransform(zeros, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    np.testing.assert_array_equal(distance_map(points, (240, 320)), np.minimum(np.rint(exact), 255))


def test_real_masks_of_duts(real_raw):
    files = sorted((real_raw / "duts" / "DUTS-TE" / "DUTS-TE-Mask").glob("*.png"))[:20]
    assert files
    for number, file in enumerate(files):
        mask = np.where(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) >= 128, 255, 0).astype(np.uint8)
        clicks = simulate_clicks(mask, None, STRATEGIES[number % 3], np.random.default_rng(number))
        assert 1 <= len(clicks.positive) <= 5
        assert (values(mask, clicks.positive) == 255).all()
        assert (values(mask, clicks.negative) == 0).all()
        positive, negative = (distance_map(points, mask.shape) for points in (clicks.positive, clicks.negative))
        assert (values(positive, clicks.positive) == 0).all()
        assert (values(negative, clicks.positive) > 0).all()


def test_real_instances_of_coco(real_raw):
    """One instance is the object, the rest of the photo's are the others."""
    folder = real_raw / "coco"
    annotations = json.loads((folder / "annotations" / "instances_val2017.json").read_text())
    shapes = {image["id"]: (image["height"], image["width"]) for image in annotations["images"]}
    by_photo = {}
    for item in annotations["annotations"]:
        if item["area"] > 3000 and not item["iscrowd"]:
            by_photo.setdefault(item["image_id"], []).append(item)
    crowded = sorted(number for number, items in by_photo.items() if len(items) > 2)[:10]
    assert crowded
    total = 0
    for number in crowded:
        first, *rest = by_photo[number]
        here = Geometry(np.eye(3), tuple(shapes[number]))
        mask, others = (Polygons(tuple(items), here.size).draw(here) for items in ([first], rest))
        clicks = simulate_clicks(mask, others, "objects", np.random.default_rng(number))
        assert (values(mask, clicks.positive) == 255).all()
        assert (values(others, clicks.negative) == 255).all()
        assert (values(mask, clicks.negative) == 0).all()
        total += len(clicks.negative)
    assert total > 10
