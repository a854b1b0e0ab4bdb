"""Each model small enough to be built, saved and trained within seconds, for the tests that all models share."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@contextmanager
def without_values() -> Iterator[None]:
    """Models made here have variables with shapes, for counting, but no numbers: even the largest takes no memory."""
    import keras

    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        keras.utils.clear_session()  # else the next scope to end would draw the numbers after all


@dataclass(frozen=True)
class ModelCase:
    """A model with the options that make it small.

    ``sizes`` are of photos that it takes, an odd one among them, where the model allows; each is built once, the
    first for one class and trained and saved, the others for three. ``learning_rate`` is plain gradient descent's, by
    which a few steps on one batch lower the loss. ``outputs`` is how many masks the model gives. ``like`` names the
    model whose code this one runs with other numbers only: such a one is trained and saved where PyTorch is
    installed, too, and time is not short.
    """

    options: dict[str, Any]
    sizes: tuple[tuple[int, int], ...]
    channels: int = 3
    learning_rate: float = 0.1
    outputs: int = 1
    like: str | None = None
    #: Layers whose kernels begin as zeros or as a formula says; the tests draw others for them.
    undrawn: tuple[str, ...] = ()


_TINY_TIRAMISU = {"growth_rate": 4, "layers": [1, 2, 1], "first_filters": 8}
_TINY_FCN = {"base_filters": 4, "head_filters": 16, "dropout": 0.0, "padding": "same"}
_FCN_8 = ("score_fr", "score_pool4", "score_pool3", "upscore2", "upscore_pool4")

#: By the registry's name; all of them are here.
CASES = {
    "unet": ModelCase({"base_filters": 4, "depth": 2}, ((33, 30), (32, 48))),
    "tiramisu-56": ModelCase(_TINY_TIRAMISU, ((33, 30), (32, 48))),
    "tiramisu-67": ModelCase(_TINY_TIRAMISU, ((33, 30),), like="tiramisu-56"),
    "tiramisu-103": ModelCase(_TINY_TIRAMISU, ((33, 30),), like="tiramisu-56"),
    "u2net": ModelCase({"width": 0.0625}, ((33, 30),), channels=5, outputs=7, like="u2net-lite"),
    "u2net-lite": ModelCase({"width": 0.25}, ((33, 30),), outputs=7),
    "fcn-32": ModelCase(_TINY_FCN, ((33, 30),), learning_rate=0.01, like="fcn-8", undrawn=("score_fr",)),
    "fcn-16": ModelCase(
        _TINY_FCN, ((33, 30),), learning_rate=0.01, like="fcn-8", undrawn=("score_fr", "score_pool4", "upscore2")
    ),
    "fcn-8": ModelCase(_TINY_FCN, ((33, 30),), channels=4, learning_rate=0.01, undrawn=_FCN_8),
    "deeplab-v3": ModelCase({}, ((33, 30),), channels=5),
    "sharpmask": ModelCase({"mask_filters": 16}, ((33, 30),), channels=5),
}
