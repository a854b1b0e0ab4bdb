"""What the registry knows of a model: its options, what it can take, and how it is built."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Height, width, channels.
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class ModelFamily:
    """One kind of model. Neither the module that holds it nor ``check`` imports Keras; ``build`` does.

    ``options`` is a frozen dataclass that raises `ModelOptionsError` from its ``__post_init__``;
    ``check(input_shape, classes, options)`` raises `ModelShapeError` for what cannot be built, and allocates
    nothing; ``build(input_shape, classes, options)`` returns an uncompiled ``keras.Model`` of the registry's name.
    ``torch_names(layers)``, where there is a well-known implementation in PyTorch, gives the name there of each
    layer that has weights, by its name here; ``layers`` are the names of all layers of a model. ``torch_fixed`` are
    weights there of what nothing is learned in and ours has no weights for.
    """

    options: type[Any]
    check: Callable[[Shape, int, Any], None]
    build: Callable[[Shape, int, Any], Any]
    torch_names: Callable[[Sequence[str]], Mapping[str, str]] | None = None
    torch_fixed: tuple[str, ...] = ()
