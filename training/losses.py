"""Losses over probabilities, for any Keras backend.

Both arguments are float (B, H, W, 1) in [0, 1]; a loss has one value per example, (B,), so that its mean
over a dataset does not depend on how that was cut into batches.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

from training.errors import OptionsError
from training.options import LOSSES


def binary_cross_entropy(truth: Any, probability: Any) -> Any:
    """−[t log p + (1 − t) log(1 − p)], the mean over the pixels of each example: (B,), at least 0."""
    return ops.mean(ops.binary_crossentropy(truth, probability), axis=(1, 2, 3))


def soft_dice(truth: Any, probability: Any, smooth: float = 1.0) -> Any:
    """1 − (2 Σ t p + s) / (Σ t + Σ p + s) over the pixels of each example: (B,), in [0, 1].

    One minus the Dice coefficient with probabilities in place of a yes or no (Milletari et al. 2016,
    *V-Net*, with plain sums in the denominator as in Drozdzal et al. 2016). Unlike cross-entropy it does not
    care how small a subject is. ``smooth``, in pixels, makes an empty mask that is predicted empty cost
    nothing.
    """
    axes = (1, 2, 3)
    overlap = ops.sum(truth * probability, axis=axes)
    total = ops.sum(truth, axis=axes) + ops.sum(probability, axis=axes)
    return 1 - (2 * overlap + smooth) / (total + smooth)


def bce_dice(truth: Any, probability: Any) -> Any:
    """`binary_cross_entropy`, whose gradients are smooth, plus `soft_dice`, which follows the IoU."""
    return binary_cross_entropy(truth, probability) + soft_dice(truth, probability)


Loss = Callable[[Any, Any], Any]

_FUNCTIONS: dict[str, Loss] = dict(zip(LOSSES, (binary_cross_entropy, soft_dice, bce_dice), strict=True))


def create_loss(name: str) -> Loss:
    """The loss of that name (one of `training.options.LOSSES`), for ``compile(loss=…)``, which takes its
    mean.

    Raises `OptionsError` for another name.
    """
    if name not in _FUNCTIONS:
        raise OptionsError(f"there is no loss {name!r}; there are: {', '.join(_FUNCTIONS)}")
    return _FUNCTIONS[name]
