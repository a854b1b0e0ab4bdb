"""Names and lifetimes of temporary files in a cache that several processes, perhaps on several machines,
share.

A temporary name carries its owner: ``<place>-<pid>-<random hex>``, where the place is a host, a boot of it and a pid
namespace in it. Nobody touches another's files while the owner may be alive. An owner in this place is dead when its
process is gone; one elsewhere when its file has not changed for a day. So no lock is needed, which matters because
locks lie on network file systems.
"""

import contextlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from dataset_client.errors import CacheError

ABANDONED_AFTER_S = 24 * 3600.0

_OWNER = re.compile(r"(?P<place>[A-Za-z0-9_]+)-(?P<pid>[0-9]+)-[0-9a-f]{12}")


def _find_place() -> str:
    """Where pids of this process mean the same: the host, its boot, and the pid namespace, which containers that share
    the other two have of their own. The last two are left out where there is no /proc.
    """
    parts = [socket.gethostname()[:64]]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip().replace("-", ""))
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return re.sub(r"[^A-Za-z0-9]", "_", "_".join(parts)) or "host"


_PLACE = _find_place()


def new_owner_name() -> str:
    """A temporary name of this process that nobody else will choose."""
    return f"{_PLACE}-{os.getpid()}-{secrets.token_hex(6)}"


def is_abandoned(path: Path, owner: str) -> bool:
    """Whether ``path``, whose name contains ``owner``, may be taken over or removed; False for names that are not
    ours.
    """
    match = _OWNER.fullmatch(owner)
    if match is None:
        return False
    if match["place"] == _PLACE and not _pid_lives(int(match["pid"])):
        return True
    try:  # a pid may have been given to another process since, so a living one proves nothing for ever
        status = path.stat()
    except OSError:
        return False
    # what was moved here is as old as it was, but for the inode's own time
    return time.time() - max(status.st_mtime, status.st_ctime) > ABANDONED_AFTER_S


def is_dead(owner: str) -> bool:
    """Whether the process that chose this name is known to be gone; False for one elsewhere, of which nothing is known,
    and for names that are not ours.
    """
    match = _OWNER.fullmatch(owner)
    return match is not None and match["place"] == _PLACE and not _pid_lives(int(match["pid"]))


def describe_owner(owner: str) -> str:
    """Who chose this name, for people."""
    match = _OWNER.fullmatch(owner)
    return f"process {match['pid']} on {match['place'].partition('_')[0]}" if match else owner


def file_system_time(scratch: Path) -> float:
    """What time it is by the clock of the file system that ``scratch`` is on, which for NFS is the server's.

    Ages of files mean something only by that clock. Raises `OSError`.
    """
    probe = scratch / new_owner_name()
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _pid_lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def remove_abandoned(parent: Path) -> None:
    """Remove what dead runs left in ``parent``."""
    for path in list(parent.iterdir()):
        if is_abandoned(path, path.name):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):  # somebody else was faster
                    path.unlink()


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


def move(source: Path, target: Path) -> None:
    """Rename what nobody else renames, to a name that nobody else gives. Raises `OSError`.

    Over NFS a request whose answer is lost is sent again, and one that was done is then answered as if its source was
    not there: where the source is gone and the target is there, it was done.
    """
    try:
        source.replace(target)
    except FileNotFoundError:
        if source.exists() or not target.exists():
            raise


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
        move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(path.parent)
