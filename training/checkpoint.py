"""Checkpoints: a ``.keras`` file with architecture and weights, which Keras alone can read.

The optimizer's state is not in it, nor a loss or metric of ours: nothing has to be registered to load it.
"""

import os
from pathlib import Path
from typing import Any

import keras

from training.errors import CheckpointError
from training.files import atomic_path


def save_checkpoint(model: Any, path: Path) -> None:
    """Write an uncompiled ``keras.Model``, atomically."""
    with atomic_path(path) as temporary:
        model.save(temporary)


def load_checkpoint(path: str | os.PathLike[str]) -> Any:
    """Read a ``keras.Model`` that maps photos (B, H, W, 3) to masks (B, H, W, classes).

    Raises `CheckpointError` for a file that is missing, damaged, or holds another kind of model. Code in it
    is not run.
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"there is no checkpoint {file}: name a best.keras that a training has written")
    try:
        model = keras.models.load_model(file, compile=False, safe_mode=True)
    except Exception as error:  # zipfile, h5py, JSON, Keras: each has its own, none has a common base
        raise CheckpointError(
            f"the checkpoint {file} cannot be read, it is damaged or not a .keras file: {error}"
        ) from error
    inputs, outputs = getattr(model, "input_shape", None), getattr(model, "output_shape", None)
    if (
        inputs is None
        or outputs is None
        or not (_is_image(inputs) and _is_image(outputs) and inputs[3] == 3 and inputs[1:3] == outputs[1:3])
    ):
        raise CheckpointError(f"the checkpoint {file} maps {inputs} to {outputs}: not photos to masks of their size")
    return model


def _is_image(shape: Any) -> bool:
    """Whether it is (batch, height, width, channels), all but the batch known."""
    return isinstance(shape, tuple) and len(shape) == 4 and None not in shape[1:]
