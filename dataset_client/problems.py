"""From what the server refuses or reports to the error that the caller sees. Pure; the wire's codes stand
here.
"""

import json
import time
from collections.abc import Mapping
from typing import Any

from dataset_client.errors import (
    BuildCancelledError,
    BuildFailedError,
    ConfigRefusedError,
    DatasetClientError,
    InvalidRequestError,
    ProtocolError,
    ServerBusyError,
    ServerError,
    ServerUnreachableError,
    UnauthorizedError,
    UnknownDatasetError,
    UnknownVersionError,
)
from dataset_client.protocol import Event

_BUSY = (429, 503)


class SocketsBlockedError(ServerUnreachableError):
    """Something between client and server, a proxy most likely, lets no WebSocket through: then the server is polled.
    Never reaches the user.
    """


def error_from_response(status: int, headers: Mapping[str, str], body: bytes, *, url: str) -> DatasetClientError:
    """The error for an HTTP status that is no success; ``headers`` must ignore case, ``body`` may be
    anything.
    """
    problem = _problem(body)
    code = _text(problem.get("code"))
    detail = _text(problem.get("detail")) or _text(problem.get("title"))
    message = detail or f"{url} answers HTTP {status}"
    known = _error_by_code(code, message, problem)
    if known is not None:
        return known
    if status in {401, 403}:
        return UnauthorizedError(message, code=code or None)
    if status in _BUSY:
        after = parse_retry_after(headers.get("Retry-After"), now=time.time())
        busy = ServerBusyError(message, code=code or None, transient=True, retry_after=after)
        busy.status = status
        return busy
    if status in {400, 413} and problem:
        return InvalidRequestError(message, code=code or None)
    if status < 500 and not problem:
        return ProtocolError(message)
    error = ServerError(f"HTTP {status}: {message}", code=code or None, transient=status >= 500)
    error.status = status
    return error


def error_of_handshake(status: int, headers: Mapping[str, str], body: bytes, *, url: str) -> DatasetClientError:
    """The error for a handshake that was refused: by our server, or by something that lets no socket through.

    The latter answers without a problem document of ours, or takes ``Upgrade`` out of what it passes on, which our
    server then misses (400), or answers as if there had been none (2xx).
    """
    code, detail = _text(_problem(body).get("code")), _text(_problem(body).get("detail"))
    is_stripped = status == 400 and "upgrade" in detail.lower()
    is_foreign = not code and (status < 500 or status == 501) and status not in {401, 407, 408, 429}
    if is_stripped or is_foreign:
        return SocketsBlockedError(f"{url} answers HTTP {status} to a WebSocket handshake")
    return error_from_response(status, headers, body, url=url)


def require_ready(event: Event) -> Event:
    """``event`` if it is a ``ready`` one; raises what a ``failed`` or ``cancelled`` one means."""
    if event.kind == "ready":
        return event
    message = _text(event.data.get("message")) or f"the build of {event.topic_id} {event.kind}"
    if event.kind == "cancelled":
        raise BuildCancelledError(message)
    code = _text(event.data.get("code"))
    raise _error_by_code(code, message, event.data) or BuildFailedError(
        message, code=code or None, log=_lines(event.data.get("log"))
    )


def parse_retry_after(value: str | None, *, now: float) -> float | None:
    """Seconds from a ``Retry-After`` header (RFC 9110, 10.2.3: seconds or a date); None if absent or
    unreadable.
    """
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    import email.utils  # costs as much as all of this package, and is rarely needed

    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (TypeError, ValueError):
        return None


def _error_by_code(code: str, message: str, fields: Mapping[str, Any]) -> DatasetClientError | None:
    """The error of a code that means the same as an answer and as a ``failed`` event."""
    match code:
        case "config_refused":
            return ConfigRefusedError(message, faults=_faults(fields.get("faults")))
        case "version_unknown":
            return UnknownVersionError(message)
        case "dataset_unknown":
            return UnknownDatasetError(message)
        case _:
            return None


def _problem(body: bytes) -> Mapping[str, Any]:
    """The members of a problem document (RFC 9457); empty for anything else, such as a proxy's HTML page."""
    try:
        problem = json.loads(body)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _lines(value: Any) -> list[str]:
    if isinstance(value, str):
        return value.splitlines()
    return [str(line) for line in value] if isinstance(value, list) else []


def _faults(value: Any) -> list[dict[str, str]]:
    faults = value if isinstance(value, list) else []
    return [
        {"path": str(fault.get("path", "")), "reason": str(fault.get("reason", ""))}
        for fault in faults
        if isinstance(fault, dict)
    ]
