"""Weights of the references in PyTorch, taken over into a model of ours.

PyTorch keeps the kernel of a convolution as (out, in, height, width) and of a transposed one as (in, out, height,
width); Keras as (height, width, in, out) and (height, width, out, in). One permutation turns both. What a layer is
called there is the model's to know: `ModelFamily.torch_names`.
"""

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.errors import BackendError, WeightsError
from training.models import model_family, model_names

#: Keras' name of a variable → PyTorch's.
_VARIABLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_TO_KERAS = (2, 3, 1, 0)
#: Counts the batches that an average has seen; the average does not depend on it.
_IGNORED = ".num_batches_tracked"
#: What `torch.nn.DataParallel` puts before each name.
_PARALLEL = "module."
_LISTED = 10


def read_torch_weights(path: Path | str) -> dict[str, np.ndarray]:
    """The tensors of a ``.pth`` file by name, as ``torch.save(model.state_dict(), path)`` has written them.

    Floats of any precision become float32. Runs no code that may be in the file. Values that are not tensors are left
    out. Needs PyTorch; raises `BackendError` without it, `WeightsError` where the file cannot be read or holds no
    tensors by name.
    """
    if importlib.util.find_spec("torch") is None:
        raise BackendError("PyTorch is not installed, and reading its files needs it: pip install torch")
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile's, pickle's, torch's and the system's, all without a common base
        raise WeightsError(f"{path} is not a file of PyTorch weights: {error}") from error
    named = content if isinstance(content, Mapping) else {}
    tensors = {str(name): value.detach() for name, value in named.items() if isinstance(value, torch.Tensor)}
    # NumPy knows no bfloat16.
    weights = {name: (value.float() if value.is_floating_point() else value).numpy() for name, value in tensors.items()}
    if not weights:
        held = ", ".join(str(name) for name in named) or type(content).__name__
        raise WeightsError(f"{path} holds no tensors by name, but: {held}; save the state dict of the model alone")
    return weights


def load_torch_weights(model: Any, weights: Mapping[str, Any]) -> None:
    """Give ``model``, which `create_model` has made, the weights of its reference in PyTorch.

    ``weights`` is that one's state dict: by name, arrays of any float type or tensors on the CPU. Names may begin with
    'module.', as those of a model trained in parallel do. Either all of the model's weights are set, those of batch
    normalization's averages included, or none.

    Raises `WeightsError` where the model has no such reference, and where names are missing, not expected, or of
    another shape.
    """
    given = _without_prefix({name: value for name, value in weights.items() if not name.endswith(_IGNORED)})
    wanted = _wanted(model)
    given = {name: value for name, value in given.items() if name not in model_family(model.name).torch_fixed}
    shapes = {name: _torch_shape(variable) for name, variable in wanted.items()}
    misshaped = {
        name: tuple(given[name].shape) for name in wanted if name in given and tuple(given[name].shape) != shapes[name]
    }
    missing, unexpected = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if missing or unexpected or misshaped:
        faults = {
            "missing": missing,
            "unexpected": unexpected,
            "of another shape": [f"{name} {misshaped[name]} instead of {shapes[name]}" for name in sorted(misshaped)],
        }
        told = "; ".join(f"{kind}: {_listed(names)}" for kind, names in faults.items() if names)
        raise WeightsError(
            f"these are not the weights of this {model.name} – {told}. Make the model with the options, channels and "
            "classes that the weights were trained with",
            missing=missing,
            unexpected=unexpected,
            misshaped=sorted(misshaped),
        )
    values = {name: np.asarray(given[name], np.float32) for name in wanted}  # all before the first is set
    for name, variable in wanted.items():
        value = values[name]
        variable.assign(value.transpose(_TO_KERAS) if value.ndim == len(_TO_KERAS) else value)


def _wanted(model: Any) -> dict[str, Any]:
    """Each of the model's variables by its name in PyTorch."""
    name_in_torch = model_family(model.name).torch_names if model.name in model_names() else None
    if name_in_torch is None:
        having = [name for name in model_names() if model_family(name).torch_names]
        raise WeightsError(f"weights from PyTorch are known for {', '.join(having)}, not for {model.name}")
    layers = name_in_torch([layer.name for layer in model.layers])
    return {
        f"{layers[layer.name]}.{_VARIABLES[variable.name]}": variable
        for layer in model.layers
        for variable in layer.weights
    }


def _torch_shape(variable: Any) -> tuple[int, ...]:
    shape = tuple(variable.shape)
    if len(shape) != len(_TO_KERAS):
        return shape
    return tuple(shape[_TO_KERAS.index(axis)] for axis in range(len(_TO_KERAS)))


def _without_prefix(weights: dict[str, Any]) -> dict[str, Any]:
    if not all(name.startswith(_PARALLEL) for name in weights):
        return weights
    return {name.removeprefix(_PARALLEL): value for name, value in weights.items()}


def _listed(names: Iterable[str]) -> str:
    """The first of them, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - _LISTED} more" if len(every) > _LISTED else ""
    return ", ".join(every[:_LISTED]) + more
