"""The machine: programs, the kernel's containment, the clock, the port, and the certificate."""

import errno
import platform
import resource
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from uv import find_uv_bin

from ..confinement import gaps
from ..connections import OTHER_FILES
from ..processes import Finished, can_filter_calls, landlock_abi, run_tool
from ..settings import Settings
from ..tls import server_context
from .finding import Finding, failed, ok, warning

_TIMEOUT = 20.0
_OLDEST_PYTHON = (3, 11)
_FIRST_RELEASE = 1735689600.0  # 2025-01-01: no clock that is right shows less
_DAY = 86400.0


async def programs(settings: Settings | None) -> list[Finding]:
    """Python, uv and git; and the interpreter that environments are made from."""
    found = [ok("python", f"the server runs on Python {platform.python_version()}")]
    try:
        uv = find_uv_bin()
    except FileNotFoundError:
        found.append(failed("uv", "the program uv is not there", "install the server again: uv comes with it"))
    else:
        ran = await run_tool([uv, "--version"], timeout=_TIMEOUT)
        found.append(_program("uv", ran, "no handler can be installed", "install the server again: uv comes with it"))
    git = await run_tool(["git", "--version"], timeout=_TIMEOUT)
    found.append(_program("git", git, "no handler can come from a repository", "install git"))
    if settings and settings.python != sys.executable:
        found.append(await _interpreter(settings.python))
    return found


def _program(name: str, ran: Finished, consequence: str, remedy: str) -> Finding:
    if ran.status == 0:
        return ok(name, ran.output.strip())
    return warning(name, f"{name} does not run ({ran.tail or ran.status}): {consequence}", remedy)


async def _interpreter(python: str) -> Finding:
    code = "import sys; print(*sys.version_info[:3], sep='.')"
    ran = await run_tool([python, "-I", "-c", code], timeout=_TIMEOUT)
    remedy = f"let the setting python name a Python {'.'.join(map(str, _OLDEST_PYTHON))} or newer"
    if ran.status != 0:
        return failed("python", f"{python} does not run: {ran.tail or ran.status}", remedy)
    version = ran.output.strip()
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_PYTHON:
        return failed("python", f"{python} is Python {version}", remedy)
    return ok("python", f"environments are made from Python {version}")


def containment(settings: Settings) -> list[Finding]:
    """What handlers could do here that they should not, and could not do that they should."""
    abi = landlock_abi()
    found = [
        warning("containment", f"handler_reads names {path}, which is not there", "name the folder where it is")
        for path in settings.handler_reads
        if not path.exists()
    ]
    found += [
        warning("containment", gap, "a newer kernel, or another place for the folder, closes this")
        for gap in gaps(settings, abi, filters=can_filter_calls())
    ]
    return found or [ok("containment", f"handlers are kept to their folders (Landlock {abi})")]


def judge_clock(now: float, file_time: float, latest: float | None) -> Finding:
    """Whether the clock can be right: by the time a new file got, and the latest that the database knows (seconds)."""
    remedy = "let the machine keep time by NTP; leases and expiry of tokens go by the clock"
    if now < _FIRST_RELEASE:
        return failed("clock", f"the clock shows {time.strftime('%Y-%m-%d', time.gmtime(now))}", remedy)
    if latest is not None and latest > now + 60:
        return warning("clock", f"the database knows of something {latest - now:.0f} s in the future", remedy)
    if abs(file_time - now) > 5:
        return warning("clock", f"the data folder's disk is {file_time - now:+.0f} s off this machine's clock", remedy)
    return ok("clock", "the clock agrees with the disk and the database")


def judge_open_files(hard: int, connections: int) -> Finding:
    """Whether as many files may be open as so many connections need; the server raises its limit to ``hard`` itself."""
    wanted = connections + OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return warning(
            "open files",
            f"this user's programs may have {hard} files open; connections_per_address asks for {wanted}",
            "raise the hard limit (LimitNOFILE of the unit, ulimit -Hn), or lower connections_per_address",
        )
    return ok("open files", "as many may be open as the connections need")


def openness(opening: str | None, *, has_token: bool) -> Finding:
    """Whether the server asks for a token where there is an opening (`auth.opening`) for others than this machine."""
    if not opening or has_token:
        return ok("tokens", "the server asks for one" if has_token else "none is needed: only this machine gets in")
    return failed(
        "tokens",
        f"{opening}, others get in, and there is no token: it will not start",
        "make one with 'dataset-server token make NAME --role admin', or set DATASET_SERVER_TOKEN",
    )


def port(settings: Settings, *, served: bool) -> Finding:
    """Whether the address can be listened on; ``served``: a server that works on the data folder may hold it."""
    where = f"{settings.host}:{settings.port}"
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and served:
            return ok("port", f"{where} is in use while the server runs")
        return failed(
            "port", f"{where} cannot be listened on: {error.strerror or error}", "choose another host or port"
        )
    return ok("port", f"{where} is free")


def certificate(certificate: Path, key: Path) -> Iterator[Finding]:
    """Whether a TLS certificate and its key can be used, and for how long."""
    try:
        server = server_context(certificate, key)
    except OSError as error:
        yield failed("tls", str(error), "give both as PEM files that belong together, readable by the server's user")
        return
    try:
        left = _expiry(server, certificate) - time.time()
    except ssl.SSLError as error:
        yield failed("tls", f"no client will take {certificate}: {error}", "renew the certificate")
        return
    if left < 14 * _DAY:
        yield warning("tls", f"{certificate} expires in {left / _DAY:.0f} days", "renew it, and restart the server")
    else:
        yield ok("tls", f"{certificate} is good for {left / _DAY:.0f} days")


def _expiry(server: ssl.SSLContext, certificate: Path) -> float:
    """When a certificate expires, in seconds since the epoch, by shaking hands with it; raises `ssl.SSLError`."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is what is trusted here
    client.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    us = client.wrap_bio(to_client, to_server, server_side=False)
    them = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):  # flights of a handshake
        for side in (us, them):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    shown = us.getpeercert()
    assert shown
    return ssl.cert_time_to_seconds(str(shown["notAfter"]))
