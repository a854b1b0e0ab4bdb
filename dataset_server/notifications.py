"""The notification socket: replays what was said on topics, then follows them; and the same for who can open none.

A reader is never pushed to: its own task reads the database from the last event it was sent, so that one that is slow
misses outdated progress at most, and one that has gone away costs nothing. It is woken by news, and looks by itself
every `LOOK_SECONDS`.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from dataset_client.protocol import ID_PATTERN

from .auth import Access, Client
from .errors import MalformedRequestError, TooManyRequestsError
from .hub import Hub
from .store import EVENTS_AT_ONCE, Store

HEARTBEAT_SECONDS = 20.0
#: Seconds after which a client that holds all the sockets it may is asked to try again.
_SOCKETS_RETRY_SECONDS = 10.0
#: Seconds a client has to answer that its socket is closed.
CLOSE_SECONDS = 2.0
#: Seconds that a question for events may wait for some, at the most: proxies often cut what is silent for a minute.
LONGEST_WAIT = 50
#: Seconds after which a socket looks for news that nobody has told this server of.
LOOK_SECONDS = 30.0


class Sockets:
    """The open sockets of each client; a client may hold ``limit`` of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: dict[Client, dict[web.WebSocketResponse, asyncio.Transport | None]] = {}

    @contextlib.contextmanager
    def hold(
        self, socket: web.WebSocketResponse, transport: asyncio.Transport | None, client: Client
    ) -> Iterator[None]:
        """Count a socket of ``client``, whichever of its tokens it came with, while the context lasts.

        Raises `TooManyRequestsError` for one too many.
        """
        if sum(len(held) for holder, held in self._open.items() if holder.name == client.name) >= self._limit:
            message = f"'{client.name}' holds {self._limit} sockets already; follow several topics on one"
            raise TooManyRequestsError(message, retry_after=_SOCKETS_RETRY_SECONDS)
        sockets = self._open.setdefault(client, {})
        sockets[socket] = transport
        try:
            yield
        finally:
            del sockets[socket]
            if not sockets:
                self._open.pop(client, None)

    async def end_revoked(self, access: Access) -> None:
        """Close the sockets of clients whose token does not hold any more."""
        for client, sockets in list(self._open.items()):
            if not await access.still_holds(client):
                await _end_each(sockets, WSCloseCode.POLICY_VIOLATION, b"the token does not hold any more")

    async def end_all(self) -> None:
        """Close all sockets because the server stops (RFC 6455, 7.4.1: 1001), so that clients come back later."""
        sockets = {socket: transport for held in self._open.values() for socket, transport in held.items()}
        await _end_each(sockets, WSCloseCode.GOING_AWAY, b"the server stops")


async def _end_each(
    sockets: Mapping[web.WebSocketResponse, asyncio.Transport | None], code: WSCloseCode, message: bytes
) -> None:
    ending = [_end(socket, transport, code, message) for socket, transport in sockets.items()]
    await asyncio.gather(*ending, return_exceptions=True)  # whatever becomes of one, the others are closed


async def _end(
    socket: web.WebSocketResponse, transport: asyncio.Transport | None, code: WSCloseCode, message: bytes
) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await socket.close(code=code, message=message)
    except (ConnectionError, RuntimeError):
        pass  # it is going, or not open yet
    except TimeoutError:
        if transport:
            transport.abort()  # what it does not read would keep it open


def parse_wait(query: list[tuple[str, str]]) -> tuple[float, list[tuple[str, str]]]:
    """The seconds in ``wait=S``, 0 if that is left out, and what else is in the query."""
    waits = [value for name, value in query if name == "wait"]
    is_number = len(waits) < 2 and all(value.isascii() and value.isdigit() and len(value) < 3 for value in waits)
    seconds = int(waits[0]) if waits and is_number else 0
    if not is_number or seconds > LONGEST_WAIT:
        raise MalformedRequestError(f"wait={waits[0][:30]} is no number of seconds from 0 to {LONGEST_WAIT}, said once")
    return seconds, [(name, value) for name, value in query if name != "wait"]


def parse_subscriptions(query: list[tuple[str, str]]) -> dict[str, int]:
    """Topics with the number each is followed after, from ``topic=…&after=N`` pairs; ``after`` may be left out.

    aiohttp takes request lines of 8,190 bytes, so these are some hundred topics at the most.
    """
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
    return wanted


async def news_of(store: Store, hub: Hub, wanted: dict[str, int], wait: float) -> list[dict[str, Any]]:
    """What a socket on these topics would bring now, for who can open none; if that is no event, as soon as there is
    one, or after ``wait`` seconds. Of each topic `EVENTS_AT_ONCE` events at the most.
    """
    known: set[str] = set()
    deadline = asyncio.get_running_loop().time() + wait
    with hub.listen(wanted, known) as news:
        while True:
            news.clear()
            messages, events = [], []
            for topic_id, after in wanted.items():
                messages.append(await _subscribed(store, topic_id, known))
                events += await store.events_after(topic_id, after)
            hub.caught_up(news)
            left = deadline - asyncio.get_running_loop().time()
            if events or left <= 0:
                return [*messages, *(json.loads(event.to_json()) for event in events)]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, LOOK_SECONDS)):
                    await news.wait()


async def _subscribed(store: Store, topic_id: str, known: set[str]) -> dict[str, Any]:
    """The message that answers a subscription; a topic that somebody has asked for is ``known`` from then on."""
    topic = await store.topic(topic_id)
    if topic:
        known.add(topic_id)
    number, attempt = (topic.last_number, topic.attempt) if topic else (0, 0)
    return {"kind": "subscribed", "topic_id": topic_id, "number": number, "attempt": attempt}


async def follow(
    socket: web.WebSocketResponse, store: Store, hub: Hub, wanted: dict[str, int], sent: Callable[[], None]
) -> None:
    """Send events until the client closes the socket; ``sent`` is called after each."""
    known: set[str] = set()
    with hub.listen(wanted, known) as news:
        for topic_id in wanted:
            await socket.send_str(json.dumps(await _subscribed(store, topic_id, known)))
        sender = asyncio.create_task(_send(socket, store, news, wanted, known, sent, hub.caught_up))
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


async def _send(
    socket: web.WebSocketResponse,
    store: Store,
    news: asyncio.Event,
    last: dict[str, int],
    known: set[str],
    sent: Callable[[], None],
    caught_up: Callable[[asyncio.Event], None],
) -> None:
    try:
        while True:
            news.clear()
            for topic_id in last:
                while batch := await store.events_after(topic_id, last[topic_id]):
                    for event in batch:
                        await socket.send_str(event.to_json())
                        last[topic_id] = event.number
                        known.add(topic_id)
                        sent()
                    if len(batch) < EVENTS_AT_ONCE:
                        break  # what was said meanwhile is news
            caught_up(news)
            # Another server may have said something, and nobody here can be told.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await news.wait()
    except ConnectionError:
        return


async def _read(socket: web.WebSocketResponse) -> None:
    """Nothing is expected from the client; this notices that it has gone, and sends away one that talks."""
    async for message in socket:
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"nothing is expected from the client")
        if message.type in (WSMsgType.ERROR, WSMsgType.CLOSE):
            return
