"""From a `Dataset` to arrays, checked while they are read: training never starts on bad ones.

A split is held decoded, as uint8: 4 bytes per pixel, which is 256 KiB per example at 256×256 and 4 MiB at
1024×1024. One that would take more than its share of the machine's memory is refused before it is read.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset_client import Dataset
from training.errors import DatasetError, DatasetTooLargeError, FeatureError, ImageSizeError, SplitError

#: From this level on a pixel of a mask is subject; `training.metrics` counts so.
_SUBJECT = 128
_BYTES_PER_PIXEL = 4  # three channels of the photo, one of the mask
#: Where a container's kernel tells its limit of memory (cgroup v2).
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, eq=False)
class SegmentationSplit:
    """A whole split: ``images`` uint8 (N, H, W, 3), ``masks`` uint8 (N, H, W, 1).

    255 is the subject, 0 is none of it; levels between are shares, which losses take as they are and the IoU from
    128 on as subject.
    """

    name: str
    images: np.ndarray
    masks: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every photo."""
        return self.images.shape[1], self.images.shape[2]

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The indices 0 … N-1 shuffled, int64 (N,): a function of (seed, epoch) and nothing else."""
        return np.random.default_rng([seed, epoch]).permutation(len(self))


def load_splits(
    dataset: Dataset, train: str, validation: str | None, *, memory_limit: int | None = None
) -> tuple[SegmentationSplit, SegmentationSplit]:
    """Read the two splits that a training needs; ``validation`` None chooses as `choose_validation_split`
    does.

    ``memory_limit`` in bytes is for both together; None is half of what this process may have. Raises a
    `DatasetError`.
    """
    require_split(dataset.splits, train)
    chosen = choose_validation_split(dataset.splits, validation)
    limit = memory_limit if memory_limit is not None else half_of_memory()
    training = read_split(dataset, train, memory_limit=limit)
    if chosen == train:
        return training, training
    validating = read_split(dataset, chosen, memory_limit=limit - training.images.nbytes - training.masks.nbytes)
    if training.image_size != validating.image_size:
        raise ImageSizeError(
            f"split {train!r} has photos of {_size(training.image_size)} and {chosen!r} of "
            f"{_size(validating.image_size)}: ask for a dataset with one image_size or crop_size"
        )
    return training, validating


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


def read_split(dataset: Dataset, name: str, *, memory_limit: int) -> SegmentationSplit:
    """Read and check a split, in the order it is stored in.

    Raises `SplitError`, `FeatureError`, `ImageSizeError`, or `DatasetTooLargeError` past ``memory_limit``
    bytes.
    """
    count = dataset.splits[require_split(dataset.splits, name)]
    images = masks = np.empty((0, 0, 0, 0), np.uint8)
    index = -1
    for index, example in enumerate(dataset.as_numpy_iterator(name)):
        where = f"example {index} of split {name!r}"
        if index >= count:
            break
        image, mask = _checked(example, where)
        if index == 0:
            height, width = image.shape[:2]
            _require_memory(name, count, height, width, memory_limit)
            images = np.empty((count, height, width, 3), np.uint8)
            masks = np.empty((count, height, width, 1), np.uint8)
        if image.shape != images.shape[1:]:
            raise ImageSizeError(
                f"{where} is {_size(image.shape)}, those before it are {_size(images.shape[1:])}: "
                "ask for a dataset with an image_size or crop_size"
            )
        images[index], masks[index] = image, mask
    if index + 1 != count:
        more_or_less = "more" if index + 1 > count else f"only {index + 1}"
        raise DatasetError(f"split {name!r} should have {count} examples, it has {more_or_less}: download it again")
    _require_subjects(name, masks)
    return SegmentationSplit(name, images, masks)


def _require_subjects(name: str, masks: np.ndarray) -> None:
    """Raise `FeatureError` for masks of other levels than 0 … 255: numbers of categories, most likely."""
    highest = int(masks.max())
    if 0 < highest < _SUBJECT:
        raise FeatureError(
            f"the masks of split {name!r} have levels of {highest} at most, and a subject has {_SUBJECT} to 255; "
            "if these are numbers of categories, ask for a dataset with masks of one subject (mask_labels 'subject')"
        )


def _checked(example: Mapping[str, Any], where: str) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of an example, if they are what is promised and fit each other."""
    for key, channels in (("image", 3), ("mask", 1)):
        if key not in example:
            raise FeatureError(
                f"{where} has no {key!r}; it has {', '.join(sorted(example))}: "
                "ask for a dataset with photo and subject mask"
            )
        value = example[key]
        kind = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.shape[2:] != (channels,):
            raise FeatureError(f"{key!r} of {where} is {kind}; it should be uint8 (height, width, {channels})")
    image, mask = example["image"], example["mask"]
    if image.shape[:2] != mask.shape[:2]:
        raise ImageSizeError(f"{where} has a photo of {_size(image.shape)} and a mask of {_size(mask.shape)}")
    return image, mask


def _require_memory(name: str, count: int, height: int, width: int, limit: int) -> None:
    """Raise `DatasetTooLargeError` where the decoded split would not fit."""
    needed = count * height * width * _BYTES_PER_PIXEL
    if needed > limit:
        raise DatasetTooLargeError(
            f"split {name!r} takes {needed / 2**30:.1f} GiB decoded ({count} photos of {height}×{width}); "
            f"{max(limit, 0) / 2**30:.1f} GiB are free for it: ask for a smaller image_size or crop_size, "
            "or for fewer photos (limit)"
        )


def half_of_memory(container_limit: Path = _CONTAINER_LIMIT) -> int:
    """Half of the memory this process may have, in bytes: the machine's, or less where a container limits it."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = container_limit.read_text().strip()
    except OSError:
        limit = "max"
    return (min(physical, int(limit)) if limit.isdigit() else physical) // 2


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}×{shape[1]}"


def _listed(splits: Mapping[str, int]) -> str:
    """The splits and their sizes, in words."""
    return ", ".join(f"{name!r} ({count} examples)" for name, count in sorted(splits.items())) or "no splits"
