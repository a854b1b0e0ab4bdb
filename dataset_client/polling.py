"""Following topics where no socket gets through: by asking again and again.

The server has no call that tells how a *topic* stands but the request itself, which begins what nobody has asked for.
So a topic can be polled only by its request; once that has a dataset, ``GET /datasets/{id}`` tells the rest. What it
says is turned into the events that a socket would have brought, with two differences: they are numbered by us, and
``progress`` is as rare as the questions.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from dataset_client import calls
from dataset_client.backoff import Retries, RetryPolicy, random_jitter
from dataset_client.concurrency import in_abandonable_thread
from dataset_client.errors import (
    ConfigRefusedError,
    DatasetClientError,
    ProtocolError,
    ServerError,
    UnknownDatasetError,
    UnknownVersionError,
)
from dataset_client.history import SUBSCRIBED
from dataset_client.protocol import STATES, TERMINAL_KINDS, Event
from dataset_client.request import DatasetRequest
from dataset_client.settings import Settings

#: Soon after news, later and later while there are none.
_PACE = RetryPolicy(first_delay_s=0.5, max_delay_s=10.0)


class Standing:
    """What was told so far of one topic, or of a dataset that nobody asks for; makes events of what is new. Pure."""

    def __init__(self, topic_id: str, dataset_id: str | None = None) -> None:
        self._topic_id = topic_id
        self._is_asked_for = dataset_id is None
        self._number = 0
        self._attempt = -1
        self._dataset_attempt: int | None = None
        self._restarts = 0
        self._told: dict[str, Any] = {}
        self._shards = set[str]()
        self.dataset_id = dataset_id
        self.has_ended = False

    def take_answer(self, answer: Mapping[str, Any]) -> list[Event]:
        """The news in the answer to the request; it names the topic's attempt, and the dataset once it is known."""
        attempt = answer.get("attempt")
        if answer.get("topic_id") != self._topic_id or type(attempt) is not int or answer.get("state") not in STATES:
            raise ProtocolError(f"the server's answer is not about {self._topic_id}: {str(answer)[:200]}")
        self._restarts += 0 <= self._attempt < attempt
        events = self._begin(attempt)
        if self._restarts > 1:
            # Each question begins an attempt when the last one has ended, and why it has is not to be learnt.
            message = f"attempts {attempt - 1} and before it ended, and polling cannot tell why; the server's log does"
            return [*events, *self._end("failed", {"code": "attempt_ended", "message": message})]
        return [*events, *self._news(answer)]

    def take_dataset(self, dataset: Mapping[str, Any]) -> list[Event]:
        """The news in what is said of the dataset, whose attempts are counted by themselves."""
        attempt = dataset.get("attempt")
        if dataset.get("dataset_id") != self.dataset_id or type(attempt) is not int:
            raise ProtocolError(f"the server's answer is not about {self.dataset_id}: {str(dataset)[:200]}")
        known = attempt if self._dataset_attempt is None else self._dataset_attempt
        self._dataset_attempt = attempt
        return [*self._begin(max(self._attempt, 0) + max(attempt - known, 0)), *self._news(dataset)]

    def take_refusal(self, error: DatasetClientError) -> list[Event]:
        """What the server refuses for good is how this attempt ends."""
        faults = getattr(error, "faults", [])
        data = {"code": error.code, "message": error.message, **({"faults": faults} if faults else {})}
        return [*self._begin(max(self._attempt, 0)), *self._end("failed", data)]

    def _begin(self, attempt: int) -> list[Event]:
        if attempt <= self._attempt:
            return []
        self._attempt = attempt
        self.has_ended = False
        self._told.clear()
        self._shards.clear()
        return [Event(self._topic_id, self._number, attempt, SUBSCRIBED)]

    def _news(self, said: Mapping[str, Any]) -> list[Event]:
        state, events = said.get("state"), list[Event]()
        if state == "evicted" and not self._is_asked_for:
            message = f"{self.dataset_id} was removed to make room at the server; asking for it makes it again"
            return self._end("failed", {"code": "evicted", "message": message})
        self.dataset_id = said.get("dataset_id") if state != "evicted" else None  # the next question is the request
        place = {key: said[key] for key in ("position", "ahead") if said.get(key) is not None}
        if state not in TERMINAL_KINDS and state != "evicted":
            named = {"dataset_id": self.dataset_id} if self.dataset_id else {}
            events += self._tell("state", {"state": state, **named, **place})
        for shard in said.get("shards") or ():
            if shard["file"] not in self._shards:
                self._shards.add(shard["file"])
                events += self._event("shard", dict(shard))
        if progress := said.get("progress"):
            events += self._tell("progress", dict(progress))
        if state == "ready":
            events += self._end("ready", {"dataset_id": self.dataset_id, "archive": said.get("archive")})
        elif state in TERMINAL_KINDS:
            events += self._end(state, dict(said.get("error") or {}))
        return events

    def _tell(self, kind: str, data: dict[str, Any]) -> list[Event]:
        if self._told.get(kind) == data:
            return []
        self._told[kind] = data
        return self._event(kind, data)

    def _end(self, kind: str, data: dict[str, Any]) -> list[Event]:
        if self.has_ended:
            return []
        self.has_ended = True
        return self._event(kind, data)

    def _event(self, kind: str, data: dict[str, Any]) -> list[Event]:
        self._number += 1
        return [Event(self._topic_id, self._number, max(self._attempt, 0), kind, data)]


async def poll(request: DatasetRequest, settings: Settings) -> AsyncGenerator[Event]:
    """The messages of the request's topic, from where its present attempt is; ``subscribed`` first.

    Begins the request if nobody has asked for it; after the end of an attempt, only another's asking begins the next.
    What the server refuses for good is told as a ``failed`` event. Raises the last error once the server has been away,
    or wants to be left alone, for too long, and at once what asking again does not mend.
    """
    async with contextlib.aclosing(_poll(Standing(request.topic_id), request, settings)) as events:
        async for event in events:
            yield event


async def poll_dataset(dataset_id: str, settings: Settings) -> AsyncGenerator[Event]:
    """As `poll`, of a dataset by its id, which is asked for nothing; raises `ServerError` if there is none."""
    async with contextlib.aclosing(_poll(Standing(dataset_id, dataset_id), None, settings)) as events:
        async for event in events:
            yield event


async def _poll(standing: Standing, request: DatasetRequest | None, settings: Settings) -> AsyncGenerator[Event]:
    retries, quiet = Retries(settings.retry, patience_s=settings.retry.reconnect_s), 0
    while standing.dataset_id is not None or not standing.has_ended:  # to ask once more would begin anew
        try:
            events = await in_abandonable_thread(_look, standing, request, settings)
        except (ConfigRefusedError, UnknownVersionError, UnknownDatasetError) as error:
            events = standing.take_refusal(error)
        except DatasetClientError as error:
            await asyncio.sleep(retries.delay_after(error))
            continue
        retries.progressed()
        for event in events:
            yield event
        quiet = 1 if events else quiet + 1
        await asyncio.sleep(_PACE.delay(quiet, jitter=random_jitter()))


def _look(standing: Standing, request: DatasetRequest | None, settings: Settings) -> list[Event]:
    """Ask what there is to know now."""
    events = list[Event]()
    if standing.dataset_id is None:
        assert request is not None  # a dataset without a request keeps its id
        events = standing.take_answer(calls.ask(request, settings))
    if standing.dataset_id is not None and not (events and standing.has_ended):
        try:  # also right after the question, so that whoever asks again next finds us knowing the dataset's attempt
            events += standing.take_dataset(calls.get_dataset(standing.dataset_id, settings))
        except DatasetClientError as error:
            if events:  # they are not lost for that; what is wrong shows the next time
                return events
            if request is None or not isinstance(error, ServerError) or error.status != 404:
                raise
            standing.dataset_id = None  # it was deleted, and is made again for who asks
    return events
