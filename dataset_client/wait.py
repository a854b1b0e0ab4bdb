"""Waiting for what was asked for: each request follows its topic, and those of one call share a socket."""

import asyncio
import contextlib
import copy
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable

from dataset_client.errors import DatasetClientError, WaitTimeoutError
from dataset_client.following import messages_of
from dataset_client.history import SUBSCRIBED
from dataset_client.protocol import Event
from dataset_client.request import check_timeout
from dataset_client.settings import Settings


@contextlib.asynccontextmanager
async def bounded(seconds: float | None, topic_id: str) -> AsyncIterator[None]:
    """Cancel the block after ``seconds`` and raise `WaitTimeoutError`; None is no bound."""
    check_timeout(seconds)
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            yield
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise WaitTimeoutError(f"{topic_id} is not ready after {seconds} s") from error


async def follow(
    messages: AsyncIterator[Event], *, attempt: int, on_event: Callable[[Event], None] | None
) -> Event | None:
    """The event that ends the topic's current attempt, which is ``attempt`` or a later one.

    Events of earlier attempts are ignored. None if the server has forgotten ``attempt``, as one does that
    lost its data: then it has to be asked again.
    """
    current = attempt
    async for message in messages:
        if message.kind == SUBSCRIBED:
            if message.attempt < attempt:
                return None
            current = message.attempt
        elif message.attempt >= current:
            if on_event is not None:
                on_event(message)
            if message.is_terminal:
                return message
    raise AssertionError("the messages do not end before the attempt does")


#: The messages on a topic, as `following.messages_of` gives them.
Watch = Callable[[str], AsyncGenerator[Event]]


@contextlib.asynccontextmanager
async def sharing(topics: Iterable[str], settings: Settings, note: Callable[[str], None]) -> AsyncIterator[Watch]:
    """Within the block, what is yielded follows these topics over one socket, opened when it is first needed.

    Where no socket gets through, ``note`` is told so, and they are polled.
    """
    shared = _Shared(topics, settings, note)
    try:
        yield shared.watch
    finally:
        await shared.close()


class _Shared:
    """Hands the messages of one stream to those who follow a topic each."""

    def __init__(self, topics: Iterable[str], settings: Settings, note: Callable[[str], None]) -> None:
        self._queues = {topic_id: asyncio.Queue[Event | Exception]() for topic_id in topics}
        self._settings = settings
        self._note = note
        self._reader: asyncio.Task[None] | None = None

    def watch(self, topic_id: str) -> AsyncGenerator[Event]:
        """The messages on a topic; who comes for one again gets a stream of his own, which begins anew."""
        if self._reader is None:
            self._reader = asyncio.create_task(self._read(dict(self._queues)))
        queue = self._queues.pop(topic_id, None)
        return _items(queue) if queue else messages_of([topic_id], self._settings, self._note)

    async def close(self) -> None:
        """End the stream."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])

    async def _read(self, queues: dict[str, asyncio.Queue[Event | Exception]]) -> None:
        try:
            async with contextlib.aclosing(messages_of(queues, self._settings, self._note)) as messages:
                async for message in messages:
                    queues[message.topic_id].put_nowait(message)
        except Exception as error:  # it goes to each who waits; ours are written on, so each gets his own
            for queue in queues.values():
                queue.put_nowait(copy.copy(error) if isinstance(error, DatasetClientError) else error)


async def _items(queue: asyncio.Queue[Event | Exception]) -> AsyncGenerator[Event]:
    while True:
        item = await queue.get()
        if isinstance(item, Exception):
            raise item
        yield item
