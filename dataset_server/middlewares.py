"""What every request passes: how faults are told, where it may come from, who asks, and how long it may take."""

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import Callable, Collection

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from .auth import ANYBODY, CLIENT, Access, Client, Role, is_guessable, require_role, sent_token
from .errors import (
    ForbiddenError,
    MalformedRequestError,
    MethodNotAllowedError,
    NotFoundError,
    RangeNotSatisfiableError,
    RequestTimeoutError,
    RequestTooLargeError,
    ServerFault,
    TooManyRequestsError,
    UnauthorizedError,
)
from .limits import Limiter, address_key
from .logs import add_to_context
from .origins import client_address, comes_from_elsewhere, is_same_origin

logger = logging.getLogger(__name__)

#: Bytes of a body that anybody may send; as many fit into the connection's own buffer.
SMALL_BODY = 1 << 14
#: Wrong tokens that one address may send in a minute.
GUESSES_PER_MINUTE = 20
#: Set once the answer to a request has begun.
_STARTED = web.RequestKey("started", bool)


def problem(fault: ServerFault) -> web.Response:
    """A fault as ``application/problem+json``."""
    headers = {"WWW-Authenticate": "Bearer"} if fault.status == 401 else {}
    if isinstance(fault, RangeNotSatisfiableError):
        headers["Content-Range"] = f"bytes */{fault.size}"
    if fault.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(fault.retry_after))  # whole seconds: RFC 9110, 10.2.3
    return web.Response(
        text=json.dumps(fault.to_problem()),
        status=fault.status,
        content_type="application/problem+json",
        headers=headers,
    )


async def note_start(request: web.BaseRequest, _: web.StreamResponse) -> None:
    """Note that an answer begins, for `one_answer`; belongs last in ``app.on_response_prepare``."""
    request[_STARTED] = True


@web.middleware
async def one_answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Cut the connection when a view fails whose answer has begun: another answer would be read as a part of it.

    Belongs right inside `faults`.
    """
    try:
        return await handler(request)
    except Exception as error:
        if not request.get(_STARTED):
            raise
        if not isinstance(error, ConnectionError):
            logger.exception("%s %s failed in the middle of its answer", request.method, request.path)
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the answer was cut off") from error


@web.middleware
async def faults(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever is raised into a problem document with a stable code."""
    try:
        return await handler(request)
    except ServerFault as fault:
        return problem(fault)
    except web.HTTPRequestEntityTooLarge as error:
        return problem(RequestTooLargeError(f"a request may have {request.client_max_size} bytes: {error.text}"))
    except web.HTTPNotFound:
        return problem(NotFoundError(f"there is nothing at {request.path[:300]}"))
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        refusal = problem(MethodNotAllowedError(f"{request.method} is not possible here, only {allowed}"))
        refusal.headers["Allow"] = allowed  # RFC 9110, 15.5.6
        return refusal
    except web.HTTPException as error:
        if error.status < 400:
            raise
        refused = MalformedRequestError(error.text or error.reason)
        refused.status = error.status
        return problem(refused)
    except Exception as error:  # the boundary: nothing but a problem document leaves
        if isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing()):
            raise  # the client has gone, or its answer was cut off; a database's connection is another matter
        logger.exception("%s %s failed", request.method, request.path)
        return problem(ServerFault(f"the server failed ({type(error).__name__}); its log says more"))


def same_origin(public_origins: Collection[str]) -> Middleware:
    """Refuse what a page of another site makes a browser send: sockets, and requests that change something."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        hosts = request.headers.getall("Host", [])
        if len(hosts) > 1 or (not hosts and request.version >= (1, 1)) or request.version < (1, 0):
            raise MalformedRequestError("a request is of HTTP/1.0 or 1.1, and names its host once (RFC 9112, 3.2)")
        origin = request.headers.get("Origin")
        acts = request.method not in ("GET", "HEAD") or "websocket" in request.headers.get("Upgrade", "").lower()
        if origin is not None and acts and not is_same_origin(origin, "".join(hosts), public_origins):
            raise ForbiddenError("requests on behalf of other sites are refused; behind a proxy, set public_origins")
        return await handler(request)

    return check


def rights(
    access: Access,
    needed_role: Callable[[web.Request], str | None],
    *,
    requests_per_minute: int,
    trusted_proxies: Collection[str],
) -> Middleware:
    """Find out who asks, and let pass what they may do, as often as they may."""
    failures, requests = Limiter(), Limiter()

    async def identify(request: web.Request) -> Client:
        if not await access.is_needed():
            if why := comes_from_elsewhere(request.headers):
                raise ForbiddenError(f"{why}; a server that others reach needs a token: dataset-server token make")
            return ANYBODY
        text = sent_token(request.headers.get("Authorization", ""))
        if text is None:
            raise UnauthorizedError("send 'Authorization: Bearer TOKEN' with a token of this server")
        address = address_key(client_address(request.remote or "", _forwarded(request), trusted_proxies))
        if is_guessable(text):
            _refuse_for(failures.wait(address, GUESSES_PER_MINUTE), "too many wrong tokens from your address")
        try:
            return await access.client_of(text)
        except UnauthorizedError:
            _refuse_for(failures.take(address, GUESSES_PER_MINUTE), "too many wrong tokens from your address")
            raise

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        needed = needed_role(request)
        if needed is not None:
            client = request[CLIENT] = await identify(request)
            add_to_context(client=client.name)
            if client.name:
                limit = client.requests_per_minute or requests_per_minute
                wait = requests.take(client.token_id or client.name, limit)
                _refuse_for(wait, f"'{client.name}' may send {limit} requests a minute")
            require_role(client, Role.called(needed))
        return await handler(request)

    return check


def in_time(seconds: float, *, up_to: int | None = None) -> Middleware:
    """Read the body before the view does, and refuse one that takes longer; the view finds it read.

    With ``up_to`` this is for bodies known to have no more bytes. Those are read at once, before anybody is asked who
    sends them: what a client sent whole counts, even if it has gone meanwhile.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.body_exists and (up_to is None or (request.content_length or up_to + 1) <= up_to):
            is_here = request.content.is_eof()  # as most are, for which a timer would be needless work
            try:
                async with contextlib.nullcontext() if is_here else asyncio.timeout(seconds):
                    await request.read()
            except TimeoutError as error:
                raise RequestTimeoutError(f"the body did not arrive within {seconds:g} s") from error
            except web.RequestPayloadError as error:
                raise MalformedRequestError(f"the body ends early or is no chunked one: {error}") from error
        return await handler(request)

    return check


async def expected(request: web.Request) -> web.StreamResponse | None:
    """Answer an ``Expect`` header before the body comes (RFC 9110, 10.1.1): go on, or as every other fault."""
    if request.version < (1, 1):
        return None
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun
        return None
    refused = MalformedRequestError("nothing can be expected but 100-continue")
    refused.status = 417
    return problem(refused)


def _forwarded(request: web.Request) -> str:
    return ",".join(request.headers.getall("X-Forwarded-For", []))


def _refuse_for(wait: float, why: str) -> None:
    """Raise `TooManyRequestsError` if there is anything to wait for, in seconds."""
    if wait:
        raise TooManyRequestsError(f"{why}; try again in {math.ceil(wait)} s", retry_after=wait)
