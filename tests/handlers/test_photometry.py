"""Light and colour against the formulas, Pillow and scikit-image."""

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from skimage.color import hsv2rgb, rgb2hsv
from skimage.exposure import equalize_hist

from dataset_handlers.transforms.photometry import (
    adjust_saturation,
    apply_table,
    clahe,
    equalize,
    exposure_table,
    rotate_hue,
    shuffle_channels,
    tone_table,
)

BT601 = (0.299, 0.587, 0.114)
#: Every combination of 22 levels per channel: greys, ties of two channels, and every order of three.
CUBE = np.stack(np.meshgrid(*[np.arange(0, 256, 12).astype(np.uint8)] * 3), -1).reshape(88, 121, 3)


def linear(level):
    """IEC 61966-2-1."""
    level = np.asarray(level, np.float64) / 255
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)


def encoded(light):
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def luma(photo):
    return (photo * np.array(BT601)).sum(-1)


def rounded_luma(photo):
    levels = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    assert np.abs(levels - luma(photo)).max() <= 0.51
    return levels


@pytest.fixture(scope="module")
def photos(real_raw):
    """Six real photos, among them one of odd width and height."""
    files = sorted((real_raw / "coco" / "val2017").glob("*.jpg"))[:6]
    found = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    return [*found[:5], found[5][:201, :333]]


def test_zero_stops_are_the_identity():
    np.testing.assert_array_equal(exposure_table(0.0), np.arange(256))


@pytest.mark.parametrize("stops", np.linspace(-5, 5, 21))
def test_tables_are_monotone_and_keep_black(stops):
    table = exposure_table(float(stops)).astype(int)
    assert (np.diff(table) >= 0).all()
    assert table[0] == 0


@pytest.mark.parametrize("stops", [-3.0, -1.0, 0.5, 1.0, 2.0])
def test_a_stop_doubles_the_light(stops):
    table = exposure_table(stops)
    wanted = linear(np.arange(256)) * 2**stops
    visible = wanted <= 1
    # One level of output is at most this much light, and rounding is by half a level.
    step = linear(np.minimum(table[visible] + 0.5, 255)) - linear(np.maximum(table[visible] - 0.5, 0))
    assert (np.abs(linear(table[visible]) - wanted[visible]) <= step).all()
    assert (table[~visible] == 255).all()


def test_known_levels():
    # sRGB 128 is 0.2158605 of full light; twice that is sRGB 175.9, half of it 92.4.
    assert exposure_table(1.0)[128] == 176
    assert exposure_table(-1.0)[128] == 92


def test_the_neutral_tone_is_the_identity():
    np.testing.assert_array_equal(tone_table(), np.arange(256))
    assert tone_table().dtype == np.uint8


@given(
    exposure=st.floats(-5, 5), brightness=st.floats(-1, 1), contrast=st.floats(0, 4), gamma=st.floats(0.2, 5)
)  # fmt: skip
@settings(max_examples=200)
def test_tone_is_its_four_steps_rounded_once(exposure, brightness, contrast, gamma):
    table = tone_table(exposure=exposure, brightness=brightness, contrast=contrast, gamma=gamma)
    level = encoded(np.clip(linear(np.arange(256)) * 2**exposure, 0, 1))
    level = np.clip((level**gamma - 0.5) * contrast + 0.5 + brightness, 0, 1)
    assert np.abs(table - level * 255).max() <= 0.5 + 1e-6
    assert (np.diff(table.astype(int)) >= 0).all()
    np.testing.assert_array_equal(
        table, tone_table(exposure=exposure, brightness=brightness, contrast=contrast, gamma=gamma)
    )


def test_each_tone_alone():
    levels = np.arange(256)
    np.testing.assert_array_equal(tone_table(brightness=0.2), np.minimum(levels + 51, 255))
    np.testing.assert_array_equal(tone_table(brightness=-1.0), 0 * levels)
    assert set(tone_table(contrast=0.0)) == {128}
    assert [tone_table(contrast=2.0)[level] for level in (0, 63, 100, 191, 192)] == [0, 0, 72, 254, 255]
    assert np.abs(tone_table(gamma=2.0) - levels**2 / 255).max() <= 0.5


def test_steps_compose_in_the_stated_order():
    # A stop more and gamma 2: were it the other way round, 128 would become sRGB of twice linear(64).
    wanted = (encoded(linear(128) * 2) ** 2 - 0.5) * 0.5 + 0.5 + 0.1
    assert tone_table(exposure=1.0, gamma=2.0, contrast=0.5, brightness=0.1)[128] == round(float(wanted) * 255)


@pytest.mark.parametrize("wrong", [{"gamma": 0.0}, {"contrast": -0.1}, {"brightness": 1.5}, {"gamma": float("nan")}])
def test_a_tone_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="out of range"):
        tone_table(**wrong)


def test_every_channel_has_the_table_applied():
    photo = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    np.testing.assert_array_equal(apply_table(photo, exposure_table(1.5)), exposure_table(1.5)[photo])


@pytest.mark.parametrize("factor", [0.0, 0.3, 0.75, 1.0003, 1.4, 2.5, 8.0])
def test_saturation_is_the_blend_with_luma(factor):
    exact = luma(CUBE)[..., None] * (1 - factor) + CUBE * factor
    error = np.abs(adjust_saturation(CUBE, factor) - np.clip(exact, 0, 255))
    assert error.max() <= 0.55 + 0.5 * abs(1 - factor)


@pytest.mark.parametrize("factor", [0.0, 0.4, 0.8, 1.3, 1.9])
def test_saturation_is_pillows(photos, factor):
    # Pillow cuts fractions off and takes grey from 16-bit weights: one level each.
    for photo in photos:
        wanted = np.asarray(ImageEnhance.Color(Image.fromarray(photo)).enhance(factor)).astype(int)
        assert np.abs(adjust_saturation(photo, factor) - wanted).max() <= 1 + abs(1 - factor)


def test_saturation_keeps_greys_and_goes_no_further_than_stated():
    greys = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 256, 3)
    for factor in (0.0, 0.37, 8.0):
        np.testing.assert_array_equal(adjust_saturation(greys, factor), greys)
    for factor in (-0.1, 8.1, float("nan")):
        with pytest.raises(ValueError, match="saturation"):
            adjust_saturation(greys, factor)


def hue_rotated(photo, degrees):
    """In float64, by scikit-image's HSV."""
    hsv = rgb2hsv(photo / 255)
    hsv[..., 0] = (hsv[..., 0] + degrees / 360) % 1
    return hsv2rgb(hsv) * 255


@given(degrees=st.floats(-720, 720))
@settings(max_examples=60)
def test_hue_is_turned_within_half_a_level(degrees):
    assert np.abs(rotate_hue(CUBE, degrees) - hue_rotated(CUBE, degrees)).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("degrees", [-97.3, -60, -18, 7.5, 60, 133])
def test_hue_of_photos_is_turned_within_half_a_level(photos, degrees):
    for photo in photos:
        turned = rotate_hue(photo, degrees)
        assert np.abs(turned - hue_rotated(photo, degrees)).max() <= 0.5 + 1e-6
        np.testing.assert_array_equal(turned.max(-1), photo.max(-1))
        np.testing.assert_array_equal(turned.min(-1), photo.min(-1))


def test_known_hues():
    red = np.array([[[255, 0, 0]]], np.uint8)
    for degrees, colour in {
        30: (255, 128, 0), 60: (255, 255, 0), 90: (128, 255, 0), 120: (0, 255, 0), 240: (0, 0, 255),
        -60: (255, 0, 255), 180: (0, 255, 255), 480: (0, 255, 0),
    }.items():  # fmt: skip
        assert tuple(rotate_hue(red, degrees)[0, 0]) == colour


def test_channels_are_shuffled():
    for order in itertools.permutations(range(3)):
        np.testing.assert_array_equal(shuffle_channels(CUBE, order), CUBE[..., list(order)])
    with pytest.raises(ValueError, match="order"):
        shuffle_channels(CUBE, (0, 0, 1))


def check_shift_of_luma(photo, changed, wanted):
    """Where nothing was clipped, luma is as ``wanted`` and the differences of the channels are as they were."""
    unclipped = ((changed > 0) & (changed < 255)).all(-1)
    assert unclipped.mean() > 0.2
    before, after = photo.astype(int)[unclipped], changed.astype(int)[unclipped]
    np.testing.assert_array_equal(after - after[:, :1], before - before[:, :1])
    # Half a level each for luma, the table, and what lies between tables.
    assert np.abs(luma(after) - wanted[unclipped]).max() <= 1.51


def test_equalised_luma_is_scikit_images(photos):
    for photo in photos:
        levels = rounded_luma(photo)
        # Its darkest level is not pulled to 0, as that of Gonzalez and Woods is.
        cdf = equalize_hist(levels, nbins=256)
        # scikit-image's bins are as wide as the range of levels: take the sums of a photo that has them all.
        exact = np.array([(levels <= level).mean() for level in range(256)])
        darkest = exact[levels.min()]
        wanted = (exact[levels] - darkest) / (1 - darkest) * 255
        if levels.min() == 0 and levels.max() == 255:
            assert np.abs(cdf - exact[levels]).max() <= 0.02
        check_shift_of_luma(photo, equalize(photo), wanted)


def test_an_equal_histogram_and_a_single_level_stay():
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    np.testing.assert_array_equal(equalize(ramp), ramp)
    plain = np.full((9, 7, 3), (200, 30, 90), np.uint8)
    np.testing.assert_array_equal(equalize(plain), plain)


def zuiderveld(levels, clip_limit, tiles):
    """CLAHE in float64, pixel by pixel of the grid of tiles; (H, W) must divide into tiles."""
    rows, columns = levels.shape[0] // tiles, levels.shape[1] // tiles
    limit = max(1, int(clip_limit * rows * columns / 256))
    tables = np.empty((tiles, tiles, 256))
    for row, column in np.ndindex(tiles, tiles):
        tile = levels[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
        counts = np.bincount(tile.ravel(), minlength=256)
        excess = int(np.maximum(counts - limit, 0).sum())
        counts = np.minimum(counts, limit) + excess // 256
        # What is left over goes to bins evenly spaced.
        left = excess % 256
        if left:
            counts[:: max(256 // left, 1)][:left] += 1
        tables[row, column] = np.cumsum(counts) * 255 / tile.size
    # OpenCV takes a pixel for its upper left corner here: half a pixel of tiles that are tens of pixels wide.
    at = [np.arange(side) / length - 0.5 for side, length in zip(levels.shape, (rows, columns), strict=True)]
    at = [np.clip(axis, 0, tiles - 1) for axis in at]
    low = [np.minimum(axis.astype(int), max(tiles - 2, 0)) for axis in at]
    y, x = np.meshgrid(*low, indexing="ij")
    v, u = np.meshgrid(at[0] - low[0], at[1] - low[1], indexing="ij")
    upper = tables[y, x, levels] * (1 - u) + tables[y, x + 1, levels] * u
    lower = tables[y + 1, x, levels] * (1 - u) + tables[y + 1, x + 1, levels] * u
    return upper * (1 - v) + lower * v


@pytest.mark.parametrize(("clip_limit", "tiles"), [(1.0, 8), (2.0, 8), (4.0, 4), (40.0, 2)])
def test_clahe_is_zuidervelds(photos, clip_limit, tiles):
    for photo in photos[:3]:
        whole = photo[: photo.shape[0] // tiles * tiles, : photo.shape[1] // tiles * tiles]
        levels = rounded_luma(whole)
        changed = clahe(whole, clip_limit, tiles)
        check_shift_of_luma(whole, changed, zuiderveld(levels, clip_limit, tiles))


def test_clahe_out_of_range_is_refused():
    for wrong in ((0.5, 8), (2.0, 0)):
        with pytest.raises(ValueError, match="out of range"):
            clahe(CUBE, *wrong)


CHANGES = {
    "table": lambda photo: apply_table(photo, tone_table(contrast=1.3)),
    "saturation": lambda photo: adjust_saturation(photo, 1.7),
    "hue": lambda photo: rotate_hue(photo, -47.0),
    "shuffle": lambda photo: shuffle_channels(photo, (2, 0, 1)),
    "equalize": equalize,
    "clahe": lambda photo: clahe(photo, 3.0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (31, 1), (33, 47)])
def test_any_size_and_view_is_changed_and_the_input_stays(change, size):
    wide = np.random.default_rng(5).integers(0, 256, (size[0], 2 * size[1], 3), dtype=np.uint8)
    wide.setflags(write=False)
    for photo in (wide[:, : size[1]], wide[:, ::2], wide[:, size[1] - 1 :: -1]):
        before = photo.copy()
        changed = change(photo)
        assert (changed.shape, changed.dtype) == (photo.shape, np.uint8)
        np.testing.assert_array_equal(photo, before)
        np.testing.assert_array_equal(changed, change(before))


def test_neutral_parameters_return_the_photo_itself():
    assert adjust_saturation(CUBE, 1.0) is CUBE
    assert shuffle_channels(CUBE, (0, 1, 2)) is CUBE
    for degrees in (0.0, 360.0, -720.0):
        assert rotate_hue(CUBE, degrees) is CUBE
    np.testing.assert_array_equal(apply_table(CUBE, tone_table()), CUBE)
