"""From a dataset to batches: what is refused, what is shuffled, what comes out."""

import re

import numpy as np
import pytest

from dataset_handlers.features import ImageFeature, TensorFeature
from training.batches import Batches, few
from training.data import choose_validation_split, class_weights, read_task, spread
from training.errors import FeatureError, ImageSizeError, OptionsError, SplitError
from training.options import FitOptions

PLANE = ImageFeature((None, None, 1), "png")
CLICKS = {
    "image": ImageFeature((None, None, 3), "png"),
    "mask": PLANE,
    "positive_clicks": PLANE,
    "negative_clicks": PLANE,
}


def batches(dataset, options=None, *, training=True, **more):
    options = options or FitOptions()
    task = read_task(dataset, options)
    return Batches(dataset, task, task.train if training else task.validation, options, training=training, **more)


def with_masks(examples, masks):
    return [{**example, "mask": mask} for example, mask in zip(examples, masks, strict=True)]


def with_levels(examples, levels):
    """Examples whose masks have these levels, in turn, where they had a subject."""
    masks = [
        np.where(example["mask"], np.uint8(level), np.uint8(0)) for example, level in zip(examples, levels, strict=True)
    ]
    return with_masks(examples, masks)


def numbered(count, size=(2, 3)):
    """Photos whose every level is their number."""
    mask = np.zeros((*size, 1), np.uint8)
    mask[0] = 255
    return [{"image": np.full((*size, 3), number, np.uint8), "mask": mask} for number in range(count)]


@pytest.fixture
def lossless(make_dataset):
    return lambda splits: make_dataset(
        splits, {"image": ImageFeature((None, None, 3), "png"), "mask": ImageFeature((None, None, 1), "png")}
    )


def test_finds_out_sizes_channels_and_splits(make_dataset, ellipses):
    dataset = make_dataset({"train": ellipses(3, size=(40, 52)), "validation": ellipses(2, size=(40, 52))})
    task = read_task(dataset, FitOptions())
    assert (task.train.examples, task.validation.name, task.validation.examples) == (3, "validation", 2)
    assert (task.input_shape, task.classes, task.features) == ((40, 52, 3), 1, ("image",))


@pytest.mark.parametrize(
    ("splits", "asked", "chosen"),
    [
        ({"train": 1, "validation": 2, "test": 3}, None, "validation"),
        ({"train": 1, "test": 3}, None, "test"),
        ({"train": 1, "validation": 0, "test": 3}, None, "test"),
        ({"train": 1, "validation": 2, "test": 3}, "test", "test"),
    ],
)
def test_chooses_a_validation_split(splits, asked, chosen):
    assert choose_validation_split(splits, asked) == chosen


@pytest.mark.parametrize(
    ("splits", "asked", "message"),
    [
        ({"train": 4}, None, r"'validation' or 'test'.*'train' \(4 examples\)"),
        (
            {"train": 4, "val": 2},
            "dev",
            r"no split 'dev'; it has 'train' \(4 examples\), 'val' \(2 examples\)",
        ),
        ({"train": 4, "test": 0}, "test", "'test' is empty"),
    ],
)
def test_a_split_that_is_missing_or_empty_is_refused(splits, asked, message):
    with pytest.raises(SplitError, match=message):
        choose_validation_split(splits, asked)


def test_an_unknown_training_split_is_refused_first(make_dataset, ellipses):
    with pytest.raises(SplitError, match="no split 'train'; it has 'test'"):
        read_task(make_dataset({"test": ellipses(1)}), FitOptions())


def test_photos_of_different_sizes_are_refused(make_dataset, ellipses):
    examples = ellipses(1) + ellipses(1, size=(64, 48))
    with pytest.raises(ImageSizeError, match="example 1 of split 'train' is 64×48, others are 64×64"):
        read_task(make_dataset({"train": examples, "test": examples}), FitOptions())


def test_a_photo_of_another_size_that_was_not_looked_at_is_refused_in_its_batch(lossless):
    examples = numbered(70)
    unseen = next(number for number in range(70) if number not in spread(70, 32))
    examples[unseen] = numbered(1, size=(3, 3))[0]
    dataset = lossless({"train": examples})
    with pytest.raises(ImageSizeError, match=re.escape("'train' are of different sizes (2×3, 3×3)")):
        list(batches(dataset, FitOptions(validation_split="train", batch_size=35)))


def test_splits_of_different_sizes_are_refused_unless_parts_are_trained_on(make_dataset, ellipses):
    dataset = make_dataset({"train": ellipses(1), "test": ellipses(1, size=(64, 48))})
    with pytest.raises(ImageSizeError, match=r"'train' has photos of 64×64 and 'test' of 64×48.*augmentation\.crop"):
        read_task(dataset, FitOptions())
    task = read_task(dataset, FitOptions(augmentation={"crop": (32, 16)}))
    assert (task.input_shape, task.validation.size) == ((32, 16, 3), (64, 48))
    with pytest.raises(ImageSizeError, match="crop 65×16 is larger"):
        read_task(dataset, FitOptions(augmentation={"crop": (65, 16)}))


def test_a_mask_of_another_size_is_refused(make_dataset, ellipses):
    example = {"image": ellipses(1)[0]["image"], "mask": ellipses(1, size=(32, 64))[0]["mask"]}
    with pytest.raises(ImageSizeError, match="photo of 64×64 and a mask of 32×64"):
        read_task(make_dataset({"train": [example]}), FitOptions(validation_split="train"))


@pytest.mark.parametrize(
    ("features", "example", "message"),
    [
        ({"image": ImageFeature((None, None, 3), "jpeg")}, ("image",), "has no 'mask'; it has image"),
        (
            {"image": ImageFeature((None, None, 3), "jpeg"), "mask": TensorFeature((None,), "int64")},
            ("image", "numbers"),
            "'mask' of example 0 of split 'train' is int64",
        ),
    ],
)
def test_examples_without_a_mask_are_refused(make_dataset, ellipses, features, example, message):
    values = {"image": ellipses(1)[0]["image"]}
    if "numbers" in example:
        values["mask"] = [1, 2, 3]
    with pytest.raises(FeatureError, match=message):
        read_task(make_dataset({"train": [values]}, features), FitOptions(validation_split="train"))


@pytest.mark.parametrize("levels", [(1, 2), (80, 3), (0, 127)])
def test_masks_of_category_numbers_that_the_manifest_does_not_tell_are_refused(make_dataset, ellipses, levels):
    dataset = make_dataset({"train": with_levels(ellipses(2), levels)})
    with pytest.raises(FeatureError, match=rf"'train' have levels of {max(levels)} at most, .*set classes.*'subject'"):
        read_task(dataset, FitOptions(validation_split="train"))


@pytest.mark.parametrize("levels", [(40, 128), (255, 1), (0, 0)])
def test_soft_masks_and_masks_without_subject_are_taken(make_dataset, ellipses, levels):
    dataset = make_dataset({"train": with_levels(ellipses(2), levels)})
    ((_, y),) = batches(dataset, FitOptions(validation_split="train"), training=False)
    assert (y.dtype, y.shape) == (np.uint8, (2, 64, 64, 1))
    assert tuple(y.max(axis=(1, 2, 3))) == levels


def test_class_numbers_come_as_they_are_and_void_with_them(lossless, ellipses):
    masks = [np.full((8, 8, 1), 2, np.uint8), np.zeros((8, 8, 1), np.uint8)]
    masks[0][0, 0], masks[1][1] = 255, 1
    dataset = lossless({"train": with_masks(ellipses(2, size=(8, 8)), masks)})
    ((_, y),) = batches(dataset, FitOptions(classes=3, validation_split="train"), training=False)
    assert y.dtype == np.uint8
    np.testing.assert_array_equal(y, masks)
    with pytest.raises(FeatureError, match="class number 2; with 2 classes they are 0 to 1, and 255 for void"):
        read_task(dataset, FitOptions(classes=2, validation_split="train"))


def test_the_manifest_tells_how_many_classes_there_are_and_how_often(lossless, ellipses):
    dataset = lossless({"train": with_levels(ellipses(2, size=(8, 8)), (1, 2))})
    dataset.manifest["labels"] = {"1": "cat", "2": "dog", "3": "bird"}
    dataset.manifest["statistics"] = {"train": {"label_pixels": {"0": 900, "1": 90, "2": 10, "255": 5}}}
    options = FitOptions(validation_split="train", class_weights="median")
    task = read_task(dataset, options)
    assert (task.classes, task.labels[2]) == (4, "dog")
    assert class_weights(dataset, task, options) == pytest.approx((0.1, 1, 9, 0))
    with pytest.raises(OptionsError, match="classes is 1, and the dataset's masks number their classes from 0 to 3"):
        read_task(dataset, FitOptions(validation_split="train", classes=1))
    with pytest.raises(OptionsError, match="4 classes and 2 class_weights"):
        read_task(dataset, FitOptions(validation_split="train", class_weights=[1, 2]))


def test_weights_of_one_subject_are_those_of_ground_and_subject(make_dataset, ellipses):
    dataset = make_dataset({"train": ellipses(2)})
    options = FitOptions(validation_split="train", class_weights="median")
    task = read_task(dataset, options)
    with pytest.raises(OptionsError, match="counts no pixels of classes in split 'train'"):
        class_weights(dataset, task, options)
    dataset.manifest["statistics"] = {"train": {"pixels": 1000, "subject_pixels": 200}}
    assert class_weights(dataset, task, options) == pytest.approx((500 / 800, 500 / 200))
    assert class_weights(dataset, task, FitOptions(class_weights=[1, 3])) == (1, 3)


def test_further_inputs_are_channels_behind_the_photo(make_dataset, ellipses):
    planes = [np.full((8, 8, 1), level, np.uint8) for level in (7, 250)]
    examples = [
        {**example, "positive_clicks": planes[0], "negative_clicks": planes[1]} for example in ellipses(3, size=(8, 8))
    ]
    dataset = make_dataset({"train": examples}, CLICKS)
    options = FitOptions(inputs=["clicks"], validation_split="train", augmentation={"flip": 0.5, "brightness": 0.3})
    task = read_task(dataset, options)
    assert (task.channels, task.features) == (5, ("image", "positive_clicks", "negative_clicks"))
    ((x, _),) = batches(dataset, options)
    assert (x.dtype, x.shape) == (np.uint8, (3, 8, 8, 5))
    assert (np.unique(x[..., 3]).tolist(), np.unique(x[..., 4]).tolist()) == ([7], [250])
    with pytest.raises(FeatureError, match="has no 'trimap'; it has image, mask, .*: ask for one with that input"):
        read_task(dataset, FitOptions(inputs=["trimap"], validation_split="train"))


@pytest.mark.parametrize(("count", "batch_size", "sizes"), [(1, 8, [1]), (8, 8, [8]), (9, 8, [8]), (17, 5, [5, 5, 5])])
def test_batches_are_of_one_size_and_none_has_an_example_twice(lossless, count, batch_size, sizes):
    dataset = lossless({"train": numbered(count)})
    feed = batches(dataset, FitOptions(batch_size=batch_size, validation_split="train", seed=4))
    epochs = []
    for _ in range(3):
        seen = [x[:, 0, 0, 0].astype(int).tolist() for x, _ in feed]
        assert list(map(len, seen)) == sizes
        epochs.append([number for batch in seen for number in batch])
        assert len(set(epochs[-1])) == len(epochs[-1])
    assert count < 8 or epochs[0] != epochs[1]


def test_validation_sees_all_examples_in_order(lossless):
    dataset = lossless({"train": numbered(2), "validation": numbered(7)})
    feed = batches(dataset, FitOptions(batch_size=3), training=False)
    for _ in range(2):
        assert [x[:, 0, 0, 0].astype(int).tolist() for x, _ in feed] == [[0, 1, 2], [3, 4, 5], [6]]


def test_the_order_is_a_function_of_seed_and_epoch_whatever_the_threads(lossless):
    dataset = lossless({"train": numbered(12)})

    def order(seed, workers):
        options = FitOptions(seed=seed, workers=workers, batch_size=4, validation_split="train")
        return [x[:, 0, 0, 0].astype(int).tolist() for x, _ in batches(dataset, options)]

    assert order(1, 0) == order(1, 3)
    assert order(1, 0) != order(2, 0)


def test_examples_to_draw_are_as_they_were_written(lossless):
    dataset = lossless({"train": numbered(9)})
    task = read_task(dataset, FitOptions(validation_split="train"))
    drawn = few(dataset, task, task.train, np.array([0, 8]))
    assert drawn["x"][:, 0, 0, 0].tolist() == [0, 8]
    assert (drawn["x"].dtype, drawn["y"].shape) == (np.uint8, (2, 2, 3, 1))


@pytest.mark.parametrize(("count", "most", "chosen"), [(1, 6, [0]), (3, 6, [0, 1, 2]), (11, 3, [0, 5, 10])])
def test_examples_are_spread(count, most, chosen):
    assert spread(count, most).tolist() == chosen
