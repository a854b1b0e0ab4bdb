"""Segments, planes and projections against made scenes, OpenCV and explicit rays."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dataset_handlers.errors import BadSampleError
from dataset_handlers.transforms.surfaces import (
    choose_point,
    choose_segment,
    fit_plane,
    fits,
    plane_homography,
    random_plane,
    segments,
)

SIZE = (240, 320)
FRONTAL = (0.0, 0.0, -1.0)


def read(path):
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def normal_of(tilt, azimuth):
    sin = math.sin(math.radians(tilt))
    return (
        sin * math.cos(math.radians(azimuth)),
        sin * math.sin(math.radians(azimuth)),
        -math.cos(math.radians(tilt)),
    )


def rays(size, focal=1.0):
    height, width = size
    x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    return np.stack([x, y, np.full_like(x, focal * max(size))], -1) / (focal * max(size))


def depth_of(normal, size, distance=1.0, focal=1.0):
    """Depth of the plane that is ``distance`` away on the optical axis."""
    return distance * normal[2] / (rays(size, focal) @ np.array(normal))


def angle(a, b):
    return math.degrees(math.acos(min(1.0, float(np.dot(a, b)))))


def mapped(matrix, points):
    return cv2.perspectiveTransform(np.array([points], np.float64), matrix)[0]


def corners(size):
    return [(0, 0), (size[1], 0), (size[1], size[0]), (0, size[0])]


# segments


def test_segments_are_the_even_regions_and_stay_inside_them():
    photo = np.zeros((300, 400, 3), np.uint8)
    photo[:, :200], photo[:150, 200:], photo[150:, 200:] = (200, 60, 60), (60, 60, 200), (90, 180, 90)
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    photo[200:, 300:] = noise.repeat(5, 0).repeat(5, 1)
    truth = np.zeros((300, 400), int)
    truth[:, :200], truth[:150, 200:], truth[150:, 200:], truth[200:, 300:] = 1, 2, 3, 4
    labels = segments(photo)
    assert (labels.dtype, labels.shape) == (np.int32, (300, 400))
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    for label in (1, 2, 3):
        within = np.bincount(truth[labels == label], minlength=5)
        assert within.max() > 0.99 * within.sum()  # a median may smooth a pixel at the noise's edge
        assert within.argmax() != 4
        assert within.max() > 0.85 * np.count_nonzero(truth == within.argmax())


def test_noise_has_no_segment_and_flat_photos_have_one():
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    assert not segments(cv2.resize(noise, (600, 400), interpolation=cv2.INTER_NEAREST)).any()
    for size in ((1, 1), (7, 300), (500, 500)):
        assert (segments(np.full((*size, 3), 99, np.uint8)) == 1).mean() > 0.9


def test_real_backgrounds_have_segments(real_raw):
    photos = sorted((real_raw / "backgrounds").iterdir())
    counts = []
    for path in photos:
        photo = read(path)
        labels = segments(photo)
        counts.append(labels.max())
        for label in range(1, counts[-1] + 1):
            region = labels == label
            assert region.mean() > 0.018
            assert cv2.connectedComponents(region.astype(np.uint8), connectivity=8)[0] == 2
        np.testing.assert_array_equal(labels, segments(photo))
    assert np.mean(np.array(counts) >= 1) > 0.9
    assert np.median(counts) >= 2


def test_segments_are_drawn_by_their_area():
    labels = np.zeros((10, 20), np.int32)
    labels[:, :4], labels[:, 10:] = 1, 3
    drawn = [choose_segment(labels, u / 1000) for u in range(1000)]
    assert drawn.count(3) == pytest.approx(1000 * 100 / 140, abs=1)
    assert drawn.count(1) + drawn.count(3) == 1000
    assert choose_segment(labels, np.nextafter(1, 0)) == 3
    with pytest.raises(BadSampleError, match="no even surface"):
        choose_segment(np.zeros((3, 3), np.int32), 0.5)


def test_points_are_well_inside():
    segment = np.zeros((60, 80), np.uint8)
    segment[10:51, 20:61] = 1
    drawn = np.array([choose_point(segment, u / 97) for u in range(97)])
    assert (np.abs(drawn - (40.5, 30.5)) <= 10.5).all()
    assert np.ptp(drawn, axis=0).min() > 15
    assert choose_point(np.ones((1, 1), np.uint8), 0.99) == (0.5, 0.5)
    with pytest.raises(ValueError, match="empty"):
        choose_point(np.zeros((3, 3), np.uint8), 0)


# fit_plane


@given(
    tilt=st.floats(0, 60),
    azimuth=st.floats(0, 360),
    unit=st.sampled_from([1.0, 8000.0]),
    focal=st.sampled_from([0.7, 1.0, 1.6]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=40)
def test_a_plane_is_recovered_from_noise_and_outliers(tilt, azimuth, unit, focal, seed):
    normal = normal_of(tilt, azimuth)
    depth = depth_of(normal, SIZE, 2.0, focal)
    mask = np.zeros(SIZE, np.uint8)
    cv2.ellipse(mask, (190, 100), (90, 70), 10, 0, 360, 255, -1)
    assume(depth[mask > 0].min() > 0.3 and 0 < depth[mask > 0].max() < 7)
    random = np.random.default_rng(seed)
    noisy = depth * random.normal(1, 0.004, SIZE)
    wild = random.random(SIZE) < 0.4
    noisy[wild] = random.uniform(0.5, 8, SIZE)[wild]
    noisy[mask == 0] = 1.7  # another surface, outside of the mask
    stored = (noisy * unit).astype(np.float32 if unit == 1 else np.uint16)
    found = fit_plane(stored, mask, np.random.default_rng(seed + 1), focal=focal)
    assert found is not None
    assert angle(found.normal, normal) < 1
    assert found.offset == pytest.approx(2.0 * unit * normal[2], rel=0.02)
    assert 0.5 < found.inliers < 0.75
    assert found == fit_plane(stored, mask, np.random.default_rng(seed + 1), focal=focal)


def test_missing_depth_is_left_out():
    depth = depth_of(normal_of(30, 200), SIZE)
    random = np.random.default_rng(0)
    for missing in (0, -1, np.nan, np.inf):
        holed = np.where(random.random(SIZE) < 0.7, missing, depth)
        found = fit_plane(holed, np.full(SIZE, 255, np.uint8), np.random.default_rng(1))
        assert found.inliers == 1
        assert angle(found.normal, normal_of(30, 200)) < 0.01


def test_what_is_no_plane_gives_none():
    mask = np.full(SIZE, 255, np.uint8)
    random = np.random.default_rng(0)
    assert fit_plane(random.uniform(1, 9, SIZE), mask, np.random.default_rng(1)) is None
    assert fit_plane(np.zeros(SIZE), mask, np.random.default_rng(1)) is None
    line = np.zeros(SIZE, np.uint8)
    line[50] = 255  # points of a line span no plane
    assert fit_plane(np.ones(SIZE), line, np.random.default_rng(1)) is None
    line[:] = 0
    assert fit_plane(np.ones(SIZE), line, np.random.default_rng(1)) is None


# planes and homographies


def test_random_normals_are_uniform_on_the_cap():
    random = np.random.default_rng(0)
    drawn = np.array([random_plane(random, 50) for _ in range(4000)])
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, atol=1e-12)
    cos = -drawn[:, 2]
    least = math.cos(math.radians(50))
    assert least <= cos.min() < least + 0.01
    assert cos.mean() == pytest.approx((1 + least) / 2, abs=0.01)
    assert np.abs(drawn[:, :2].mean(0)).max() < 0.03
    assert random_plane(random, 0) == pytest.approx(FRONTAL)
    with pytest.raises(ValueError, match="90"):
        random_plane(random, 90)


def test_a_frontal_plane_is_a_similarity():
    matrix = plane_homography((50, 100), FRONTAL, (130.0, 90.0), 60, 30, SIZE)
    cos, sin = 0.6 * math.cos(math.radians(30)), 0.6 * math.sin(math.radians(30))
    np.testing.assert_allclose(matrix[:2, :2], [[cos, sin], [-sin, cos]], atol=1e-12)
    np.testing.assert_allclose(mapped(matrix, [(50, 25)]), [(130, 90)], atol=1e-9)
    np.testing.assert_array_equal(matrix[2], [0, 0, 1])


POSES = {
    "size": st.sampled_from([(64, 64), (40, 120), (200, 50)]),
    "tilt": st.floats(0, 60),
    "azimuth": st.floats(0, 360),
    "x": st.floats(60, 260),
    "y": st.floats(60, 180),
    "width": st.floats(20, 90),
    "turn": st.floats(-45, 45),
    "focal": st.sampled_from([0.8, 1.0, 2.0]),
}


@given(**POSES)
@settings(max_examples=150)
def test_a_logo_is_seen_as_a_pinhole_camera_sees_it(size, tilt, azimuth, x, y, width, turn, focal):
    normal = normal_of(tilt, azimuth)
    try:
        matrix = plane_homography(size, normal, (x, y), width, turn, SIZE, focal)
    except BadSampleError:
        assume(False)
    middle = np.array(size[::-1]) / 2
    np.testing.assert_allclose(mapped(matrix, [middle]), [(x, y)], atol=1e-6)
    left, right = mapped(matrix, [(0, middle[1]), (size[1], middle[1])])
    assert math.dist(left, right) == pytest.approx(width, rel=1e-6)
    # Rays through the quad meet the plane in a rectangle of the logo's proportions.
    quad = mapped(matrix, corners(size))
    toward = np.column_stack([(quad - (SIZE[1] / 2, SIZE[0] / 2)) / (focal * max(SIZE)), np.ones(4)])
    met = toward / (toward @ np.array(normal))[:, None]
    assert (met[:, 2] < 0).all()  # at n · p = 1, the plane behind: all in front for n · p = -1
    met = -met
    top, side = met[1] - met[0], met[3] - met[0]
    np.testing.assert_allclose(met[2] - met[3], top, atol=1e-9)
    assert np.dot(top, side) == pytest.approx(0, abs=1e-9)
    assert np.linalg.norm(top) / np.linalg.norm(side) == pytest.approx(size[1] / size[0], rel=1e-6)
    # Convex, not mirrored, and the matrix OpenCV finds for the same four points.
    turns = [np.cross([*(quad[i - 1] - quad[i - 2]), 0], [*(quad[i] - quad[i - 1]), 0])[2] for i in range(4)]
    assert min(turns) > 0
    theirs = cv2.getPerspectiveTransform(np.float32(corners(size)), np.float32(quad))
    np.testing.assert_allclose(mapped(matrix, [(3, 5), (30, 20)]), mapped(theirs, [(3, 5), (30, 20)]), atol=0.02)


def extent(matrix, size):
    (left, right), (top, bottom) = (
        mapped(matrix, [(0, size[0] / 2), (size[1], size[0] / 2)]),
        mapped(matrix, [(size[1] / 2, 0), (size[1] / 2, size[0])]),
    )
    return math.dist(left, right), math.dist(top, bottom)


def test_tilt_foreshortens():
    for tilt in (20, 40, 60):
        floor = extent(plane_homography((50, 50), normal_of(tilt, 270), (160, 120), 20, 0, SIZE), (50, 50))
        wall = extent(plane_homography((50, 50), normal_of(tilt, 0), (160, 120), 20, 0, SIZE), (50, 50))
        assert floor[1] / floor[0] == pytest.approx(math.cos(math.radians(tilt)), rel=0.02)
        assert wall[0] / wall[1] == pytest.approx(math.cos(math.radians(tilt)), rel=0.02)


def test_logos_stand_level_on_floors_and_upright_on_walls():
    floor = mapped(plane_homography((50, 50), normal_of(70, 270), (200, 200), 60, 0, SIZE), corners((50, 50)))
    assert floor[0, 1] == pytest.approx(floor[1, 1])
    assert floor[3, 1] == pytest.approx(floor[2, 1])
    assert floor[1, 0] - floor[0, 0] < floor[2, 0] - floor[3, 0]  # what is farther is smaller
    wall = mapped(plane_homography((50, 50), normal_of(60, 180), (200, 120), 30, 0, SIZE), corners((50, 50)))
    assert wall[0, 0] == pytest.approx(wall[3, 0])
    assert wall[1, 0] == pytest.approx(wall[2, 0])


def test_surfaces_seen_from_behind_or_too_steep_are_refused():
    with pytest.raises(BadSampleError, match="behind"):
        plane_homography((50, 50), (0.0, 0.0, 1.0), (160, 120), 40, 0, SIZE)
    with pytest.raises(BadSampleError, match="flat"):
        plane_homography((50, 50), normal_of(89, 0), (160, 120), 40, 0, SIZE)
    with pytest.raises(BadSampleError, match="steep"):
        plane_homography((50, 50), normal_of(70, 0), (160, 120), 300, 0, SIZE)


@given(**POSES)
@settings(max_examples=40)
def test_fits_is_the_share_of_the_logo_inside(size, tilt, azimuth, x, y, width, turn, focal):
    try:
        matrix = plane_homography(size, normal_of(tilt, azimuth), (x, y), width, turn, SIZE, focal)
    except BadSampleError:
        assume(False)
    segment = np.zeros(SIZE, np.uint8)
    cv2.circle(segment, (150, 110), 60, 255, -1)
    # The centers of the logo's own pixels, looked up in the picture; what is outside is 0. OpenCV counts from centers.
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    centered = np.linalg.inv(half) @ matrix @ half
    there = cv2.warpPerspective(segment, centered, size[::-1], flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    assert fits(matrix, size, segment) == pytest.approx(np.mean(there > 0), abs=0.06)
    assert fits(matrix, size, np.zeros(SIZE, np.uint8)) == 0
    quad = mapped(matrix, corners(size))
    if quad.min() >= 0 and (quad.max(0) <= SIZE[::-1]).all():
        assert fits(matrix, size, np.ones(SIZE, bool)) == 1
