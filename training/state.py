"""The state of a training between two steps: all that is needed to go on as if nothing had happened.

One file, ``state.npz``: an uncompressed zip (whose CRC-32s are checked when it is read) of

::

    state.json      format, what is trained on what (to refuse another), where the training stands, names of variables
    0.npy, 1.npy …  the variables in order: of the model with the seeds of its random layers, of the optimizer with
                    averaged weights and accumulated gradients, and of the metric of the epoch under way
    random.….npy    states of generators that are no variables, by name (see `training.randomness`)

Written under another name and renamed: whenever the process dies, the last whole state is there.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    random: dict[str, np.ndarray] = field(default_factory=dict)


def save_state(
    path: Path,
    subject: Mapping[str, Any],
    progress: Mapping[str, Any],
    variables: Sequence[Any],
    random: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write what Keras ``variables`` hold, and states of generators, atomically."""
    random = random or {}
    head = {
        "format": _FORMAT,
        "subject": subject,
        "progress": progress,
        "variables": [variable.path for variable in variables],
        "random": list(random),
    }
    members = [(f"{number}.npy", variable) for number, variable in enumerate(variables)]
    members += [(f"random.{name}.npy", state) for name, state in random.items()]
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file:
        file.writestr(_HEAD, json.dumps(head, allow_nan=False))
        for name, value in members:
            with file.open(name, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, _to_numpy(value), allow_pickle=False)


def read_state(path: Path) -> State:
    """The state in a file. Raises `StateError` if it is missing, damaged, or none of ours."""
    if not path.is_file():
        raise StateError(f"there is no state {path} to resume from: begin anew, without resume")
    try:
        with zipfile.ZipFile(path) as file:
            head = json.loads(file.read(_HEAD))
            names = list(head["variables"])
            arrays = [_read_array(file, f"{number}.npy") for number in range(len(names))]
            random = {str(name): _read_array(file, f"random.{name}.npy") for name in head["random"]}
        if head["format"] != _FORMAT:
            raise StateError(
                f"the state {path} has format {head['format']}, this version reads {_FORMAT}: resume with the version "
                "that wrote it, or begin anew with overwrite"
            )
        return State(dict(head["subject"]), dict(head["progress"]), names, arrays, random)
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


def _read_array(file: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array; raises `ValueError` if more follows it, or what `zipfile` does where its CRC is another."""
    with file.open(name) as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        if member.read(1):  # to the end, where the CRC is compared
            raise ValueError(f"{name} is longer than it says")
    return np.asarray(array)


def _to_numpy(value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    import keras

    return np.asarray(keras.ops.convert_to_numpy(value.value))
