"""Files that are complete or absent: temporary name in the same folder, fsync, rename, fsync of the folder.

And which files of others can be read at all.
"""

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pydantic_core import from_json, to_json

from .errors import DiskFullError, is_disk_full


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Write ``path`` whole or not at all; raises `DiskFullError` when the disk is full."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(f"no space left on the disk of {path.parent}; free some and ask again") from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, indent: int | None = None) -> None:
    """Write ``value`` as JSON with sorted keys, atomically."""
    separators = None if indent else (",", ":")
    text = json.dumps(value, sort_keys=True, indent=indent, separators=separators, ensure_ascii=False)
    with atomic_file(path) as file:
        file.write(text.encode() + b"\n")


def write_large_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON with its keys in their order, atomically: many times as fast.

    What JSON does not have, such as a tuple or a path, is written as what comes nearest.
    """
    with atomic_file(path) as file:
        file.write(to_json(value, inf_nan_mode="constants") + b"\n")


def parse_large_json(data: bytes) -> Any:
    """What `json.loads` makes of it, more than twice as fast; raises `ValueError`."""
    try:
        return from_json(data, cache_strings="keys")
    except ValueError:
        return json.loads(data)  # reads other encodings and halves of surrogate pairs, too


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_bytes())


def is_readable(path: Path) -> bool:
    """Whether reading ``path`` comes to an end: a pipe or device may have none. What is missing is told when read."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:  # a link to nowhere, for one
        return True
