"""What a program gives up before it begins: limits by the kernel, capabilities, files, system calls.

In the child that `supervisor` has forked; what is given up is decided in `confinement`.
"""

# Neither pathlib, contextlib nor typing: importing them takes time, and `supervisor` loads this.
# ruff: noqa: PTH123

from __future__ import annotations

import ctypes
import errno
import math
import os
import resource
import stat
import struct
import sys

from .process_tree import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LIMITS = {"file_size": resource.RLIMIT_FSIZE, "open_files": resource.RLIMIT_NOFILE}
_CPU_GRACE = 60  # seconds between SIGXCPU, which a program may ignore, and SIGKILL

_PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 22, 24, 38
_SECCOMP_MODE_FILTER, _SECCOMP_RET_ERRNO, _SECCOMP_RET_ALLOW = 2, 0x50000, 0x7FFF0000
_BPF_LOAD, _BPF_IF_EQUAL, _BPF_IF_AT_LEAST, _BPF_RETURN = 0x20, 0x15, 0x35, 0x06
_X32 = 0x40000000  # the bit of a second set of numbers for the same calls on x86-64
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_RULE_PATH_BENEATH = 1
_FILE_RIGHTS = 0b111 | 1 << 14 | 1 << 15  # execute, write, read, truncate, ioctl: what a rule for a file may name
_CAP_DAC_READ_SEARCH = 2  # what root keeps for a handler: reading files of others, as far as Landlock lets it
_ALL_CAPABILITIES = 64

_libc = ctypes.CDLL(None, use_errno=True)


def restrain(order: dict[str, Any]) -> None:
    """Give up what the order says; raises `OSError` where the kernel refuses to take it."""
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
        if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no_new_privs is refused")
    if order["landlock"]:
        _restrict(order["landlock"])
    if order["calls"]:
        _filter(order["calls"])


def _set_limits(limits: dict[str, Any]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name, number in _LIMITS.items():
        if limits[name] is not None:
            soft, hard = resource.getrlimit(number)
            resource.setrlimit(number, (_lower(soft, limits[name]), _lower(hard, limits[name])))
    if limits["threads"] is not None:  # the kernel counts all of the user's, so those that there are come on top
        soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        most = _tasks_of_the_machine() + limits["threads"]
        resource.setrlimit(resource.RLIMIT_NPROC, (_lower(soft, most), _lower(hard, most)))
    if limits["cpu_time"] is not None:  # for each process; the tree's total is watched
        seconds = math.ceil(limits["cpu_time"])
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (_lower(hard, seconds), _lower(hard, seconds + _CPU_GRACE)))


def _tasks_of_the_machine() -> int:
    """All threads there are, of whomever: in /proc/loadavg the fourth field reads RUNNING/ALL."""
    fields = read("/proc/loadavg").split()
    return int(fields[3].partition(b"/")[2]) if len(fields) > 3 else 0


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
    _call(_LANDLOCK_RESTRICT_SELF, ruleset, 0)


def _filter(calls: dict[str, Any]) -> None:
    """Do without some system calls for good (seccomp(2)); needs no_new_privs."""
    refused = _SECCOMP_RET_ERRNO | errno.EPERM
    program = [
        (_BPF_LOAD, 0, 0, 4),  # the machine, in struct seccomp_data
        (_BPF_IF_EQUAL, 1, 0, calls["machine"]),
        (_BPF_RETURN, 0, 0, refused),  # of another machine, such as the 32-bit one, the numbers are others
        (_BPF_LOAD, 0, 0, 0),  # the call's number
        (_BPF_IF_AT_LEAST, 0, 1, _X32),
        (_BPF_RETURN, 0, 0, refused),
    ]
    for numbers, answer in ((calls["void"], _SECCOMP_RET_ERRNO), (calls["refused"], refused)):
        for number in numbers:
            program += [(_BPF_IF_EQUAL, 0, 1, number), (_BPF_RETURN, 0, 0, answer)]
    for number in calls["own"]:  # of the process that is named by the low half of the first argument
        program += [(_BPF_IF_EQUAL, 0, 3, number), (_BPF_LOAD, 0, 0, 16), (_BPF_IF_EQUAL, 1, 0, 0)]
        program += [(_BPF_RETURN, 0, 0, refused), (_BPF_LOAD, 0, 0, 0)]
    program.append((_BPF_RETURN, 0, 0, _SECCOMP_RET_ALLOW))
    steps = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    whole = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(steps)))
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, whole, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "a filter of system calls is refused")


def _call(number: int, *arguments: Any) -> int:
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock refuses: {os.strerror(error)}")
    return result
