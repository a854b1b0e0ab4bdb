"""Losses over probabilities, by name, for any Keras backend.

All give one value per example, float32 (B,), so that the mean over a dataset does not depend on how that was
cut into batches. With one class the truth is float (B, H, W, 1) in [0, 1], and may be soft, and the
probability is of the same shape. With more, the truth is class numbers, (B, H, W, 1) in 0 … classes - 1, or
255 for void, and the probabilities are (B, H, W, classes); void pixels count for nothing.

::

    pixelwise.py   bce, ce, focal: a mean over pixels
    overlap.py     dice, iou: how much of two soft masks is shared
    lovasz.py      lovasz: the convex surrogate of the IoU
    structure.py   ssim and basnet: local structure
    truth.py       what all read their truth with; what they refuse

Importing this package imports no Keras; `create_loss` does.
"""

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from training.errors import OptionsError

__all__ = ["LOSSES", "Loss", "check_loss", "create_loss", "sum_over_outputs"]

#: (truth, probability) → one value per example.
Loss = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class _Entry:
    """Where a loss is, and what it takes."""

    function: str  #: module:name, below this package
    one: bool = True  #: for one class, whose truth may be soft
    many: bool = True  #: for several classes
    weights_of_one: bool = False  #: takes weights of background and foreground
    weights_of_many: bool = True  #: takes a weight per class
    options: Mapping[str, float] = field(default_factory=dict)  #: name → default; all are at least 0


_CATALOG: dict[str, _Entry] = {
    "bce": _Entry("pixelwise:binary_cross_entropy", many=False, weights_of_one=True),
    "ce": _Entry("pixelwise:cross_entropy", one=False),
    "focal": _Entry("pixelwise:focal", weights_of_one=True, options={"gamma": 2.0}),
    "dice": _Entry("overlap:soft_dice", options={"smooth": 1.0}),
    "iou": _Entry("overlap:soft_iou", options={"smooth": 1.0}),
    "lovasz": _Entry("lovasz:lovasz"),
    "bce+dice": _Entry("overlap:bce_dice", many=False, weights_of_one=True, options={"smooth": 1.0}),
    "ce+dice": _Entry("overlap:ce_dice", one=False, options={"smooth": 1.0}),
    "basnet": _Entry("structure:basnet_hybrid", many=False),
}

#: What `create_loss` knows.
LOSSES = tuple(_CATALOG)


def check_loss(name: str, classes: int = 1) -> None:
    """Raise `OptionsError` for a loss that there is not, or not for that number of classes. Imports no
    Keras.
    """
    if name not in _CATALOG:
        raise OptionsError(f"there is no loss {name!r}; there are: {', '.join(LOSSES)}")
    if not _fits(_CATALOG[name], classes):
        fitting = ", ".join(other for other, entry in _CATALOG.items() if _fits(entry, classes))
        raise OptionsError(f"the loss {name!r} is not for {_count(classes)}; for that there are: {fitting}")


def create_loss(
    name: str, *, classes: int = 1, class_weights: Sequence[float] | None = None, **loss_options: float
) -> Loss:
    """The loss of that name (one of `LOSSES`), as a function of truth and probability.

    ``class_weights``, at least 0 and not all 0: a pixel of class c counts ``class_weights[c]`` times; with
    ``classes=1`` there are two, of the background and of the subject. Where a loss is a mean over pixels, it
    still divides by the number of pixels that are not void, so a rare class weighs the same in whatever
    photo it stands; weights whose mean over the dataset's pixels is 1 keep the learning rate's meaning.
    Lin's α = 0.25 of the focal loss is ``class_weights=(0.75, 0.25)``. Losses over regions with several
    classes weight their mean over the classes; with one class they take no weights.

    ``loss_options``: ``gamma`` of focal (2), ``smooth`` in pixels of dice, iou and the sums with dice (1).

    Raises `OptionsError` for another name, one not for that many classes, weights that the loss does not
    take or that are not as above, and options that it has not.
    """
    check_loss(name, classes)
    entry = _CATALOG[name]
    unknown = sorted(set(loss_options) - set(entry.options))
    if unknown:
        known = ", ".join(entry.options) or "none"
        raise OptionsError(f"the loss {name!r} has no option {', '.join(unknown)}; it has: {known}")
    for option, value in loss_options.items():
        if not _is_amount(value):
            raise OptionsError(f"{option} of the loss {name!r} is a number of at least 0, not {value!r}")
    weights = None if class_weights is None else _checked_weights(name, entry, classes, class_weights)
    module, function = entry.function.split(":")
    loss = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    return partial(loss, classes=classes, class_weights=weights, **{**entry.options, **loss_options})


def sum_over_outputs(loss: Loss) -> Loss:
    """Deep supervision: the sum of ``loss`` over a list of probabilities, each held against the same truth.

    That is how U²-Net (Qin et al. 2020, all weights 1) and BASNet (Qin et al. 2019) are trained. A model
    with a single output, not in a list, gets ``loss`` itself.
    """

    def summed(truth: Any, probabilities: Any) -> Any:
        if not isinstance(probabilities, list | tuple):
            return loss(truth, probabilities)
        first, *others = (loss(truth, probability) for probability in probabilities)
        return sum(others, start=first)

    return summed


def _fits(entry: _Entry, classes: int) -> bool:
    return entry.one if classes == 1 else entry.many


def _count(classes: int) -> str:
    return "one class" if classes == 1 else f"{classes} classes"


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _checked_weights(name: str, entry: _Entry, classes: int, weights: Sequence[float]) -> tuple[float, ...]:
    """The weights as a tuple of floats, or `OptionsError`."""
    if not (entry.weights_of_one if classes == 1 else entry.weights_of_many):
        raise OptionsError(
            f"the loss {name!r} takes no class_weights for {_count(classes)}; 'bce', 'bce+dice' and 'focal' do"
        )
    needed = 2 if classes == 1 else classes
    what = "two, of the background and of the subject," if classes == 1 else f"{classes}, one of each class,"
    try:
        given = tuple(float(weight) for weight in weights)
    except (TypeError, ValueError):
        given = ()
    if len(given) != needed or not all(map(_is_amount, given)) or not any(given):
        raise OptionsError(f"class_weights are {what} at least 0 and not all 0; not {weights!r}")
    return given
