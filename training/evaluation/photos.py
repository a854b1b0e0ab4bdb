"""The photos of a split, one after the other, with what is known of each; never more than a few in memory."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dataset_client import Dataset
from training.data import checked_planes, require_split
from training.errors import DatasetError, FeatureError
from training.evaluation.lineage import Origin, origins
from training.metrics import VOID


@dataclass(frozen=True, eq=False)
class Photo:
    """One example: ``image`` uint8 (H, W, 3), ``mask`` uint8 (H, W) as stored, further ``planes`` uint8 (H, W, C).

    ``number`` is its place in the split; ``key`` the sample it was made of, or None; ``files`` the raw files of that.
    ``categories`` are the different ones of its instances, sorted; ``cluster`` None where the dataset has none.
    """

    number: int
    image: np.ndarray
    mask: np.ndarray
    planes: Mapping[str, np.ndarray] = field(default_factory=dict)
    key: str | None = None
    files: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    cluster: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[0], self.image.shape[1]


class PhotoReader:
    """Reads a split that is there and not empty (else `SplitError`), in order or by number.

    Photos are checked as they are read: `FeatureError` and `ImageSizeError` say which one is not as it should be.
    """

    def __init__(self, dataset: Dataset, split: str) -> None:
        self.dataset = dataset
        self.split = require_split(dataset.splits, split)
        self._origins: list[Origin] | None = None

    def __len__(self) -> int:
        return self.dataset.splits[self.split]

    def batches(self, size: int) -> Iterator[list[Photo]]:
        """All photos in order, ``size`` at a time, decoded ahead in threads."""
        loader = iter(self.dataset.loader(self.split, batch_size=size))
        number = 0
        with closing(loader):  # type: ignore[type-var]  # a generator, which its type does not say
            for batch in loader:
                count = len(batch["mask"]) if "mask" in batch else len(next(iter(batch.values())))
                examples = ({name: values[row] for name, values in batch.items()} for row in range(count))
                photos = [self._photo(example, number + row) for row, example in enumerate(examples)]
                yield photos
                number += count
        if number != len(self):
            raise DatasetError(
                f"split {self.split!r} should have {len(self)} examples, it has {number}: download it again"
            )

    def photos(self, numbers: list[int]) -> Iterator[Photo]:
        """The photos of some numbers, in that order."""
        examples = self.dataset.examples(self.split)
        for number in numbers:
            yield self._photo(examples[number], number)

    def _photo(self, example: Mapping[str, Any], number: int) -> Photo:
        """The photo of an example, if it has what it should."""
        where = f"example {number} of split {self.split!r}"
        (image, *others), mask = checked_planes(example, ("image", *self._further(example)), 1, where)
        origin = self._origin(number)
        cluster = example.get("cluster")
        return Photo(
            number=number,
            image=image,
            mask=mask[:, :, 0],
            planes=dict(zip(self._further(example), others, strict=True)),
            key=str(example["source_id"]) if "source_id" in example else origin.key,
            files=origin.files,
            categories=tuple(sorted({str(name) for name in example.get("category", ())})),
            cluster=None if cluster is None else int(cluster),
        )

    def _further(self, example: Mapping[str, Any]) -> list[str]:
        """The planes that a model may see besides the photo."""
        planes = (name for name in self.dataset.features if name not in ("image", "mask"))
        return [
            name
            for name in planes
            if isinstance(value := example.get(name), np.ndarray) and value.dtype == np.uint8 and value.ndim == 3
        ]

    def _origin(self, number: int) -> Origin:
        if self._origins is None:
            self._origins = origins(self.dataset, self.split)
        return self._origins[number] if number < len(self._origins) else Origin()


def truth_of(mask: np.ndarray, classes: int) -> np.ndarray:
    """The truth of a stored mask (H, W) uint8: float32 in [0, 1] of one subject, else class numbers as they are."""
    return mask.astype(np.float32) / np.float32(255) if classes == 1 else mask


class MaskLevels:
    """Which levels the masks of a split have, and whether they are what ``classes`` needs."""

    def __init__(self, classes: int, split: str) -> None:
        self.classes, self.split = classes, split
        self.seen = np.zeros(256, bool)

    def add(self, photo: Photo) -> None:
        """Note a mask's levels; raises `FeatureError` for class numbers that the model does not know."""
        self.seen |= np.bincount(photo.mask.ravel(), minlength=256) > 0
        if self.classes > 1:
            above = np.flatnonzero(self.seen[self.classes : VOID]) + self.classes
            if len(above):
                raise FeatureError(
                    f"example {photo.number} of split {self.split!r} has class {above[0]}, the model tells "
                    f"0 to {self.classes - 1} apart: evaluate a model of as many classes as the dataset has"
                )

    def check(self) -> None:
        """After the last photo: raises `FeatureError` where one kind of mask was taken for the other."""
        levels = np.flatnonzero(self.seen)
        if self.classes == 1 and 0 < levels.max() < 128:
            raise FeatureError(
                f"the masks of split {self.split!r} have levels of {levels.max()} at most, a subject has 128 to 255: "
                "these are numbers of classes, most likely; evaluate a model of several classes"
            )
        if self.classes > 1 and not self.seen[1:VOID].any():
            raise FeatureError(
                f"no mask of split {self.split!r} has a class besides 0 (and {VOID}, which counts for nothing): "
                "these are masks of one subject, most likely; evaluate a model of one class"
            )
