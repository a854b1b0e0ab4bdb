"""Runs a handler's commands in its own interpreter and reads what it says; the far side is `dataset_handlers.commands`.

Whatever goes wrong there becomes a `HandlerFaultError` with a code, a sentence and the handler's last lines. When the
call returns, no process of the handler is left, whatever sessions they moved to.
"""

import asyncio
import contextlib
import errno
import json
import os
import signal
import stat
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, Final

from .background import in_background
from .confinement import Confinement, calls, rules
from .errors import ConfigRefusedError, HandlerFaultError
from .handler_events import Described, Fault, Finished, HandlerEvent, Planned, Progress, parse_event
from .processes import (
    Pipe,
    Report,
    Supervised,
    can_filter_calls,
    handler_environment,
    landlock_abi,
    last_lines,
    two_pipes,
)

HANDLER_API: Final = 1
_FINAL: Final = (Described, Planned, Finished, Fault)
_ANSWER: Final[dict[str, type[Described] | type[Planned] | type[Finished]]] = {
    "describe": Described,
    "plan": Planned,
    "build": Finished,
}
_MAX_LINE: Final = 4 << 20
_MAX_LOG: Final = 10 << 20
_EVENTS_AT_ONCE: Final = 4 << 20
_LOG_AT_ONCE: Final = 32 << 20
_EVENTS_A_SECOND: Final = 64 << 10  # and for each worker, which reports five times a second
_WORKERS_EVENTS_A_SECOND: Final = 1 << 10
_LOG_A_SECOND: Final = 1 << 20
_TURN: Final = 64 << 10
_LEAVING_SECONDS: Final = 2.0
_OURS_TO_READ: Final = ("plan", "sealed", "dataset", "bytecode")
_MOST_FILES: Final = 1_000_000

_BREACHES: Final = {
    "memory": "handler_out_of_memory",
    "cpu_time": "handler_cpu_exceeded",
    "processes": "handler_processes_exceeded",
    "disk": "disk_full",
}
_EXCESSES: Final = {
    "handler_out_of_memory": "needed more memory than it may have; ask for less at a time, use fewer workers, or have "
    "the server's handler_memory raised",
    "handler_cpu_exceeded": "used up its CPU time; ask for less, or have the server's handler_cpu_time raised",
    "handler_processes_exceeded": "started more processes, or threads, than the server's handler_processes allows",
    "disk_full": "left too little of the server's disk free (disk_reserve); free some and ask again",
    "handler_file_too_large": "wrote a file larger than the server's handler_file_size allows",
}


async def run_command(
    python: Path,
    command: str,
    request: Mapping[str, Any],
    folder: Path,
    *,
    timeout: float,
    stall_timeout: float | None = None,
    on_event: Callable[[HandlerEvent], Awaitable[None]] | None = None,
    confinement: Confinement | None = None,
    bytecode: Path | None = None,
) -> HandlerEvent:
    """Run ``describe``, ``plan`` or ``build``; return the event it ends with.

    ``on_event`` is awaited for each event before. ``folder`` is the working directory and takes request and log.
    ``timeout`` bounds the whole command, ``stall_timeout`` the time between two signs of progress, once there was one;
    both in seconds. Without ``confinement`` there are no other limits. Below ``bytecode`` Python puts what it compiles,
    instead of into `__pycache__`.
    Raises `ConfigRefusedError` or `HandlerFaultError`.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{command}-{uuid.uuid4().hex[:8]}.json"
    log = _Log(folder / f"{command}.log")
    try:
        file.write_text(json.dumps({"handler_api": HANDLER_API, **request}))
        async with two_pipes(_MAX_LINE) as (output, errors):
            collecting = asyncio.create_task(log.collect(errors.reader))
            handler = None
            try:
                cache = ["-X", f"pycache_prefix={bytecode}"] if bytecode else []
                arguments = [str(python), "-I", *cache, "-m", "dataset_handlers", command, str(file)]
                handler = await _start(arguments, output, errors, folder, confinement)
                a_second = _EVENTS_A_SECOND + _WORKERS_EVENTS_A_SECOND * request.get("workers", 1)
                allowance = Allowance("events", _EVENTS_AT_ONCE, a_second)
                listening = _listen(output.reader, allowance, stall_timeout, on_event)
                final, report = await _hear(handler, output, listening, collecting, command, timeout)
                await handler.end()
                await asyncio.wait((collecting,), timeout=1)
                answer = _judge(final, report, command)
                await in_background(refuse_links, folder)
                return answer  # noqa: TRY300 - what it left must be looked at inside
            except HandlerFaultError as error:
                await asyncio.wait((collecting,), timeout=0.2)
                error.log = error.log or log.tail
                raise
            finally:
                try:
                    if handler is not None:
                        await handler.end()
                finally:
                    collecting.cancel()
                    await asyncio.gather(collecting, return_exceptions=True)
    finally:
        with contextlib.suppress(OSError):  # what the handler put in its place goes with the folder
            file.unlink()


async def _start(
    arguments: Sequence[str], output: Pipe, errors: Pipe, folder: Path, confinement: Confinement | None
) -> Supervised:
    try:
        return await Supervised.start(
            arguments,
            output,
            errors,
            env=handler_environment(folder),
            folder=folder,
            limits=confinement.limits if confinement else None,
            landlock=rules(confinement, Path(arguments[0]), folder, landlock_abi()) if confinement else None,
            calls=calls(filters=can_filter_calls()) if confinement else None,
        )
    except OSError as error:
        message = f"the handler's interpreter cannot be started: {error}"
        raise HandlerFaultError("handler_exited", message) from error


async def _hear(
    handler: Supervised,
    output: Pipe,
    listening: Coroutine[Any, Any, HandlerEvent | None],
    collecting: asyncio.Task[None],
    command: str,
    timeout: float,
) -> tuple[HandlerEvent | None, Report | None]:
    """The handler's last word, and how it ended; None if it must be made to. Raises `HandlerFaultError`."""
    final = None
    try:
        async with asyncio.timeout(timeout):
            final = await _until_gone(handler, output, listening, collecting)
            # Its last word said, it has a moment to go by itself.
            async with asyncio.timeout(_LEAVING_SECONDS if final else None):
                return final, await handler.report()
    except TimeoutError:
        if final is None:
            message = f"the handler did not {command} within {timeout:g} s, the server's {command}_timeout"
            raise HandlerFaultError("handler_timeout", message) from None
        return final, None


async def _until_gone(
    handler: Supervised,
    output: Pipe,
    listening: Coroutine[Any, Any, HandlerEvent | None],
    collecting: asyncio.Task[None],
) -> HandlerEvent | None:
    """Listen until the last event, or until the handler has gone with all its processes.

    What it said before it went is heard to the end, however long taking it in takes. Raises what ``collecting`` does.
    """
    listener, gone = asyncio.create_task(listening), asyncio.create_task(handler.report())
    try:
        waiting: set[asyncio.Task[Any]] = {listener, gone, collecting}
        while not (listener.done() or gone.done()):
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if collecting in done:
                collecting.result()
        if not listener.done():
            await asyncio.wait((listener,), timeout=_LEAVING_SECONDS)
            output.end()
        return await listener
    finally:
        for task in (listener, gone):
            task.cancel()
        await asyncio.gather(listener, gone, return_exceptions=True)


async def _listen(
    stream: asyncio.StreamReader,
    allowance: "Allowance",
    stall_timeout: float | None,
    on_event: Callable[[HandlerEvent], Awaitable[None]] | None,
) -> HandlerEvent | None:
    """Read events up to the last one; None if the handler stops talking before."""
    patience: float | None = None
    while line := await _read_line(stream, patience):
        await allowance.take(len(line))
        if not line.endswith(b"\n"):
            return None  # it was ended while it spoke, which is told by how it ended
        event = parse_event(line)
        if isinstance(event, _FINAL):
            return event  # and not to the end: whatever it left running may hold the pipe open for ever
        if isinstance(event, Progress):
            patience = stall_timeout
        if on_event is not None:
            await on_event(event)
    return None


async def _read_line(stream: asyncio.StreamReader, patience: float | None) -> bytes:
    try:
        async with asyncio.timeout(patience):
            return await stream.readline()
    except ValueError:
        message = f"the handler printed a line of more than {_MAX_LINE} bytes"
        raise HandlerFaultError("handler_protocol", message) from None
    except TimeoutError:
        message = f"the handler made no progress for {patience:g} s, the server's stall_timeout"
        raise HandlerFaultError("handler_timeout", message) from None


def _judge(final: HandlerEvent | None, report: Report | None, command: str) -> HandlerEvent:
    """The answer, or the fault. ``report`` is None if the handler was ended after its last word."""
    if report and (fault := _excess(final, report, command)):
        raise fault
    if isinstance(final, Fault):
        if final.code == "config_refused":
            raise ConfigRefusedError(final.message, [fault.model_dump() for fault in final.faults])
        mismatch = final.code == "request_malformed" and "handler_api" in final.message
        raise HandlerFaultError("handler_api_mismatch" if mismatch else final.code, final.message)
    if final is None or (report and report.status != 0):
        how = _ending(report)
        raise HandlerFaultError("handler_exited", f"the handler's '{command}' {how} before it had finished")
    if not isinstance(final, _ANSWER[command]):
        raise HandlerFaultError("handler_protocol", f"the handler answered '{command}' with '{final.event}'")
    if isinstance(final, Described) and final.handler_api != HANDLER_API:
        raise HandlerFaultError(
            "handler_api_mismatch",
            f"the handler speaks handler_api {final.handler_api!r}, this server {HANDLER_API}; "
            "ask for a version made for this server, or update the server",
        )
    return final


def refuse_links(work: Path) -> None:
    """Raise `HandlerFaultError` where a handler that has gone left more than folders and plain files for us to read.

    A link could lead to what the handler must not see, and we would publish it; reading a pipe would never end. Neither
    may it leave what cannot be looked at, such as a path that is too long, or more than there is use for.
    """
    waiting: list[str | Path] = []
    count = 0
    try:
        for path in (work / name for name in _OURS_TO_READ):
            with contextlib.suppress(FileNotFoundError):
                _require(stat.S_ISDIR(path.lstat().st_mode), path.name)
                waiting.append(path)
        while waiting:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    count += 1
                    if count > _MOST_FILES:
                        raise HandlerFaultError("handler_protocol", f"the handler made more than {_MOST_FILES} files")
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        _require(entry.is_file(follow_symlinks=False), entry.name)
    except OSError as error:
        message = f"what the handler made cannot be looked at: {error.strerror}"
        raise HandlerFaultError("handler_protocol", message) from error


def _require(is_plain: bool, name: str) -> None:
    if not is_plain:
        raise HandlerFaultError("handler_protocol", f"what the handler made as '{name}' is no plain file")


def _ending(report: Report | None) -> str:
    if report is None or report.status is None:
        trouble = report and report.not_started
        return f"could not be started ({trouble})" if trouble else "was ended"
    if report.status < 0:
        return f"was ended by {_name_of(-report.status)}"
    return f"exited with status {report.status}"


def _name_of(number: int) -> str:
    """A signal's name; those for real-time use have none of their own."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _excess(final: HandlerEvent | None, report: Report, command: str) -> HandlerFaultError | None:
    """The fault of a handler that wanted more than its limits allow, or more memory than there was."""
    code = _BREACHES.get(report.breach or "")
    fault = final if isinstance(final, Fault) else None
    if report.status == -signal.SIGXCPU:
        code = "handler_cpu_exceeded"
    if report.status == -signal.SIGXFSZ or (fault and f"[Errno {errno.EFBIG}]" in fault.message):
        code = "handler_file_too_large"
    was_killed = report.status == -signal.SIGKILL or (fault and fault.code == "worker_died")
    if code is None and report.oom_kills and was_killed:
        code = "handler_out_of_memory"
    return HandlerFaultError(code, f"the handler's '{command}' {_EXCESSES[code]}") if code else None


class Allowance:
    """How many bytes of output are taken from a handler: many at once, or some all the time, but not without end."""

    def __init__(self, what: str, at_once: int, a_second: int) -> None:
        self._what = what
        self._at_once = at_once
        self._a_second = a_second
        self._taken = 0
        self._yielded = 0
        self._since = time.monotonic()

    async def take(self, size: int) -> None:
        """Count ``size`` bytes, and let others have their turn; raises `HandlerFaultError` if it is too much."""
        self._taken += size
        if self._taken > self._at_once + self._a_second * (time.monotonic() - self._since):
            message = f"the handler printed {self._taken} bytes of {self._what}; make it say less"
            raise HandlerFaultError("handler_output_exceeded", message)
        if self._taken - self._yielded > _TURN:
            self._yielded = self._taken
            await asyncio.sleep(0)


class _Log:
    """What a handler prints as errors: to a file, up to a size, and the last lines in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: deque[bytes] = deque(maxlen=64)

    @property
    def tail(self) -> str:
        """The last lines."""
        return last_lines(b"".join(self._last).decode(errors="replace"))

    async def collect(self, stream: asyncio.StreamReader) -> None:
        """Read to the end; raises `HandlerFaultError` if that is too far."""
        written, allowance = 0, Allowance("log", _LOG_AT_ONCE, _LOG_A_SECOND)
        with _open_log(self._path) as file:
            while chunk := await stream.read(4096):
                self._last.append(chunk)
                if written < _MAX_LOG:
                    written += len(chunk)
                    with contextlib.suppress(OSError):  # a full disk: the handler must be read all the same
                        file.write(chunk)
                await allowance.take(len(chunk))


def _open_log(path: Path) -> FileIO:
    """Unbuffered, so that closing it writes nothing that a full disk would refuse.

    A handler's earlier command may have left a link in the log's place, or a pipe: neither is followed.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        if path.is_symlink() or path.is_fifo():
            path.unlink()
        return FileIO(os.open(path, flags, 0o644), "a")
    except OSError:
        return FileIO(os.devnull, "a")
