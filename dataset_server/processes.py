"""Running programs: never through a shell, with an environment that tells no secrets, and never outliving us.

Each runs below a supervisor (`supervisor.py`), which ends it with all its descendants when it has finished, when we
say so, and when we are gone.
"""

import asyncio
import contextlib
import ctypes
import functools
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from .confinement import Limits

logger = logging.getLogger(__name__)

#: Imported, not run by path: that way its bytecode is kept. From the last place on the path, so that no module of ours
#: is taken for one of the standard library.
_SUPERVISE: Final = "import sys; sys.path.append(sys.argv[1]); import supervisor; sys.exit(supervisor.main())"
_HERE: Final = str(Path(__file__).parent)
_ENDING_SECONDS: Final = 20.0

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
_LANDLOCK_CREATE_RULESET, _LANDLOCK_VERSION = 444, 1
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


@functools.cache
def landlock_abi() -> int:
    """The kernel's Landlock version; 0 where it has none, or hides it."""
    if sys.platform != "linux":
        return 0
    answer: int = ctypes.CDLL(None).syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION)
    return max(answer, 0)


class Pipe:
    """A pipe of our own: asyncio's would make a process's end wait for every child that inherited it."""

    def __init__(self, reader: asyncio.StreamReader, transport: asyncio.ReadTransport, write_end: int) -> None:
        self.reader = reader
        self.write_end = write_end
        self._transport = transport

    @classmethod
    async def open(cls, limit: int) -> Self:
        """A pipe whose reader takes in lines of ``limit`` bytes."""
        read_end, write_end = os.pipe()
        reader = asyncio.StreamReader(limit=limit)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", 0)
        )
        return cls(reader, transport, write_end)

    def close_write_end(self) -> None:
        """Leave the writing to the process that inherited it."""
        os.close(self.write_end)

    def end(self) -> None:
        """Take nothing more in; the reader gets what has come so far, and then the end."""
        self._transport.close()


@dataclass(frozen=True)
class Report:
    """How a supervised program ended; the fields are those of `supervisor`'s last line."""

    status: int | None = None
    breach: str | None = None
    oom_kills: int = 0
    not_started: str | None = None


class Supervised:
    """A program that runs below a supervisor of its own, which ends all its processes, whatever happens to us."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._report = asyncio.create_task(self._listen())

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        output: Pipe,
        errors: Pipe,
        *,
        env: Mapping[str, str],
        folder: Path | None = None,
        limits: Limits | None = None,
        landlock: Mapping[str, Any] | None = None,
    ) -> Self:
        """Start ``command``; closes the write ends. With ``limits`` it is confined. Raises `OSError`."""
        order = {
            "command": list(command),
            "stdout": output.write_end,
            "confined": limits is not None,
            "landlock": landlock,
            "limits": (limits or Limits()).to_json(),
        }
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", "-c", _SUPERVISE, _HERE,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors.write_end,
                pass_fds=(output.write_end,),
                cwd=folder,
                env=env,
                start_new_session=True,
            )  # fmt: skip
        finally:
            output.close_write_end()
            errors.close_write_end()
        assert process.stdin is not None
        process.stdin.write(json.dumps(order).encode() + b"\n")
        return cls(process)

    async def report(self) -> Report:
        """Wait until nothing of the program is left."""
        return await asyncio.shield(self._report)

    async def end(self) -> Report:
        """End the program and all its processes."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(_ENDING_SECONDS):
                return await self.report()
        except TimeoutError:  # a process that not even SIGKILL ends, such as one that waits for a dead disk
            logger.error("processes below %d cannot be ended", self._process.pid)  # noqa: TRY400 - no traceback's use
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            return await self.report()

    async def _listen(self) -> Report:
        assert self._process.stdout is not None
        said = await self._process.stdout.read()
        await self._process.wait()
        return Report(**json.loads(said)) if said else Report()


async def run_tool(command: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None) -> Finished:
    """Run a program to its end; a timeout ends it and counts as status 124."""
    output, errors = await Pipe.open(1 << 16), await Pipe.open(1 << 16)
    tool = None
    try:
        tool = await Supervised.start(command, output, errors, env={**tool_environment(), **(env or {})})
        async with asyncio.timeout(timeout):
            said, complained, report = await asyncio.gather(output.reader.read(), errors.reader.read(), tool.report())
    except TimeoutError:
        return Finished(124, "", f"{command[0]} did not finish within {timeout:g} s")
    finally:
        if tool:
            await tool.end()
        output.end()
        errors.end()
    if report.not_started:
        return Finished(127, "", f"{command[0]} cannot be started: {report.not_started}")
    status = -signal.SIGKILL if report.status is None else report.status
    return Finished(status, said.decode(errors="replace"), complained.decode(errors="replace"))
