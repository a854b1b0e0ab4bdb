"""One request has one answer: what fails in the middle of it, what is expected of it, and what probes are told."""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer, make_mocked_request
from sqlalchemy.exc import OperationalError

from dataset_server import api, connections, downloads
from dataset_server.app import create_app
from dataset_server.auth import ANYBODY, CLIENT, Client, Role
from dataset_server.connections import Connections, listen
from dataset_server.errors import TooManyRequestsError, UnavailableError
from dataset_server.hub import Hub
from dataset_server.logs import AccessLogger
from dataset_server.middlewares import expected, faults, note_start, one_answer
from dataset_server.notifications import Sockets, follow
from dataset_server.openapi import document
from dataset_server.readiness import Readiness
from dataset_server.settings import Settings
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


@pytest.mark.parametrize(
    "error", [ValueError("unforeseen"), ConnectionRefusedError("the database's, not the client's")]
)
async def test_what_fails_before_it_begins_is_answered(error):
    async def view(_):
        raise error

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


async def test_a_database_that_says_nothing_is_asked_once(monkeypatch):
    monkeypatch.setattr("dataset_server.readiness._PATIENCE_SECONDS", 0.01)
    pings, alive = [], asyncio.Event()

    async def ping():
        pings.append(1)
        await alive.wait()

    readiness = Readiness(ping)
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await readiness.require()
    assert len(pings) == 1
    alive.set()
    await readiness._asking
    await readiness.require()


@pytest.mark.parametrize("harm", [lambda file: file.write_bytes(b"\xee" * file.stat().st_size), Path.unlink])
async def test_a_database_that_is_damaged_or_gone_is_not_ready(tmp_path, harm):
    """Though a connection is open that has read it before."""
    app = create_app(Settings(raw_root=tmp_path, data_dir=tmp_path))
    database, file = app[api.DATABASE], tmp_path / "server.db"
    async with contextlib.AsyncExitStack() as closing:
        closing.push_async_callback(database.close)
        await database.create()
        async with database.reading() as db:
            await db.exec_driver_sql("COMMIT")
            await db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")  # what is in the log is not read from the file
        await database.probe()
        await Store(database).topic(TOPIC)
        harm(file)
        with pytest.raises(UnavailableError):
            await app[api.READINESS].require()
        assert file.exists() == (harm is not Path.unlink)


# -- connections


@contextlib.asynccontextmanager
async def listening(view, access_log_class=AccessLogger, **more):
    """Where a server with this view listens."""
    connections = Connections(9, lambda _: False)
    options = {"idle_timeout": 3600, "access_log_class": access_log_class, "tls": None, **more}
    server = await listen(web.Server(view), "127.0.0.1", 0, connections, **options)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no such time-out")
async def test_who_does_not_read_is_cut_off_some_time():
    async def view(request):
        connection = request.transport.get_extra_info("socket")
        return web.Response(text=str(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)))

    async with listening(view) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 60)).endswith(b"300000")
        writer.close()


async def _gone(_):
    raise ConnectionResetError("the client has gone")


async def _cut_off(_):
    raise ConnectionResetError("the answer was cut off") from OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize(("view", "counted"), [(_gone, []), (_cut_off, [500])])
async def test_who_goes_before_the_end_got_no_answer(view, counted):
    logged, ended = [], asyncio.Event()

    class Log(AccessLogger):
        def log(self, request, response, time):
            logged.append(response.status)

    async def seen(request):
        request.transport.abort()
        asyncio.get_running_loop().call_later(0.1, ended.set)  # when the answer to nobody is done with
        return await view(request)

    async with listening(seen, Log) as (host, port):
        _, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await asyncio.wait_for(ended.wait(), 60)
        writer.close()
    assert logged == counted


# -- sockets


class DeafSocket:
    """A socket whose peer reads nothing, or which fails of ``failure`` when it is closed."""

    def __init__(self, failure=None):
        self.failure = failure
        self.aborted = self.closed = False

    async def close(self, **_):
        self.closed = True
        if self.failure:
            raise self.failure
        await asyncio.Event().wait()

    def abort(self):
        self.aborted = True


async def test_every_socket_is_closed_and_the_deaf_are_cut_off(monkeypatch):
    monkeypatch.setattr("dataset_server.notifications.CLOSE_SECONDS", 0.01)
    sockets = Sockets(9)
    deaf, broken, cancelled = DeafSocket(), DeafSocket(ValueError("unforeseen")), DeafSocket(asyncio.CancelledError())
    with contextlib.ExitStack() as held:
        for each in (cancelled, broken, deaf):
            held.enter_context(sockets.hold(each, each, ANYBODY))
        await sockets.end_all()
        assert [each.closed for each in (cancelled, broken, deaf)] == [True] * 3
        assert deaf.aborted

        async def still_holds(_):
            return False

        await sockets.end_revoked(SimpleNamespace(still_holds=still_holds))


def test_sockets_are_counted_by_name_whatever_the_token():
    sockets = Sockets(2)
    one, two, other = (Client(name, Role.READ, token_id=token) for name, token in [("a", "1"), ("a", "2"), ("b", "3")])
    with sockets.hold(DeafSocket(), None, one):
        with sockets.hold(DeafSocket(), None, two):
            for client in (one, two):
                with pytest.raises(TooManyRequestsError), sockets.hold(DeafSocket(), None, client):
                    pass
            with sockets.hold(DeafSocket(), None, other):
                pass
        with sockets.hold(DeafSocket(), None, one):
            pass


async def test_names_that_somebody_made_up_are_not_remembered():
    class Stored:
        async def topic(self, topic_id):
            return SimpleNamespace(last_number=1, attempt=1) if topic_id == "known" else None

        async def events_after(self, topic_id, number):
            later = SimpleNamespace(number=1, to_json=lambda: "state")
            return [later] if topic_id == "begun later" and not number else []

    class Socket:
        def __init__(self):
            self.heard = asyncio.Event()

        async def send_str(self, text):
            if text == "state":
                self.heard.set()

        def __aiter__(self):
            return self

        async def __anext__(self):
            await self.heard.wait()
            raise StopAsyncIteration

    hub = Hub()
    wanted = {"made up": 0, "known": 0, "begun later": 0}
    await asyncio.wait_for(follow(Socket(), Stored(), hub, wanted, lambda: None), 60)
    assert {name for name in wanted if hub.last_watched([name]) > 0} == {"known", "begun later"}


async def test_a_handshake_that_does_not_come_ends(monkeypatch):
    monkeypatch.setattr(connections, "_HANDSHAKE_SECONDS", 0.05)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    async def view(_):
        return web.Response()

    async with listening(view, tls=context) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()
