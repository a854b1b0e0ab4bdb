"""The state of a training between two steps: all that is needed to go on as if nothing had happened.

One file, ``state.npz``: an uncompressed zip (whose CRC-32s are checked when it is read) of

::

    state.json      format, what is trained on what (to refuse another), where the training stands, names of variables
    0.npy, 1.npy …  the variables in order: of the model with the seeds of its random layers, of the optimizer with
                    averaged weights and accumulated gradients, and of the metric of the epoch under way

Written under another name and renamed: whenever the process dies, the last whole state is there.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.errors import StateError
from training.files import atomic_path

_FORMAT = 1
_HEAD = "state.json"


@dataclass(frozen=True, eq=False)
class State:
    """``subject`` says what is trained on what, ``progress`` where it stands; both are plain JSON."""

    subject: dict[str, Any]
    progress: dict[str, Any]
    names: list[str]
    arrays: list[np.ndarray]


def save_state(path: Path, subject: Mapping[str, Any], progress: Mapping[str, Any], variables: Sequence[Any]) -> None:
    """Write what Keras ``variables`` hold, atomically."""
    head = {
        "format": _FORMAT,
        "subject": subject,
        "progress": progress,
        "variables": [variable.path for variable in variables],
    }
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file:
        file.writestr(_HEAD, json.dumps(head, allow_nan=False))
        for number, variable in enumerate(variables):
            with file.open(f"{number}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, _to_numpy(variable), allow_pickle=False)


def read_state(path: Path) -> State:
    """The state in a file. Raises `StateError` if it is missing, damaged, or none of ours."""
    if not path.is_file():
        raise StateError(f"there is no state {path} to resume from: begin anew, without resume")
    try:
        with zipfile.ZipFile(path) as file:
            head = json.loads(file.read(_HEAD))
            names = list(head["variables"])
            arrays = []
            for number in range(len(names)):
                with file.open(f"{number}.npy") as member:
                    arrays.append(np.lib.format.read_array(member, allow_pickle=False))
                    if member.read(1):  # to the end, where the CRC is compared
                        raise StateError(f"the state {path} is damaged: variable {number} is longer than it says")
        if head["format"] != _FORMAT:
            raise StateError(
                f"the state {path} has format {head['format']}, this version reads {_FORMAT}: resume with the version "
                "that wrote it, or begin anew with overwrite"
            )
        return State(dict(head["subject"]), dict(head["progress"]), names, arrays)
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, EOFError, OSError, NotImplementedError) as error:
        raise StateError(
            f"the state {path} is damaged ({error}): begin anew with overwrite, or from best.keras with init"
        ) from error


def restore(state: State, variables: Sequence[Any], path: Path) -> None:
    """Give ``variables`` the values of a state. Raises `StateError`, before the first is changed, if they differ."""
    fault = None
    if len(variables) != len(state.arrays):
        fault = f"it has {len(state.arrays)} variables, the training has {len(variables)}"
    for variable, array, name in zip(variables, state.arrays, state.names, strict=False):
        if fault is None and tuple(variable.shape) != array.shape:
            fault = f"{name} is {array.shape}, {variable.path} of the training is {tuple(variable.shape)}"
    if fault is not None:
        raise StateError(f"the state {path} is of another model or optimizer: {fault}")
    for variable, array in zip(variables, state.arrays, strict=True):
        variable.assign(array)


def require_same(state: State, subject: Mapping[str, Any], path: Path) -> None:
    """Raise `StateError` for a state of another training, saying what differs."""
    for name in sorted({*state.subject, *subject}):
        was, now = state.subject.get(name), subject.get(name)
        if was != now:
            raise StateError(
                f"the state {path} is of another training: {name} was {was!r} and is {now!r}; "
                "resume with what it was, name another directory, or begin anew with overwrite"
            )


def _to_numpy(variable: Any) -> np.ndarray:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(variable.value))
