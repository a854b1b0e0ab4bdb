"""Time, CPU and memory of a command with all processes that it starts (Linux)."""

import ctypes
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PR_SET_CHILD_SUBREAPER = 36
_SAMPLE_SECONDS = 0.1


@dataclass(frozen=True)
class Run:
    """What one command took; ``seconds`` and ``cpu`` count from its clock event, or from its start without one."""

    seconds: float
    cpu: float
    whole_seconds: float
    whole_cpu: float
    tree_mb: float  # peak of the resident memory of all its processes together, shared pages counted for each
    child_mb: float  # the peak of any process but the first
    output: str


def children(pid: int) -> Iterator[int]:
    """Process ids below ``pid``, all generations."""
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                yield child
                yield from children(child)
    except OSError:  # it has ended
        return


def resident_mb(pid: int) -> float:
    """Resident memory of a process; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 1e6
    except OSError:
        return 0.0


class _Sampler(threading.Thread):
    """Looks at a process tree ten times a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.tree, self.child = pid, 0.0, 0.0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(_SAMPLE_SECONDS):
            below = [resident_mb(child) for child in children(self.pid)]
            self.tree = max(self.tree, resident_mb(self.pid) + sum(below))
            self.child = max(self.child, *below, 0.0)


def _reap_orphans() -> float:
    """Wait for processes that a command left behind; their CPU seconds."""
    cpu = 0.0
    while True:
        try:
            _, _, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return cpu
        cpu += usage.ru_utime + usage.ru_stime


def measure(command: Sequence[str], **environment: str) -> Run:
    """Run a command in the repository's folder; `SystemExit` with what it said if it fails."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.monotonic()
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=os.environ | environment
        )
        sampler = _Sampler(process.pid)
        sampler.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        ended = time.monotonic()
        sampler.ended.set()
        cpu = usage.ru_utime + usage.ru_stime + _reap_orphans()
        sampler.join()
        out.seek(0)
        err.seek(0)
        output, errors = out.read().decode(), err.read().decode()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} exited with {process.returncode}\n{output[-2000:]}\n{errors[-4000:]}")
    clock = {"monotonic": started, "cpu": 0.0} | next(events(output, "clock"), {})
    return Run(
        ended - clock["monotonic"], cpu - clock["cpu"], ended - started, cpu, sampler.tree, sampler.child, output
    )


def events(output: str, kind: str) -> Iterator[dict]:
    """The events of one kind among the lines that a command printed."""
    for line in output.splitlines():
        if line.startswith("{") and '"event"' in line:
            event = json.loads(line)
            if event["event"] == kind:
                yield event
