"""Configs: what means the same is the same, what cannot be used is refused with every fault at once."""

import json

import pytest
import rfc8785

from dataset_handlers.augmentation import MAX_SIDE
from dataset_handlers.coco import CocoHandler
from dataset_handlers.commands import effective_config
from dataset_handlers.composite import CompositeHandler
from dataset_handlers.duts import DutsHandler
from dataset_handlers.errors import ConfigRefusedError
from tests.handlers.support import examples_of, make

HANDLERS = [CocoHandler, DutsHandler, CompositeHandler]
each_handler = pytest.mark.parametrize("handler", HANDLERS)


def canonical(handler, config):
    return rfc8785.dumps(effective_config(handler, config))


def refused(handler, config):
    with pytest.raises(ConfigRefusedError) as caught:
        effective_config(handler, config)
    return {fault["path"]: fault["reason"] for fault in caught.value.faults}


@each_handler
def test_every_default_spelt_out_is_as_if_left_out(handler):
    bare = canonical(handler, {})
    options = handler.config_options()
    for name, option in options.items():
        assert canonical(handler, {name: option["default"]}) == bare, name
    assert canonical(handler, {name: option["default"] for name, option in options.items()}) == bare


@each_handler
def test_the_order_of_keys_means_nothing(handler):
    config = {"seed": 3, "splits": {"validation": 0.25, "train": 0.75}, "image_size": [64, 96], "rotation": [-5, 5]}
    backwards = dict(reversed(config.items())) | {"splits": {"train": 0.75, "validation": 0.25}}
    assert canonical(handler, config) == canonical(handler, backwards)


@each_handler
def test_reader_only_options_are_not_in_the_effective_config(handler):
    assert canonical(handler, {"batch_size": 100}) == canonical(handler, {"batch_size": 7}) == canonical(handler, {})
    assert "batch_size" not in effective_config(handler, {"batch_size": 100})
    assert handler.config_options()["batch_size"]["reader_only"] is True


@each_handler
@pytest.mark.parametrize(
    ("whole", "fraction"),
    [
        ({"rotation": [-1, 1]}, {"rotation": [-1.0, 1.0]}),
        ({"flip_horizontal": 1}, {"flip_horizontal": 1.0}),
        ({"max_quarantined_share": 0}, {"max_quarantined_share": 0.0}),
        ({"splits": {"train": 1}}, {"splits": {"train": 1.0}}),
        ({"exposure": [0, 0]}, {"exposure": [-0.0, 0.0]}),
    ],
)
def test_1_is_1_0_where_a_float_is_meant(handler, whole, fraction):
    assert canonical(handler, whole) == canonical(handler, fraction)


@each_handler
def test_sets_are_sets(handler):
    assert canonical(handler, {"input_attributes": ["source_id", "image", "image"]}) == canonical(
        handler, {"input_attributes": ["image", "source_id"]}
    )
    if handler is not DutsHandler:
        assert canonical(handler, {"categories": ["dog", "cat", "dog"]}) == canonical(
            handler, {"categories": ["cat", "dog"]}
        )


@each_handler
@pytest.mark.parametrize(
    ("name", "value", "pointer"),
    [
        ("seed", "1", "/seed"),
        ("seed", True, "/seed"),
        ("seed", -1, "/seed"),
        ("seed", 1.5, "/seed"),
        ("seed", 2**53, "/seed"),
        ("seed", None, "/seed"),
        ("limit", 0, "/limit"),
        ("limit", False, "/limit"),
        ("variations_per_sample", 0, "/variations_per_sample"),
        ("variations_per_sample", True, "/variations_per_sample"),
        ("flip_horizontal", True, "/flip_horizontal"),
        ("flip_horizontal", "0.5", "/flip_horizontal"),
        ("flip_horizontal", 1.01, "/flip_horizontal"),
        ("flip_vertical", float("nan"), "/flip_vertical"),
        ("rotation", [float("nan"), 1], "/rotation/0"),
        ("rotation", [0, float("inf")], "/rotation/1"),
        ("rotation", [10, -10], "/rotation"),
        ("rotation", [-181, 0], "/rotation"),
        ("rotation", [1], "/rotation/1"),
        ("exposure", [1, -1], "/exposure"),
        ("exposure", [0, 5.01], "/exposure"),
        ("exposure", 1, "/exposure"),
        ("image_size", [64], "/image_size/1"),
        ("image_size", [64, 64, 3], "/image_size"),
        ("image_size", [64, 0], "/image_size/1"),
        ("image_size", [64, "64"], "/image_size/1"),
        ("image_size", [64, True], "/image_size/1"),
        ("image_size", [MAX_SIDE + 1, 64], "/image_size/0"),
        ("image_size", {"height": 1, "width": 1}, "/image_size"),
        ("crop_size", "big", "/crop_size"),
        ("random_crop_centered", 1, "/random_crop_centered"),
        ("random_crop_centered", "true", "/random_crop_centered"),
        ("input_attributes", [], "/input_attributes"),
        ("input_attributes", ["images"], "/input_attributes/0"),
        ("input_attributes", "image", "/input_attributes"),
        ("splits", {}, "/splits"),
        ("splits", {"train": 0.5, "validation": 0.4}, "/splits"),
        ("splits", {"train": 1.0, "validation": 0.0}, "/splits/validation"),
        ("splits", {"../train": 1.0}, "/splits/..~1train"),
        ("splits", {"train": True}, "/splits/train"),
        ("jpeg_quality", 101, "/jpeg_quality"),
        ("batch_size", 0, "/batch_size"),
        ("max_quarantined_share", -0.1, "/max_quarantined_share"),
    ],
)
def test_what_is_refused_is_named(handler, name, value, pointer):
    assert list(refused(handler, {name: value})) == [pointer]


@pytest.mark.parametrize("folder", ["../raw", "a/b", "", ".hidden", "/etc", "a\\b", "a\0b", "x" * 129, "coco\n"])
def test_folders_are_names_and_never_paths(folder):
    assert list(refused(CocoHandler, {"raw_folder": folder})) == ["/raw_folder"]
    assert list(refused(DutsHandler, {"raw_folder": folder})) == ["/raw_folder"]
    both = refused(CompositeHandler, {"subjects_folder": folder, "backgrounds_folder": folder})
    assert set(both) == {"/subjects_folder", "/backgrounds_folder"}


@each_handler
def test_a_misspelt_option_is_recognised(handler):
    faults = refused(handler, {"image_sise": [1, 1], "zzz/~": 1})
    assert faults["/image_sise"] == "no such option; did you mean 'image_size'?"
    assert "the options are" in faults["/zzz~1~0"]
    assert "variations_per_sample" in faults["/zzz~1~0"]


@each_handler
def test_a_crop_larger_than_the_image_names_both(handler):
    (reason,) = refused(handler, {"image_size": [100, 200], "crop_size": [101, 50]}).values()
    assert "crop_size [101, 50]" in reason
    assert "image_size [100, 200]" in reason
    assert effective_config(handler, {"image_size": [100, 200], "crop_size": [100, 200]})


@each_handler
def test_all_faults_are_told_at_once(handler):
    faults = refused(handler, {"seed": "1", "rotation": [5, -5], "image_size": [1], "nonsense": 0, "limit": True})
    assert set(faults) == {"/seed", "/rotation", "/image_size/1", "/nonsense", "/limit"}


@each_handler
def test_a_config_that_is_too_deep_or_too_wide_is_refused(handler):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert refused(handler, {"splits": deep})
    faults = refused(handler, {f"option{number}" * 99: 0 for number in range(2000)})
    assert len(faults) == 21
    assert "1980 faults more" in str(faults)
    assert len(str(faults)) < 20_000


@each_handler
def test_the_description_is_json_and_complete(handler):
    options = handler.config_options()
    assert json.loads(json.dumps(options)) == options
    assert set(options) == set(handler.Config.model_fields)
    for name, option in options.items():
        assert option["doc"], name
        assert option["type"], name


def test_subject_scale_is_a_range():
    for scale in ([0, 0], [0.5, 0.4], [0, 0.5], [0.5, 1.1], [0.5]):
        assert refused(CompositeHandler, {"subject_scale": scale})
    assert effective_config(CompositeHandler, {"subject_scale": [1, 1]})["subject_scale"] == [1.0, 1.0]


@each_handler
def test_options_become_attributes(handler):
    made = handler({"seed": 5, "image_size": [64, 32]}, "raw")
    assert made.seed == 5
    assert tuple(made.image_size) == (64, 32)
    assert made.variations_per_sample == 1


@pytest.mark.parametrize("handler", [CocoHandler, DutsHandler])
def test_the_config_the_field_knows_works_unchanged(handler, raw_root, tmp_path):
    config = {
        "input_attributes": ["image"],
        "batch_size": 100,
        "image_size": [1024, 1024],
        "variations_per_sample": 1,
        "crop_size": [800, 800],
        "random_crop_centered": True,
    }
    extra = {"categories": ["figure"]} if handler is CocoHandler else {}
    plan, sealed = make(handler, {**config, **extra, "limit": 3}, raw_root, tmp_path)
    found = examples_of(tmp_path, sealed)
    assert len(found) == plan.samples == 3
    for example in found:
        assert set(example) == {"image", "mask"}
        assert example["image"].shape == (800, 800, 3)
        assert example["mask"].shape == (800, 800)
        assert set(map(int, set(example["mask"].ravel()))) == {0, 255}
