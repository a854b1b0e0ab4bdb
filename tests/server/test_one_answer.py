"""One request has one answer: what fails in the middle of it, what is expected of it, and what probes are told."""

import asyncio
import errno
import os
import ssl
from types import SimpleNamespace

import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer, make_mocked_request
from sqlalchemy.exc import OperationalError

from dataset_server import api, connections, downloads
from dataset_server.auth import ANYBODY, CLIENT
from dataset_server.connections import Connections, listen
from dataset_server.errors import UnavailableError
from dataset_server.hub import Hub
from dataset_server.logs import AccessLogger
from dataset_server.middlewares import expected, faults, note_start, one_answer
from dataset_server.notifications import follow
from dataset_server.openapi import document
from dataset_server.readiness import Readiness
from dataset_server.store import Database, Store
from dataset_server.store.audit import Audit

TOPIC = f"coco_1_{'0' * 32}.zip"


async def said(view, *headers: str, method: str = "GET") -> bytes:
    """All that a server with this view says until it closes the connection."""

    @web.middleware
    async def identified(request, handler):
        request[CLIENT] = ANYBODY
        return await handler(request)

    app = web.Application(middlewares=[faults, one_answer, identified])
    app.on_response_prepare.append(note_start)
    app[api.AUDIT] = Audit(None)
    app.router.add_route(method, "/{id}", view, expect_handler=expected)
    async with TestServer(app) as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        head = [f"{method} /{TOPIC} HTTP/1.1", "Host: 127.0.0.1", *headers]
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n")
        answer = b""
        try:
            while block := await asyncio.wait_for(reader.read(1 << 16), 60):
                answer += block
        except ConnectionResetError:
            pass
        writer.close()
    return answer


async def test_a_disk_that_fails_in_the_middle_puts_no_word_into_the_file(tmp_path, monkeypatch):
    path = tmp_path / "archive"
    path.write_bytes(bytes(100_000))
    real = os.sendfile

    def dying(out, file, offset, count):
        if offset:
            raise OSError(errno.EIO, "Input/output error")
        return real(out, file, offset, min(count, 1000))

    monkeypatch.setattr(os, "sendfile", dying)

    async def view(request):
        piece = downloads.Piece(path.parent, path.name, 0, 100_000, "0" * 64, "application/zip", "archive")
        return await downloads.send(request, piece)

    answer = await said(view)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert not body.strip(b"\0")
    assert len(body) < 100_000


@pytest.mark.parametrize(
    "failure", [ValueError("unforeseen"), ConnectionResetError("the database's"), web.HTTPNotFound()]
)
async def test_whatever_fails_in_the_middle_ends_the_answer(failure):
    async def view(request):
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"begun")
        raise failure

    answer = await said(view)
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.endswith(b"begun")


async def test_what_fails_before_it_begins_is_answered():
    async def view(_):
        raise ValueError("unforeseen")

    answer = await said(view, "Connection: close")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"internal_error" in answer


async def test_a_socket_whose_database_breaks_is_cut(tmp_path):
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'server.db'}")  # without a table

    async def view(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await follow(socket, Store(database), Hub(), {TOPIC: 0}, lambda: None)
        return socket

    handshake = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    answer = await said(view, *handshake, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
    await database.close()
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert answer.count(b"HTTP/1.1") == 1


async def test_expectations():
    async def view(request):
        return web.Response(text=f"{len(await request.read())} bytes")

    refused = await said(view, "Expect: a miracle", "Connection: close")
    assert refused.startswith(b"HTTP/1.1 417 ")
    assert b"application/problem+json" in refused
    met = await said(view, "Expect: 100-continue", "Connection: close")
    assert met.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


# -- probes


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


async def test_probes_share_one_question_a_second():
    clock, pings = Clock(), []

    async def ping():
        pings.append(clock.now)
        await asyncio.sleep(0)
        if len(pings) == 2:
            raise OperationalError("SELECT 1", {}, Exception("locked"))

    readiness = Readiness(ping, clock)
    await asyncio.gather(*(readiness.require() for _ in range(100)))
    assert len(pings) == 1
    clock.now += 1
    outcomes = await asyncio.gather(*(readiness.require() for _ in range(100)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {UnavailableError}
    assert len(pings) == 2
    clock.now += 1
    await readiness.require()
    assert len(pings) == 3


def test_not_now_is_documented():
    paths = document()["paths"]
    for path in ("/readyz", "/api/v1/handlers/{name}/{version}"):
        assert "503" in paths[path]["get"]["responses"], path


@pytest.mark.parametrize("broken", ["[project", "project = 1", '[project]\nversion = "\udcff"', None])
async def test_a_broken_handler_hides_no_other(tmp_path, broken):
    for name, text in {"good": '[project]\nversion = "1.5"', "broken": broken}.items():
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "pyproject.toml").write_bytes(text.encode(errors="surrogateescape"))
    app = web.Application()
    sources = {name: SimpleNamespace(kind="path", path=tmp_path / name) for name in ("broken", "good")}
    app[api.SETTINGS] = SimpleNamespace(sources=sources)
    answer = await api.list_handlers(make_mocked_request("GET", "/", app=app))
    shown = [{"dataset_name": "broken", "kind": "path"}, {"dataset_name": "good", "kind": "path", "version": "1.5"}]
    assert web.json_response({"handlers": shown}).text == answer.text


# -- connections


async def test_a_handshake_that_does_not_come_ends(monkeypatch):
    monkeypatch.setattr(connections, "_HANDSHAKE_SECONDS", 0.05)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    async def view(_):
        return web.Response()

    server = await listen(
        web.Server(view),
        "127.0.0.1",
        0,
        Connections(1, lambda _: False),
        idle_timeout=3600,
        access_log_class=AccessLogger,
        tls=context,
    )
    host, port = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(host, port)
    try:
        assert await asyncio.wait_for(reader.read(), 60) == b""
    finally:
        writer.close()
        server.close()
