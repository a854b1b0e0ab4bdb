"""Waiting for what was asked for: each request follows its topic, and those of one call share a socket."""

import asyncio
import contextlib
import contextvars
import copy
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable

from dataset_client.errors import DatasetClientError, WaitTimeoutError
from dataset_client.following import messages_of
from dataset_client.history import SUBSCRIBED
from dataset_client.protocol import Event
from dataset_client.request import DatasetRequest, check_timeout
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


async def watch(topic_id: str, settings: Settings) -> AsyncGenerator[Event]:
    """The topic's messages as `following.messages_of` gives them; within `sharing`, from the call's one socket."""
    shared = _SHARED.get()
    messages = shared.take(topic_id) if shared else None
    async with contextlib.aclosing(messages or messages_of({topic_id: None}, settings, lambda _: None)) as stream:
        async for message in stream:
            yield message


@contextlib.asynccontextmanager
async def sharing(
    requests: Iterable[DatasetRequest], settings: Settings, note: Callable[[str], None]
) -> AsyncIterator[None]:
    """Within the block, `watch` follows the topics of ``requests`` over one socket, opened when it is first needed.

    Where no socket gets through, ``note`` is told so, and they are polled.
    """
    shared = _Shared(requests, settings, note)
    token = _SHARED.set(shared)
    try:
        yield
    finally:
        _SHARED.reset(token)
        await shared.close()


class _Shared:
    """Hands the messages of one stream to those who follow a topic each."""

    def __init__(self, requests: Iterable[DatasetRequest], settings: Settings, note: Callable[[str], None]) -> None:
        self._requests = {request.topic_id: request for request in requests}
        self._settings = settings
        self._note = note
        self._queues = {topic_id: asyncio.Queue[Event | Exception]() for topic_id in self._requests}
        self._reader: asyncio.Task[None] | None = None

    def take(self, topic_id: str) -> AsyncGenerator[Event] | None:
        """The messages on a topic; who comes for one again gets a stream of his own, which begins anew."""
        request, queue = self._requests.get(topic_id), self._queues.pop(topic_id, None)
        if request is None:
            return None
        if queue is None:
            return messages_of({topic_id: request}, self._settings, self._note)
        if self._reader is None:
            self._reader = asyncio.create_task(self._read({topic_id: queue, **self._queues}))
        return _items(queue)

    async def close(self) -> None:
        """End the stream."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])

    async def _read(self, queues: dict[str, asyncio.Queue[Event | Exception]]) -> None:
        try:
            async with contextlib.aclosing(messages_of(self._requests, self._settings, self._note)) as messages:
                async for message in messages:
                    queues[message.topic_id].put_nowait(message)
        except (
            Exception
        ) as error:  # whatever it is, it goes to each who waits; ours are written on, so each gets his own
            for queue in queues.values():
                queue.put_nowait(copy.copy(error) if isinstance(error, DatasetClientError) else error)


async def _items(queue: asyncio.Queue[Event | Exception]) -> AsyncGenerator[Event]:
    while True:
        item = await queue.get()
        if isinstance(item, Exception):
            raise item
        yield item


#: What `watch` finds where its caller is told of nothing but a topic.
_SHARED: contextvars.ContextVar[_Shared | None] = contextvars.ContextVar("shared", default=None)
