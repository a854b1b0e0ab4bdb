"""Runs a handler's commands in its own interpreter and reads what it says; the far side is `dataset_handlers.commands`.

Whatever goes wrong there becomes a `HandlerFaultError` with a code, a sentence and the handler's last lines; the
process and all it started have ended when the call returns.
"""

import asyncio
import contextlib
import json
import signal
import uuid
from asyncio.subprocess import Process
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from .errors import ConfigRefusedError, HandlerFaultError
from .processes import handler_environment, kill_group, last_lines
from .settings import Settings

HANDLER_API: Final = 1
_FINAL: Final = {"describe": "described", "plan": "planned", "build": "finished"}
_MAX_LINE: Final = 4 << 20
_MAX_LOG: Final = 10 << 20
_LEAVING_SECONDS: Final = 5.0


async def run_command(
    python: Path,
    command: str,
    request: Mapping[str, Any],
    folder: Path,
    settings: Settings,
    on_event: Callable[[dict[str, Any]], Any] | None = None,
    timeout: float | None = None,
) -> dict[str, Any]:
    """Run ``describe``, ``plan`` or ``build``; return the event it ends with.

    ``on_event`` is awaited for each event before. ``folder`` is the working directory and takes request and log.
    Raises `ConfigRefusedError` or `HandlerFaultError`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{command}-{uuid.uuid4().hex[:8]}.json"
    file.write_text(json.dumps({"handler_api": HANDLER_API, **request}))
    log = _Log(folder / f"{command}.log")
    try:
        process = await asyncio.create_subprocess_exec(
            str(python), "-I", "-m", "dataset_handlers", command, str(file),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=folder,
            env=handler_environment(folder),
            limit=_MAX_LINE,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise HandlerFaultError("handler_exited", f"the handler's interpreter cannot be started: {error}") from error
    assert process.stdout is not None
    assert process.stderr is not None
    collecting = asyncio.create_task(log.collect(process.stderr))
    final: dict[str, Any] | None = None
    try:
        async with asyncio.timeout(timeout or settings.describe_timeout):
            while line := await _read_line(process.stdout, settings.stall_timeout):
                event = _parse(line)
                if event["event"] in (_FINAL[command], "error"):
                    final = event
                    break  # whatever it left running may hold the pipe open for ever
                if on_event is not None:
                    await on_event(event)
            status = await _leave(process)
    except TimeoutError:
        code, message = (
            "handler_timeout",
            f"the handler did not {command} within {timeout or settings.describe_timeout:g} s",
        )
        raise HandlerFaultError(code, message, log.tail) from None
    except HandlerFaultError as error:
        error.log = error.log or log.tail
        raise
    finally:
        kill_group(process)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(collecting, 2)
        file.unlink(missing_ok=True)
    return _judge(final, status, command, log.tail)


def _judge(final: dict[str, Any] | None, status: int, command: str, log: str) -> dict[str, Any]:
    if final is not None and final["event"] == "error":
        code, message = str(final.get("code", "handler_failed")), str(final.get("message", ""))
        if code == "config_refused":
            raise ConfigRefusedError(message, list(final.get("faults", [])))
        if code == "request_malformed" and "handler_api" in message:
            code = "handler_api_mismatch"
        raise HandlerFaultError(code, message, log)
    if final is None or status != 0:
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
        raise HandlerFaultError("handler_exited", f"the handler's '{command}' {how} before it had finished", log)
    if command == "describe" and final.get("handler_api") != HANDLER_API:
        raise HandlerFaultError(
            "handler_api_mismatch",
            f"the handler speaks handler_api {final.get('handler_api')!r}, this server {HANDLER_API}; "
            "ask for a version made for this server, or update the server",
            log,
        )
    return final


async def _leave(process: Process) -> int:
    """The exit status of a process that has said its last word; it has a moment to go by itself."""
    try:
        return await asyncio.wait_for(process.wait(), _LEAVING_SECONDS)
    except TimeoutError:
        kill_group(process)
        return await process.wait()


async def _read_line(stream: asyncio.StreamReader, stall_timeout: float) -> bytes:
    try:
        return await asyncio.wait_for(stream.readline(), stall_timeout)
    except ValueError:
        raise HandlerFaultError(
            "handler_protocol", f"the handler printed a line of more than {_MAX_LINE} bytes"
        ) from None
    except TimeoutError:
        message = f"the handler made no progress for {stall_timeout:g} s"
        raise HandlerFaultError("handler_timeout", message) from None


def _parse(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            return event
    except (ValueError, RecursionError):
        pass
    shown = line[:100].decode(errors="replace").strip()
    raise HandlerFaultError("handler_protocol", f"the handler printed what is no event: {shown!r}")


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
                    file.write(chunk)
                    file.flush()
                    written += len(chunk)
