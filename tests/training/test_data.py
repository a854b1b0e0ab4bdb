"""From a dataset to batches: what is refused, what is shuffled, what comes out."""

import numpy as np
import pytest

from dataset_handlers.features import ImageFeature, TensorFeature
from training.batches import Batches
from training.data import SegmentationSplit, choose_validation_split, half_of_memory, load_splits
from training.errors import DatasetError, DatasetTooLargeError, FeatureError, ImageSizeError, SplitError


def numbered_split(count):
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 3, 3))
    masks = np.zeros((count, 2, 3, 1), np.uint8)
    masks[:, 0] = 255
    masks[:, 1, 0] = 51
    return SegmentationSplit("train", images, masks)


def test_reads_what_was_written(make_dataset, ellipses):
    examples = ellipses(5, size=(40, 52))
    dataset = make_dataset({"train": examples[:3], "validation": examples[3:]})
    train, validation = load_splits(dataset, "train", None)
    assert (len(train), len(validation)) == (3, 2)
    assert train.image_size == (40, 52)
    assert (train.images.dtype, train.masks.dtype) == (np.uint8, np.uint8)
    np.testing.assert_array_equal(train.masks, [example["mask"] for example in examples[:3]])
    written = np.array([example["image"] for example in examples[3:]], float)
    assert np.abs(validation.images - written).mean() < 12  # JPEG of noise


def test_a_split_may_be_measured_on_itself(make_dataset, ellipses):
    dataset = make_dataset({"train": ellipses(2)})
    train, validation = load_splits(dataset, "train", "train")
    assert train is validation


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
        load_splits(make_dataset({"test": ellipses(1)}), "train", None)


def test_photos_of_different_sizes_are_refused(make_dataset, ellipses):
    examples = ellipses(1) + ellipses(1, size=(64, 48))
    with pytest.raises(ImageSizeError, match="example 1 of split 'train' is 64×48, those before it are 64×64"):
        load_splits(make_dataset({"train": examples, "test": examples}), "train", None)


def test_splits_of_different_sizes_are_refused(make_dataset, ellipses):
    dataset = make_dataset({"train": ellipses(1), "test": ellipses(1, size=(64, 48))})
    with pytest.raises(ImageSizeError, match="'train' has photos of 64×64 and 'test' of 64×48"):
        load_splits(dataset, "train", None)


def test_a_mask_of_another_size_is_refused(make_dataset, ellipses):
    example = {"image": ellipses(1)[0]["image"], "mask": ellipses(1, size=(32, 64))[0]["mask"]}
    with pytest.raises(ImageSizeError, match="photo of 64×64 and a mask of 32×64"):
        load_splits(make_dataset({"train": [example]}), "train", "train")


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
        load_splits(make_dataset({"train": [values]}, features), "train", "train")


@pytest.mark.parametrize("image", [ImageFeature((64, 64, 3), "png"), TensorFeature((64, 64, 3), "uint8")])
def test_photos_stored_without_loss_come_back_as_they_were(make_dataset, ellipses, image):
    examples = ellipses(3)
    dataset = make_dataset({"train": examples}, {"image": image, "mask": ImageFeature((64, 64, 1), "png")})
    train, _ = load_splits(dataset, "train", "train")
    np.testing.assert_array_equal(train.images, [example["image"] for example in examples])
    np.testing.assert_array_equal(train.masks, [example["mask"] for example in examples])


def with_levels(examples, levels):
    """Examples whose masks have these levels, in turn, where they had a subject."""
    return [
        {**example, "mask": np.where(example["mask"], np.uint8(level), np.uint8(0))}
        for example, level in zip(examples, levels, strict=True)
    ]


@pytest.mark.parametrize("levels", [(1, 2), (80, 3), (0, 127)])
def test_masks_of_category_numbers_are_refused(make_dataset, ellipses, levels):
    dataset = make_dataset({"train": with_levels(ellipses(2), levels)})
    with pytest.raises(FeatureError, match=rf"'train' have levels of {max(levels)} at most, .* 'subject'"):
        load_splits(dataset, "train", "train")


@pytest.mark.parametrize("levels", [(40, 128), (255, 1), (0, 0)])
def test_soft_masks_and_masks_without_subject_are_taken(make_dataset, ellipses, levels):
    train, _ = load_splits(make_dataset({"train": with_levels(ellipses(2), levels)}), "train", "train")
    assert [mask.max() for mask in train.masks] == list(levels)
    y = Batches(train, 2)[0][1]
    np.testing.assert_allclose(y.max(axis=(1, 2, 3)), np.array(levels) / 255, rtol=1e-6)


def test_a_split_that_would_not_fit_in_memory_is_refused(make_dataset, ellipses):
    dataset = make_dataset({"train": ellipses(2), "test": ellipses(1)})
    size = 64 * 64 * 4
    load_splits(dataset, "train", "test", memory_limit=3 * size)
    with pytest.raises(DatasetTooLargeError, match=r"'test' takes .* \(1 photos of 64×64\)"):
        load_splits(dataset, "train", "test", memory_limit=3 * size - 1)


@pytest.mark.parametrize(("promised", "found"), [(1, "more"), (3, "only 2")])
def test_another_number_of_examples_than_promised_is_refused(make_dataset, ellipses, promised, found):
    dataset = make_dataset({"train": ellipses(2)})
    dataset.manifest["splits"]["train"]["examples"] = promised
    with pytest.raises(DatasetError, match=f"should have {promised} examples, it has {found}"):
        load_splits(dataset, "train", "train")


def test_batches_have_the_promised_types_and_ranges():
    x, y = Batches(numbered_split(3), 2)[0]
    assert (x.dtype, x.shape, y.dtype, y.shape) == (np.float32, (1, 2, 3, 3), np.float32, (1, 2, 3, 1))
    np.testing.assert_allclose(np.unique(y), [0, 0.2, 1])


@pytest.mark.parametrize(("count", "batch_size"), [(1, 8), (8, 8), (9, 8), (17, 8), (23, 5), (5, 1)])
def test_batches_visit_each_example_once_and_are_even(count, batch_size):
    split = numbered_split(count)
    order = split.order(0, 1)
    batches = Batches(split, batch_size, order)
    seen = [x[:, 0, 0, 0].astype(int).tolist() for x, _ in (batches[index] for index in range(len(batches)))]
    assert [number for batch in seen for number in batch] == order.tolist()
    sizes = {len(batch) for batch in seen}
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert len(batches) == -(-count // batch_size)
    with pytest.raises(IndexError):
        batches[len(batches)]


def test_the_order_is_a_function_of_seed_and_epoch():
    split = numbered_split(50)
    assert split.order(1, 2).tolist() == split.order(1, 2).tolist()
    orders = {tuple(split.order(seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_memory_is_what_a_container_leaves(tmp_path):
    limit = tmp_path / "memory.max"
    machine = half_of_memory(limit)
    limit.write_text("max\n")
    assert half_of_memory(limit) == machine
    limit.write_text("1000000\n")
    assert half_of_memory(limit) == 500_000
