"""What a handler's processes may do: how much of the machine they may use, and which files they may touch.

Decided here, applied by `supervisor.py`: limits by watching the process tree and by setrlimit(2), files by Landlock
(Linux 5.19 or newer; docs.kernel.org/userspace-api/landlock.html), and by a filter of system calls what Landlock does
not guard: modes, owners, times and attributes, and what would stay in the kernel. Landlock knows no exceptions to what
is allowed, so nothing that holds a secret lies below what is named here:

- the system's programs and libraries, the base interpreter and the handler's own environment: read and run;
- raw data, some files of ``/etc``, ``/proc`` and what ``/sys`` says about processors and memory: read. A process that
  is confined cannot look into one that is not, so environments and memory of others in ``/proc`` stay shut, also to
  root;
- ``/dev/shm``: made and opened by name, not listed; `multiprocessing` keeps its locks there. What is left of a user's
  new files there when the command has ended, and nobody has open, is removed;
- the command's own folder: everything but running what lies there.
"""

import contextlib
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from .room import bytes_to_keep_free
from .settings import Settings

# <linux/landlock.h>
EXECUTE: Final = 1 << 0
WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
REMOVE_DIR: Final = 1 << 4
REMOVE_FILE: Final = 1 << 5
MAKE_CHAR: Final = 1 << 6
MAKE_DIR: Final = 1 << 7
MAKE_REG: Final = 1 << 8
MAKE_SOCK: Final = 1 << 9
MAKE_FIFO: Final = 1 << 10
MAKE_BLOCK: Final = 1 << 11
MAKE_SYM: Final = 1 << 12
REFER: Final = 1 << 13
TRUNCATE: Final = 1 << 14  # ABI 3
IOCTL_DEV: Final = 1 << 15  # ABI 5
_NET_TCP: Final = 0b11  # ABI 4: bind, connect
_SCOPED: Final = 0b11  # ABI 6: abstract Unix sockets, signals

#: Below ABI 2 no file could be moved from one folder to another, not even in a handler's own.
OLDEST_ABI: Final = 2

_LOOK: Final = READ_FILE | READ_DIR
_RUN: Final = _LOOK | EXECUTE
_OWN: Final = (1 << 16) - 1 & ~(EXECUTE | MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV)
_BY_NAME: Final = READ_FILE | WRITE_FILE | TRUNCATE | MAKE_REG | REMOVE_FILE

_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
_FACTS = (
    "/proc",
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/dev/urandom",
    "/dev/random",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/mime.types",
    "/etc/fonts",
)
_NETWORK_FACTS = (
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/resolv.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/ssl/certs",
    "/etc/ca-certificates",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
)
_OPEN_FILES = 65536
_THREADS_OF_A_PROCESS = 64  # on average

#: By machine: its number in <linux/audit.h>, the system calls that do nothing and say that they did, those that are
#: refused, and those that a process may do to itself alone, which it names by 0 (<asm/unistd.h>). Modes and times are
#: of the first kind, since who copies a file with `shutil` sets both and would fail; and so are priorities and the
#: choice of processors, by which any process of the same user can be slowed down. Owners, attributes, and a way around
#: all this (io_uring) are of the second, and so are memory, semaphores and queues of System V, and POSIX queues
#: (mq_overview(7)): they outlive who made them, and nothing removes them. Of the third are limits: the server's could
#: be set to nothing.
_CALLS: Final[dict[str, tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]]]] = {
    "x86_64": (
        0xC000003E,
        # chmod, fchmod, fchmodat, fchmodat2; utime, utimes, futimesat, utimensat
        # setpriority, ioprio_set, sched_setparam, sched_setscheduler, sched_setaffinity, sched_setattr
        (90, 91, 268, 452, 132, 235, 261, 280, 141, 251, 142, 144, 203, 314),
        # chown, fchown, lchown, fchownat; setxattr, lsetxattr, fsetxattr, setxattrat and the same for remove…;
        # file_setattr; io_uring_setup; shmget, semget, msgget, mq_open
        (92, 93, 94, 260, 188, 189, 190, 463, 197, 198, 199, 466, 469, 425, 29, 64, 68, 240),
        (302,),  # prlimit64
    ),
    "aarch64": (
        0xC00000B7,
        (52, 53, 452, 88, 140, 30, 118, 119, 122, 274),
        (54, 55, 5, 6, 7, 463, 14, 15, 16, 466, 469, 425, 194, 190, 186, 180),
        (261,),
    ),
}


@dataclass(frozen=True)
class Limits:
    """How much one command may use, with all its processes together; None is no limit.

    ``memory`` in bytes, ``cpu_time`` in seconds; ``file_size`` in bytes for each file, ``open_files`` for each process;
    ``disk_free`` are the bytes that it must leave free on the disk it works on.
    """

    memory: int | None = None
    cpu_time: float | None = None
    processes: int | None = None
    threads: int | None = None
    file_size: int | None = None
    open_files: int | None = None
    disk_free: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As the supervisor reads it."""
        return asdict(self)


@dataclass(frozen=True)
class Confinement:
    """What one command may do. ``reads``: folders it may read beside its own and the system's."""

    limits: Limits
    reads: tuple[Path, ...]
    network: bool = False


def for_handlers(settings: Settings) -> Confinement:
    """What handlers may do by the settings, and by what lies under the raw root now."""
    processes = 1 + settings.workers_of_a_build + settings.handler_processes
    limits = Limits(
        memory=settings.handler_memory,
        cpu_time=settings.handler_cpu_time,
        processes=processes,
        threads=processes * _THREADS_OF_A_PROCESS,
        file_size=settings.handler_file_size,
        open_files=_OPEN_FILES,
        disk_free=_disk_free(settings),
    )
    return Confinement(limits, _reads(settings), settings.handler_network)


def _reads(settings: Settings) -> tuple[Path, ...]:
    return (settings.raw_root, *linked_folders(settings.raw_root), *settings.handler_reads)


def _disk_free(settings: Settings) -> int | None:
    """What the server leaves free of its disk; None where that cannot be known now."""
    try:
        return bytes_to_keep_free(settings.disk_reserve, shutil.disk_usage(settings.data_dir).total)
    except OSError:
        return settings.disk_reserve


def linked_folders(raw_root: Path) -> list[Path]:
    """Where raw folders are that lie elsewhere, with only a symbolic link under the raw root.

    Links that lead nowhere are left out, and so are all where the raw root cannot be listed: a disk that is not mounted
    is the handler's trouble when it looks for its data there.
    """
    found = []
    with contextlib.suppress(OSError), os.scandir(raw_root) as entries:
        for entry in entries:
            if entry.is_symlink():
                with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: links in a circle, before Python 3.13
                    found.append(Path(entry.path).resolve())
    return sorted(found)


def rules(confinement: Confinement, python: Path, folder: Path, abi: int) -> dict[str, Any] | None:
    """The Landlock rules for an environment's interpreter ``python``, at work in ``folder``; None if there is none.

    ``abi`` is the kernel's Landlock version, 0 where it has none. As the supervisor reads it.
    """
    if abi < OLDEST_ABI:
        return None
    handled = _handled(abi)
    runs = [*map(Path, _PROGRAMS), python.parent.parent, *_base_prefix(python)]
    facts = [*map(Path, _FACTS), *Path("/etc").glob("python3*")]
    if confinement.network:
        facts += map(Path, _NETWORK_FACTS)
    beneath = [
        *_each(runs, _RUN),
        *_each([*facts, *confinement.reads], _LOOK),
        *_each([Path("/dev/null"), Path("/dev/zero"), Path("/dev/full")], READ_FILE | WRITE_FILE),
        *_each([Path("/dev/shm")], _BY_NAME),  # noqa: S108 - multiprocessing's, not ours
        *_each([folder], _OWN),
    ]
    return {
        "fs": handled,
        "net": _NET_TCP if abi >= 4 and not confinement.network else 0,
        "scoped": _SCOPED if abi >= 6 else 0,
        "beneath": [[path, access & handled] for path, access in beneath],
    }


def _handled(abi: int) -> int:
    """All rights that a kernel of this version knows."""
    newer = {TRUNCATE: 3, IOCTL_DEV: 5}
    return sum(1 << bit for bit in range(16) if newer.get(1 << bit, OLDEST_ABI) <= abi)


def _each(paths: Iterable[Path], access: int) -> list[tuple[str, int]]:
    return [(str(path), access) for path in paths]


def _base_prefix(python: Path) -> list[Path]:
    """Where the interpreter behind an environment's lives with its library; never the whole machine."""
    prefix = python.resolve().parent.parent
    return [] if prefix == Path(prefix.anchor) else [prefix]


def calls(*, filters: bool) -> dict[str, Any] | None:
    """The system calls that a handler does without, as the supervisor reads them; None if there is no such filter.

    ``filters`` is whether the kernel has any.
    """
    machine, void, refused, own = _CALLS.get(platform.machine(), (0, (), (), ()))
    return {"machine": machine, "void": void, "refused": refused, "own": own} if machine and filters else None


def gaps(settings: Settings, abi: int, *, filters: bool = True) -> Sequence[str]:
    """What handlers could do on this machine that they should not: a sentence for each.

    ``abi`` as for `rules`, ``filters`` as for `calls`.
    """
    if abi < OLDEST_ABI:
        return ["this kernel has no Landlock (Linux 5.19): handlers can write to raw data and read the server's files"]
    found = []
    if calls(filters=filters) is None:
        found.append(
            "system calls are not filtered on this machine: handlers can change modes and times of our files, and the "
            "limits of this server's processes"
        )
    if abi < 3:
        found.append("this kernel's Landlock is older than Linux 6.2: handlers could cut off raw files")
    if abi < 4 and not settings.handler_network:
        found.append("this kernel's Landlock is older than Linux 6.7: handlers can reach the network")
    if abi < 6:
        found.append("this kernel's Landlock is older than Linux 6.12: handlers can send signals to this server")
    open_to_all = [*map(Path, _PROGRAMS), *_base_prefix(Path(shutil.which(settings.python) or sys.executable))]
    open_to_all = [path.resolve() for path in (*open_to_all, *_reads(settings))]
    for name in ("data_dir", "environments"):
        kept: Path = getattr(settings, name).resolve()
        if around := [path for path in open_to_all if kept.is_relative_to(path)]:
            found.append(f"{name} lies in {around[0]}, which handlers may read: move it elsewhere")
    return found
