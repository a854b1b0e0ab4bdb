"""The messages of many topics in one stream: over one socket, across all that breaks it, or else by polling."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

from dataset_client.backoff import Retries
from dataset_client.errors import (
    HANDSHAKE_CUT,
    DatasetClientError,
    ServerBusyError,
    ServerError,
    ServerUnreachableError,
    SocketsBlockedError,
)
from dataset_client.history import SUBSCRIBED, History, HistoryLostError
from dataset_client.protocol import Event
from dataset_client.request import DatasetRequest
from dataset_client.settings import Settings

#: A server takes request lines of 8,190 bytes.
_MAX_URL = 8000
#: A socket that ends sooner, and without news, is suspect of being cut by something in between.
_BRIEF_S = 5.0
#: So many suspicions in a row are enough.
_SUSPICIONS = 3


async def messages_of(
    topics: Mapping[str, DatasetRequest | None], settings: Settings, note: Callable[[str], None]
) -> AsyncGenerator[Event]:
    """The messages of all topics from their first on, each once and in order within its topic.

    Without end over a socket: ``subscribed`` comes first of each topic, and again after each reconnection; a server
    that lost its data is heard from its new beginning on. Where sockets are blocked and every topic comes with its
    request, ``note`` is told so once, and they are polled from then on (see `polling`).

    Raises as `notifications.subscribe` does for what is not transient, and the last transient error once the server has
    been away, or wants to be left alone, for too long.
    """
    requests = [request for request in topics.values() if request is not None]
    can_poll = len(requests) == len(topics)
    parts = _parts(list(topics), settings)
    try:
        streams = [_over_sockets(part, settings, is_patient=not can_poll) for part in parts]
        async with contextlib.aclosing(_merged(streams) if len(streams) > 1 else streams[0]) as messages:
            async for message in messages:
                yield message
    except SocketsBlockedError as error:
        if not can_poll:
            raise
        note(f"WebSockets do not get through ({error.message}); asking now and then instead")
    from dataset_client.polling import poll

    async with contextlib.aclosing(_merged([poll(request, settings) for request in requests])) as messages:
        async for message in messages:
            yield message
    raise ServerUnreachableError("polling has nothing more to tell; ask again", transient=True)


def _parts(topics: Sequence[str], settings: Settings) -> list[list[str]]:
    """The topics by the sockets that follow them: one, as long as they fit into its URL."""
    if len(topics) < 2 or len(settings.notifications_url(dict.fromkeys(topics, 10**9))) <= _MAX_URL:
        return [list(topics)]
    middle = len(topics) // 2
    return [*_parts(topics[:middle], settings), *_parts(topics[middle:], settings)]


async def _over_sockets(topics: Sequence[str], settings: Settings, *, is_patient: bool) -> AsyncGenerator[Event]:
    """One socket after another; unless ``is_patient``, several that break at once mean `SocketsBlockedError`."""
    from dataset_client.notifications import subscribe  # websockets costs 0.1 s, and waiting is rarely needed

    clock = asyncio.get_running_loop().time
    retries, suspicions = Retries(settings.retry, patience_s=settings.retry.first_contact_s), 0
    histories = {topic: History() for topic in topics}
    while True:
        since, is_open, has_news = clock(), False, False
        try:
            async with subscribe({topic: history.after for topic, history in histories.items()}, settings) as messages:
                is_open = True
                async for message in messages:
                    if message.topic_id not in histories:
                        continue
                    retries.reached()
                    try:
                        is_new = histories[message.topic_id].is_new(message)
                    except HistoryLostError:
                        histories[message.topic_id] = History()
                        break  # and subscribe anew
                    if is_new:
                        has_news |= message.kind != SUBSCRIBED
                        yield message
        except DatasetClientError as error:
            if has_news or clock() - since > _BRIEF_S:
                retries.progressed()
            is_cut = is_open and not has_news and clock() - since < _BRIEF_S
            suspicions = suspicions + 1 if is_cut or _is_suspect(error) else 0
            if suspicions >= _SUSPICIONS and not is_patient:
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
            for task in tasks:
                if task.done():
                    task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
