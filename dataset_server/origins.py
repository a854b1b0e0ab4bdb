"""Where a request comes from: the address of its client, and the site whose page made a browser send it. Pure."""

import functools
import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

#: What proxies say of themselves: RFC 9110, 7.6.3, RFC 7239, and what came before it.
_PASSED_ON = ("Via", "Forwarded", "X-Forwarded-For", "X-Real-IP")


def is_same_origin(origin: str, host: str, public_origins: Collection[str]) -> bool:
    """Whether ``origin`` (RFC 6454, 7) is this server's own: by its ``Host`` header, or one it is known under."""
    scheme, separator, site = origin.partition("://")
    return origin in public_origins or (bool(separator) and scheme in ("http", "https") and site == host)


def comes_from_elsewhere(headers: Mapping[str, str]) -> str | None:
    """Why a request need not be from this machine's own users, though it came over loopback; None if nothing says so.

    A proxy may have passed it on for others, or a page of another site had a browser send it: by Fetch Metadata, or by
    its ``Host``, a name that was pointed to this machine.
    """
    if by := next((name for name in _PASSED_ON if name in headers), None):
        return f"the request was passed on by a proxy ({by})"
    if headers.get("Sec-Fetch-Site", "") in ("cross-site", "same-site"):
        return "the request was sent by a page of another site"
    if may_be_rebound(headers.get("Host", "")):
        return "the host is neither an address nor 'localhost'"
    return None


@functools.lru_cache(maxsize=256)  # clients say the same host with each request
def may_be_rebound(host: str) -> bool:
    """Whether a ``Host`` header is a name that another site may have pointed to this machine (DNS rebinding).

    A page of that site then is of the same origin, as browsers see it. Addresses and ``localhost`` cannot be pointed
    anywhere; a client that sends no host is no browser.
    """
    if not host:
        return False
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return True
    return name != "localhost" and not is_address(name)


def is_address(text: str) -> bool:
    """Whether it is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_trusted(address: str, trusted_proxies: Collection[str]) -> bool:
    """Whether an address lies in one of the networks."""
    if not is_address(address):
        return False
    parsed = ipaddress.ip_address(address)
    return any(parsed in ipaddress.ip_network(network, strict=False) for network in trusted_proxies)


def client_address(peer: str, forwarded_for: str, trusted_proxies: Collection[str]) -> str:
    """The address of the client: the last one of ``X-Forwarded-For`` that no trusted proxy has, or its ``peer``.

    Only what a trusted proxy appended is believed; what stands before may be the client's own invention.
    """
    address = peer
    for hop in reversed(forwarded_for.split(",")):
        if not is_trusted(address, trusted_proxies) or not is_address(hop.strip()):
            break
        address = hop.strip()
    return address
