"""What predicts masks: a model from a checkpoint, or a baseline."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from training.evaluation.photos import Photo


class Predictor(Protocol):
    """``name`` for people; ``classes`` as of `create_model`; ``is_model`` False for a baseline."""

    name: str
    classes: int
    is_model: bool

    def predict(self, photos: Sequence[Photo]) -> list[np.ndarray]:
        """The probabilities of each photo, float32 (H, W, classes) in [0, 1], at the size of the photo."""
        ...

    def describe(self) -> dict[str, Any]:
        """What it is, as JSON types."""
        ...
