"""Runs the commands of `dataset_handlers.commands` as a server does: isolated, each in a process group and folder."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..contract import HANDLER_API

#: An option that no handler has, to see it refused.
UNKNOWN = "no_such_option_of_any_handler"
#: Seconds any one command of a check may take; a handler that hangs is ended then.
TIMEOUT = 600.0
_FINAL = frozenset({"described", "planned", "finished", "error"})
_EVENTS = _FINAL | {"progress", "shard", "probed"}
_TAIL = 3
_LEAVING_SECONDS = 5.0


@dataclass(frozen=True)
class Run:
    """What a command said: its exit status, its events, lines that are none, and the end of its log."""

    status: int
    events: tuple[dict[str, Any], ...]
    garbage: tuple[str, ...]
    log: str

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Events of one kind."""
        return [event for event in self.events if event["event"] == kind]

    @property
    def code(self) -> str | None:
        """The code of the error it ended with, None if it ended well."""
        errors = self.of("error")
        if errors:
            return str(errors[-1]["code"])
        ended = self.events and self.events[-1]["event"] in _FINAL and self.status == 0
        return None if ended else "ended_without_a_word"

    @property
    def fault(self) -> str:
        """Why it did not end well, in one sentence."""
        if errors := self.of("error"):
            return f"{errors[-1]['message']} (code {errors[-1]['code']})"
        how = f"with status {self.status}"
        if self.status < 0:
            how = f"by {signal.Signals(-self.status).name}"
        tail = " | ".join(self.log.strip().splitlines()[-_TAIL:])
        return f"the process ended {how} and without a last event{f'; its log ends: {tail}' if tail else ''}"


def run_command(
    command: str,
    request: Mapping[str, Any],
    folder: Path,
    *,
    python: str | None = None,
    module: str = "dataset_handlers",
    kill_after_shards: int = 0,
) -> Run:
    """Run one command with the interpreter ``python`` (ours by default) in ``folder``.

    With ``kill_after_shards`` its whole process group is killed (SIGKILL) once that many shards were announced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{command}.request.json"
    file.write_text(json.dumps({"handler_api": HANDLER_API, **request}))
    log = folder / f"{command}.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [python or sys.executable, "-I", "-m", module, command, str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env=_environment(folder),
            start_new_session=True,
        )
    watchdog = threading.Timer(TIMEOUT, _kill, (process,))
    watchdog.start()
    status = 0  # of a process that has said its last word, and then does not end by itself
    try:
        events, garbage = _listen(process, kill_after_shards)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LEAVING_SECONDS)
            status = process.returncode
    finally:
        watchdog.cancel()
        _kill(process)
        process.wait()
    return Run(status, tuple(events), tuple(garbage), log.read_bytes()[-20_000:].decode(errors="replace"))


def _environment(home: Path) -> dict[str, str]:
    """What a server lets its handlers see. Isolated Python draws a hash seed for each process, whatever is set."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _listen(process: subprocess.Popen[bytes], kill_after_shards: int) -> tuple[list[dict[str, Any]], list[str]]:
    assert process.stdout is not None
    events: list[dict[str, Any]] = []
    garbage: list[str] = []
    shards = 0
    with process.stdout:
        for line in process.stdout:
            event = _event(line)
            if event is None:
                garbage.append(line.decode(errors="replace").rstrip("\n")[:200])
                continue
            events.append(event)
            shards += event["event"] == "shard"
            if kill_after_shards and shards >= kill_after_shards:
                _kill(process)
            if event["event"] in _FINAL:
                break  # what a handler leaves running may hold the pipe open for ever
    return events, garbage


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and event.get("event") in _EVENTS else None


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
