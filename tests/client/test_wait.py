"""Following a topic over sockets that drop."""

import asyncio

import pytest
from client_server import Topic, problem

from dataset_client import errors, wait_for_completion
from dataset_client.backoff import RetryPolicy
from dataset_client.following import messages_of
from dataset_client.protocol import Event
from dataset_client.wait import follow

TOPIC = "discs_v1_" + "0" * 32 + ".zip"


@pytest.fixture
def asked(server, archive):
    """A topic in its first attempt."""
    topic = server.topics[TOPIC] = Topic(archive=archive, attempt=1)
    server.emit(TOPIC, "state", {"state": "building"})
    for done in range(3):
        server.emit(TOPIC, "progress", {"done": done, "total": 3})
    return topic


async def test_the_ready_event_is_returned(server, asked, archive):
    heard = []
    server.ready(TOPIC)
    event = await wait_for_completion(TOPIC, server_url=server.url, on_event=heard.append)
    assert event.data == {"dataset_id": archive.dataset_id, "archive": archive.as_json()}
    assert [event.number for event in heard] == [1, 2, 3, 4, 5]


async def test_a_dropped_socket_replays_what_was_missed_and_no_more(server, asked):
    heard = []
    server.socket_script.extend([2, 1])
    call = asyncio.create_task(wait_for_completion(TOPIC, server_url=server.url, on_event=heard.append))
    await asyncio.to_thread(server.wait_for_sockets, 3)
    await asyncio.to_thread(server.ready, TOPIC)
    await call
    assert [event.number for event in heard] == [1, 2, 3, 4, 5]
    assert len(server.sockets) == 3


async def test_a_restarted_server_is_found_again(server, asked):
    call = asyncio.create_task(wait_for_completion(TOPIC, server_url=server.url))
    await asyncio.to_thread(server.wait_for_sockets, 1)
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    await asyncio.to_thread(server.ready, TOPIC)
    assert (await call).kind == "ready"


async def test_a_history_that_begins_anew_is_replayed_from_its_start(server, asked):
    call = asyncio.create_task(wait_for_completion(TOPIC, server_url=server.url))
    await asyncio.to_thread(server.wait_for_sockets, 1)
    await asyncio.to_thread(server.stop)
    asked.events.clear()
    await asyncio.to_thread(server.start)
    await asyncio.to_thread(server.ready, TOPIC)
    assert (await call).number == 1


async def test_a_new_history_as_long_as_the_lost_one_ends_the_wait(server, asked):
    heard = asyncio.Event()
    call = asyncio.create_task(
        wait_for_completion(TOPIC, server_url=server.url, on_event=lambda event: event.number == 4 and heard.set())
    )
    await heard.wait()
    await asyncio.to_thread(server.stop)
    asked.events[3:] = [Event(TOPIC, 4, 1, "ready", server._ready_data(TOPIC))]
    await asyncio.to_thread(server.start)
    assert (await asyncio.wait_for(call, 10)).number == 4


async def test_a_new_history_that_ends_like_an_old_attempt_ends_the_wait(server, asked):
    """The server loses its data, and the first attempt of the new history looks like the first of the old one."""
    asked.attempt = 2
    server.emit(TOPIC, "failed", {"message": "old"}, attempt=1)
    server.emit(TOPIC, "state", {"state": "building"}, attempt=2)
    heard = asyncio.Event()
    call = asyncio.create_task(wait_for_completion(TOPIC, server_url=server.url, on_event=lambda _: heard.set()))
    await heard.wait()
    await asyncio.to_thread(server.stop)
    asked.attempt, asked.events[4:] = 1, [Event(TOPIC, 5, 1, "failed", {"message": "new"})]
    await asyncio.to_thread(server.start)
    with pytest.raises(errors.BuildFailedError, match="new"):
        await asyncio.wait_for(call, 10)


async def test_a_server_that_wants_to_be_left_alone_for_an_hour_is_given_up(server, asked):
    server.socket_script.append(problem(503, "full", headers={"Retry-After": "3600"}))
    with pytest.raises(errors.ServerBusyError):
        await asyncio.wait_for(wait_for_completion(TOPIC, server_url=server.url), 10)


@pytest.mark.parametrize("status", [401, 403, 400])
async def test_refusals_are_raised_at_once(server, asked, status):
    server.socket_script.append(problem(status, "refused", "not you"))
    kind = errors.InvalidRequestError if status == 400 else errors.UnauthorizedError
    with pytest.raises(kind, match="not you"):
        await wait_for_completion(TOPIC, server_url=server.url)
    assert len(server.sockets) == 1


async def test_a_busy_server_is_tried_again(server, asked):
    server.socket_script.extend([problem(503, "starting", "soon"), problem(502)])
    server.ready(TOPIC)
    assert (await wait_for_completion(TOPIC, server_url=server.url)).kind == "ready"
    assert len(server.sockets) == 3


async def test_timeout(server, asked):
    with pytest.raises(errors.WaitTimeoutError, match="build goes on"):
        await wait_for_completion(TOPIC, server_url=server.url, timeout=0.1)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "5", True])
async def test_impossible_timeouts(server, timeout):
    with pytest.raises(errors.InvalidSettingError, match="number of seconds"):
        await wait_for_completion(TOPIC, server_url=server.url, timeout=timeout)


async def test_a_topic_must_be_one():
    with pytest.raises(errors.InvalidRequestError, match="hash_dataset_name"):
        await wait_for_completion("discs")


async def test_a_server_that_stays_away_is_given_up(server, asked, settings):
    from dataclasses import replace

    settings = replace(settings, retry=RetryPolicy(first_delay_s=0.01, max_delay_s=0.02, reconnect_s=0.1))
    messages = messages_of([TOPIC], settings, print)
    await anext(messages)
    await asyncio.to_thread(server.stop)
    with pytest.raises(errors.ServerUnreachableError):
        async for _ in messages:
            pass
    await asyncio.to_thread(server.start)


async def test_garbage_is_a_protocol_error(unused_tcp_port, settings):
    from dataclasses import replace

    from websockets.asyncio.server import serve

    async def garbage(socket):
        await socket.send("hello")

    async with serve(garbage, "127.0.0.1", unused_tcp_port):
        settings = replace(settings, server_url=f"http://127.0.0.1:{unused_tcp_port}")
        messages = messages_of([TOPIC], settings, print)
        with pytest.raises(errors.ProtocolError, match="not an event"):
            await anext(messages)


async def replay(*messages):
    for kind, attempt in messages:
        yield Event(TOPIC, 1, attempt, kind)


async def test_only_the_current_attempt_counts():
    event = await follow(replay(("subscribed", 2), ("failed", 1), ("state", 2), ("ready", 2)), attempt=0, on_event=None)
    assert (event.kind, event.attempt) == ("ready", 2)


async def test_a_later_attempt_becomes_the_current_one():
    messages = replay(("subscribed", 1), ("subscribed", 2), ("failed", 1), ("ready", 2))
    assert (await follow(messages, attempt=1, on_event=None)).attempt == 2


async def test_a_forgotten_attempt_is_told():
    assert await follow(replay(("subscribed", 0)), attempt=1, on_event=None) is None
