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
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from .confinement import Limits

logger = logging.getLogger(__name__)

#: Imported, not run by path: that way its bytecode is kept. From the last place on the path, so that nothing there is
#: taken for the standard library.
_SUPERVISE: Final = (
    "import sys; sys.path.append(sys.argv[1]); from dataset_server import supervisor; sys.exit(supervisor.main())"
)
_HERE: Final = str(Path(__file__).parent.parent)
_ENDING_SECONDS: Final = 60.0

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

_PR_SET_DUMPABLE, _PR_GET_SECCOMP = 4, 21
_LANDLOCK_CREATE_RULESET, _LANDLOCK_VERSION = 444, 1
_TAIL_LINES = 20
_TAIL_BYTES = 4000
_CHUNK: Final = 1 << 16
_MAX_OUTPUT: Final = 64 << 20
_KEPT_ERRORS: Final = 1 << 20


@dataclass(frozen=True)
class Finished:
    """How a program ended: its status (negative: a signal), what it printed, and the end of its errors."""

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


def can_filter_calls() -> bool:
    """Whether the kernel can have a program do without system calls (seccomp(2))."""
    return sys.platform == "linux" and int(ctypes.CDLL(None).prctl(_PR_GET_SECCOMP, 0, 0, 0, 0)) >= 0


class Pipe:
    """A pipe of our own: asyncio's would make a process's end wait for every child that inherited it."""

    def __init__(self, reader: asyncio.StreamReader, transport: asyncio.ReadTransport, write_end: int) -> None:
        self.reader = reader
        self.write_end = write_end
        self._transport = transport
        self._writable = True

    @classmethod
    async def open(cls, limit: int) -> Self:
        """A pipe whose reader takes in lines of ``limit`` bytes."""
        read_end, write_end = os.pipe()
        reader, file = asyncio.StreamReader(limit=limit), os.fdopen(read_end, "rb", 0)
        try:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), file
            )
        except BaseException:
            file.close()
            os.close(write_end)
            raise
        return cls(reader, transport, write_end)

    def close_write_end(self) -> None:
        """Leave the writing to the process that inherited it."""
        if self._writable:
            self._writable = False
            os.close(self.write_end)

    def end(self) -> None:
        """Take nothing more in; the reader gets what has come so far, and then the end."""
        self.close_write_end()
        self._transport.close()


@contextlib.asynccontextmanager
async def two_pipes(limit: int) -> AsyncIterator[tuple[Pipe, Pipe]]:
    """Pipes for output, in lines of ``limit`` bytes, and for errors; they end with the context."""
    output = await Pipe.open(limit)
    try:
        errors = await Pipe.open(_CHUNK)
        try:
            yield output, errors
        finally:
            errors.end()
    finally:
        output.end()


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
        self._given_up = False

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
        calls: Mapping[str, Any] | None = None,
    ) -> Self:
        """Start ``command``; closes the write ends. With ``limits`` it is confined. Raises `OSError`."""
        order = {
            "command": list(command),
            "stdout": output.write_end,
            "confined": limits is not None,
            "landlock": landlock,
            "calls": calls,
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
        """End the program and all its processes.

        Who is cancelled meanwhile, and however often, stays until they are gone, and then is: whoever comes next must
        not meet them at work in the same folder. A process that not even SIGKILL ends, such as one that waits for a
        dead disk, is left to the supervisor, which goes on trying.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        deadline, cancelled = time.monotonic() + _ENDING_SECONDS, False
        while not self._report.done() and not self._given_up:
            try:
                await asyncio.wait((self._report,), timeout=max(0.0, deadline - time.monotonic()))
            except asyncio.CancelledError:
                cancelled = True
            if not self._report.done() and time.monotonic() >= deadline:
                self._given_up = True
                logger.error("processes below %d cannot be ended; it goes on trying", self._process.pid)
        if cancelled:
            raise asyncio.CancelledError
        return self._report.result() if self._report.done() else Report()

    async def _listen(self) -> Report:
        assert self._process.stdout is not None
        said = await self._process.stdout.read()
        await self._process.wait()
        return Report(**json.loads(said)) if said else Report()


async def run_tool(command: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None) -> Finished:
    """Run a program to its end.

    A timeout ends it and counts as status 124. What it prints is taken up to 64 MiB, after which it is ended; of its
    errors the last MiB is kept.
    """
    said, complained = bytearray(), bytearray()
    trouble, report = "", Report()
    async with two_pipes(_CHUNK) as (output, errors):
        reading = asyncio.gather(_take(output.reader, said), _take_last(errors.reader, complained))
        tool = None
        try:
            tool = await Supervised.start(command, output, errors, env={**tool_environment(), **(env or {})})
            async with asyncio.timeout(timeout):
                await reading
                report = await tool.report()
        except TimeoutError:
            report, trouble = Report(status=124), f"{command[0]} did not finish within {timeout:g} s"
        except _TooMuchError:
            trouble = f"{command[0]} printed more than {_MAX_OUTPUT} bytes, and was ended"
        finally:
            try:
                if tool:
                    await tool.end()
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
    if report.not_started:
        report, trouble = Report(status=127), f"{command[0]} cannot be started: {report.not_started}"
    status = -signal.SIGKILL if report.status is None else report.status
    errors_and_trouble = "\n".join(part for part in (_text(complained).rstrip("\n"), trouble) if part)
    return Finished(status, "" if trouble else _text(said), errors_and_trouble)


class _TooMuchError(Exception):
    """A program prints without end."""


async def _take(stream: asyncio.StreamReader, taken: bytearray) -> None:
    while chunk := await stream.read(_CHUNK):
        taken += chunk
        if len(taken) > _MAX_OUTPUT:
            raise _TooMuchError


async def _take_last(stream: asyncio.StreamReader, taken: bytearray) -> None:
    while chunk := await stream.read(_CHUNK):
        taken += chunk
        del taken[:-_KEPT_ERRORS]


def _text(taken: bytearray) -> str:
    return taken.decode(errors="replace")
