"""Log lines that say whose they are: which request, client, topic and build each one belongs to.

As text, a line reads ``TIME LEVEL logger [request=… topic=…]: message``; as JSON it is one object with ``time``,
``level``, ``logger``, ``message``, the ids, and ``exception`` where there is one. Times are UTC, as ISO 8601 has them.
A line stays one line: control characters of a message are written as escapes, so that nobody forges a second one.
"""

import contextlib
import json
import logging
import re
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.typedefs import Handler

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

REQUEST_ID_HEADER = "X-Request-Id"
#: Paths that machines ask for every few seconds; their requests are logged at DEBUG.
_POLLED = frozenset({"/healthz", "/readyz", "/metrics"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_ids: ContextVar[Mapping[str, str]] = ContextVar("log_ids")

access = logging.getLogger("dataset_server.access")


@contextlib.contextmanager
def log_context(**ids: str) -> Iterator[None]:
    """Lines logged inside carry these ids (``request``, ``client``, ``topic``, ``build``) beside those around them.

    Tasks and threads started inside carry them too. An empty id is left out.
    """
    token = _ids.set({**_ids.get({}), **ids})
    try:
        yield
    finally:
        _ids.reset(token)


def add_to_context(**ids: str) -> None:
    """As `log_context`, up to the end of the running task; each request of aiohttp is a task of its own."""
    _ids.set({**_ids.get({}), **ids})


def current_ids() -> dict[str, str]:
    """The ids that a line logged now carries."""
    return {name: value for name, value in _ids.get({}).items() if value}


class TextFormatter(logging.Formatter):
    """One line for people; an exception's lines follow it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        ids = " ".join(f"{name}={value}" for name, value in current_ids().items())
        where = f"{record.name} [{ids}]" if ids else record.name
        line = f"{_time(record)} {record.levelname} {where}: {escaped(record.getMessage())}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One line for machines."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **current_ids(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def escaped(text: str) -> str:
    """``text`` on one line."""
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def set_up(log_format: LogFormat, level: LogLevel) -> None:
    """Log to the standard error stream, from now on and for the whole process."""
    # No line says which file, thread or process it is from: not looking for them saves a tenth of each.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def request_id(sent: str | None) -> str:
    """The id of a request: the one that came with it, if it is 1 to 64 letters, digits or ``._-``; else a new one."""
    return sent if sent and _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex


@web.middleware
async def request_context(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Name the request in all that is logged for it. Belongs around all other middlewares."""
    add_to_context(request=request_id(request.headers.get(REQUEST_ID_HEADER)))
    try:
        return await handler(request)
    except ConnectionError:
        access.info("%s %s cut off", request.method, route(request))
        raise


async def tell_request_id(_: web.BaseRequest, response: web.StreamResponse) -> None:
    """Name the request in the answer's headers, too; for ``app.on_response_prepare``."""
    if "request" in (ids := current_ids()):
        response.headers[REQUEST_ID_HEADER] = ids["request"]


class AccessLogger(AbstractAccessLogger):
    """One line for each answer that was sent to its end: method, route, status, bytes and milliseconds."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Log a request; ``time`` is in seconds, from its headers to the end of its answer."""
        level = logging.DEBUG if request.path in _POLLED else logging.INFO
        if access.isEnabledFor(level):
            access.log(
                level,
                "%s %s %d %d bytes %.1f ms",
                request.method,
                route(request),
                response.status,
                sent_bytes(response),
                1000 * time,
            )


def route(request: web.BaseRequest) -> str:
    """The pattern that a request's path matched, such as ``/api/v1/datasets/{id}``; ``-`` if it matched none."""
    resource = request.match_info.route.resource if isinstance(request, web.Request) else None
    return resource.canonical if resource else "-"


#: Bytes of a body that went past aiohttp.
SENT_BYTES = web.ResponseKey("sent_bytes", int)


def sent_bytes(response: web.StreamResponse) -> int:
    """Bytes of an answer's body that was sent to its end; aiohttp does not count those the kernel copies."""
    sent: int = response.get(SENT_BYTES, response.body_length)
    return sent
