"""What Keras trains on: of each batch the inputs and the labels. Needs the extra ``readers``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataset_client.errors import InvalidSettingError
from dataset_client.readers.features import Feature, is_picture


@dataclass(frozen=True)
class Pairs:
    """Takes ``inputs`` and ``labels`` out of batches by their names.

    Pictures of uint8 as inputs become float32 (B, H, W, C) in [0, 255], as labels float32 (B, H, W, C) in [0, 1]; all
    else stays as it is, also what a transform has made of a picture that has no channels, such as class numbers
    (B, H, W). Raises `InvalidSettingError` for a name that examples do not have, unless they are
    ``transformed``: then for one that a batch does not have.
    """

    features: Mapping[str, Feature]
    inputs: str
    labels: str
    transformed: bool = False

    def __post_init__(self) -> None:
        if not self.transformed:
            for name in (self.inputs, self.labels):
                _require(name, self.features)

    def of(self, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """(inputs, labels) of a batch; raises `InvalidSettingError` where either has no one shape in all examples."""
        return self._numbers(batch, self.inputs, 1), self._numbers(batch, self.labels, 255)

    def _numbers(self, batch: Mapping[str, Any], name: str, scale: int) -> Any:
        _require(name, batch)
        value = batch[name]
        if not isinstance(value, np.ndarray):
            raise InvalidSettingError(
                f"{name!r} has no one shape in all examples",
                remedy="Ask for a dataset with an image_size or crop_size, or give a transform that makes one.",
            )
        if not is_picture(self.features.get(name)) or value.dtype != np.uint8 or value.ndim != 4:
            return value
        pixels = value.astype(np.float32)
        return pixels if scale == 1 else pixels / np.float32(scale)


def _require(name: str, known: Mapping[str, Any]) -> None:
    if name not in known:
        raise InvalidSettingError(f"examples have no {name!r}", remedy=f"They have: {', '.join(known)}.")
