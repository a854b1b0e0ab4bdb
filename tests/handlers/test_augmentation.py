"""Draws: in range, at their rates, and independent of one another; options that mean the same are one config."""

import numpy as np
import pytest
from scipy import stats

from dataset_handlers.augmentation import _PLACES, RANGED, Augmentation, AugmentationOptions, Draws
from dataset_handlers.coco import CocoHandler
from dataset_handlers.config import PhotoConfig, check_config
from dataset_handlers.errors import BadSampleError, ConfigRefusedError
from dataset_handlers.transforms import effects, photometry
from tests.handlers.test_jpeg import PHOTO as ASTRONAUT

PHOTO = np.ascontiguousarray(ASTRONAUT[::4, ::4])
#: A range for each augmentation, none of which includes its neutral value.
STRENGTHS = {
    "scale": [1.1, 2.0], "shear": [5.0, 20.0], "rotation": [10.0, 50.0], "perspective": [0.02, 0.1],
    "exposure": [0.5, 1.0], "gamma": [1.2, 2.0], "contrast": [1.2, 1.9], "brightness": [0.05, 0.2],
    "saturation": [0.2, 0.6], "hue": [20.0, 90.0], "clahe": [2.0, 4.0], "blur": [1.0, 2.0], "noise": [5.0, 20.0],
    "jpeg_artifacts": [10.0, 30.0], "dropout": [0.1, 0.3],
}  # fmt: skip
GEOMETRIC = ("scale", "shear", "rotation", "perspective")
SWITCHES = ("flip_horizontal", "flip_vertical", "equalize", "channel_shuffle")


def options_of(**config):
    return AugmentationOptions.model_validate(config)


def augmentation_of(number, **config):
    return Augmentation(options_of(**config), Draws(np.random.default_rng(number)))


def test_every_range_is_tried_here():
    assert set(STRENGTHS) == set(RANGED)


@pytest.mark.parametrize("name", RANGED)
def test_strengths_are_uniform_in_their_range(name):
    low, high = STRENGTHS[name]
    drawn = [augmentation_of(number, **{name: (low, high)})._strength(name) for number in range(600)]
    assert low <= min(drawn) < max(drawn) <= high
    assert stats.kstest(drawn, stats.uniform(low, high - low).cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", RANGED)
def test_a_probability_of_a_half_is_half_the_time(name):
    config = {name: tuple(STRENGTHS[name]), "probabilities": {name: 0.5}}
    drawn = [augmentation_of(number, **config)._strength(name) for number in range(600)]
    happened = [strength for strength in drawn if strength is not None]
    assert 240 <= len(happened) <= 360  # 300 ± 12 (one sigma)
    # Whether it happens says nothing of how much, and what happens is as it would be if it always did.
    always = [augmentation_of(number, **{name: tuple(STRENGTHS[name])})._strength(name) for number in range(600)]
    assert all(strength in (None, certain) for strength, certain in zip(drawn, always, strict=True))
    low, high = STRENGTHS[name]
    assert stats.kstest(happened, stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_flips_happen_at_their_rates():
    flips = [
        augmentation_of(number, flip_horizontal=0.25).geometry((10, 20), None).matrix[0, 0] for number in range(600)
    ]
    assert 100 <= flips.count(-1.0) <= 200  # 150 ± 10.6


@pytest.mark.parametrize("name", [*RANGED, *SWITCHES])
def test_switching_one_on_leaves_the_draws_of_all_others(name):
    everything = {other: tuple(limits) for other, limits in STRENGTHS.items()} | dict.fromkeys(SWITCHES, 0.5)
    for number in range(5):
        with_it = augmentation_of(number, **everything)
        without = augmentation_of(number, **{other: value for other, value in everything.items() if other != name})
        for other in set(RANGED) - {name}:
            assert with_it._strength(other) == without._strength(other)
        for other in set(SWITCHES) - {name}:
            assert with_it._draws.happens(other, 0.5) == without._draws.happens(other, 0.5)
        if name not in (*GEOMETRIC, "flip_horizontal", "flip_vertical"):
            same = [each.geometry((90, 120), None).matrix for each in (with_it, without)]
            np.testing.assert_array_equal(*same)


def test_draws_are_independent_of_one_another():
    draws = [Draws(np.random.default_rng(number)) for number in range(500)]
    uses = [*RANGED, "crop_x", "crop_y", "flip_horizontal"]
    numbers = np.array([[draw.number(use) for use in uses] for draw in draws])
    related = np.corrcoef(numbers.T) - np.eye(len(uses))
    assert np.abs(related).max() < 0.2  # one sigma is 0.045
    assert draws[0].generator("noise").random() != draws[1].generator("noise").random()
    assert draws[0].generator("noise").random() == Draws(np.random.default_rng(0)).generator("noise").random()


def test_light_is_in_the_order_of_the_options():
    config = {name: tuple(limits) for name, limits in STRENGTHS.items() if name not in GEOMETRIC}
    made = augmentation_of(3, **config, equalize=1.0, channel_shuffle=1.0, dropout_count=3)
    strength, draws = made._strength, made._draws
    tones = {name: strength(name) for name in ("exposure", "gamma", "contrast", "brightness")}
    photo = photometry.apply_table(PHOTO, photometry.tone_table(**tones))
    photo = photometry.adjust_saturation(photo, strength("saturation"))
    photo = photometry.rotate_hue(photo, strength("hue"))
    photo = photometry.equalize(photometry.clahe(photo, strength("clahe")))
    after_light = made.light(PHOTO)
    shuffled = [photo[..., order] for order in ([0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0])]
    finished = []
    for candidate in shuffled:
        candidate = effects.blur(np.ascontiguousarray(candidate), strength("blur"))
        candidate = effects.add_noise(candidate, strength("noise"), draws.generator("noise"))
        candidate = effects.jpeg_artifacts(candidate, round(strength("jpeg_artifacts")))
        finished.append(effects.drop_rectangles(candidate, 3, strength("dropout"), draws.generator("dropout")))
    assert sum(np.array_equal(candidate, after_light) for candidate in finished) == 1
    assert after_light.dtype == np.uint8


@pytest.mark.parametrize("name", sorted(set(RANGED) - set(GEOMETRIC)))
def test_each_change_of_light_changes_the_photo_and_not_its_input(name):
    before = PHOTO.copy()
    changed = augmentation_of(1, **{name: tuple(STRENGTHS[name])}).light(PHOTO)
    assert (changed != PHOTO).mean() > 0.005
    np.testing.assert_array_equal(PHOTO, before)
    assert augmentation_of(1, **{name: tuple(STRENGTHS[name]), "probabilities": {name: 0.0}}).light(PHOTO) is PHOTO


def test_shuffles_reach_every_order_but_the_one_there_is():
    seen = {
        tuple(augmentation_of(n, channel_shuffle=1.0).light(np.array([[[1, 2, 3]]], np.uint8))[0, 0]) for n in range(99)
    }
    assert seen == {(1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1)}


def test_a_crop_that_does_not_fit_is_a_bad_sample():
    with pytest.raises(BadSampleError, match="does not fit"):
        augmentation_of(0, crop_size=(50, 50)).geometry((40, 60), None)


@pytest.mark.parametrize("mode", ["random", "center", "subject"])
def test_where_crops_are(mode):
    corners = set()
    for number in range(60):
        made = augmentation_of(number, crop_size=(20, 30), crop_mode=mode)
        assert made.needs_subject == (mode == "subject")
        matrix = made.geometry((100, 200), (40.0, 30.0)).matrix
        corners.add((-matrix[0, 2], -matrix[1, 2]))
    if mode == "random":
        assert len(corners) > 50
    else:
        assert corners == {(85.0, 40.0)} if mode == "center" else {(25.0, 20.0)}


def effective(**config):
    return check_config(PhotoConfig, config).effective()


@pytest.mark.parametrize(
    "idle",
    [
        {"rotation": [0.0, 0.0]},
        {"rotation": [0, 0]},
        {"scale": [1.0, 1.0]},
        {"rotation": [10.0, 20.0], "probabilities": {"rotation": 0.0}},
        {"clahe": [2.0, 3.0], "probabilities": {"clahe": 0}},
        {"probabilities": {"rotation": 0.3}},
        {"probabilities": {"blur": 1.0}},
        {"resize_mode": "fit"},
        {"crop_mode": "subject"},
        {"random_crop_centered": True},
        {"dropout_count": 7},
        {"jpeg_artifacts": None},
        {"trimap_widths": [1.0, 1.0]},
        {"click_strategy": "band"},
        {"batch_size": 3},
    ],
    ids=str,
)
def test_an_option_without_effect_is_as_good_as_left_out(idle):
    assert effective(**idle) == effective()


@pytest.mark.parametrize(
    "change",
    [
        {"rotation": [0.0, 1.0]},
        {"rotation": [10.0, 20.0], "probabilities": {"rotation": 0.5}},
        {"image_size": [9, 9], "resize_mode": "fit"},
        {"crop_size": [9, 9], "crop_mode": "subject"},
        {"crop_size": [9, 9], "random_crop_centered": True},
        {"clahe": [2.0, 2.0]},
        {"dropout": [0.1, 0.1], "dropout_count": 2},
        {"input_attributes": ["trimap"], "trimap_widths": [1.0, 1.0]},
        {"input_attributes": ["clicks"], "click_strategy": "band"},
        {"image_encoding": "png"},
    ],
    ids=str,
)
def test_an_option_with_effect_is_another_dataset(change):
    found = [effective(), effective(**change)]
    *all_but_last, last = change
    found += [effective(**{name: change[name] for name in all_but_last})] if all_but_last else []
    assert len({repr(sorted(config.items())) for config in found}) == len(found), last


@pytest.mark.parametrize("name", RANGED)
def test_ranges_are_checked(name):
    for wrong in ([2.0, 1.0], [-1e4, 1.0], [1.0, 1e4], [0.5], "no", [True, 1.0]):
        with pytest.raises(ConfigRefusedError) as refusal:
            check_config(PhotoConfig, {name: wrong})
        assert refusal.value.faults[0]["path"].startswith(f"/{name}")
    with pytest.raises(ConfigRefusedError):
        check_config(PhotoConfig, {"probabilities": {"flipp": 0.5}})


def test_every_option_is_described_with_its_unit():
    options = CocoHandler.config_options()
    for name, option in options.items():
        assert option["doc"].endswith((".", "]")), name
        assert "type" in option
        assert "default" in option
    for name in RANGED:
        limits = options[name]["type"]["range"]
        assert limits["unit"], name
        assert limits["minimum"] < limits["maximum"], name
        assert f"Within {limits['minimum']:g} and {limits['maximum']:g}." in options[name]["doc"]
        for value in ([limits["minimum"] - 1, limits["maximum"]], [limits["minimum"], limits["maximum"] + 1]):
            with pytest.raises(ConfigRefusedError, match=name):
                CocoHandler({name: value}, "raw")


def test_what_is_done_to_photos_is_idle_where_none_is_written():
    bare = {"input_attributes": ["trimap"]}
    loud = {"exposure": [-1, 1], "noise": [0, 9], "equalize": 0.5, "dropout": [0.1, 0.2], "dropout_count": 3}
    effective = [CocoHandler(config, "raw").options.effective() for config in (bare, bare | loud)]
    assert effective[0] == effective[1]
    assert CocoHandler({"rotation": [-5, 5], **bare}, "raw").options.effective() != effective[0]


def test_a_crop_of_the_whole_is_none():
    whole = {"image_size": [64, 96]}
    cropped = whole | {"crop_size": [64, 96], "crop_mode": "subject"}
    effective = [CocoHandler(config, "raw").options.effective() for config in (whole, cropped)]
    assert effective[0] == effective[1]


def test_a_use_at_the_end_would_change_nothing_for_the_others():
    drawn = np.random.default_rng(3).random((40, 2))
    draws = Draws(np.random.default_rng(3))
    assert draws.number("flip_vertical") == drawn[1, 0]
    assert draws.happens("hue", float(np.nextafter(drawn[_PLACES["hue"], 1], 1)))
    assert not draws.happens("hue", float(drawn[_PLACES["hue"], 1]))
