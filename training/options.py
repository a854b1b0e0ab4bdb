"""How to train: the one set of options that `training.fit`, the launcher and the command line share."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from training.errors import OptionsError
from training.losses import LOSSES
from training.models import model_options


@dataclass(frozen=True)
class FitOptions:
    """Raises `OptionsError` (or a `ModelError`) for what cannot be; imports no Keras.

    ``model`` and ``model_options``: see `training.models`. ``epochs``, ``batch_size`` ≥ 1; ``learning_rate``
    > 0, of Adam (Kingma and Ba 2015); ``seed`` in [0, 2**32): weights and the order of the examples follow
    from it. ``loss``: one of `LOSSES`. ``validation_split`` None takes 'validation', or where the dataset
    has none, 'test': then the best checkpoint was chosen on the test split, and the IoU reported there is an
    optimistic one. ``overwrite`` lets a training take the place of another in the same output directory.
    """

    model: str = "unet"
    model_options: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 20
    batch_size: int = 8
    learning_rate: float = 1e-3
    seed: int = 0
    loss: str = "bce+dice"
    train_split: str = "train"
    validation_split: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, smallest in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < smallest:
                raise OptionsError(f"{name} is a whole number of at least {smallest}, not {value!r}")
        if self.seed >= 2**32:
            raise OptionsError(f"seed is below 2**32, not {self.seed}")
        rate = self.learning_rate
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
            raise OptionsError(f"learning_rate is a number above 0 such as 1e-3, not {rate!r}")
        if self.loss not in LOSSES:
            raise OptionsError(f"there is no loss {self.loss!r}; there are: {', '.join(LOSSES)}")
        if not self.train_split:
            raise OptionsError("train_split is the name of a split such as 'train', not an empty string")
        if self.validation_split is not None and not self.validation_split:
            raise OptionsError("validation_split is the name of a split such as 'validation', or None")
        object.__setattr__(self, "model_options", model_options(self.model, self.model_options))

    def to_json(self) -> dict[str, Any]:
        """All options as JSON types, the model's defaults filled in."""
        return {**vars(self), "model_options": dict(self.model_options)}
