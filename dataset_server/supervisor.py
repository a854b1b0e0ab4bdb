"""Stands between the server and one program: starts it within limits, watches its processes, and ends every one.

It runs in an interpreter of its own that loads two small modules of ours, and little of the standard library, so that
it starts quickly; it talks to `dataset_server.processes` in JSON lines. Standard input brings one::

    {"command": [...], "stdout": FD, "confined": bool, "landlock": RULES or null, "calls": CALLS or null,
     "limits": {"memory", "cpu_time", "processes", "threads", "file_size", "open_files", "disk_free"}}  each may be null

and is a lifeline from then on: when it closes, because the server wants an end or because the server was killed, the
program and all that came from it are killed. When nothing is left, standard output says how it went::

    {"status": INT or null, "breach": null or the name of a limit, "oom_kills": INT, "not_started": null or TEXT}

``status`` is the program's own, negative for a signal. RULES are numbers of <linux/landlock.h>, made in
`dataset_server.confinement`: ``{"fs", "net", "scoped", "beneath": [[path, access], ...]}``. CALLS are those of system
calls that do nothing, that are refused, and that a process may do to itself alone:
``{"machine", "void": [...], "refused": [...], "own": [...]}``.

Descendants cannot get away, whatever sessions they open: orphans are given to a "child subreaper" (prctl(2)), which
this process is, so that it has no children left only when there are no descendants left.
"""

# Neither pathlib, contextlib nor typing: importing them takes time.
# ruff: noqa: SIM105

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import sys
import time

from .process_tree import clear_shared, descendants, proportional, read, shared_files, ticks_of, usage_of
from .restraint import restrain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_INTERVAL = 0.25  # seconds between two looks at the tree
_EXACT_INTERVAL = 1.0  # seconds between two exact measurements of memory, which walk page tables
_DEAF = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_TICKS = os.sysconf("SC_CLK_TCK")
_STOPS_A_KILL = 16  # looks at the tree in which somebody new was met, after which it is killed all the same
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

_libc = ctypes.CDLL(None, use_errno=True)


def _read_order() -> dict[str, Any] | None:
    """The line that says what to do; None if the server has gone before."""
    line = b""
    while not line.endswith(b"\n"):
        chunk = os.read(0, 1 << 16)
        if not chunk:
            return None
        line += chunk
    order: dict[str, Any] = json.loads(line)
    return order


def _start(order: dict[str, Any]) -> tuple[int, str]:
    """Start the program; its process id, and why it could not be started, or nothing."""
    supervisor = os.getpid()
    trouble, tell = os.pipe()  # closes by itself when the program takes the child's place
    child = os.fork()
    if child == 0:
        try:
            _become(order, supervisor)
        except BaseException as error:
            os.write(tell, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(127)
    os.close(tell)
    os.close(order["stdout"])
    with os.fdopen(trouble, "rb") as reader:
        return child, reader.read().decode(errors="replace")


def _become(order: dict[str, Any], supervisor: int) -> NoReturn:
    """In the child: become the program."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (*_DEAF, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != supervisor:
        os._exit(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(order["stdout"], 1)
    os.close(order["stdout"])
    restrain(order)
    os.execvp(order["command"][0], order["command"])  # noqa: S606 - no shell is what we want


class _Watch:
    """Looks whether the tree keeps its limits.

    Memory is first bounded from above by the sum of resident sizes, which cost one short file for each process. These
    count what forked workers share once for each; only where they exceed the limit, the exact proportional set sizes
    are read, which cost a walk over page tables, and at most once a second.
    """

    def __init__(self, limits: dict[str, Any]) -> None:
        self._limits = limits
        self._next = 0.0
        self._next_exact = 0.0
        self._seen: dict[tuple[int, bytes], int] = {}
        self._gone = 0
        self._idle = all(limits[name] is None for name in ("memory", "cpu_time", "processes", "threads", "disk_free"))
        # A disk that is all but full already is not the program's doing, as long as it leaves half of that.
        self._disk_free = min(limits["disk_free"] or 0, _disk_free() // 2)

    def breach(self) -> str | None:
        """The name of a limit that is exceeded."""
        now = time.monotonic()
        if self._idle or now < self._next:
            return None
        limits, tree = self._limits, descendants()
        self._next = time.monotonic() + _INTERVAL
        if limits["processes"] is not None and len(tree) > limits["processes"]:
            return "processes"
        if limits["threads"] is not None and sum(map(len, tree.values())) > limits["threads"]:
            return "processes"
        if limits["disk_free"] is not None and _disk_free() < self._disk_free:
            return "disk"
        if limits["cpu_time"] is not None and self._cpu_time(list(tree)) > limits["cpu_time"]:
            return "cpu_time"
        if limits["memory"] is None:
            return None
        usage = [usage_of(process, threads) for process, threads in tree.items()]
        if sum(resident for _, resident in usage) > limits["memory"] and now >= self._next_exact:
            exact = sum(proportional(thread, resident) for thread, resident in usage)
            self._next_exact = time.monotonic() + _EXACT_INTERVAL
            if exact > limits["memory"]:
                return "memory"
        return None

    def _cpu_time(self, tree: list[int]) -> float:
        """Seconds that the tree has used, at least.

        Those who have gone are counted by whoever waited for them, and by what was last seen of each: the kernel counts
        children nowhere whose parent ignores SIGCHLD.
        """
        reaped = resource.getrusage(resource.RUSAGE_CHILDREN)  # children of ours
        seen: dict[tuple[int, bytes], int] = {}
        waited_for = 0
        for process in tree:
            started, own, children = ticks_of(process)
            if started:  # else it has gone meanwhile
                seen[process, started] = own
                waited_for += children
        for process, before in self._seen.keys() - seen.keys():
            started, own, _ = ticks_of(process)
            if started and started == before:  # not gone, but missed: who changes parents may be
                seen[process, started] = own
        self._gone += sum(own for key, own in self._seen.items() if key not in seen)
        self._seen = seen
        live = sum(seen.values())
        return max((live + waited_for) / _TICKS + reaped.ru_utime + reaped.ru_stime, (live + self._gone) / _TICKS)


def _disk_free() -> int:
    """Bytes that are free where the program works, which is where we were started."""
    try:
        disk = os.statvfs(".")
    except OSError:
        return sys.maxsize
    return disk.f_bavail * disk.f_frsize


def _reap(child: int, status: int | None) -> tuple[bool, int | None]:
    """Take note of whoever has ended: whether a descendant is left, and the status of ``child`` if it is known."""
    while True:
        try:
            ended, code = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False, status
        if ended == 0:
            return True, status
        if ended == child:
            status = os.waitstatus_to_exitcode(code)


def _watch(child: int, limits: dict[str, Any], woken: int) -> tuple[int | None, str | None]:
    """Wait for the program's end, the server's word or a breach; the program's status, and the breach."""
    watch = _Watch(limits)
    while True:
        ready, _, _ = select.select((0, woken), (), (), _INTERVAL)
        if woken in ready:
            os.read(woken, 4096)
        _, status = _reap(child, None)
        if status is not None:
            return status, None
        if 0 in ready and not os.read(0, 4096):
            return None, None
        if breach := watch.breach():
            return None, breach


def _end(child: int, status: int | None) -> int | None:
    """Kill until nobody is left. The program's status.

    Whoever is met is stopped first: who is stopped cannot beget others while these are looked for. Only when nobody new
    is met any more all are killed; and now and then anyway, since who is not stopped yet may wake who is.
    """
    known: set[int] = set()
    looks, pause = 0, 0.001
    while True:
        left, status = _reap(child, status)
        if not left:
            return status
        tree = set(descendants())
        new, known, looks = tree - known, tree, looks + 1
        for process in new:
            _signal(process, signal.SIGSTOP)
        if new and looks % _STOPS_A_KILL:
            pause = 0.001
            continue
        if status is None:
            _signal(-child, signal.SIGKILL)  # its session's first group
        for process in tree:
            _signal(process, signal.SIGKILL)
        time.sleep(pause)
        pause = min(2 * pause, 0.5)


def _signal(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except (ProcessLookupError, PermissionError):
        pass


def _oom_kills() -> int:
    """How often the kernel has ended a process for want of memory since the machine started."""
    for line in read("/proc/vmstat").splitlines():
        if line.startswith(b"oom_kill "):
            return int(line.split()[1])
    return 0


def main() -> int:
    """Supervise one program; see the top of this file."""
    for number in _DEAF:  # it is the lifeline that decides
        signal.signal(number, signal.SIG_IGN)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    order = _read_order()
    if order is None:
        return 1
    before, shared = _oom_kills(), shared_files()
    child, trouble = _start(order)
    status, breach = (None, None) if trouble else _watch(child, order["limits"], woken)
    status = _end(child, status)
    if order["confined"]:
        clear_shared(shared)
    said = {"status": status, "breach": breach, "oom_kills": _oom_kills() - before, "not_started": trouble or None}
    try:
        os.write(1, json.dumps(said).encode() + b"\n")
    except BrokenPipeError:
        return 1  # the server has gone
    return 0
