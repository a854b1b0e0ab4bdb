"""Appearance on shapes whose look is known, clusters on groups that are known, balancing against its definition."""

import os
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from math import ceil

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import adjusted_mutual_info_score
from threadpoolctl import threadpool_limits

from dataset_handlers.errors import BadSampleError
from dataset_handlers.selection.clusters import FEATURES, appearance, assign_clusters, balance
from tests.handlers.support import REPOSITORY

RED, GREEN, BLUE = (200, 30, 30), (30, 170, 40), (40, 50, 200)


def cutout(colour, shape, size=(120, 160), centre=(80, 60), radius=40, stripes=0):
    """A drawn cut-out: photo and alpha."""
    photo = np.full((*size, 3), colour, np.uint8)
    if stripes:
        photo[:, (np.arange(size[1]) // stripes) % 2 == 0] //= 3
    alpha = np.zeros(size, np.uint8)
    x, y = centre
    if shape == "disc":
        cv2.circle(alpha, centre, radius, 255, -1, cv2.LINE_AA)
    elif shape == "bar":
        cv2.rectangle(alpha, (x - radius, y - radius // 4), (x + radius, y + radius // 4), 255, -1)
    else:
        corners = np.array([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)])
        cv2.fillPoly(alpha, [corners], 255, cv2.LINE_AA)
    return photo, alpha


def apart(one, other):
    return float(np.linalg.norm(appearance(*one) - appearance(*other)))


def test_appearance_is_numbers_of_six_decimals():
    features = appearance(*cutout(RED, "disc"))
    assert features.shape == (FEATURES,)
    assert features.dtype == np.float64
    np.testing.assert_array_equal(features, np.round(features, 6))


def test_blocks_of_shares_have_length_one():
    features = appearance(*cutout(RED, "triangle", stripes=6))
    assert np.linalg.norm(features[:57]) == pytest.approx(1, abs=1e-5)  # lightness and hue
    assert np.linalg.norm(features[57:185]) == pytest.approx(1, abs=1e-5)  # edges
    assert 0.3 < np.linalg.norm(features[185:249]) < 1  # coverage; 1 for a box that is full


def test_place_size_and_hidden_colours_hardly_matter():
    photo, alpha = original = cutout(RED, "triangle")
    other_kind = apart(original, cutout(RED, "disc"))
    assert apart(original, cutout(RED, "triangle", centre=(100, 55))) == 0
    assert apart(original, cutout(RED, "triangle", size=(500, 600), centre=(300, 250), radius=160)) < other_kind / 4
    hidden = photo.copy()
    hidden[alpha == 0] = (0, 255, 0)
    assert apart(original, (hidden, alpha)) == 0


def test_a_faint_haze_is_not_part_of_the_box():
    photo, alpha = cutout(RED, "disc")
    assert apart((photo, alpha), (photo, np.maximum(alpha, 6))) < 0.1
    assert apart((photo, alpha), (photo, alpha // 3)) < 1  # glass: the same box, less coverage


@pytest.mark.parametrize(
    ("other", "block"),
    [
        (cutout(BLUE, "disc"), slice(0, 57)),
        (cutout(RED, "disc", stripes=5), slice(57, 185)),
        (cutout(RED, "triangle"), slice(185, 249)),
        (cutout(RED, "bar"), slice(249, 250)),
    ],
    ids=["colour", "texture", "shape", "proportions"],
)
def test_each_block_sees_what_it_is_for(other, block):
    change = appearance(*other) - appearance(*cutout(RED, "disc"))
    assert np.linalg.norm(change[block]) > 0.3


def test_proportions_are_half_the_logarithm_of_height_by_width():
    assert appearance(*cutout(RED, "bar"))[-1] == pytest.approx(np.log(21 / 81) / 2, abs=1e-6)


def test_vertical_stripes_are_horizontal_gradients():
    alpha = np.full((128, 128), 255, np.uint8)
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::16], stripes[:, 1::16], stripes[:, 2::16], stripes[:, 3::16] = 255, 255, 255, 255
    by_orientation = (appearance(stripes, alpha)[57:185].reshape(16, 8) ** 2).sum(axis=0)
    lying = (appearance(stripes.transpose(1, 0, 2).copy(), alpha)[57:185].reshape(16, 8) ** 2).sum(axis=0)
    assert by_orientation[0] > 0.99  # around 0°
    assert lying[4] > 0.99  # around 90°


@pytest.mark.parametrize("step", range(8))
def test_orientations_are_eighths_of_half_a_turn(step):
    angle = np.pi * step / 8
    y, x = np.mgrid[0:128, 0:128]
    wave = 128 + 100 * np.sin((x * np.cos(angle) + y * np.sin(angle)) / 4)
    photo = np.repeat(wave.astype(np.uint8)[..., None], 3, axis=2)
    edges = appearance(photo, np.full((128, 128), 255, np.uint8))[57:185].reshape(4, 4, 8) ** 2
    assert (edges[1:3, 1:3].argmax(axis=2) == step).all()
    assert edges[..., step].sum() > 0.8


def test_premultiplied_colours_are_exact():
    levels, opaque = (np.ascontiguousarray(grid) for grid in np.mgrid[0:256, 0:256].astype(np.uint8))
    product = cv2.multiply(levels, opaque, scale=1 / 255)
    np.testing.assert_array_equal(product, (levels.astype(int) * opaque + 127) // 255)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (7, 5), (3000, 20)])
def test_subjects_of_any_size_have_an_appearance(size):
    features = appearance(np.full((*size, 3), 200, np.uint8), np.full(size, 255, np.uint8))
    assert np.isfinite(features).all()


def test_no_subject_is_a_bad_sample():
    photo = np.zeros((900, 900, 3), np.uint8)
    nearly = np.zeros((900, 900), np.uint8)
    with pytest.raises(BadSampleError, match="alpha is 0"):
        appearance(photo, nearly)
    nearly[0, 0] = nearly[-1, -1] = 1
    with pytest.raises(BadSampleError, match="alpha is next to 0"):
        appearance(photo, nearly)
    with pytest.raises(BadSampleError):
        appearance(photo[:0], nearly[:0])


@pytest.mark.parametrize("shape", [(4, 4), (5, 4, 3), (4, 4, 4)])
def test_photo_and_alpha_have_to_fit(shape):
    with pytest.raises(ValueError, match="not an RGB photo"):
        appearance(np.zeros(shape, np.uint8), np.zeros((4, 4), np.uint8))


@pytest.fixture(scope="module")
def known_groups():
    """Drawn cut-outs of three looks, 12, 8 and 5 of them mixed: features and looks."""
    rng = np.random.default_rng(5)
    looks = [0] * 12 + [1] * 8 + [2] * 5
    rng.shuffle(looks)
    features = []
    for look in looks:
        colour = np.clip(np.array((RED, GREEN, BLUE)[look]) + rng.integers(-15, 16, 3), 0, 255)
        shape, stripes = (("disc", 0), ("bar", 0), ("triangle", 6))[look]
        features.append(appearance(*cutout(colour, shape, radius=int(rng.integers(30, 45)), stripes=stripes)))
    return np.array(features), looks


def test_obviously_different_groups_are_told_apart(known_groups):
    features, looks = known_groups
    clusters = assign_clusters(features, 3, seed=0)
    assert clusters.labels == looks
    assert clusters.sizes == [12, 8, 5]
    assert 0.9 < clusters.explained_variance <= 1


def test_numbers_do_not_depend_on_the_seed_where_groups_are_clear(known_groups):
    features, looks = known_groups
    assert all(assign_clusters(features, 3, seed).labels == looks for seed in (1, 2, 3, 2**40))


def test_equal_sizes_are_numbered_by_their_first_sample():
    points = np.array([[9.0, 0], [0, 0], [9.1, 0], [0, 0.1], [0, 50], [0, 50], [0, 50]])
    assert assign_clusters(points, 3, seed=7).labels == [1, 2, 1, 2, 0, 0, 0]


def test_there_are_no_more_clusters_than_different_samples():
    points = np.array([[1.0, 2.0]] * 4 + [[5.0, 2.0]] * 3)
    assert assign_clusters(points, 6, seed=0).sizes == [4, 3]
    same = assign_clusters(points[:4], 6, seed=0)
    assert (same.labels, same.sizes, same.explained_variance) == ([0] * 4, [4], 1.0)
    assert assign_clusters(points[:1], 2, seed=0).labels == [0]


def test_threads_and_repetition_change_nothing():
    features = np.random.default_rng(2).random((3000, 60))
    with threadpool_limits(1):
        one = assign_clusters(features, 9, seed=4)
    assert one == assign_clusters(features, 9, seed=4)
    assert one != assign_clusters(features, 9, seed=5)


def test_explained_variance_stops_at_the_cap():
    noise = np.random.default_rng(2).random((400, 100))
    explained = assign_clusters(noise, 2, seed=0).explained_variance
    values = np.linalg.eigvalsh(np.cov(noise, rowvar=False))[::-1]
    assert explained == pytest.approx(values[:32].sum() / values.sum())


@pytest.mark.parametrize("features", [np.zeros((0, 4)), np.zeros((4, 0)), np.zeros(4), np.array([[1.0], [np.nan]])])
def test_features_that_cannot_be_clustered_are_refused(features):
    with pytest.raises(ValueError, match="features are"):
        assign_clusters(features, 2, seed=0)


def test_no_clusters_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        assign_clusters(np.ones((3, 2)), 0, seed=0)


def test_scikit_learn_is_not_imported_before_it_is_needed():
    code = "import sys, dataset_handlers.selection.clusters; print('sklearn' in sys.modules, 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


_DIGEST = """
import hashlib, cv2, numpy as np, skimage.data
from dataset_handlers.selection.clusters import appearance
photo, digest = skimage.data.astronaut(), hashlib.sha256()
for number in range(30):
    alpha = np.zeros((512, 512), np.uint8)
    cv2.ellipse(alpha, (230, 250), (60 + 5 * number, 180 - 4 * number), 9.0 * number, 0, 360, 255, -1, cv2.LINE_AA)
    digest.update(appearance(photo, alpha).tobytes())
print(digest.hexdigest())
"""


def test_the_processor_decides_no_feature():
    everything = {"OPENCV_CPU_DISABLE": "AVX,AVX2,FMA3,FP16,SSE4.1,SSE4.2", "NPY_DISABLE_CPU_FEATURES": "AVX2"}
    printed = set()
    for environment in ({}, everything):
        done = subprocess.run(
            [sys.executable, "-c", _DIGEST], env={**os.environ, **environment},
            cwd=REPOSITORY, capture_output=True, text=True, check=True,
        )  # fmt: skip
        printed.add(done.stdout)
    assert len(printed) == 1


def test_clusters_of_real_cut_outs_say_something_of_their_kind(real_raw):
    """Kinds are the first part of a file's name; chance is the same clusters dealt out at random."""
    kinds, features = [], []
    for path in sorted((real_raw / "cutouts").glob("*.png")):
        rgba = np.asarray(Image.open(path).convert("RGBA"))
        kinds.append(path.name.split("__")[0])
        features.append(appearance(np.ascontiguousarray(rgba[..., :3]), np.ascontiguousarray(rgba[..., 3])))
    clusters = assign_clusters(np.array(features), 6, seed=0)
    rng = np.random.default_rng(0)
    chance = [adjusted_mutual_info_score(kinds, rng.permutation(clusters.labels)) for _ in range(200)]
    assert adjusted_mutual_info_score(kinds, clusters.labels) > max(chance)
    assert min(clusters.sizes) >= 3
    assert clusters.explained_variance > 0.85


labels_of_samples = st.lists(st.integers(0, 5), max_size=60)
shares = st.integers(0, 100).map(lambda hundredths: hundredths / 100)


@given(labels_of_samples, shares)
def test_balanced_clusters_have_what_was_asked_for(labels, share):
    variations = balance(labels, share)
    sizes = Counter(labels)
    wanted = ceil(Fraction(round(share * 100), 100) * max(sizes.values(), default=0))
    assert len(variations) == len(labels)
    for cluster, size in sizes.items():
        own = [count for label, count in zip(labels, variations, strict=True) if label == cluster]
        assert sum(own) == max(size, wanted)
        assert min(own) >= 1
        assert max(own) - min(own) <= 1


@given(labels_of_samples, shares, st.permutations(range(6)))
def test_balancing_does_not_look_at_the_names_of_clusters(labels, share, names):
    assert balance([names[label] for label in labels], share) == balance(labels, share)


@given(labels_of_samples)
def test_a_share_of_nothing_balances_nothing(labels):
    assert balance(labels, 0) == [1] * len(labels)


def test_extra_variations_are_spread_over_the_cluster():
    assert balance([0] * 6 + [1] * 4, 1) == [1] * 6 + [1, 2, 1, 2]
    assert balance([1, 0, 0, 1, 0, 0, 0], 1.0) == [2, 1, 1, 3, 1, 1, 1]


def test_a_share_is_the_decimal_number_that_was_written():
    assert sum(balance([0] * 30 + [1], 0.1)) == 33
    assert sum(balance([0] * 30 + [1], 0.101)) == 34


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_impossible_shares_are_refused(share):
    with pytest.raises(ValueError, match="share"):
        balance([0, 1], share)
