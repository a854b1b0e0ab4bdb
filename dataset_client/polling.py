"""Following topics where no socket gets through: by asking for the same messages again and again."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any

from dataset_client.answers import Archive, read_archive
from dataset_client.backoff import Retries, RetryPolicy, random_jitter
from dataset_client.concurrency import in_abandonable_thread
from dataset_client.errors import BuildFailedError, DatasetClientError, ProtocolError
from dataset_client.history import SUBSCRIBED, is_lasting
from dataset_client.http import Http
from dataset_client.problems import require_ready
from dataset_client.protocol import STATES, TERMINAL_KINDS, Event
from dataset_client.settings import Settings

#: Between questions that bring nothing, where the server does not wait for news itself.
_PACE = RetryPolicy(first_delay_s=0.5, max_delay_s=10.0)


@contextlib.asynccontextmanager
async def ask_again(after: Mapping[str, int], settings: Settings) -> AsyncIterator[AsyncGenerator[Event]]:
    """As `notifications.subscribe`, by ``GET /events``; iterating raises what the answers mean.

    As after a socket that broke, what comes after a pause begins with the anchor of each topic (see `history`): in the
    meantime the server may have become another one, without a question that failed.
    """

    async def messages() -> AsyncGenerator[Event]:
        last, anchors, quiet, is_replay = dict(after), dict(after), 0, True
        clock = asyncio.get_running_loop().time
        while True:
            began, has_news = clock(), False
            for message in await in_abandonable_thread(ask, anchors if is_replay else last, not is_replay):
                topic_id = message.topic_id
                if message.kind == SUBSCRIBED:
                    # Said in each answer: it counts before a replay, and when the server has lost what it had said.
                    if is_replay or message.number < last.get(topic_id, 0):
                        yield message
                    continue
                has_news |= message.number > last.get(topic_id, 0)
                last[topic_id] = max(message.number, last.get(topic_id, 0))
                if is_lasting(message):
                    anchors[topic_id] = message.number - 1
                yield message
            is_idle = not has_news and clock() - began <= _PACE.first_delay_s
            is_replay = is_idle and not is_replay
            if not is_idle:
                quiet = 0
            if is_replay:
                quiet += 1
                await asyncio.sleep(_PACE.delay(quiet, jitter=random_jitter()))

    def ask(after: Mapping[str, int], waits: bool) -> list[Event]:
        return http.get_events(after, waits=waits)  # who follows a topic asks for its dataset after the first answer

    with Http(settings) as http:
        async with contextlib.aclosing(messages()) as stream:
            yield stream


async def archive_of(http: Http, dataset_id: str, on_event: Callable[[Event], None]) -> Archive:
    """Wait until a dataset, which is asked for nothing, is ready, and return its archive.

    ``on_event`` hears of its states and its progress as of a topic's. Raises how its attempt ended otherwise, what a
    refusal means, and the last error once the server has been away for too long.
    """
    retries = Retries(http.settings.retry, patience_s=http.settings.retry.first_contact_s)
    told, quiet = dict[str, object](), 0
    while True:
        try:
            dataset = await in_abandonable_thread(http.get_dataset, dataset_id)
        except DatasetClientError as error:
            await asyncio.sleep(retries.delay_after(error))
            continue
        retries.progressed()
        retries.reached()
        state, attempt = dataset.get("state"), dataset.get("attempt")
        if dataset.get("dataset_id") != dataset_id or state not in STATES or type(attempt) is not int:
            raise ProtocolError(f"the server's answer is not about {dataset_id}: {str(dataset)[:200]}")
        if state == "evicted":
            message = f"{dataset_id} was removed to make room at the server; asking for it makes it again"
            raise BuildFailedError(message, code="evicted")
        has_ended = state in TERMINAL_KINDS
        news: dict[str, dict[str, Any]] = {"state": {"state": state}, "progress": dataset.get("progress") or {}}
        if has_ended:
            news = {state: dict(dataset.get("error") or {})}
        quiet += 1
        for kind, data in news.items():
            if (data or has_ended) and told.get(kind) != data:
                told[kind], quiet = data, 1
                on_event(Event(dataset_id, 0, attempt, kind, data))
        if has_ended:
            require_ready(Event(dataset_id, 0, attempt, state, news[state]))
            return read_archive(dataset)
        await asyncio.sleep(_PACE.delay(quiet, jitter=random_jitter()))
