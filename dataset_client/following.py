"""The messages of many topics in one stream: over one socket, across all that breaks it, or else by polling."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from dataset_client.backoff import Retries
from dataset_client.errors import (
    HANDSHAKE_CUT,
    DatasetClientError,
    ServerBusyError,
    ServerError,
)
from dataset_client.history import SUBSCRIBED, History, HistoryLostError
from dataset_client.problems import SocketsBlockedError
from dataset_client.protocol import Event
from dataset_client.settings import Settings

#: A server takes request lines of 8,190 bytes.
_MAX_URL = 8000
#: A socket that ends sooner and without news, or at any time without a word, is suspect of being cut by something in
#: between.
_BRIEF_S = 5.0
#: So many suspicions in a row are enough.
_SUSPICIONS = 3


#: What connects: it yields the messages on the topics it is given, each after a number.
_Connect = Callable[[Mapping[str, int], Settings], AbstractAsyncContextManager[AsyncGenerator[Event]]]


async def messages_of(topics: Iterable[str], settings: Settings, note: Callable[[str], None]) -> AsyncGenerator[Event]:
    """The messages of all topics from their first on, each once and in order within its topic, without end.

    ``subscribed`` comes first of each topic, and again after each reconnection; a server that lost its data is heard
    from its new beginning on. Where sockets are blocked, ``note`` is told so once, and the server is asked again and
    again instead (see `polling`).

    Raises as `notifications.subscribe` does for what is not transient, and the last transient error once the server has
    been away, or wants to be left alone, for too long.
    """
    from dataset_client.notifications import subscribe  # websockets costs 0.1 s, and waiting is rarely needed

    histories = {topic: History() for topic in topics}
    try:
        async with contextlib.aclosing(_by(subscribe, histories, settings, is_socket=True)) as messages:
            async for message in messages:
                yield message
    except SocketsBlockedError as error:
        note(f"WebSockets do not get through ({error.message}); asking again and again instead")
    from dataset_client.polling import ask_again

    async with contextlib.aclosing(_by(ask_again, histories, settings, is_socket=False)) as messages:
        async for message in messages:
            yield message


def _by(
    connect: _Connect, histories: dict[str, History], settings: Settings, *, is_socket: bool
) -> AsyncGenerator[Event]:
    """The messages of all topics, over as few connections as their names fit into."""
    parts = _parts(list(histories), settings)
    streams = [_followed(part, histories, settings, connect, is_socket=is_socket) for part in parts]
    return _merged(streams) if len(streams) > 1 else streams[0]


def _parts(topics: Sequence[str], settings: Settings) -> list[list[str]]:
    """The topics by the sockets that follow them: one, as long as they fit into its URL."""
    if len(topics) < 2 or len(settings.notifications_url(dict.fromkeys(topics, 10**9))) <= _MAX_URL:
        return [list(topics)]
    middle = len(topics) // 2
    return [*_parts(topics[:middle], settings), *_parts(topics[middle:], settings)]


async def _followed(
    topics: Sequence[str], histories: dict[str, History], settings: Settings, connect: _Connect, *, is_socket: bool
) -> AsyncGenerator[Event]:
    """One connection after another; several sockets in a row that break at once, or bring nothing, raise
    `SocketsBlockedError`.
    """
    clock = asyncio.get_running_loop().time
    retries, suspicions = Retries(settings.retry, patience_s=settings.retry.first_contact_s), 0
    while True:
        since, is_open, is_heard, has_news = clock(), False, False, False
        try:
            async with connect({topic: histories[topic].after for topic in topics}, settings) as messages:
                is_open = True
                async for message in messages:
                    is_heard = True
                    if message.topic_id not in topics:
                        continue
                    retries.reached()
                    try:
                        is_new = histories[message.topic_id].is_new(message)
                    except HistoryLostError:
                        histories[message.topic_id] = History()
                        break  # and connect anew
                    if is_new:
                        has_news |= message.kind != SUBSCRIBED
                        yield message
        except SocketsBlockedError:
            raise
        except DatasetClientError as error:
            is_brief = clock() - since < _BRIEF_S
            if has_news or (is_heard and not is_brief):
                retries.progressed()
            is_cut = is_open and not has_news and (is_brief or not is_heard)
            suspicions = suspicions + 1 if is_cut or _is_suspect(error) else 0
            if is_socket and suspicions >= _SUSPICIONS:
                raise SocketsBlockedError(error.message) from error
            await asyncio.sleep(retries.delay_after(error))


def _is_suspect(error: DatasetClientError) -> bool:
    """Whether a handshake may have failed because something in between does not let it through: not as our server
    refuses one, and not because nobody is there.
    """
    if isinstance(error, ServerBusyError | ServerError):
        return error.status >= 500 and error.code == error.default_code
    return error.code == HANDSHAKE_CUT


async def _merged(streams: Sequence[AsyncGenerator[Event]]) -> AsyncGenerator[Event]:
    """The items of all streams as they come; the first error ends all."""
    items = asyncio.Queue[Event | None]()

    async def drain(stream: AsyncGenerator[Event]) -> None:
        async with contextlib.aclosing(stream):
            async for item in stream:
                items.put_nowait(item)

    tasks = [asyncio.create_task(drain(stream)) for stream in streams]
    try:
        for task in tasks:
            task.add_done_callback(lambda _: items.put_nowait(None))
        open_streams = len(tasks)
        while open_streams:
            item = await items.get()
            if item is not None:
                yield item
                continue
            open_streams -= 1
            if failed := [task for task in tasks if task.done() and task.exception()]:
                await _end(tasks)
                while not items.empty():  # what is here was taken for told: nobody will hear of it again
                    if (item := items.get_nowait()) is not None:
                        yield item
                failed[0].result()
    finally:
        await _end(tasks)


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
