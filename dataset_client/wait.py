"""Waiting for a build: one topic followed across dropped sockets and server restarts."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from dataset_client.backoff import Retries
from dataset_client.errors import DatasetClientError, InvalidRequestError, WaitTimeoutError
from dataset_client.problems import require_ready
from dataset_client.protocol import EVENT_KINDS, ID_PATTERN, Event
from dataset_client.request import check_timeout
from dataset_client.settings import Settings, resolve_settings

SUBSCRIBED = "subscribed"


async def wait_for_completion(
    topic_id: str,
    *,
    server_url: str | None = None,
    token: str | None = None,
    timeout: float | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Event:
    """Wait until the current attempt at a topic ends, and return its ``ready`` event.

    Asks for nothing: a topic that nobody has asked for yet is waited for too. ``on_event`` hears every
    event of the current attempt, the last one included. ``timeout`` is in seconds; None waits without end.

    Raises `BuildFailedError` (or `ConfigRefusedError`, `UnknownVersionError`, `UnknownDatasetError`) and
    `BuildCancelledError` for the other ends, `WaitTimeoutError`, `UnauthorizedError`,
    `InvalidRequestError`, and `ServerUnreachableError` if the server stays away (see `RetryPolicy`).
    """
    if not ID_PATTERN.fullmatch(topic_id):
        raise InvalidRequestError(f"{topic_id!r} is not a topic", remedy="hash_dataset_name() makes one.")
    settings = resolve_settings(server_url=server_url, token=token)
    async with bounded(timeout, topic_id), contextlib.aclosing(watch(topic_id, settings)) as messages:
        event = await follow(messages, attempt=0, on_event=on_event)
    assert event is not None  # no attempt is before 0
    return require_ready(event)


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
    raise AssertionError("watch() does not end by itself")


async def watch(topic_id: str, settings: Settings) -> AsyncGenerator[Event]:
    """The topic's messages from its first on, in order, without end.

    A ``subscribed`` message comes first, and again after each reconnection. Each of these replays everything, because
    a server that lost its data counts from 1 again, and its numbers then say nothing. What was seen is left out,
    except that the ends of attempts come again: a new history's must not be taken for the old one's.

    Raises as `notifications.subscribe` does for what is not transient, and the last transient error once the
    server has been away, or wants to be left alone, for too long.
    """
    from dataset_client.notifications import subscribe  # websockets costs 0.1 s, and waiting is rarely needed

    clock = asyncio.get_running_loop().time
    retries = Retries(settings.retry)
    seen = set[tuple[int, int, str]]()
    patience, reached = settings.retry.first_contact_s, clock()
    while True:
        greeted = False
        try:
            async with subscribe(topic_id, settings) as messages:
                async for message in messages:
                    greeted = True
                    key = (message.attempt, message.number, message.kind)
                    if message.kind in EVENT_KINDS and key not in seen:  # a newer server may have more kinds
                        seen.add(key)
                        retries.progressed()
                        yield message
                    elif message.kind == SUBSCRIBED or message.is_terminal:
                        yield message
        except DatasetClientError as error:
            if greeted:
                patience, reached = settings.retry.reconnect_s, clock()
            if not error.transient or clock() - reached > patience:
                raise
            retries.failures += 1
            await asyncio.sleep(retries.next_delay(error))
