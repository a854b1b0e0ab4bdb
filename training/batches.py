"""From a split to what a model eats, batch by batch: memory does not grow with the split.

Threads of the loader read, decode, check and augment ahead. What comes out is bytes: the device makes floats of them
(`training.trainer`), while the next batches are read.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataset_client import Dataset
from training.augmentation import Augmentation
from training.data import Split, Task, checked_planes
from training.errors import ImageSizeError
from training.options import FitOptions

#: x uint8 (B, H, W, C); y uint8 (B, H, W, 1): levels 0 … 255 of one subject, or class numbers with 255 for void.
Batch = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Pairing:
    """Makes of an example its input ``x`` uint8 (H, W, C) and its truth ``y`` uint8 (H, W, 1): a loader's transform."""

    split: str
    features: tuple[str, ...]
    classes: int
    augmentation: Augmentation | None = None

    def __call__(self, example: dict[str, Any], random: np.random.Generator) -> Mapping[str, np.ndarray]:
        """``x`` and ``y``. Raises `FeatureError` or `ImageSizeError`."""
        planes, mask = checked_planes(example, self.features, self.classes, f"an example of split {self.split!r}")
        if self.augmentation is not None:
            further = np.concatenate(planes[1:], axis=2) if planes[1:] else planes[0][:, :, :0]
            photo, further, mask = self.augmentation.apply(planes[0], further, mask, self.classes == 1, random)
            planes = [photo, further]
        x = np.concatenate(planes, axis=2) if len(planes) > 1 else planes[0]
        return {"x": x, "y": mask}


class Batches:
    """Iterates over the batches of an epoch; the next iteration is the next epoch.

    In training the order is a function of (seed, epoch), and batches are all of one size: what is left at the end of
    an epoch is left out, so that no batch of one example upsets batch normalization. Only a split that is smaller
    than a batch gives one batch of all it has. In validation, examples come in order, all of them.
    """

    def __init__(
        self,
        dataset: Dataset,
        task: Task,
        split: Split,
        options: FitOptions,
        *,
        training: bool,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        assert isinstance(options.augmentation, Augmentation)
        augmentation = options.augmentation if training and options.augmentation != Augmentation() else None
        self._split = split
        batch_size = max(1, options.batch_size // ranks)
        self.loader = dataset.loader(
            split.name,
            batch_size=batch_size,
            shuffle=training,
            seed=options.seed if training else 0,
            rank=rank,
            ranks=ranks,
            drop_last=training and split.examples >= batch_size * ranks,
            transform=Pairing(split.name, task.features, task.classes, augmentation),
            workers=options.workers,
        )

    def __len__(self) -> int:
        """The batches that the next iteration gives."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            yield self._of_one_size(batch["x"]), batch["y"]

    def _of_one_size(self, photos: Any) -> np.ndarray:
        """The photos, which the loader has stacked if it could; else `ImageSizeError`."""
        if isinstance(photos, np.ndarray):
            return photos
        sizes = ", ".join(sorted({f"{photo.shape[0]}×{photo.shape[1]}" for photo in photos}))
        raise ImageSizeError(
            f"photos of split {self._split.name!r} are of different sizes ({sizes}): "
            "ask for a dataset with an image_size or crop_size"
        )


def few(dataset: Dataset, task: Task, split: Split, numbers: np.ndarray) -> dict[str, np.ndarray]:
    """The examples ``numbers`` of a split, as they are: ``x`` uint8 (N, H, W, C) and ``y`` uint8 (N, H, W, 1)."""
    examples = dataset.examples(split.name)
    pairing = Pairing(split.name, task.features, task.classes)
    pairs = [pairing(examples[int(number)], np.random.default_rng(0)) for number in numbers]
    return {key: np.stack([pair[key] for pair in pairs]) for key in ("x", "y")}
