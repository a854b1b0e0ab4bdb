"""Checkpoints: a ``.keras`` file with architecture and weights, which Keras alone can read.

The optimizer's state is not in it, nor a loss or metric of ours: nothing has to be registered to load it. A further
member of the zip, ``training.json``, says what it was trained on, how, and with which code; Keras does not look at it.
"""

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from training.errors import CheckpointError, MemoryExhaustedError
from training.files import atomic_path
from training.memory import memory_errors
from training.models.blocks.dilation import use_dilated_kernels
from training.outputs import existing_checkpoint

_ORIGIN = "training.json"


def save_checkpoint(model: Any, path: Path, origin: Mapping[str, Any] | None = None) -> None:
    """Write an uncompiled ``keras.Model``, atomically, with its ``origin`` as JSON (see `read_origin`)."""
    with atomic_path(path) as temporary:
        model.save(temporary)
        if origin is not None:
            with zipfile.ZipFile(temporary, "a") as file:
                file.writestr(_ORIGIN, json.dumps(origin, indent=2, ensure_ascii=False))


def read_origin(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What a checkpoint was trained on: dataset id, provenance, model, options, code, epoch; None where it does not
    say. Raises `CheckpointError` for a file that is missing or damaged. Loads no model.
    """
    file = existing_checkpoint(path)
    try:
        with zipfile.ZipFile(file) as members:
            if _ORIGIN not in members.namelist():
                return None
            origin = json.loads(members.read(_ORIGIN))
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise _damaged(file, error) from error
    return dict(origin)


def load_checkpoint(path: str | os.PathLike[str]) -> Any:
    """Read a ``keras.Model`` that maps photos with any further channels, (B, H, W, C ≥ 3), to masks of their size,
    (B, H, W, classes), or to several such masks, the first of which counts.

    Raises `CheckpointError` for a file that is missing, damaged, or holds another kind of model, and
    `MemoryExhaustedError`. Code in it is not run.
    """
    file = existing_checkpoint(path)
    try:
        with memory_errors(f"loading {file}", "free some by ending what else runs", "load it on the CPU"):
            model = keras.models.load_model(file, compile=False, safe_mode=True)
    except MemoryExhaustedError:
        raise
    except Exception as error:  # zipfile, h5py, JSON, Keras: each has its own, none has a common base
        raise _damaged(file, error) from error
    inputs, outputs = getattr(model, "input_shape", None), _first(getattr(model, "output_shape", None))
    if not (inputs and _is_image(inputs) and _is_image(outputs) and inputs[3] >= 3 and inputs[1:3] == outputs[1:3]):
        raise CheckpointError(f"the checkpoint {file} maps {inputs} to {outputs}: not photos to masks of their size")
    return use_dilated_kernels(model)


def classes_of(model: Any) -> int:
    """How many classes its first output tells apart; 1 is one subject."""
    return int(_first(model.output_shape)[3])


def copy_weights(source: Any, target: Any, name: str) -> None:
    """Give ``target`` the weights of ``source``, whose photos may be of another size.

    ``name`` tells in `CheckpointError` where ``source`` is from, if it is another model.
    """
    theirs, ours = source.weights, target.weights
    if len(theirs) != len(ours):
        raise CheckpointError(
            f"{name} has {len(theirs)} arrays of weights, and the model {target.name} has {len(ours)}: "
            "begin from a checkpoint of the same model, options and classes"
        )
    for old, new in zip(theirs, ours, strict=True):
        if tuple(old.shape) != tuple(new.shape):
            raise CheckpointError(
                f"{name} has {old.path} of {tuple(old.shape)} where the model {target.name} has {new.path} of "
                f"{tuple(new.shape)}: begin from a checkpoint of the same model, options, classes and inputs"
            )
    for old, new in zip(theirs, ours, strict=True):
        new.assign(keras.ops.copy(old.value))  # JAX would share the buffer, and give it away with the next step


def _damaged(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"the checkpoint {file} cannot be read, it is damaged or not a .keras file: {error}")


def _first(shape: Any) -> Any:
    """The shape of the first output, where there are several."""
    return shape[0] if isinstance(shape, list) and shape else shape


def _is_image(shape: Any) -> bool:
    """Whether it is (batch, height, width, channels), all but the batch known."""
    return isinstance(shape, tuple) and len(shape) == 4 and None not in shape[1:]
