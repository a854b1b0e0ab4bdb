"""The notification socket: replays what was said on topics, then follows them.

A reader is never pushed to: its own task reads the database from the last event it was sent, so that one that is slow
misses outdated progress at most, and one that has gone away costs nothing.
"""

import asyncio
import json

from aiohttp import WSMsgType, web

from dataset_client.protocol import ID_PATTERN

from .errors import MalformedRequestError
from .hub import Hub
from .store import Store

HEARTBEAT_SECONDS = 20.0
MAX_TOPICS = 1000


def parse_subscriptions(query: list[tuple[str, str]]) -> dict[str, int]:
    """Topics with the number each is followed after, from ``topic=…&after=N`` pairs; ``after`` may be left out."""
    wanted: dict[str, int] = {}
    current = ""
    for name, value in query:
        if name == "topic":
            if not ID_PATTERN.fullmatch(value):
                raise MalformedRequestError(f"'{value[:300]}' is no topic; a topic reads <name>_<version>_<md5>.zip")
            wanted.setdefault(value, 0)
            current = value
        elif name == "after" and current:
            if not value.isascii() or not value.isdigit() or len(value) > 15:
                raise MalformedRequestError(f"after={value[:30]} is no event number")
            wanted[current] = int(value)
        else:
            raise MalformedRequestError(f"unexpected '{name[:50]}'; the query is topic=…&after=N, repeated at will")
    if not wanted:
        raise MalformedRequestError("name at least one topic: ?topic=…&after=N")
    if len(wanted) > MAX_TOPICS:
        raise MalformedRequestError(f"{len(wanted)} topics on one socket; {MAX_TOPICS} is the limit")
    return wanted


async def follow(socket: web.WebSocketResponse, store: Store, hub: Hub, wanted: dict[str, int]) -> None:
    """Send events until the client closes the socket."""
    with hub.listen(wanted) as news:
        for topic_id in wanted:
            topic = await store.topic(topic_id)
            subscribed = {
                "kind": "subscribed",
                "topic_id": topic_id,
                "number": topic.last_number if topic else 0,
                "attempt": topic.attempt if topic else 0,
            }
            await socket.send_str(json.dumps(subscribed))
        sender = asyncio.create_task(_send(socket, store, news, wanted))
        reader = asyncio.create_task(_read(socket))
        try:
            await asyncio.wait((sender, reader), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sender, reader):
                task.cancel()
            ended = await asyncio.gather(sender, reader, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, Exception):
                raise outcome


async def _send(socket: web.WebSocketResponse, store: Store, news: asyncio.Event, sent: dict[str, int]) -> None:
    try:
        while True:
            news.clear()
            for topic_id in sent:
                while batch := await store.events_after(topic_id, sent[topic_id]):
                    for event in batch:
                        await socket.send_str(event.to_json())
                        sent[topic_id] = event.number
            await news.wait()
    except ConnectionError:
        return


async def _read(socket: web.WebSocketResponse) -> None:
    """Nothing is expected from the client; this notices that it has gone."""
    async for message in socket:
        if message.type in (WSMsgType.ERROR, WSMsgType.CLOSE):
            return
