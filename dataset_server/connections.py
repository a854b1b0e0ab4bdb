"""Connections: how many one address may hold, and what is said to those who do not speak HTTP.

aiohttp bounds the rest: lines, fields and headers by size, pipelined requests by number, and by ``keepalive_timeout``
the time between connecting, or the last answer, and the end of the next request's headers. Connections that still shake
hands for TLS are bounded by time, not by number.
"""

import asyncio
import json
import logging
import resource
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http import HttpProcessingError

from .errors import MalformedRequestError
from .limits import address_key
from .secure_headers import add_secure_headers

logger = logging.getLogger(__name__)

#: Seconds for which the rest of a body that nobody wants is read, so that its sender comes to read the answer.
_LINGERING_SECONDS = 10.0
#: Seconds that the handshake of TLS may take. A connection counts only after it: asyncio shows it to nobody before.
_HANDSHAKE_SECONDS = 10.0
#: Milliseconds for which a peer may take nothing of what is sent to it, before its connection is cut (RFC 5482).
_DEAF_MILLISECONDS = 300_000
#: Files a server has open beside its clients' connections, at the most: database, archives, pipes to programs.
OTHER_FILES = 1000


def allow_open_files() -> None:
    """Let this process have as many files open as its user may: each connection is one, and the usual 1024 are few."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Connections:
    """Counts the open connections of each address; those that are ``exempt``, such as a proxy's, do not count."""

    def __init__(self, limit: int, is_exempt: Callable[[str], bool]) -> None:
        self._limit = limit
        self._is_exempt = is_exempt
        self._open: Counter[str] = Counter()

    def admit(self, address: str) -> str | None:
        """Count one more connection of ``address``; returns what to `release`, or None if that is one too many."""
        if self._is_exempt(address):
            return ""
        key = address_key(address)
        if self._open[key] >= self._limit:
            return None
        self._open[key] += 1
        return key

    def release(self, key: str) -> None:
        """Forget a connection that was admitted."""
        self._open[key] -= 1
        if self._open[key] <= 0:
            del self._open[key]


class Connection(web.RequestHandler):
    """One connection; closed at once where its address holds too many."""

    __slots__ = ("_admitted", "_connections", "_is_logged", "_is_tls")

    def __init__(self, server: web.Server, connections: Connections, *, is_tls: bool, **limits: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **limits)
        self._connections = connections
        self._is_tls = is_tls
        self._admitted: str | None = None
        self._is_logged = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or close it."""
        peer = transport.get_extra_info("peername")
        self._admitted = self._connections.admit(peer[0] if peer else "")
        if self._admitted is None:
            assert isinstance(transport, asyncio.Transport)
            transport.abort()
        else:
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; elsewhere the system's own, which may be for ever
                connection = transport.get_extra_info("socket")
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAF_MILLISECONDS)
            super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        if self._admitted is not None:
            self._connections.release(self._admitted)
            self._admitted = None
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP in the form of every other fault; one line of the log is enough for it, and for who
        has gone.
        """
        if isinstance(exc, ConnectionError):
            # Not where we cut it off because something of ours had failed (`middlewares.one_answer`).
            self._is_logged = isinstance(exc.__cause__ or exc, ConnectionError)
            logger.info("%s has gone before the end of its answer", request.remote)
            response = web.Response(status=status)  # which goes nowhere
            response.force_close()
            return response
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        logger.info("%s sends what is not HTTP: %.200r", request.remote, str(message))
        self._is_logged = True
        fault = MalformedRequestError("this is not HTTP, or its headers are too large")
        response = web.Response(
            text=json.dumps(fault.to_problem()), status=fault.status, content_type="application/problem+json"
        )
        add_secure_headers(response.headers, is_tls=self._is_tls)
        response.force_close()
        return response

    def log_access(self, request: web.BaseRequest, response: web.StreamResponse, time: float | None) -> None:
        """Log an answer, unless that was done: what is not HTTP belongs to no route, who has gone got no answer."""
        if not self._is_logged:
            super().log_access(request, response, time)


async def listen(
    server: web.Server,
    host: str,
    port: int,
    connections: Connections,
    *,
    idle_timeout: float,
    access_log_class: type[AbstractAccessLogger],
    tls: ssl.SSLContext | None,
) -> asyncio.Server:
    """Accept connections for ``server``; those that send no whole request head for ``idle_timeout`` s are closed."""

    def accept() -> Connection:
        return Connection(
            server,
            connections,
            is_tls=tls is not None,
            keepalive_timeout=idle_timeout,
            lingering_time=min(idle_timeout, _LINGERING_SECONDS),
            access_log_class=access_log_class,
            auto_decompress=False,  # a body is as long as it is on the wire
        )

    handshake = min(idle_timeout, _HANDSHAKE_SECONDS) if tls else None
    return await asyncio.get_running_loop().create_server(
        accept, host, port, ssl=tls, ssl_handshake_timeout=handshake, backlog=1024
    )
