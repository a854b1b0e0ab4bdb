"""What the registry knows of a model: its options, what it can take, and how it is built."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: Height, width, channels.
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class ModelFamily:
    """One kind of model. Neither the module that holds it nor ``check`` imports Keras; ``build`` does.

    ``options`` is a frozen dataclass that raises `ModelOptionsError` from its ``__post_init__``;
    ``check(input_shape, classes, options)`` raises `ModelShapeError` for what cannot be built, and allocates
    nothing; ``build(input_shape, classes, options)`` returns an uncompiled ``keras.Model``.
    """

    options: type[Any]
    check: Callable[[Shape, int, Any], None]
    build: Callable[[Shape, int, Any], Any]
