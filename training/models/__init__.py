"""The segmentation models, by name.

All take photos as float in [0, 255] (B, H, W, C), red, green and blue before any further channels, scale them
themselves, and give probabilities as float32 in [0, 1] (B, H, W, classes) at the size of the photo: a checkpoint needs
nothing but Keras to be used. A model that is supervised at several depths gives a list of such, the one to use first.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from training.errors import ModelOptionsError, ModelShapeError, UnknownModelError
from training.models import deeplab, fcn, sharpmask, tiramisu, u2net, unet
from training.models.blocks.dilation import use_dilated_kernels
from training.models.family import ModelFamily, Shape

__all__ = ["check_model", "create_model", "model_family", "model_names", "model_options"]

_FAMILIES: dict[str, ModelFamily] = {
    "unet": unet.FAMILY,
    **tiramisu.FAMILIES,
    **u2net.FAMILIES,
    **fcn.FAMILIES,
    "deeplab-v3": deeplab.FAMILY,
    "sharpmask": sharpmask.FAMILY,
}


def model_names() -> list[str]:
    """The names that `create_model` knows, sorted."""
    return sorted(_FAMILIES)


def model_family(name: str) -> ModelFamily:
    """What is known of a model. Raises `UnknownModelError`."""
    if name not in _FAMILIES:
        raise UnknownModelError(f"there is no model {name!r}; there are: {', '.join(model_names())}")
    return _FAMILIES[name]


def create_model(name: str, input_shape: Shape, classes: int = 1, **options: Any) -> Any:
    """Make an uncompiled ``keras.Model`` with fresh weights (drawn from Keras' seed:
    ``keras.utils.set_random_seed``).

    ``input_shape`` is (height, width, channels). ``classes=1`` gives the probability of the one subject
    through a sigmoid, (B, H, W, 1); more give probabilities that add up to 1 through a softmax, (B, H, W,
    classes). ``options`` are the model's own: see `model_options` and the model's docstring.

    Raises `UnknownModelError`, `ModelOptionsError` or `ModelShapeError` before anything is allocated, and
    before Keras is imported.
    """
    family, chosen = _resolve(name, options)
    _check(family, input_shape, classes, chosen)
    return use_dilated_kernels(family.build(input_shape, classes, chosen))


def model_options(name: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All options of a model with their values, defaults filled in. Imports no Keras; raises as
    `create_model`.
    """
    return asdict(_resolve(name, options or {})[1])


def check_model(name: str, input_shape: Shape, classes: int = 1, **options: Any) -> None:
    """Raise what `create_model` would, make nothing. Imports no Keras."""
    family, chosen = _resolve(name, options)
    _check(family, input_shape, classes, chosen)


def _resolve(name: str, options: Mapping[str, Any]) -> tuple[ModelFamily, Any]:
    """The family, and its options as its own dataclass."""
    family = model_family(name)
    known = [field.name for field in fields(family.options)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ModelOptionsError(f"{name} has no option {', '.join(unknown)}; it has: {', '.join(known)}")
    return family, family.options(**options)


def _check(family: ModelFamily, input_shape: Shape, classes: int, options: Any) -> None:
    """Raise `ModelShapeError` for what no model takes, then for what this one does not."""
    if len(input_shape) != 3 or any(type(side) is not int or side < 1 for side in input_shape):
        raise ModelShapeError(f"input_shape is (height, width, channels) in whole numbers above 0, not {input_shape!r}")
    if type(classes) is not int or classes < 1:
        raise ModelShapeError(f"classes is a whole number of at least 1, not {classes!r}")
    family.check(input_shape, classes, options)
