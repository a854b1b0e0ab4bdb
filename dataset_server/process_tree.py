"""What processes there are below us, what they take, and what they left in shared memory (Linux, /proc)."""

# Neither pathlib, contextlib nor typing: importing them takes time, and `supervisor` loads this.
# ruff: noqa: PTH108, PTH115, PTH123, PTH208, SIM105

from __future__ import annotations

import os
import resource
import stat

_SHARED = "/dev/shm"  # noqa: S108 - multiprocessing's, not ours
_PAGE = resource.getpagesize()


def read(path: str) -> bytes:
    """What a file of /proc says; nothing if the process has gone."""
    try:
        with open(path, "rb", 0) as file:
            return file.read()
    except OSError:
        return b""


def descendants() -> dict[int, list[str]]:
    """All descendants, each with its threads."""
    found: dict[int, list[str]] = {}
    waiting = [os.getpid()]
    while waiting:
        process = waiting.pop()
        try:
            threads = os.listdir(f"/proc/{process}/task")
        except OSError:
            threads = []
        found[process] = threads
        for thread in threads:
            waiting += [int(child) for child in read(f"/proc/{process}/task/{thread}/children").split()]
    del found[os.getpid()]
    return found


def usage_of(process: int, threads: list[str]) -> tuple[str, int]:
    """Bytes of memory that a process has mapped and that are there.

    First comes the thread by which they are known: a process whose main thread has ended seems to have no memory.
    """
    for thread in (str(process), *threads):
        fields = _stat(thread)
        if fields and fields[0] not in (b"Z", b"X"):
            return thread, int(fields[21]) * _PAGE
    return str(process), 0


def ticks_of(process: int) -> tuple[bytes, int, int]:
    """When a process started, which tells it from a later one of that number; its CPU time, and that of children which
    it has waited for, in ticks. Nothing and zero if it has gone.
    """
    fields = _stat(str(process))
    return (fields[19] if fields else b""), sum(map(int, fields[11:13])), sum(map(int, fields[13:15]))


def _stat(task: str) -> list[bytes]:
    """What proc_pid_stat(5) lists, from the third field on."""
    return read(f"/proc/{task}/stat").rpartition(b")")[2].split()


def proportional(thread: str, resident: int) -> int:
    """Bytes of a process's own, its share of what it shares with others included; files' pages are left out."""
    rollup = read(f"/proc/{thread}/smaps_rollup")
    if not rollup:
        return resident  # gone, or it hides itself
    parts = (line.split() for line in rollup.splitlines())
    return sum(int(part[1]) * 1024 for part in parts if part[0] in (b"Pss_Anon:", b"Pss_Shmem:"))


def shared_files() -> set[str]:
    """The names of what lies in shared memory."""
    try:
        return set(os.listdir(_SHARED))
    except OSError:
        return set()


def clear_shared(before: set[str]) -> None:
    """Remove files of our user that came to lie in shared memory meanwhile, unless somebody has them open."""
    left = set()
    for name in shared_files() - before:
        try:
            found = os.lstat(f"{_SHARED}/{name}")
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
            left.add(name)
    if not left:
        return
    used = _in_use()
    for name in left:
        if f"{_SHARED}/{name}" not in used:
            try:
                os.unlink(f"{_SHARED}/{name}")
            except OSError:
                pass


def _in_use() -> set[str]:
    """The files in shared memory that a process has open or mapped, as far as we may know."""
    used = set()
    for process in os.listdir("/proc"):
        if not process.isdigit():
            continue
        maps = read(f"/proc/{process}/maps").decode(errors="surrogateescape")
        used |= {f"{_SHARED}/{line.partition(_SHARED + '/')[2]}" for line in maps.splitlines() if _SHARED in line}
        try:
            descriptors = os.listdir(f"/proc/{process}/fd")
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                used.add(os.readlink(f"/proc/{process}/fd/{descriptor}"))
            except OSError:
                pass
    return used
