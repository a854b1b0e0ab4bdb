"""The optimizer of a training, made of its options."""

from typing import Any

import keras

from training.errors import OptionsError
from training.options import FitOptions
from training.schedules import WarmUpAndDecay

_CLASSES = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": keras.optimizers.SGD,
}


def create_optimizer(options: FitOptions, *, epoch_steps: int) -> Any:
    """A ``keras.optimizers.Optimizer`` for epochs of ``epoch_steps`` ≥ 1 steps.

    Clipping, accumulation and averaged weights are Keras' own: gradients are accumulated, then clipped; the average is
    updated at every step, also at those that only accumulate. Raises `OptionsError` for a warm-up that is longer than
    the training, and for options that Keras refuses.
    """
    schedule = WarmUpAndDecay.of(options, epoch_steps=epoch_steps)
    try:
        return _CLASSES[options.optimizer](
            learning_rate=schedule,
            # None spares Keras the subtraction, but AdamW insists on a number.
            weight_decay=options.weight_decay or (0.0 if options.optimizer == "adamw" else None),
            global_clipnorm=options.clip_norm,
            gradient_accumulation_steps=options.accumulate if options.accumulate > 1 else None,
            use_ema=options.ema is not None,
            ema_momentum=options.ema if options.ema is not None else 0.99,
            **options.optimizer_options,
        )
    except (TypeError, ValueError) as error:
        raise OptionsError(f"{options.optimizer} cannot take {options.optimizer_options}: {error}") from error
