"""Where WebSockets do not get through, the same calls work by asking now and then."""

import asyncio
from dataclasses import replace

import pytest
from aiohttp import web
from client_archives import make_archive
from client_server import problem
from topics_server import Known, TopicsServer, not_our_words, stripped

from dataset_client import errors, make_request, polling, request_dataset_async, wait_for_completion, watch
from dataset_client.backoff import RetryPolicy
from dataset_client.following import messages_of
from dataset_client.polling import Standing, poll_dataset
from dataset_client.settings import Settings

REQUEST = make_request("discs", "v1", {"limit": 7})
TOPIC = REQUEST.topic_id
SHARD = {"file": "a", "split": "train", "examples": 1, "bytes": 2, "sha256": "0" * 64, "url": "u"}


@pytest.fixture
async def blocked(archive, monkeypatch):
    """A server that a proxy lets no socket to."""
    monkeypatch.setattr(polling, "_PACE", RetryPolicy(first_delay_s=0.001, max_delay_s=0.001))
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


async def test_a_gateway_that_fails_again_and_again_is_polled_past(blocked, tmp_path):
    blocked.block = not_our_words(502)
    assert (await wait_for_completion(REQUEST, server_url=blocked.url, timeout=60)).kind == "ready"
    assert len(blocked.sockets) == 3


async def test_a_server_that_is_down_blocks_no_sockets(unused_tcp_port, tmp_path):
    retry, notes = RetryPolicy(first_delay_s=0.001, max_delay_s=0.01, first_contact_s=0.2), []
    settings = Settings(f"http://127.0.0.1:{unused_tcp_port}", tmp_path, retry=retry)
    with pytest.raises(errors.ServerAwayError):
        await anext(messages_of({TOPIC: REQUEST}, settings, notes.append))
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
            await anext(messages_of({TOPIC: REQUEST}, settings, notes.append))
    assert len(notes) == 1


async def test_a_topic_alone_cannot_be_polled_and_that_is_said(blocked):
    with pytest.raises(errors.SocketsBlockedError, match="name the request"):
        await wait_for_completion(TOPIC, server_url=blocked.url)
    assert blocked.posts == []


async def test_a_refusal_of_our_server_is_no_block(blocked):
    blocked.block = lambda: problem(403, "forbidden", "not you")
    with pytest.raises(errors.UnauthorizedError, match="not you"):
        await wait_for_completion(REQUEST, server_url=blocked.url)
    assert blocked.posts == []


async def test_watching_over_polling(blocked, caplog):
    known = blocked.topics[TOPIC]
    known.progress, known.shards = {"done": 1, "total": 2, "rate": 1.0, "eta": 1.0}, [SHARD]
    heard = [event async for event in watch(REQUEST, server_url=blocked.url, timeout=60)]
    assert [event.kind for event in heard].count("shard") == 1
    assert [event.kind for event in heard].count("progress") == 1
    assert [event.data["state"] for event in heard if event.kind == "state"] == ["building", "queued", "building"]
    assert [event.number for event in heard] == list(range(1, len(heard) + 1))
    assert heard[-1].data["archive"] == known.archive.as_json()
    assert len(blocked.posts) == 1
    assert "WebSockets do not get through" in caplog.text


async def test_many_topics_are_polled_together(blocked):
    requests = [REQUEST, make_request("discs", "v1", {"limit": 8})]
    blocked.topics[requests[1].topic_id] = Known(archive=make_archive(config={"limit": 8}), at_each_look=["building"])
    ended = {e.topic_id async for e in watch(requests, server_url=blocked.url, timeout=60) if e.kind == "ready"}
    assert ended == {request.topic_id for request in requests}


async def test_a_build_that_fails_is_not_begun_anew(blocked):
    blocked.topics[TOPIC].state = "failed"
    blocked.topics[TOPIC].error = {"code": "handler_crashed", "message": "it died", "log": "one\ntwo"}
    with pytest.raises(errors.BuildFailedError, match="it died") as caught:
        await wait_for_completion(REQUEST, server_url=blocked.url, timeout=60)
    assert (caught.value.code, caught.value.log) == ("handler_crashed", ("one", "two"))
    assert len(blocked.posts) == 1


async def test_what_is_refused_for_good_is_how_it_ends(blocked):
    blocked.refusals = [problem(422, "config_refused", "no such option", faults=[{"path": "/a", "reason": "b"}])]
    with pytest.raises(errors.ConfigRefusedError, match="/a: b"):
        await wait_for_completion(REQUEST, server_url=blocked.url, timeout=60)


async def test_retry_after_is_honoured_and_a_busy_server_asked_again(blocked, monkeypatch):
    waits, sleep = [], asyncio.sleep

    async def note(seconds, *more):
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(polling.asyncio, "sleep", note)
    blocked.refusals = [problem(429, "busy", "later", headers={"Retry-After": "7"}), None, web.Response(status=502)]
    settings = Settings(blocked.url, cache_dir=None, retry=RetryPolicy(first_delay_s=0.001))
    async for event in polling.poll(REQUEST, settings):
        if event.is_terminal:
            break
    assert max(waits) == 7
    assert len(blocked.posts) == 2


@pytest.mark.parametrize("refused", range(4))
async def test_no_news_is_lost_when_a_question_fails(blocked, refused):
    blocked.refusals = [*[None] * refused, web.Response(status=502)]
    heard = [event async for event in watch(REQUEST, server_url=blocked.url, timeout=60)]
    assert [event.kind for event in heard] == ["state"] * 3 + ["ready"]
    assert len(blocked.posts) == 1 + (refused == 0)


async def test_a_dataset_that_was_deleted_meanwhile_is_asked_for_again(blocked):
    blocked.refusals = [None, None, problem(404, "not_found", "gone")]
    assert (await wait_for_completion(REQUEST, server_url=blocked.url, timeout=60)).kind == "ready"
    assert len(blocked.posts) == 2


async def test_a_dataset_is_polled_by_its_id(blocked, archive, settings):
    settings = replace(settings, server_url=blocked.url)
    kinds = []
    async for event in poll_dataset(archive.dataset_id, settings):
        kinds.append(event.kind)
        if event.is_terminal:
            break
    assert kinds == ["subscribed", "state", "state", "ready"]
    assert blocked.posts == []
    with pytest.raises(errors.ServerError, match="no such dataset"):
        await anext(poll_dataset("discs_v1_" + "1" * 32 + ".zip", settings))


# --- what is made of the answers ---------------------------------------------------------------------------------


def answer(state="building", attempt=1, dataset_id="d", **more):
    return {"topic_id": TOPIC, "dataset_id": dataset_id, "state": state, "attempt": attempt, **more}


def dataset(state="building", attempt=1, **more):
    return {"dataset_id": "d", "state": state, "attempt": attempt, **more}


def kinds(events):
    return [(event.kind, event.attempt) for event in events]


def test_only_news_is_told():
    standing = Standing(TOPIC)
    assert kinds(standing.take_answer(answer("resolving", dataset_id=None))) == [("subscribed", 1), ("state", 1)]
    assert standing.take_answer(answer("resolving", dataset_id=None)) == []
    assert kinds(standing.take_answer(answer())) == [("state", 1)]
    assert kinds(standing.take_dataset(dataset(shards=[SHARD]))) == [("shard", 1)]
    assert kinds(standing.take_dataset(dataset(shards=[SHARD, SHARD | {"file": "b"}]))) == [("shard", 1)]
    assert kinds(standing.take_dataset(dataset("failed", error={"code": "c"}))) == [("failed", 1)]
    assert standing.take_dataset(dataset("failed", error={"code": "c"})) == []


def test_a_dataset_that_somebody_retries_is_a_new_attempt():
    standing = Standing(TOPIC)
    standing.take_answer(answer(attempt=4))
    standing.take_dataset(dataset("failed", attempt=2))
    assert kinds(standing.take_dataset(dataset("building", attempt=3))) == [("subscribed", 5), ("state", 5)]
    assert kinds(standing.take_dataset(dataset("ready", attempt=3))) == [("ready", 5)]


def test_attempts_that_end_unseen_are_followed_once():
    standing = Standing(TOPIC)
    standing.take_answer(answer("installing", dataset_id=None))
    again = standing.take_answer(answer("installing", attempt=2, dataset_id=None))
    assert kinds(again) == [("subscribed", 2), ("state", 2)]
    last = standing.take_answer(answer("installing", attempt=3, dataset_id=None))
    assert kinds(last) == [("subscribed", 3), ("failed", 3)]
    assert last[-1].data["code"] == "attempt_ended"


def test_what_was_evicted_is_asked_for_again_or_told():
    standing = Standing(TOPIC)
    standing.take_answer(answer())
    assert standing.take_dataset(dataset("evicted")) == []
    assert standing.dataset_id is None
    by_id = Standing("d", "d")
    assert by_id.take_dataset(dataset("evicted"))[-1].data["code"] == "evicted"


@pytest.mark.parametrize("wrong", [{}, answer(attempt="1"), answer(state="odd"), answer() | {"topic_id": "other"}])
def test_answers_about_something_else(wrong):
    with pytest.raises(errors.ProtocolError):
        Standing(TOPIC).take_answer(wrong)
