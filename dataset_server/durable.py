"""Files and folders: written so that they survive a power cut, and read and removed without trust in who made them.

What survives is written aside, flushed, renamed, and the rename flushed as well.
"""

import contextlib
import ctypes
import errno
import logging
import os
import stat
import sys
import tempfile
import uuid
from collections.abc import Iterator
from io import BufferedReader, FileIO
from pathlib import Path

from .errors import HandlerFaultError

logger = logging.getLogger(__name__)

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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


def read_bounded(path: Path, limit: int) -> bytes:
    """The content of a file that a handler may have made, of at most ``limit`` bytes.

    Raises `FileNotFoundError`, or `HandlerFaultError` (``handler_protocol``) for a link, a pipe or other special file,
    or more bytes; links in the folders above are not looked for (`runner.refuse_links` does).
    """
    with BufferedReader(open_regular(path)) as file:
        content = b"" if os.fstat(file.fileno()).st_size > limit else file.read(limit + 1)
        if max(os.fstat(file.fileno()).st_size, len(content)) > limit:
            raise _odd(path, f"is larger than {limit} bytes")
    return content


def open_below(folder: Path, path: str) -> int:
    """Open a file without following any link below ``folder``, and without waiting for who writes to a pipe; raises
    `OSError` (ELOOP, ENOTDIR, ENXIO) for those.
    """
    *folders, name = path.split("/")
    parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folders:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            os.close(parent)
            parent = below
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    finally:
        os.close(parent)


def open_regular(path: Path) -> FileIO:
    """Open a file that a handler may have made, to be read; raises as `read_bounded` does, and other `OSError`."""
    try:
        # Without O_NONBLOCK, opening a pipe waits for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENOTDIR):
            raise _odd(path, "is no regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _odd(path, "is no regular file")
    return FileIO(descriptor)


def _odd(path: Path, what: str) -> HandlerFaultError:
    return HandlerFaultError("handler_protocol", f"the handler's {path.name} {what}")


def remove_tree(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it, however deep and whatever the modes of its folders.

    Never raises `OSError`: what cannot be removed stays, and is logged.
    """
    failures: list[OSError] = []
    try:
        if stat.S_ISDIR(path.lstat().st_mode):
            _make_ours(path, None)
            top = os.open(path, _FOLDER)
            try:
                _empty(top, failures)
            finally:
                os.close(top)
            path.rmdir()
        else:
            path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        failures.append(error)
    if failures:
        logger.warning("%s cannot be removed: %s, and %d more failures", path, failures[0], len(failures) - 1)


def _empty(top: int, failures: list[OSError]) -> None:
    """Remove all that is in a folder; what lies deep is lifted into the folder itself first, one level at a time."""
    waiting = _clear(top, top, failures)
    while waiting:
        name = waiting.pop()
        try:
            folder = os.open(name, _FOLDER, dir_fd=top)
            try:
                waiting += _clear(folder, top, failures)
            finally:
                os.close(folder)
            os.rmdir(name, dir_fd=top)
        except OSError as error:
            failures.append(error)


def _clear(folder: int, top: int, failures: list[OSError]) -> list[str]:
    """Remove the files in a folder, and move the folders in it to ``top``; returns their names there."""
    lifted: set[str] = set()
    is_less = True
    while is_less:  # names may be passed over while others go (readdir(3)), so they are read until none goes any more
        is_less, failed = False, []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name in lifted:
                    continue
                try:
                    if entry.is_dir(follow_symlinks=False):
                        lifted.add(_lift(entry.name, folder, top))
                    else:
                        os.unlink(entry.name, dir_fd=folder)
                    is_less = True
                except OSError as error:
                    failed.append(error)
    failures += failed
    return list(lifted)


def _lift(name: str, folder: int, top: int) -> str:
    """Move a folder to ``top``; returns its name there."""
    _make_ours(name, folder)
    if folder == top:
        return name
    there = uuid.uuid4().hex
    os.rename(name, there, src_dir_fd=folder, dst_dir_fd=top)
    return there


def _make_ours(name: Path | str, within: int | None) -> None:
    """Give a folder the modes it is emptied and moved with."""
    with contextlib.suppress(PermissionError):  # not the owner; it may do as it is
        os.chmod(name, stat.S_IRWXU, dir_fd=within)


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A new folder for foreign code to work in, among the temporary files; removed with what is in it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        remove_tree(folder)
