"""Running programs: never through a shell, with an environment that tells no secrets, and never outliving us."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: What installers may see of our environment: how to reach package indexes and repositories.
_TOOL_VARIABLES = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NETRC",
    "SSH_AUTH_SOCK",
)
_TOOL_PREFIXES = ("UV_", "PIP_", "GIT_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "XDG_")

_PR_SET_DUMPABLE = 4
_TAIL_LINES = 20
_TAIL_BYTES = 4000


@dataclass(frozen=True)
class Finished:
    """How a program ended: its status (negative: a signal), what it printed, and the last lines of its errors."""

    status: int
    output: str
    errors: str

    @property
    def tail(self) -> str:
        """The last lines of what it printed as errors."""
        return last_lines(self.errors)


def last_lines(text: str) -> str:
    """The end of a log that fits into a message."""
    return "\n".join(text.strip().splitlines()[-_TAIL_LINES:])[-_TAIL_BYTES:]


def tool_environment() -> dict[str, str]:
    """The environment of installers."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _TOOL_VARIABLES or name.upper().startswith(_TOOL_PREFIXES)
    }
    return {**kept, "GIT_TERMINAL_PROMPT": "0", "UV_NO_PROGRESS": "1"}


def handler_environment(home: Path) -> dict[str, str]:
    """The environment of handlers: nothing of ours but the path."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        # Processes are the parallelism; libraries' own threads would only fight them.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def hide_environment() -> None:
    """Keep our environment, which may hold a token, from other processes of the same user (Linux; root sees all)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def kill_group(process: Process) -> None:
    """End a process started in a session of its own, and everything it started there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


async def run_tool(command: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None) -> Finished:
    """Run a program to its end; a timeout ends it and counts as status 124."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**tool_environment(), **(env or {})},
            start_new_session=True,
        )
    except FileNotFoundError:
        return Finished(127, "", f"{command[0]} is not installed")
    try:
        output, errors = await asyncio.wait_for(process.communicate(), timeout)
    except TimeoutError:
        return Finished(124, "", f"{command[0]} did not finish within {timeout:g} s")
    finally:
        kill_group(process)
    return Finished(process.returncode or 0, output.decode(errors="replace"), errors.decode(errors="replace"))
