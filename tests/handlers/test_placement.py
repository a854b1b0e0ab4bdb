"""Subjects placed, cut out and laid over one another, against references by hand and in floating point."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_handlers.errors import BadSampleError
from dataset_handlers.labels.shapes import Matte, Raster
from dataset_handlers.photo import Photo
from dataset_handlers.placement import Finish, cut_out, lay, place, seen_instances, together
from dataset_handlers.scene import Instance, Scene
from dataset_handlers.transforms.blending import feathered, match_light, over
from dataset_handlers.transforms.geometry import Geometry, compose, resizing, scaling, translation

SIZE = (96, 128)

# places


@given(st.integers(0, 2**32), st.floats(0, 0.9), st.floats(1, 300), st.floats(1, 300), st.floats(0.05, 1))
def test_no_more_of_a_subject_hangs_over_than_allowed(seed, overhang, width, height, share):
    box = (7.0, 11.0, 7 + width, 11 + height)
    geometry = place(box, SIZE, (share, share), np.random.default_rng(seed), overhang)
    (scale, _, x), (_, same, y), _ = geometry.matrix.tolist()
    assert scale == same
    for low, high, end in ((7 * scale + x, box[2] * scale + x, 128), (11 * scale + y, box[3] * scale + y, 96)):
        slack = overhang * (high - low) + 1e-6
        assert low >= -slack
        assert high <= end + slack
    assert max(width * scale / 128, height * scale / 96) == pytest.approx(share)


def test_an_empty_mask_has_no_subject():
    with pytest.raises(BadSampleError, match="no subject"):
        place(None, SIZE, (0.5, 0.9), np.random.default_rng(0))


@pytest.mark.parametrize("size", [(100, 400), (400, 100), (96, 128), (33, 44), (1, 1)])
def test_a_background_covers_the_canvas_in_its_proportions(size):
    matrix = resizing(size, SIZE, "cover")
    corners = matrix @ np.array([[0, size[1]], [0, size[0]], [1, 1]])
    assert (corners[:2, 0] <= 1e-9).all()
    assert corners[0, 1] >= 128 - 1e-9
    assert corners[1, 1] >= 96 - 1e-9
    assert matrix[0, 0] == matrix[1, 1]


# edges


def flat(level, size=(60, 60)):
    return np.full((*size, 3), level, np.uint8)


def whole(scene, finish=Finish()):  # noqa: B008 - it is frozen
    """A scene's subject where it is, on a canvas of the photo's size."""
    return cut_out(scene, Geometry(np.eye(3), scene.photo.size), finish)


def square(left=15, right=45, size=(60, 60)):
    mask = np.zeros(size, np.uint8)
    mask[15:45, left:right] = 255
    return mask


def test_feathering_stays_inside_the_mask():
    mask = square()
    scene = Scene(Photo.from_pixels(flat(250)), Raster(mask))
    for feather in (0.5, 1.0, 3.0):
        made = lay(flat(50), [whole(scene, Finish(feather))], 0)
        mixed = made.photo
        np.testing.assert_array_equal(mixed[mask == 0], 50)
        np.testing.assert_array_equal(mixed[30, 30], 250)
        if feather >= 1:
            assert mixed[15, 30, 0] < 150  # little of the subject on its very edge: that is its old background
        assert (np.diff(mixed[30, :31, 0].astype(int)) >= 0).all()
        np.testing.assert_array_equal(made.mask, mask)  # soft edges do not make the subject smaller
    np.testing.assert_array_equal(lay(flat(50), [whole(scene)], 0).photo[mask == 255], 250)


@pytest.mark.parametrize("sigma", [1.0, 6.0])
def test_a_feather_does_not_depend_on_the_window(sigma):
    """Blurring in a window that is too tight would mirror the subject at its frame."""
    mask = cv2.circle(np.zeros((220, 200), np.uint8), (110, 90), 40, 255, -1)
    layer = whole(Scene(Photo.from_pixels(flat(9, (220, 200))), Raster(mask)), Finish(sigma))
    blurred = cv2.GaussianBlur(mask, (0, 0), sigma).astype(int)
    opacity = np.where(mask == 255, np.clip(2 * blurred - 255, 0, 255), 0)
    np.testing.assert_array_equal(layer.opacity, opacity[layer.window])
    opacity[layer.window] = 0
    assert not opacity.any()


def test_a_subject_too_thin_for_its_feather_is_no_sample():
    """Else it would be in the mask and hardly in the picture."""
    thin = np.zeros((64, 64), np.uint8)
    thin[:, 30:34] = 255
    scene = Scene(Photo.from_pixels(flat(200, (64, 64))), Raster(thin))
    whole(scene, Finish(0.5))
    with pytest.raises(BadSampleError, match="too thin"):
        whole(scene, Finish(10))


def test_nothing_left_of_a_subject_is_no_sample():
    tiny = np.zeros((600, 600), np.uint8)
    tiny[300, 300] = 255
    scene = Scene(Photo.from_pixels(flat(9, (600, 600))), Raster(tiny))
    for geometry in (scaling(0.01, 0.01), translation(-400, 0)):
        with pytest.raises(BadSampleError, match="nothing is left"):
            cut_out(scene, Geometry(geometry, (6, 6)), Finish())


# alpha


def test_opacities_add_up_exactly_for_every_pair():
    below, above = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    exact = above + below * (255 - above.astype(float)) / 255
    np.testing.assert_array_equal(together(below, above), np.floor(exact + 0.5))


def soft_disc(size=(120, 150), radius=35):
    disc = cv2.circle(np.zeros(size, np.uint8), (size[1] // 2, size[0] // 2), radius, 255, -1)
    return cv2.GaussianBlur(disc, (0, 0), 4)


def noise(seed, size=(120, 150), low=0, high=256):
    coarse = np.random.default_rng(seed).integers(low, high, (*size, 3)).astype(np.float64)
    return np.clip(np.rint(cv2.GaussianBlur(coarse, (0, 0), 2)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_true_alpha_against_floating_point(scale):
    photo, alpha, background = noise(1), soft_disc(), noise(2, (200, 260))
    scene = Scene(Photo.from_pixels(photo), Raster(np.where(alpha > 127, 255, 0).astype(np.uint8)), Matte(alpha))
    geometry = Geometry(compose(translation(-3, 0), scaling(scale, scale)), (200, 260))
    made = lay(background, [cut_out(scene, geometry, Finish(feather=9))], 0)
    share = alpha[..., None] / 255.0
    # OpenCV counts from pixel centres.
    matrix = np.array([[scale, 0, scale / 2 - 0.5 - 3], [0, scale, scale / 2 - 0.5]])
    light = cv2.warpAffine(photo * share, matrix, (260, 200), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    opacity = cv2.warpAffine(share, matrix, (260, 200), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    exact = light + background * (1 - opacity[..., None])
    assert np.abs(made.photo - exact).max() <= 2
    assert np.abs(made.alpha - 255 * opacity).max() <= 1
    np.testing.assert_array_equal(made.mask, np.where(made.alpha >= 128, 255, 0))
    np.testing.assert_array_equal(made.photo[made.alpha == 0], background[made.alpha == 0])


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.7])
def test_what_a_file_holds_where_it_is_transparent_is_never_seen(scale):
    alpha = soft_disc()
    found = []
    for hidden in (0, 255):
        photo = noise(1)
        photo[alpha == 0] = hidden
        scene = Scene(Photo.from_pixels(photo), Raster(np.where(alpha > 127, 255, 0).astype(np.uint8)), Matte(alpha))
        geometry = Geometry(compose(translation(4.3, 2), scaling(scale, scale)), (200, 260))
        found.append(lay(noise(2, (200, 260)), [cut_out(scene, geometry, Finish())], 0).photo)
    np.testing.assert_array_equal(*found)


def test_decontaminated_edges_show_the_new_background_alone():
    """A red thing before green, put before blue: nothing green is left at its edge."""
    alpha = soft_disc()
    share = alpha[..., None] / 255.0
    red, green, blue = (np.array(colour, float) for colour in ((200, 40, 40), (20, 220, 20), (30, 30, 200)))
    photo = np.rint(red * share + green * (1 - share)).astype(np.uint8)
    scene = Scene(Photo.from_pixels(photo), Raster(np.where(alpha > 127, 255, 0).astype(np.uint8)), Matte(alpha))
    background = np.broadcast_to(blue.astype(np.uint8), photo.shape)
    truth = red * share + blue * (1 - share)
    errors = [
        np.abs(lay(background, [whole(scene, Finish(decontaminate=clean))], 0).photo - truth).max()
        for clean in (False, True)
    ]
    assert errors[0] > 40
    assert errors[1] < 10


@pytest.mark.parametrize("centre", [(75, 60), (20, 100)])
def test_light_is_matched_to_the_bare_background_around(centre):
    """As on the whole canvas: the window must hold all that is looked at."""
    photo, background = noise(1, low=120), noise(2, high=120)
    mask = cv2.circle(np.zeros((120, 150), np.uint8), centre, 18, 255, -1)
    scene = Scene(Photo.from_pixels(photo), Raster(mask))
    made = lay(background, [whole(scene, Finish(1.0, match_light=0.8))], 0.8)
    opacity = feathered(mask, 1.0)
    expected = over(background, match_light(photo, opacity, background, 0.8), opacity)
    np.testing.assert_array_equal(made.photo, expected)
    assert expected[mask > 0].mean() < photo[mask > 0].mean() - 30
    # A partner is no part of the background that light is matched to.
    bright = Scene(Photo.from_pixels(flat(255, (120, 150))), Raster(square(30, 60, (120, 150))))
    layers = [whole(bright), whole(scene, Finish(1.0, match_light=0.8))]
    np.testing.assert_array_equal(lay(background, layers, 0.8).photo[opacity == 255], expected[opacity == 255])


# several subjects


def scene_of(level, mask, alpha=None):
    return Scene(Photo.from_pixels(flat(level)), Raster(mask), alpha, (Instance(Raster(mask), f"level {level}"),))


def test_later_subjects_lie_over_earlier_ones():
    left, right = square(10, 35), square(25, 50)
    scenes = [scene_of(100, left), scene_of(200, right)]
    layers = [whole(scene) for scene in scenes]
    made = lay(flat(7), layers, 0)
    expected = flat(7)
    expected[15:45, 10:25], expected[15:45, 25:50] = 100, 200
    np.testing.assert_array_equal(made.photo, expected)
    np.testing.assert_array_equal(made.mask, left | right)
    seen = list(seen_instances(scenes, layers, (60, 60)))
    np.testing.assert_array_equal(seen[0].shape.mask, square(10, 25))
    np.testing.assert_array_equal(seen[1].shape.mask, right)
    assert [item.category for item in seen] == ["level 100", "level 200"]
    assert seen[0].shape.box() == (10, 15, 25, 45)


def test_what_is_covered_is_no_instance():
    scenes = [scene_of(100, square(20, 30)), scene_of(200, square())]
    layers = [whole(scene) for scene in scenes]
    assert [item.category for item in seen_instances(scenes, layers, (60, 60))] == ["level 200"]


def test_half_opacities_over_one_another_are_subject_together():
    faint = np.full((60, 60), 100, np.uint8)
    faint[square() == 0] = 0
    strong = np.where(square(0, 20) > 0, 255, 0).astype(np.uint8)
    first = scene_of(100, strong, Matte(np.maximum(faint, strong)))
    second = scene_of(200, strong, Matte(np.maximum(faint, strong)))
    made = lay(flat(0), [whole(first), whole(second)], 0)
    assert made.alpha[30, 30] == 161  # 100 + 100 · 155 / 255
    assert made.photo[30, 30, 0] == 102  # 100 · 100 / 255 is 39; (39 · 155 + 200 · 100) / 255
    np.testing.assert_array_equal(made.mask, np.where(made.alpha >= 128, 255, 0))
