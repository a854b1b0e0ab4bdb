"""Following topics, for callers: wait for one, or watch several."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterable

from dataset_client.errors import InvalidRequestError, WaitTimeoutError
from dataset_client.following import messages_of
from dataset_client.history import SUBSCRIBED
from dataset_client.problems import require_ready
from dataset_client.protocol import ID_PATTERN, Event
from dataset_client.request import DatasetRequest, check_timeout
from dataset_client.settings import resolve_settings
from dataset_client.wait import bounded, follow

logger = logging.getLogger(__name__)

Topic = str | DatasetRequest


async def wait_for_completion(
    topic: Topic,
    *,
    server_url: str | None = None,
    token: str | None = None,
    timeout: float | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Event:
    """Wait until the current attempt at a topic ends, and return its ``ready`` event.

    ``topic`` is its id, or the request that it is of. Asks for nothing: a topic that nobody has asked for yet is waited
    for too. ``on_event`` hears every event of the current attempt, the last one included. ``timeout`` is in seconds;
    None waits without end.

    Raises `BuildFailedError` (or `ConfigRefusedError`, `UnknownVersionError`, `UnknownDatasetError`) and
    `BuildCancelledError` for the other ends, `WaitTimeoutError`, `UnauthorizedError`, `InvalidRequestError`, and
    `ServerUnreachableError` if the server stays away (see `RetryPolicy`).
    """
    named = _ids([topic])
    settings = resolve_settings(server_url=server_url, token=token)
    async with (
        bounded(timeout, *named),
        contextlib.aclosing(messages_of(named, settings, logger.warning)) as messages,
    ):
        event = await follow(messages, attempt=0, on_event=on_event)
    assert event is not None  # no attempt is before 0
    return require_ready(event)


async def watch(
    topics: Topic | Iterable[Topic],
    *,
    server_url: str | None = None,
    token: str | None = None,
    timeout: float | None = None,
) -> AsyncGenerator[Event]:
    """The events of one topic or of several, over one socket, until the current attempt at each has ended.

    ::

        async for event in watch([one, another]):
            print(event.topic_id, event.kind, event.data)

    Begins with what has happened already, earlier attempts included. Within a topic the events come in the order of
    their numbers and each once, however often the connection breaks; only when the server has lost its data they begin
    at 1 again. Topics are named as in `wait_for_completion`, and what it raises about the connection is raised here;
    how an attempt ends is an event, not an error.
    """
    named = _ids([topics] if isinstance(topics, Topic) else topics)
    check_timeout(timeout)
    settings = resolve_settings(server_url=server_url, token=token)
    deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
    current, waited_for = dict.fromkeys(named, 0), set(named)
    async with contextlib.aclosing(messages_of(named, settings, logger.warning)) as messages:
        while waited_for:
            try:
                async with asyncio.timeout_at(deadline):
                    message = await anext(messages)
            except TimeoutError as error:
                raise WaitTimeoutError(f"{len(waited_for)} topics have not ended after {timeout} s") from error
            if message.kind == SUBSCRIBED:
                current[message.topic_id] = message.attempt
                continue
            if message.is_terminal and message.attempt >= current[message.topic_id]:
                waited_for.discard(message.topic_id)
            yield message


def _ids(topics: Iterable[Topic]) -> list[str]:
    """The ids of topics, each once; raises `InvalidRequestError` for what is no topic."""
    named = [topic.topic_id if isinstance(topic, DatasetRequest) else topic for topic in topics]
    for topic_id in named:
        if not isinstance(topic_id, str) or not ID_PATTERN.fullmatch(topic_id):
            raise InvalidRequestError(f"{topic_id!r} is not a topic", remedy="hash_dataset_name() makes one.")
    if not named:
        raise InvalidRequestError("there is no topic to follow", remedy="Name at least one.")
    return list(dict.fromkeys(named))
