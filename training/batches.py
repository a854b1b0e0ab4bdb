"""From a split to what Keras eats."""

import math

import keras
import numpy as np

from training.data import SegmentationSplit


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """One pass over a split: ``self[i]`` is x float32 (B, H, W, 3) in [0, 255], y float32 (B, H, W, 1) in
    [0, 1].

    As few batches as ``batch_size`` allows, and as equal: B differs by one at most. A last batch of a single
    example would otherwise upset batch normalization just before validation. ``order`` is the indices to
    visit, (N,); None keeps the order of the split. Hand it to Keras with ``shuffle=False``: its own
    shuffling draws on a global generator.
    """

    def __init__(self, split: SegmentationSplit, batch_size: int, order: np.ndarray | None = None) -> None:
        super().__init__()
        self.split = split
        self.order = np.arange(len(split)) if order is None else order
        self.count = math.ceil(len(self.order) / batch_size)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if not 0 <= index < self.count:
            raise IndexError(f"batch {index} of {self.count}")
        begin, end = (len(self.order) * edge // self.count for edge in (index, index + 1))
        chosen = self.order[begin:end]
        x = self.split.images[chosen].astype(np.float32)
        y = self.split.masks[chosen].astype(np.float32) / np.float32(255)
        return x, y
