"""Stands between the server and one program: starts it within limits, watches its processes, and ends every one.

It runs in an interpreter of its own that loads nothing else of ours, and little of the standard library, so that it
starts quickly; it talks to `dataset_server.processes` in JSON lines. Standard input brings one::

    {"command": [...], "stdout": FD, "confined": bool, "landlock": RULES or null,
     "limits": {"memory", "cpu_time", "processes", "file_size", "open_files"}}      each may be null

and is a lifeline from then on: when it closes, because the server wants an end or because the server was killed, the
program and all that came from it are killed. When nothing is left, standard output says how it went::

    {"status": INT or null, "breach": null or the name of a limit, "oom_kills": INT, "not_started": null or TEXT}

``status`` is the program's own, negative for a signal. RULES are numbers of <linux/landlock.h>, made in
`dataset_server.confinement`: ``{"fs", "net", "scoped", "beneath": [[path, access], ...]}``.

Descendants cannot get away, whatever sessions they open: orphans are given to a "child subreaper" (prctl(2)), which
this process is, so that it has no children left only when there are no descendants left.
"""

# Neither pathlib, contextlib nor typing: importing them takes time.
# ruff: noqa: PTH123, PTH208, SIM105

from __future__ import annotations

import ctypes
import json
import math
import os
import resource
import select
import signal
import stat
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_INTERVAL = 0.25  # seconds between two looks at the tree
_EXACT_INTERVAL = 1.0  # seconds between two exact measurements of memory, which walk page tables
_LIMITS = {"file_size": resource.RLIMIT_FSIZE, "open_files": resource.RLIMIT_NOFILE}
_CPU_GRACE = 60  # seconds between SIGXCPU, which a program may ignore, and SIGKILL
_DEAF = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PAGE = resource.getpagesize()
_TICKS = os.sysconf("SC_CLK_TCK")

_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_RULE_PATH_BENEATH = 1
_FILE_RIGHTS = 0b111 | 1 << 14 | 1 << 15  # execute, write, read, truncate, ioctl: what a rule for a file may name
_CAP_DAC_READ_SEARCH = 2  # what root keeps for a handler: reading files of others, as far as Landlock lets it
_ALL_CAPABILITIES = 64

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
    _set_limits(order["limits"])
    if order["confined"] and sys.platform == "linux":
        # Out of memory, the kernel is to end this program before the server.
        try:
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write("500")
        except OSError:
            pass
        for capability in set(range(_ALL_CAPABILITIES)) - {_CAP_DAC_READ_SEARCH}:
            _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # who is not root has none to drop
    if order["landlock"]:
        _restrict(order["landlock"])
    os.execvp(order["command"][0], order["command"])  # noqa: S606 - no shell is what we want


def _set_limits(limits: dict[str, Any]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name, number in _LIMITS.items():
        if limits[name] is not None:
            soft, hard = resource.getrlimit(number)
            resource.setrlimit(number, (_lower(soft, limits[name]), _lower(hard, limits[name])))
    if limits["cpu_time"] is not None:  # for each process; the tree's total is watched
        seconds = math.ceil(limits["cpu_time"])
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (_lower(hard, seconds), _lower(hard, seconds + _CPU_GRACE)))


def _lower(present: int, wanted: int) -> int:
    return wanted if present == resource.RLIM_INFINITY else min(present, wanted)


def _restrict(rules: dict[str, Any]) -> None:
    """Give up every access that the rules do not name, for good (Landlock; see landlock(7))."""
    attributes = struct.pack("=QQQ", rules["fs"], rules["net"], rules["scoped"])
    ruleset = _call(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    for path, access in rules["beneath"]:
        try:
            found = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # what is not there needs no rule
        if not stat.S_ISDIR(os.fstat(found).st_mode):
            access &= _FILE_RIGHTS
        _call(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH_BENEATH, struct.pack("=Qi", access, found), 0)
        os.close(found)
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs is refused")
    _call(_LANDLOCK_RESTRICT_SELF, ruleset, 0)


def _call(number: int, *arguments: Any) -> int:
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock refuses: {os.strerror(error)}")
    return result


def _read(path: str) -> bytes:
    """What a file of /proc says; nothing if the process has gone."""
    try:
        with open(path, "rb", 0) as file:
            return file.read()
    except OSError:
        return b""


def _tree() -> list[int]:
    """All descendants."""
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        process = waiting.pop()
        try:
            threads = os.listdir(f"/proc/{process}/task")
        except OSError:
            continue
        for thread in threads:
            children = [int(child) for child in _read(f"/proc/{process}/task/{thread}/children").split()]
            found += children
            waiting += children
    return found


def _resident_and_ticks(process: int) -> tuple[int, int]:
    """Bytes of memory that a process has mapped and that are there, and its CPU time with that of ended children."""
    fields = _read(f"/proc/{process}/stat").rpartition(b")")[2].split()
    if not fields:
        return 0, 0
    return int(fields[21]) * _PAGE, sum(int(field) for field in fields[11:15])


def _proportional(process: int, resident: int) -> int:
    """Bytes of a process's own, its share of what it shares with others included; files' pages are left out."""
    rollup = _read(f"/proc/{process}/smaps_rollup")
    if not rollup:
        return resident  # gone, or it hides itself
    parts = (line.split() for line in rollup.splitlines())
    return sum(int(part[1]) * 1024 for part in parts if part[0] in (b"Pss_Anon:", b"Pss_Shmem:"))


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
        self._idle = all(limits[name] is None for name in ("memory", "cpu_time", "processes"))

    def breach(self) -> str | None:
        """The name of a limit that is exceeded."""
        now = time.monotonic()
        if self._idle or now < self._next:
            return None
        limits, tree = self._limits, _tree()
        self._next = time.monotonic() + _INTERVAL
        if limits["processes"] is not None and len(tree) > limits["processes"]:
            return "processes"
        usage = {process: _resident_and_ticks(process) for process in tree}
        if limits["cpu_time"] is not None:
            ended = resource.getrusage(resource.RUSAGE_CHILDREN)  # children of ours that were reaped
            spent = sum(ticks for _, ticks in usage.values()) / _TICKS + ended.ru_utime + ended.ru_stime
            if spent > limits["cpu_time"]:
                return "cpu_time"
        if limits["memory"] is not None and sum(resident for resident, _ in usage.values()) > limits["memory"]:
            if now < self._next_exact:
                return None
            exact = sum(_proportional(process, resident) for process, (resident, _) in usage.items())
            self._next_exact = time.monotonic() + _EXACT_INTERVAL
            if exact > limits["memory"]:
                return "memory"
        return None


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
    """Kill until nobody is left: who was born meanwhile is met the next time. The program's status."""
    pause = 0.001
    while True:
        left, status = _reap(child, status)
        if not left:
            return status
        if status is None:
            _kill(-child)  # its session's first group
        for process in _tree():
            _kill(process)
        time.sleep(pause)
        pause = min(2 * pause, 0.5)


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _oom_kills() -> int:
    """How often the kernel has ended a process for want of memory since the machine started."""
    for line in _read("/proc/vmstat").splitlines():
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
    before = _oom_kills()
    child, trouble = _start(order)
    status, breach = (None, None) if trouble else _watch(child, order["limits"], woken)
    status = _end(child, status)
    said = {"status": status, "breach": breach, "oom_kills": _oom_kills() - before, "not_started": trouble or None}
    try:
        os.write(1, json.dumps(said).encode() + b"\n")
    except BrokenPipeError:
        return 1  # the server has gone
    return 0
