"""Names and lifetimes of temporary files in a cache that several processes, perhaps on several machines,
share.

A temporary name carries its owner: ``<host>-<pid>-<random hex>``. Nobody touches another's files while the
owner may be alive. An owner on this machine is dead when its process is gone; one elsewhere when its file
has not changed for a day. So no lock is needed, which matters because locks lie on network file systems.
"""

import contextlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dataset_client.errors import CacheError

ABANDONED_AFTER_S = 24 * 3600.0

_OWNER = re.compile(r"(?P<host>[A-Za-z0-9_]+)-(?P<pid>[0-9]+)-[0-9a-f]{12}")
_HOST = re.sub(r"[^A-Za-z0-9_]", "_", socket.gethostname())[:64] or "host"


@dataclass(frozen=True)
class Owner:
    """Who made a temporary file: a machine and a process on it."""

    host: str
    pid: int


def new_owner_name() -> str:
    """A temporary name of this process that nobody else will choose."""
    return f"{_HOST}-{os.getpid()}-{secrets.token_hex(6)}"


def parse_owner(name: str) -> Owner | None:
    """The owner in a temporary name; None if it has none."""
    match = _OWNER.fullmatch(name)
    return Owner(match["host"], int(match["pid"])) if match else None


def is_abandoned(owner: Owner, *, age_s: float, own_host: str, pid_lives: bool) -> bool:
    """Whether the files of ``owner``, last changed ``age_s`` seconds ago, may be taken over or removed."""
    if owner.host == own_host and not pid_lives:
        return True
    # A pid may have been given to another process since, so a living one proves nothing for ever.
    return age_s > ABANDONED_AFTER_S


def path_is_abandoned(path: Path, owner_name: str) -> bool:
    """`is_abandoned` for a path whose name contains ``owner_name``; False for foreign names and vanished
    paths.
    """
    owner = parse_owner(owner_name)
    if owner is None:
        return False
    try:
        age_s = time.time() - path.stat().st_mtime
    except OSError:
        return False
    return is_abandoned(owner, age_s=age_s, own_host=_HOST, pid_lives=_pid_lives(owner.pid))


def _pid_lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


@contextlib.contextmanager
def temporary_directory(parent: Path) -> Iterator[Path]:
    """A new directory in ``parent``, gone at the end of the block unless it was renamed away."""
    path = parent / new_owner_name()
    with cache_errors(path):
        path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def remove_abandoned(parent: Path) -> None:
    """Remove what dead runs left in ``parent``."""
    for path in list(parent.iterdir()):
        if path_is_abandoned(path, path.name):
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def cache_errors(path: Path) -> Iterator[None]:
    """Translate an `OSError` of the block into a `CacheError` that names ``path``."""
    try:
        yield
    except OSError as error:
        raise CacheError(f"{error.filename or path}: {error.strerror or error}") from error


def fsync_directory(path: Path) -> None:
    """Make renames in ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, text: str, *, scratch: Path) -> None:
    """Write a small file so that readers see the old or the new one; ``scratch`` is on the same file
    system.
    """
    temporary = scratch / new_owner_name()
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(path.parent)
