"""Files and folders that survive a power cut: written aside, flushed, renamed, and the rename flushed as well."""

import ctypes
import os
import sys
from pathlib import Path


def write_file(path: Path, content: bytes, aside: Path) -> None:
    """Give ``path`` a content all at once; ``aside`` is where it is written first, on the same file system."""
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    sync_folder(path.parent)


def publish_folder(made: Path, target: Path) -> None:
    """Rename a folder with all that is in it to where it is looked for; raises `OSError` if something is there."""
    _sync_file_system(made)  # thousands of files: one call costs less than one for each
    made.rename(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file_system(path: Path) -> None:
    if sys.platform != "linux":
        os.sync()
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)
