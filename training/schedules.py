"""How the learning rate goes over a training: a linear warm-up, then a curve down.

With the peak rate r, steps counted from 0, w steps of warm-up and S steps in all:

===========  ==========================================================  ==========================================
constant     r
exponential  r · decay^(s / steps per epoch)                             Jégou et al. 2017 (0.995 per epoch)
cosine       r · (1 + cos(π (s - w) / (S - w))) / 2                      Loshchilov and Hutter 2017, one period
polynomial   r · (1 - (s - w) / (S - w))^power                           Chen et al. 2017 (power 0.9)
===========  ==========================================================  ==========================================

While s < w it is r · (s + 1) / w instead.
"""

import math
from typing import Any

import keras
from keras import ops

from training.errors import OptionsError
from training.options import FitOptions

#: Schedules whose curve depends on the number of epochs.
_ENDING = ("cosine", "polynomial")


class WarmUpAndDecay(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]  # Keras has no types
    """The rate at a step, float32; ``total_steps`` and ``epoch_steps`` ≥ 1 in steps of the training loop."""

    def __init__(self, options: FitOptions, *, total_steps: int, epoch_steps: int) -> None:
        if options.schedule in _ENDING and options.warmup_steps >= total_steps:
            raise OptionsError(
                f"warmup_steps is {options.warmup_steps}, and the whole training has {total_steps} steps: lower it"
            )
        self.options, self.total_steps, self.epoch_steps = options, total_steps, epoch_steps

    @classmethod
    def of(cls, options: FitOptions, *, epoch_steps: int) -> "WarmUpAndDecay":
        """That of a whole training in epochs of ``epoch_steps``."""
        return cls(options, total_steps=options.epochs * epoch_steps, epoch_steps=epoch_steps)

    def __call__(self, step: Any) -> Any:
        """The rate at ``step`` ≥ 0, a whole number."""
        options = self.options
        step = ops.cast(step, "float32")
        warmup = options.warmup_steps
        left = ops.clip((step - warmup) / max(1, self.total_steps - warmup), 0.0, 1.0)
        match options.schedule:
            case "exponential":
                factor = ops.exp(step * (math.log(options.decay) / self.epoch_steps))
            case "cosine":
                factor = (1 + ops.cos(math.pi * left)) / 2
            case "polynomial":
                factor = ops.power(1 - left, options.power)
            case _:
                factor = ops.ones_like(step)
        if warmup:
            factor = ops.where(step < warmup, (step + 1) / warmup, factor)
        return options.learning_rate * factor

    def get_config(self) -> dict[str, Any]:
        """What it was made of."""
        return {"options": self.options.to_json(), "total_steps": self.total_steps, "epoch_steps": self.epoch_steps}


def depends_on_epochs(options: FitOptions) -> bool:
    """Whether another number of epochs would have been another curve from the first step on."""
    return options.schedule in _ENDING
