"""Runs a handler's commands in its own interpreter and reads what it says; the far side is `dataset_handlers.commands`.

Whatever goes wrong there becomes a `HandlerFaultError` with a code, a sentence and the handler's last lines. When the
call returns, the process and its group have been killed; only what moved to a session of its own can live on.
"""

import asyncio
import contextlib
import json
import os
import signal
import uuid
from asyncio.subprocess import Process
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

from .errors import ConfigRefusedError, HandlerFaultError
from .handler_events import Described, Fault, Finished, HandlerEvent, Planned, Progress, parse_event
from .processes import handler_environment, kill_group, last_lines

HANDLER_API: Final = 1
_FINAL: Final = (Described, Planned, Finished, Fault)
_ANSWER: Final[dict[str, type[Described] | type[Planned] | type[Finished]]] = {
    "describe": Described,
    "plan": Planned,
    "build": Finished,
}
_MAX_LINE: Final = 4 << 20
_MAX_LOG: Final = 10 << 20
_LEAVING_SECONDS: Final = 2.0


async def run_command(
    python: Path,
    command: str,
    request: Mapping[str, Any],
    folder: Path,
    *,
    timeout: float,
    stall_timeout: float | None = None,
    on_event: Callable[[HandlerEvent], Awaitable[None]] | None = None,
) -> HandlerEvent:
    """Run ``describe``, ``plan`` or ``build``; return the event it ends with.

    ``on_event`` is awaited for each event before. ``folder`` is the working directory and takes request and log.
    ``timeout`` bounds the whole command, ``stall_timeout`` the time between two signs of progress, once there was one;
    both in seconds. Raises `ConfigRefusedError` or `HandlerFaultError`.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{command}-{uuid.uuid4().hex[:8]}.json"
    file.write_text(json.dumps({"handler_api": HANDLER_API, "die_with_parent": os.getpid(), **request}))
    log = _Log(folder / f"{command}.log")
    output, errors = await _Pipe.open(_MAX_LINE), await _Pipe.open(1 << 16)
    collecting = asyncio.create_task(log.collect(errors.reader))
    process = None
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                str(python), "-I", "-m", "dataset_handlers", command, str(file),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output.write_end,
                stderr=errors.write_end,
                cwd=folder,
                env=handler_environment(folder),
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            message = f"the handler's interpreter cannot be started: {error}"
            raise HandlerFaultError("handler_exited", message) from error
        finally:
            output.close_write_end()
            errors.close_write_end()
        final = None
        status: int | None = None
        try:
            async with asyncio.timeout(timeout):
                final = await _until_gone(process, output, _listen(output.reader, stall_timeout, on_event))
                # Its last word said, it has a moment to go by itself.
                async with asyncio.timeout(_LEAVING_SECONDS if final else None):
                    status = await process.wait()
        except TimeoutError:
            if final is None:
                message = f"the handler did not {command} within {timeout:g} s"
                raise HandlerFaultError("handler_timeout", message) from None
        kill_group(process)
        await asyncio.wait((collecting,), timeout=1)
        return _judge(final, status, command)
    except HandlerFaultError as error:
        await asyncio.wait((collecting,), timeout=0.2)
        error.log = error.log or log.tail
        raise
    finally:
        if process is not None:
            kill_group(process)
            await process.wait()
        collecting.cancel()
        output.end()
        errors.end()
        file.unlink(missing_ok=True)


async def _until_gone(
    process: Process, output: "_Pipe", listening: Coroutine[Any, Any, HandlerEvent | None]
) -> HandlerEvent | None:
    """Listen until the last event, or until the process has gone: a child of its may hold the pipe open for ever.

    What it said before it went is heard to the end, however long taking it in takes.
    """
    listener, gone = asyncio.create_task(listening), asyncio.create_task(process.wait())
    try:
        await asyncio.wait((listener, gone), return_when=asyncio.FIRST_COMPLETED)
        if not listener.done():
            kill_group(process)
            await asyncio.wait((listener,), timeout=_LEAVING_SECONDS)
            output.end()
        return await listener
    finally:
        for task in (listener, gone):
            task.cancel()
        await asyncio.gather(listener, gone, return_exceptions=True)


async def _listen(
    stream: asyncio.StreamReader,
    stall_timeout: float | None,
    on_event: Callable[[HandlerEvent], Awaitable[None]] | None,
) -> HandlerEvent | None:
    """Read events up to the last one; None if the handler stops talking before."""
    patience: float | None = None
    while line := await _read_line(stream, patience):
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
        return await asyncio.wait_for(stream.readline(), patience)
    except ValueError:
        message = f"the handler printed a line of more than {_MAX_LINE} bytes"
        raise HandlerFaultError("handler_protocol", message) from None
    except TimeoutError:
        raise HandlerFaultError("handler_timeout", f"the handler made no progress for {patience:g} s") from None


def _judge(final: HandlerEvent | None, status: int | None, command: str) -> HandlerEvent:
    if isinstance(final, Fault):
        if final.code == "config_refused":
            raise ConfigRefusedError(final.message, final.faults)
        mismatch = final.code == "request_malformed" and "handler_api" in final.message
        raise HandlerFaultError("handler_api_mismatch" if mismatch else final.code, final.message)
    if final is None or (status is not None and status != 0):
        how = f"exited with status {status}"
        if status is not None and status < 0:
            how = f"was ended by {signal.Signals(-status).name}"
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


class _Pipe:
    """A pipe of our own: asyncio's would make a process's end wait for every child that inherited it."""

    def __init__(self, reader: asyncio.StreamReader, transport: asyncio.ReadTransport, write_end: int) -> None:
        self.reader = reader
        self.write_end = write_end
        self._transport = transport

    @classmethod
    async def open(cls, limit: int) -> "_Pipe":
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
        """Read to the end."""
        written = 0
        with self._path.open("ab") as file:
            while chunk := await stream.read(4096):
                self._last.append(chunk)
                if written < _MAX_LOG:
                    written += len(chunk)
                    with contextlib.suppress(OSError):  # a full disk: the handler must be read all the same
                        file.write(chunk)
                        file.flush()
