"""What a dataset gives to a training: splits, sizes, channels, classes; found out before anything is allocated.

Facts are taken from the manifest and the features, and held against a few examples of each split; each batch is checked
again as it is read (`training.batches`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataset_client import Dataset
from training.augmentation import Augmentation
from training.errors import FeatureError, ImageSizeError, OptionsError, SplitError
from training.metrics import VOID
from training.options import FitOptions

#: From this level on a pixel of a mask of one subject is subject.
_SUBJECT = 128
#: Examples of each split that are looked at before training.
_LOOKED_AT = 32
#: Planes that handlers write as several features.
_GROUPS = {"clicks": ("positive_clicks", "negative_clicks")}


@dataclass(frozen=True)
class Split:
    """``examples`` ≥ 1 examples, whose photos are of ``size`` = (height, width)."""

    name: str
    examples: int
    size: tuple[int, int]


@dataclass(frozen=True)
class Task:
    """What is to be learned from a dataset.

    ``features`` are the planes that make up the model's input, "image" first; ``channels`` is how many channels these
    have together. ``classes`` 1 is one subject, whose masks have levels 0 … 255; more are class numbers, and 255 is
    void. ``labels`` names classes by number, where the manifest does. ``input_size`` is what the model trains on.
    """

    train: Split
    validation: Split
    features: tuple[str, ...]
    channels: int
    classes: int
    labels: Mapping[int, str]
    input_size: tuple[int, int]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of what the model trains on."""
        return (*self.input_size, self.channels)


def read_task(dataset: Dataset, options: FitOptions) -> Task:
    """Raises `SplitError`, `FeatureError`, `ImageSizeError` or `OptionsError` where dataset and options do not fit."""
    assert isinstance(options.augmentation, Augmentation)
    require_split(dataset.splits, options.train_split)
    chosen = choose_validation_split(dataset.splits, options.validation_split)
    features = input_features(options.inputs)
    classes = _classes(dataset.manifest, options.classes)
    names = dict.fromkeys((options.train_split, chosen))  # in this order, and each once
    looked_at = {name: _look_at(dataset, name, features, classes) for name in names}
    train, validation = looked_at[options.train_split][0], looked_at[chosen][0]
    crop = options.augmentation.crop
    if crop is None and train.size != validation.size:
        raise ImageSizeError(
            f"split {train.name!r} has photos of {_size(train.size)} and {validation.name!r} of "
            f"{_size(validation.size)}: ask for a dataset with one image_size or crop_size, or train on parts of the "
            "photos with augmentation.crop"
        )
    if crop is not None and (crop[0] > train.size[0] or crop[1] > train.size[1]):
        raise ImageSizeError(
            f"augmentation.crop {_size(crop)} is larger than the photos of {train.name!r}, {_size(train.size)}"
        )
    if classes > 1 and isinstance(options.class_weights, tuple) and len(options.class_weights) != classes:
        raise OptionsError(f"there are {classes} classes and {len(options.class_weights)} class_weights")
    channels = looked_at[train.name][1]
    labels = {int(number): str(name) for number, name in (dataset.manifest.get("labels") or {}).items()}
    return Task(train, validation, features, channels, classes, labels, options.augmentation.size(train.size))


def input_features(inputs: Sequence[str]) -> tuple[str, ...]:
    """The features behind the names in ``FitOptions.inputs``, "image" first."""
    return ("image", *(feature for name in inputs for feature in _GROUPS.get(name, (name,))))


def choose_validation_split(splits: Mapping[str, int], asked: str | None) -> str:
    """``asked``, or else 'validation', or else 'test'. Raises `SplitError` if it is missing or empty."""
    if asked is not None:
        return require_split(splits, asked)
    for name in ("validation", "test"):
        if splits.get(name):
            return name
    raise SplitError(
        f"the dataset has no split 'validation' or 'test' to measure on; it has {_listed(splits)}: "
        "name one as validation_split, or ask for a dataset with such a split"
    )


def require_split(splits: Mapping[str, int], name: str) -> str:
    """``name``, if there is such a split and it holds examples; else `SplitError`."""
    if name not in splits:
        raise SplitError(f"the dataset has no split {name!r}; it has {_listed(splits)}")
    if splits[name] < 1:
        raise SplitError(f"the split {name!r} is empty; the dataset has {_listed(splits)}")
    return name


def label_pixels(manifest: Mapping[str, Any], split: str | None = None) -> dict[int, int]:
    """Pixels of each class but void in a split, or in all, by the manifest's statistics; empty where it has none."""
    pixels: dict[int, int] = {}
    statistics = manifest.get("statistics") or {}
    for name, numbers in statistics.items():
        if split in (None, name) and isinstance(numbers, Mapping):
            for label, count in numbers.get("label_pixels", {}).items():
                pixels[int(label)] = pixels.get(int(label), 0) + int(count)
    pixels.pop(VOID, None)
    return pixels


def class_weights(dataset: Dataset, task: Task, options: FitOptions) -> tuple[float, ...] | None:
    """The weight of each class in the loss, or None.

    "median": the median of all classes' frequencies over that of the class (Eigen and Fergus 2015), where a frequency
    is the class's share of all labelled pixels of the training split; the paper's is of the photos that show the
    class, which no manifest tells. For one subject, ground and subject are the two classes. A class without a pixel
    has weight 0. Raises `OptionsError` where the manifest counts no pixels.
    """
    if options.class_weights != "median":
        assert not isinstance(options.class_weights, str)
        return options.class_weights
    if task.classes == 1:
        numbers = (dataset.manifest.get("statistics") or {}).get(task.train.name) or {}
        subject = int(numbers.get("subject_pixels", 0))
        pixels = {0: int(numbers.get("pixels", 0)) - subject, 1: subject}
    else:
        pixels = label_pixels(dataset.manifest, task.train.name)
    counts = np.array([pixels.get(number, 0) for number in range(max(2, task.classes))], np.float64)
    if not counts.any():
        raise OptionsError(
            f"the manifest counts no pixels of classes in split {task.train.name!r}: "
            "give class_weights as numbers, or ask for a dataset of a handler that counts them"
        )
    median = float(np.median(counts[counts > 0]))
    return tuple(float(median / count) if count else 0.0 for count in counts)


def _classes(manifest: Mapping[str, Any], asked: int | None) -> int:
    """How many classes masks have; raises `OptionsError` if fewer are asked for than there are."""
    numbers = [int(number) for number in manifest.get("labels") or {}] + list(label_pixels(manifest))
    told = max(numbers) + 1 if numbers else 1
    if asked is None:
        return told
    if numbers and asked < told:
        raise OptionsError(
            f"classes is {asked}, and the dataset's masks number their classes from 0 to {told - 1}: "
            f"train {told} classes, or ask for a dataset with masks of one subject"
        )
    return asked


def _look_at(dataset: Dataset, name: str, features: Sequence[str], classes: int) -> tuple[Split, int]:
    """The split and its number of input channels, by a few of its examples, evenly spread."""
    examples = dataset.examples(name)
    count = dataset.splits[name]
    size, channels, highest = (0, 0), 0, 0
    for place, number in enumerate(spread(count, _LOOKED_AT)):
        where = f"example {number} of split {name!r}"
        planes, mask = checked_planes(examples[int(number)], features, classes, where)
        if place and planes[0].shape[:2] != size:
            raise _differing(where, planes[0].shape, size)
        size, channels = planes[0].shape[:2], sum(plane.shape[2] for plane in planes)
        highest = max(highest, int(mask.max()))
    if classes == 1 and 0 < highest < _SUBJECT:
        raise FeatureError(
            f"the masks of split {name!r} have levels of {highest} at most, and a subject has {_SUBJECT} to 255; "
            "if these are numbers of classes, set classes, or ask for a dataset with masks of one subject "
            "(mask_labels 'subject')"
        )
    return Split(name, count, size), channels


def checked_planes(
    example: Mapping[str, Any], features: Sequence[str], classes: int, where: str
) -> tuple[list[np.ndarray], np.ndarray]:
    """The input planes (H, W, C) and the mask (H, W, 1) of an example, if they are what is promised and fit each other.

    Raises `FeatureError` or `ImageSizeError`, which say ``where``.
    """
    for key, channels in ((feature, 3 if feature == "image" else None) for feature in (*features, "mask")):
        if key not in example:
            remedy = (
                "ask for a dataset with photo and mask" if key in ("image", "mask") else "ask for one with that input"
            )
            raise FeatureError(f"{where} has no {key!r}; it has {', '.join(sorted(example))}: {remedy}")
        value = example[key]
        expected = 1 if key == "mask" else channels
        if (
            not isinstance(value, np.ndarray)
            or value.dtype != np.uint8
            or value.ndim != 3
            or (expected is not None and value.shape[2] != expected)
        ):
            kind = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise FeatureError(
                f"{key!r} of {where} is {kind}; it should be uint8 (height, width, {expected or 'channels'})"
            )
    planes, mask = [example[feature] for feature in features], example["mask"]
    for key, plane in zip((*features[1:], "mask"), (*planes[1:], mask), strict=True):
        if plane.shape[:2] != planes[0].shape[:2]:
            raise ImageSizeError(f"{where} has a photo of {_size(planes[0].shape)} and a {key} of {_size(plane.shape)}")
    if classes > 1:
        wrong = (mask >= classes) & (mask != VOID)
        if wrong.any():
            raise FeatureError(
                f"the mask of {where} has the class number {int(mask[wrong].max())}; with {classes} classes they are "
                f"0 to {classes - 1}, and {VOID} for void: set classes, or ask for a dataset with fewer"
            )
    return planes, mask


def spread(count: int, most: int) -> np.ndarray:
    """Up to ``most`` different indices in [0, count), evenly spread, ascending: int64."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _differing(where: str, shape: Sequence[int], size: Sequence[int]) -> ImageSizeError:
    return ImageSizeError(
        f"{where} is {_size(shape)}, others are {_size(size)}: ask for a dataset with an image_size or crop_size"
    )


def _size(shape: Sequence[int]) -> str:
    return f"{shape[0]}×{shape[1]}"


def _listed(splits: Mapping[str, int]) -> str:
    """The splits and their sizes, in words."""
    return ", ".join(f"{name!r} ({count} examples)" for name, count in sorted(splits.items())) or "no splits"
