"""Many topics on one socket, each event once and in order, whatever happens to the connection."""

import asyncio
from dataclasses import replace

import pytest
from topics_server import Known, TopicsServer
from websockets.asyncio.server import serve

from dataset_client import errors, watch
from dataset_client.backoff import RetryPolicy
from dataset_client.following import _merged, messages_of
from dataset_client.history import History, HistoryLostError
from dataset_client.protocol import Event
from dataset_client.settings import Settings

ONE, TWO, THREE = (f"discs_v{number}_{'0' * 32}.zip" for number in (1, 2, 3))


@pytest.fixture
async def topics():
    server = TopicsServer()
    server.topics = {topic: Known(attempt=1) for topic in (ONE, TWO, THREE)}
    async with server.running():
        yield server


def with_little_patience(url, tmp_path, **more):
    retry = RetryPolicy(first_delay_s=0.001, max_delay_s=0.01, first_contact_s=5, reconnect_s=5)
    return Settings(server_url=url, cache_dir=tmp_path, retry=retry, **more)


async def test_several_topics_are_followed_to_their_ends_over_one_socket(topics):
    await topics.say(ONE, "state", {"state": "building"})
    await topics.say(ONE, "ready")
    heard = []

    async def listen():
        async for event in watch([ONE, TWO, THREE], server_url=topics.url):
            heard.append((event.topic_id, event.number, event.kind))

    call = asyncio.create_task(listen())
    await topics.until(lambda: topics.sockets)
    await topics.say(THREE, "failed")
    await topics.say(TWO, "progress", {"done": 1})
    assert not call.done()
    await topics.say(TWO, "cancelled")
    await asyncio.wait_for(call, 20)
    assert sorted(heard) == [
        (ONE, 1, "state"), (ONE, 2, "ready"), (TWO, 1, "progress"), (TWO, 2, "cancelled"), (THREE, 1, "failed"),
    ]  # fmt: skip
    assert len(topics.sockets) == 1


@pytest.mark.parametrize("messages", range(8))
async def test_each_event_comes_once_and_in_order_wherever_the_socket_breaks(topics, messages, tmp_path):
    script = [(ONE, "state"), (TWO, "state"), (ONE, "progress"), (ONE, "progress"), (ONE, "shard"), (TWO, "progress")]
    for number, (topic, kind) in enumerate(script):
        await topics.say(topic, kind, {"what": number})
    topics.drops = [messages, 3, 2]
    heard = []
    following = messages_of([ONE, TWO], with_little_patience(topics.url, tmp_path), heard.append)

    async def listen():
        async for event in following:
            if event.kind != "subscribed":
                heard.append(event)
            if len([event for event in heard if event.kind == "ready"]) == 2:
                return

    call = asyncio.create_task(listen())
    await topics.until(lambda: len(topics.sockets) >= 4)
    await topics.say(ONE, "ready")
    await topics.say(TWO, "ready")
    await asyncio.wait_for(call, 20)
    for topic in (ONE, TWO):
        numbers = [event.number for event in heard if event.topic_id == topic]
        assert numbers == list(range(1, len(topics.topics[topic].events) + 1))
    await following.aclose()


async def test_earlier_attempts_are_told_and_do_not_end_the_watch(topics):
    topics.topics[ONE].attempt = 2
    await topics.say(ONE, "failed", attempt=1)
    await topics.say(ONE, "ready")
    assert [event.attempt async for event in watch(ONE, server_url=topics.url)] == [1, 2]


async def test_a_watch_has_a_timeout(topics):
    with pytest.raises(errors.WaitTimeoutError, match="2 topics"):
        async for _ in watch([ONE, TWO], server_url=topics.url, timeout=0.1):
            pass


@pytest.mark.parametrize(("topics_", "match"), [(["discs"], "no.* a topic|not a topic"), ([], "no topic to follow")])
async def test_topics_must_be_some(topics_, match):
    with pytest.raises(errors.InvalidRequestError, match=match):
        await anext(watch(topics_))


async def test_more_topics_than_a_request_line_takes_are_followed_over_several_sockets(topics):
    many = [f"discs_v{number}_{'0' * 32}.zip" for number in range(200)]
    for topic in many:
        topics.topics[topic] = Known(attempt=1)
        await topics.say(topic, "ready")
    assert {event.topic_id async for event in watch(many, server_url=topics.url)} == set(many)
    assert [len(after) for after in topics.sockets] == [100, 100]


async def test_a_dead_peer_is_noticed(tmp_path):
    """The first connection goes silent for good: nothing is said, and no ping is answered."""
    connections, last, over = [], Event(ONE, 1, 1, "ready"), asyncio.Event()

    async def answer(socket):
        await socket.send(replace(last, kind="subscribed").to_json())
        connections.append(socket)
        if len(connections) == 1:
            socket.transport.pause_reading()
            await over.wait()
        await socket.send(last.to_json())
        await socket.wait_closed()

    async with serve(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = with_little_patience(f"http://127.0.0.1:{port}", tmp_path, heartbeat_s=0.2)
        following = messages_of([ONE], settings, print)
        async with asyncio.timeout(20):
            async for event in following:
                if event.kind == "ready":
                    break
        await following.aclose()
        over.set()
        connections[0].transport.abort()
        assert len(connections) == 2


# --- the history of one topic ------------------------------------------------------------------------------------


def event(number, kind="state", attempt=1, **data):
    return Event(ONE, number, attempt, kind, data)


def subscribed(number, attempt=1):
    return event(number, "subscribed", attempt)


def taken(history, *messages):
    return [message.number for message in messages if history.is_new(message)]


def test_the_replay_begins_with_the_last_event_that_none_leaves_out():
    history = History()
    taken(history, subscribed(0), event(1), event(2, "progress"), event(3, "shard"), event(4, "progress"))
    assert history.after == 2
    assert taken(history, subscribed(9), event(3, "shard"), event(4, "progress"), event(9, "progress")) == [9, 9]


@pytest.mark.parametrize(
    "replay",
    [
        [subscribed(2)],
        [subscribed(4), event(3, "shard", file="another")],
        [subscribed(4), event(3, "shard", attempt=2)],
        [subscribed(9), event(4)],
    ],
    ids=["shorter", "another event", "another attempt", "without it"],
)
def test_another_history_is_noticed(replay):
    history = History()
    taken(history, subscribed(0), event(1), event(3, "shard"))
    with pytest.raises(HistoryLostError):
        taken(history, *replay)


def test_what_takes_the_place_of_mere_progress_is_new():
    history = History()
    taken(history, event(1), event(2, "progress"), event(3, "progress"))
    assert taken(history, subscribed(3), event(1), event(2, "progress"), event(3, "ready")) == [3, 3]


def test_kinds_of_a_newer_server_are_left_out():
    assert taken(History(), event(1, "weather"), event(2)) == [2]


async def test_what_was_taken_in_before_another_stream_broke_is_told():
    taken, told = [], []

    async def good():
        for number in range(100):
            taken.append(number)
            yield number
            await asyncio.sleep(0)

    async def bad():
        await asyncio.sleep(0.001)
        raise RuntimeError("broken")
        yield

    async def listen():
        async for item in _merged([good(), bad()]):
            told.append(item)
            await asyncio.sleep(0.01)  # slower than what comes

    with pytest.raises(RuntimeError, match="broken"):
        await listen()
    assert told == taken
