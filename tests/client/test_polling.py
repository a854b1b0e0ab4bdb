"""Where WebSockets do not get through, the same calls work by asking now and then."""

import asyncio
import contextlib
import importlib.util
import re
from dataclasses import replace

import pytest
from aiohttp import web
from client_archives import make_archive
from client_server import problem
from topics_server import Known, TopicsServer, not_our_words, stripped
from websockets.utils import accept_key

from dataset_client import errors, following, make_request, polling, request_dataset_async, wait_for_completion, watch
from dataset_client.backoff import RetryPolicy
from dataset_client.following import messages_of
from dataset_client.http import Http
from dataset_client.polling import archive_of
from dataset_client.protocol import Event
from dataset_client.settings import Settings

REQUEST = make_request("discs", "v1", {"limit": 7})
TOPIC = REQUEST.topic_id


@pytest.fixture
async def blocked(archive, monkeypatch):
    """A server that a proxy lets no socket to."""
    # what takes half a second was waited for by the server; the pauses of others are short
    monkeypatch.setattr(polling, "_PACE", RetryPolicy(first_delay_s=0.5, max_delay_s=0.001))
    server = TopicsServer()
    server.topics = {TOPIC: Known(archive=archive, at_each_look=["queued", "building", "building"])}
    server.block = not_our_words(403)
    async with server.running():
        yield server


@pytest.mark.parametrize(
    "block",
    [not_our_words(403), not_our_words(404), not_our_words(426), not_our_words(501), not_our_words(200), stripped],
)
async def test_a_request_is_polled_where_sockets_are_blocked(blocked, block, tmp_path, capsys):
    blocked.block = block
    dataset = await request_dataset_async(
        "discs", "v1", {"limit": 7}, server_url=blocked.url, cache_dir=tmp_path, timeout=60
    )
    assert dataset.path.is_dir()
    assert len(blocked.sockets) == 1
    assert blocked.waits[:2] == [0, 25], "the dataset is asked for after the first answer"
    said = capsys.readouterr().err
    assert said.count("WebSockets do not get through") == 1
    assert "dataset-client: building\n" in said


async def test_sockets_that_break_at_once_again_and_again_are_blocked(blocked, tmp_path):
    blocked.block, blocked.drops = None, [0] * 50
    call = request_dataset_async(
        "discs", "v1", {"limit": 7}, server_url=blocked.url, cache_dir=tmp_path, progress=False, timeout=60
    )
    assert (await call).path.is_dir()
    assert len(blocked.sockets) == 3


async def test_a_socket_that_opens_and_brings_nothing_is_polled_past(blocked, tmp_path, monkeypatch):
    """What is in between answers the handshake, and lets no frame through, so that no ping is answered."""

    async def swallow(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/notifications" in head.splitlines()[0]:
            opened.append(writer)
            key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)[1].decode()
            accepted = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept_key(key)}\r\n\r\n"
            writer.write(f"HTTP/1.1 101 Switching Protocols\r\n{accepted}".encode())
            return  # the connection stays
        onward, out = await asyncio.open_connection("127.0.0.1", int(blocked.url.rpartition(":")[2]))
        out.write(head.replace(b"keep-alive", b"close"))
        pass_on = [asyncio.create_task(_copy(reader, out)), asyncio.create_task(_copy(onward, writer))]
        await asyncio.wait(pass_on, return_when=asyncio.FIRST_COMPLETED)

    opened, notes = [], []
    monkeypatch.setattr(following, "_BRIEF_S", 0.05)  # each lasts longer than that
    blocked.block, blocked.topics[TOPIC].attempt = None, 1
    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = Settings(url, tmp_path, heartbeat_s=0.1)
        async with asyncio.timeout(60), contextlib.aclosing(messages_of([TOPIC], settings, notes.append)) as messages:
            assert (await anext(messages)).kind == "subscribed"
        for writer in opened:
            writer.close()
    assert len(opened) == 3
    assert len(notes) == 1


async def _copy(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
    writer.close()


async def test_a_gateway_that_fails_again_and_again_is_polled_past(blocked, tmp_path):
    blocked.block, blocked.topics[TOPIC].attempt = not_our_words(502), 1
    assert (await wait_for_completion(REQUEST, server_url=blocked.url, timeout=60)).kind == "ready"
    assert len(blocked.sockets) == 3


async def test_a_server_that_is_down_blocks_no_sockets(unused_tcp_port, tmp_path):
    retry, notes = RetryPolicy(first_delay_s=0.001, max_delay_s=0.01, first_contact_s=0.2), []
    settings = Settings(f"http://127.0.0.1:{unused_tcp_port}", tmp_path, retry=retry)
    with pytest.raises(errors.ServerAwayError):
        await anext(messages_of([TOPIC], settings, notes.append))
    assert notes == []


async def test_what_answers_a_handshake_with_no_http_is_polled_past(unused_tcp_port, tmp_path):
    """Where that was all there is, polling fails too, and says how."""

    async def hang_up(reader, writer):
        await reader.readline()
        writer.write(b"\x15\x03\x01\r\n\r\n")
        writer.close()

    retry, notes = RetryPolicy(first_delay_s=0.001, max_delay_s=0.01, first_contact_s=5, reconnect_s=0), []
    settings = Settings(f"http://127.0.0.1:{unused_tcp_port}", tmp_path, retry=retry)
    async with await asyncio.start_server(hang_up, "127.0.0.1", unused_tcp_port):
        with pytest.raises(errors.ServerUnreachableError):
            await anext(messages_of([TOPIC], settings, notes.append))
    assert len(notes) == 1


async def test_a_topic_alone_is_polled_too_and_nothing_is_asked_for(blocked):
    blocked.topics[TOPIC].attempt = 1
    assert (await wait_for_completion(TOPIC, server_url=blocked.url, timeout=60)).kind == "ready"
    assert blocked.posts == []


async def test_a_refusal_of_our_server_is_no_block(blocked):
    blocked.block = lambda: problem(403, "forbidden", "not you")
    with pytest.raises(errors.UnauthorizedError, match="not you"):
        await wait_for_completion(REQUEST, server_url=blocked.url)
    assert blocked.posts == []


async def test_watching_over_polling(blocked, caplog):
    blocked.topics[TOPIC].attempt = 1
    heard = [event async for event in watch(REQUEST, server_url=blocked.url, timeout=60)]
    assert [event.data["state"] for event in heard if event.kind == "state"] == ["queued", "building", "building"]
    assert [event.number for event in heard] == [1, 2, 3, 4]
    assert heard == blocked.topics[TOPIC].events
    assert "WebSockets do not get through" in caplog.text


async def test_many_topics_are_polled_together(blocked):
    requests = [REQUEST, make_request("discs", "v1", {"limit": 8})]
    archive = make_archive(config={"limit": 8})
    blocked.topics[requests[1].topic_id] = Known(archive=archive, at_each_look=["building"], attempt=1)
    blocked.topics[TOPIC].attempt = 1
    ended = {e.topic_id async for e in watch(requests, server_url=blocked.url, timeout=60) if e.kind == "ready"}
    assert ended == {request.topic_id for request in requests}
    assert all(len(look) == 2 for look in blocked.looks)


async def test_how_a_build_failed_is_heard(blocked):
    known = blocked.topics[TOPIC]
    known.attempt, known.state = 1, "failed"
    known.error = {"code": "handler_crashed", "message": "it died", "log": "one\ntwo"}
    with pytest.raises(errors.BuildFailedError, match="it died") as caught:
        await wait_for_completion(REQUEST, server_url=blocked.url, timeout=60)
    assert (caught.value.code, caught.value.log) == ("handler_crashed", ("one", "two"))
    assert blocked.posts == []


async def test_retry_after_is_honoured_and_a_busy_server_asked_again(blocked, monkeypatch):
    waits, sleep = [], asyncio.sleep

    async def note(seconds, *more):
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(following.asyncio, "sleep", note)
    blocked.topics[TOPIC].attempt = 1
    blocked.refusals = [problem(429, "busy", "later", headers={"Retry-After": "7"}), None, web.Response(status=502)]
    assert (await wait_for_completion(REQUEST, server_url=blocked.url, timeout=60)).kind == "ready"
    assert max(waits) == 7


@pytest.mark.parametrize("refused", range(4))
async def test_no_news_is_lost_when_a_question_fails(blocked, refused):
    blocked.topics[TOPIC].attempt = 1
    blocked.refusals = [*[None] * refused, web.Response(status=502)]
    heard = [event async for event in watch(REQUEST, server_url=blocked.url, timeout=60)]
    assert [event.kind for event in heard] == ["state"] * 3 + ["ready"]


async def test_a_server_that_has_lost_its_data_is_heard_from_its_new_beginning(blocked):
    known = blocked.topics[TOPIC]
    known.attempt, known.at_each_look = 1, ["queued", "building", "publishing"]
    heard = []
    async for event in watch(REQUEST, server_url=blocked.url, timeout=60):
        heard.append((event.number, event.data.get("state", event.kind)))
        if heard[-1] == (3, "publishing") and not any(number == 1 for number, _ in heard[1:]):
            known.events.clear()
            known.at_each_look = ["planning"]
    assert heard == [(1, "queued"), (2, "building"), (3, "publishing"), (1, "planning"), (2, "ready")]


async def test_another_history_that_has_passed_ours_is_noticed_after_a_pause(blocked):
    """The server was restarted with other data between two questions, none of which failed."""
    known = blocked.topics[TOPIC]
    known.attempt, known.at_each_look = 1, ["queued", "building"]

    async def another():
        quiet = len(blocked.looks)
        await blocked.until(lambda: len(blocked.looks) > quiet + 4 and blocked.looks[-1] == {TOPIC: 2})
        known.events[:] = [
            Event(TOPIC, number, 1, "state", {"state": state})
            for number, state in enumerate(["resolving", "queued", "planning"], 1)
        ]
        known.attempt = 1

    heard, changing = [], None
    async for event in watch(REQUEST, server_url=blocked.url, timeout=60):
        heard.append((event.number, event.data.get("state", event.kind)))
        if heard[-1] == (2, "building"):
            known.attempt = 0  # there is nothing to say
            changing = asyncio.create_task(another())
    await changing
    assert heard[:2] == [(1, "queued"), (2, "building")]
    assert heard[2:] == [(1, "resolving"), (2, "queued"), (3, "planning"), (4, "ready")]


@pytest.mark.skipif(importlib.util.find_spec("socks") is not None, reason="PySocks is installed")
async def test_a_socks_proxy_without_what_it_needs(blocked, tmp_path, monkeypatch, capsys):
    for name in ("no_proxy", "ws_proxy", "socks_proxy"):
        for variable in (name, name.upper()):
            monkeypatch.delenv(variable, raising=False)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    with pytest.raises(errors.MissingDependencyError, match="SOCKS proxy") as caught:
        await request_dataset_async("discs", "v1", {"limit": 7}, server_url=blocked.url, cache_dir=tmp_path, timeout=60)
    assert "pip install PySocks" in caught.value.remedy
    assert "python-socks" in capsys.readouterr().err


async def test_what_is_no_list_of_events_is_said(blocked):
    blocked.refusals = [web.json_response({"messages": [{"kind": "state"}]})]
    with pytest.raises(errors.ProtocolError, match="answers no events"):
        await wait_for_completion(TOPIC, server_url=blocked.url, timeout=60)


async def test_a_dataset_is_waited_for_by_its_id(blocked, archive, settings):
    settings, heard = replace(settings, server_url=blocked.url), []
    blocked.topics[TOPIC].progress = {"done": 1, "total": 2, "rate": 1.0, "eta": 1.0}
    blocked.refusals = [web.Response(status=502)]
    with Http(settings) as http:
        assert (await archive_of(http, archive.dataset_id, heard.append)).sha256 == archive.sha256
        with pytest.raises(errors.ServerError, match="no such dataset"):
            await archive_of(http, "discs_v1_" + "1" * 32 + ".zip", heard.append)
    assert [event.kind for event in heard] == ["state", "state", "progress", "ready"]
    assert blocked.posts == []


@pytest.mark.parametrize(
    ("state", "error", "match"),
    [("failed", errors.BuildFailedError, "it died"), ("evicted", errors.BuildFailedError, "to make room")],
)
async def test_a_dataset_that_will_not_be_ready(blocked, archive, settings, state, error, match):
    known = blocked.topics[TOPIC]
    known.at_each_look, known.state, known.error = [], state, {"code": "handler_crashed", "message": "it died"}
    with Http(replace(settings, server_url=blocked.url)) as http, pytest.raises(error, match=match):
        await archive_of(http, archive.dataset_id, lambda _: None)
