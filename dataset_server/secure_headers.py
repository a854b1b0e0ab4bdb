"""Headers that every answer carries: nothing here is a page, and nothing is for pages of other sites."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from multidict import CIMultiDict

_ALWAYS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
#: A year, as RFC 6797 says it.
_TLS_ONLY = "max-age=31536000"


def add_secure_headers(headers: CIMultiDict[str], *, is_tls: bool) -> None:
    """Add what is missing; a view that needs another value sets it. ``Server`` tells no versions."""
    for name, value in _ALWAYS.items():
        headers.setdefault(name, value)
    headers["Server"] = "dataset-server"
    if "json" in headers.get("Content-Type", ""):
        headers.setdefault("Cache-Control", "no-store")  # the state of now
    if is_tls:
        headers["Strict-Transport-Security"] = _TLS_ONLY


def secure_headers(*, is_tls: bool) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """`add_secure_headers` as the signal that aiohttp sends before an answer's headers go out."""

    async def add(_: web.Request, response: web.StreamResponse) -> None:
        add_secure_headers(response.headers, is_tls=is_tls)

    return add
