"""What every request passes: who asks, and how faults are told."""

import hashlib
import hmac
import json
import logging

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from .errors import (
    ForbiddenError,
    MalformedRequestError,
    MethodNotAllowedError,
    NotFoundError,
    RangeNotSatisfiableError,
    RequestTooLargeError,
    ServerFault,
    UnauthorizedError,
)

logger = logging.getLogger(__name__)


_OPEN = frozenset({"/healthz", "/readyz"})


def problem(fault: ServerFault) -> web.Response:
    """A fault as ``application/problem+json``."""
    headers = {"WWW-Authenticate": "Bearer"} if fault.status == 401 else {}
    if isinstance(fault, RangeNotSatisfiableError):
        headers["Content-Range"] = f"bytes */{fault.size}"
    return web.Response(
        text=json.dumps(fault.to_problem()),
        status=fault.status,
        content_type="application/problem+json",
        headers=headers,
    )


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
        return problem(MethodNotAllowedError(f"{request.method} is not possible here, only {allowed}"))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        refused = MalformedRequestError(error.text or error.reason)
        refused.status = error.status
        return problem(refused)
    except ConnectionError:
        raise  # the client has gone
    except Exception as error:  # the boundary: nothing but a problem document leaves
        logger.exception("%s %s failed", request.method, request.path)
        return problem(ServerFault(f"the server failed ({type(error).__name__}); its log says more"))


@web.middleware
async def same_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what a page of another site makes a browser send: sockets, and requests that change something."""
    origin = request.headers.get("Origin")
    acts = request.method not in ("GET", "HEAD") or "websocket" in request.headers.get("Upgrade", "").lower()
    if origin is not None and acts and origin.partition("://")[2] != request.host:
        raise ForbiddenError("requests on behalf of other sites are refused")
    return await handler(request)


def bearer(token: str | None) -> Middleware:
    """Let in who sends ``token``; everybody if there is none. Compared by digest, in constant time."""
    expected = hashlib.sha256(token.encode()).digest() if token is not None else None

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if expected is not None and request.path not in _OPEN:
            scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
            digest = hashlib.sha256(sent.strip().encode(errors="surrogateescape")).digest()
            if scheme.lower() != "bearer" or not hmac.compare_digest(digest, expected):
                raise UnauthorizedError("send 'Authorization: Bearer TOKEN' with this server's token")
        return await handler(request)

    return check
