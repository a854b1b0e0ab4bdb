"""Requests and the datasets they share: who asks for what, what that means, and whether it must be made.

A request goes: name and version → something immutable → environment → effective config → dataset. Equal requests meet
at the topic; requests that mean the same meet at the dataset; each dataset is made once.
"""

import asyncio
import json
import logging
import weakref
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from dataset_client.protocol import hash_dataset_name

from .auth import Client, Role, require_own
from .builds import Builds
from .cache import Cache
from .describing import Describer
from .environments import Environments
from .errors import (
    ConfigRefusedError,
    ForbiddenError,
    HandlerFaultError,
    ServerFault,
    TooManyRequestsError,
    UnavailableError,
    UnknownVersionError,
    WrongStateError,
)
from .hub import Hub
from .installations import Installations
from .logs import add_to_context
from .metrics import Metrics
from .models import RequestedDataset
from .preparing import Preparations
from .references import References
from .settings import Settings
from .sources import Resolved, resolve_again
from .store import BuildStore, Store, Wanted, archive_data
from .store.schema import Dataset, Topic

logger = logging.getLogger(__name__)

#: Seconds after which who was refused may ask again: when a server that stops may be back, and a queue be shorter.
_STOPPING_SECONDS = 10.0
_QUEUE_FULL_SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """Where a request stands."""

    topic: Topic
    dataset: Dataset | None
    progress: dict[str, Any] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the dataset can be fetched now."""
        return self.dataset is not None and self.dataset.state == "ready"

    def to_json(self) -> dict[str, Any]:
        """The body of the answer; URLs are relative to the API root."""
        links = {"notifications": f"notifications?topic={quote(self.topic.topic_id)}"}
        if self.dataset:
            links["self"] = f"datasets/{self.dataset.dataset_id}"
            links["manifest"] = f"datasets/{self.dataset.dataset_id}/manifest"
        return {
            "topic_id": self.topic.topic_id,
            "dataset_id": self.dataset.dataset_id if self.dataset else None,
            "state": self.dataset.state if self.dataset else self.topic.state,
            "attempt": self.topic.attempt,
            "progress": self.progress,
            "archive": archive_data(self.dataset) if self.dataset and self.is_ready else None,
            "links": links,
        }


class Catalog:
    """Answers requests."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        builds_store: BuildStore,
        hub: Hub,
        environments: Environments,
        installations: Installations,
        cache: Cache,
        builds: Builds,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._store = store
        self._builds_store = builds_store
        self._hub = hub
        self._environments = environments
        self._installations = installations
        self._cache = cache
        self._builds = builds
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._describer = Describer(settings, environments)
        self._preparations = Preparations(
            settings,
            store,
            hub,
            References(settings, environments.find),
            installations,
            self._describer,
            metrics,
            self._attach,
        )
        self._stopping = False

    def _lock(self, name: str) -> asyncio.Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    async def request(self, request: RequestedDataset, client: Client) -> Answer:
        """Find or start what is asked for. Raises whatever `ServerFault` can be told at once."""
        self.refuse_while_stopping()
        if request.priority > 0 and client.role < Role.ADMIN:
            raise ForbiddenError("a priority above 0 needs the role 'admin'; leave it out, or take one from -10 to 0")
        resolved = await self._preparations.resolve(request.dataset_name, request.handler_version, client.name)
        topic_id = hash_dataset_name(request.dataset_name, request.handler_version, request.config)
        add_to_context(topic=topic_id)
        if answer := await self._known(topic_id, resolved, client):
            return answer  # the many requests for what is there take no lock
        async with self._lock(topic_id):
            known = await self._known(topic_id, resolved, client)
            return known or await self._begin(topic_id, request, resolved, client)

    async def _known(self, topic_id: str, resolved: Resolved, client: Client) -> Answer | None:
        """The answer to a request that needs no work: its dataset is ready, or on its way."""
        found = await self._store.find(topic_id)
        if found is None:
            return None
        topic, dataset = found
        if topic.resolved_version != resolved.version:
            return None
        if topic.is_active:
            self._hub.note_poll(topic_id)
            if client.name != topic.client:
                await self._store.join(topic, client.name)
            return self._answer(topic, dataset)
        if dataset and await self._is_current(dataset):
            self._cache.note_use(dataset.dataset_id)
            return Answer(topic, dataset)
        return None

    async def _is_current(self, dataset: Dataset) -> bool:
        """Whether a dataset can be fetched, and is still made of what is there."""
        return (
            dataset.state == "ready" and await self._cache.is_there(dataset) and not await self._cache.is_stale(dataset)
        )

    async def _begin(self, topic_id: str, request: RequestedDataset, resolved: Resolved, client: Client) -> Answer:
        limit = self._queue_limit(client)
        if limit is not None:
            self._refuse_too_many(limit, await self._store.active_requests(client.name))
        environment = await self._environments.find(resolved)
        effective = None
        if environment:
            effective = await self._describer.effective_config(
                resolved, environment, json.loads(request.config), client.name
            )
        named = (request.dataset_name, request.handler_version, request.config, resolved.version)
        topic = await self._store.begin_attempt(
            topic_id, *named, client=client.name, limit=limit, priority=request.priority
        )
        if topic is None:  # others of this client came in between
            assert limit is not None
            self._refuse_too_many(limit, limit)
            raise AssertionError("so many are too many")
        self._hub.note_poll(topic_id)
        self._hub.wake([topic_id])
        if effective is None:
            self._preparations.start(topic, resolved)
        else:
            try:
                await self._attach(topic, resolved, effective)
            except Exception:  # the boundary: no attempt is left open
                await self._preparations.fail(topic, ServerFault("the server failed; its log says more"))
                raise
        found = await self._store.find(topic_id)
        assert found is not None
        return self._answer(*found)

    def refuse_while_stopping(self) -> None:
        """Raise `UnavailableError` once the server has been asked to stop."""
        if self._stopping:
            raise UnavailableError("the server is stopping; ask again soon", "stopping", retry_after=_STOPPING_SECONDS)

    def _queue_limit(self, client: Client) -> int | None:
        return self._settings.queue_limit if client.queue_limit is None else client.queue_limit

    def _refuse_too_many(self, limit: int, active: int) -> None:
        if active >= limit:
            message = f"{active} of your requests are not answered yet, of {limit} at a time; wait for some of them"
            raise TooManyRequestsError(message, "queue_full", retry_after=_QUEUE_FULL_SECONDS)

    async def describe(self, dataset_name: str, version: str, client: Client) -> dict[str, Any]:
        """A handler's options, schema and documentation; installs the version if need be."""
        self.refuse_while_stopping()
        resolved = await self._preparations.resolve(dataset_name, version, client.name)
        environment = await self._installations.ensure(resolved, client.name)
        try:
            described = await self._describer.describe(resolved, environment, {}, client.name)
        except ConfigRefusedError as error:
            message = f"the handler refuses a config where it was sent none: {error}"
            raise HandlerFaultError("handler_protocol", message) from error
        shown = described.model_dump(exclude={"event", "effective_config"})
        return {**shown, "dataset_name": dataset_name, "resolved_version": resolved.version}  # ours last: they count

    async def retry(self, dataset: Dataset, client: Client) -> tuple[Dataset, list[str]]:
        """Make a dataset that failed or was cancelled once more, going on where that can be; one at work goes on.

        Returns it, with the topics that wait for it: those that have ended open again when somebody asks for them.
        Raises `WrongStateError` for one that needs no retry, `UnknownVersionError` if its handler is gone,
        `ForbiddenError` for one that others asked for, and `TooManyRequestsError`.
        """
        self.refuse_while_stopping()
        async with self._lock(f"dataset {dataset.dataset_id}"):
            seen = await self._store.dataset(dataset.dataset_id) or dataset
            if not seen.is_active:
                if seen.state not in ("failed", "cancelled"):
                    raise WrongStateError(f"{seen.dataset_id} is {seen.state}; only what failed is made again this way")
                if client.name not in await self._builds_store.askers_of(seen):
                    require_own(client, seen.client)
                async with self._lock(f"client {client.name}"):  # what is counted is there when the next one counts
                    await self._refuse_more_builds(client)
                    seen = await self._claim_again(seen, client.name)
        self._hub.note_poll(seen.dataset_id)
        return seen, await self._builds_store.topics_of(seen.dataset_id)

    async def _refuse_more_builds(self, client: Client) -> None:
        """Count what a client has under way, whether requests or builds; raises `TooManyRequestsError`."""
        limit = self._queue_limit(client)
        if limit is not None:
            requests = await self._store.active_requests(client.name)
            self._refuse_too_many(limit, max(requests, await self._builds_store.active_builds(client.name)))

    async def make_again(self, dataset: Dataset) -> None:
        """Make a dataset again whose archive was no good any more; nothing if somebody was quicker."""
        async with self._lock(f"dataset {dataset.dataset_id}"):
            seen = await self._store.dataset(dataset.dataset_id)
            if seen and seen.state == "evicted" and not self._stopping:
                try:
                    await self._claim_again(seen, seen.client, for_its_own_sake=True)
                except ServerFault as fault:
                    logger.warning("%s cannot be made again: %s", seen.dataset_id, fault)

    async def _claim_again(self, seen: Dataset, client: str, *, for_its_own_sake: bool = False) -> Dataset:
        source = self._settings.sources.get(seen.dataset_name)
        resolved = None
        if source:
            resolved = await asyncio.to_thread(resolve_again, seen.dataset_name, source, seen.resolved_version)
        if resolved is None:
            raise UnknownVersionError(f"version {seen.resolved_version} of '{seen.dataset_name}' is not here any more")
        wanted = Wanted(seen.dataset_id, seen.dataset_name, seen.resolved_version, seen.config, client)
        claimed = await self._builds.claim(wanted, seen)
        if claimed is None:
            raise WrongStateError(f"{seen.dataset_id} changed in this moment; look at it again")
        self._builds.start(claimed, resolved, for_its_own_sake=for_its_own_sake)
        return claimed

    async def cancel(self, dataset: Dataset, client: Client) -> None:
        """End the making of a dataset for all who wait for it; once more is no fault.

        Raises `WrongStateError` for one that nobody makes, and `ForbiddenError` where others wait for it too.
        """
        if dataset.state == "cancelled":
            return
        for owner in await self._builds_store.askers_of(dataset):
            require_own(client, owner)
        if not dataset.is_active or not await self._builds.cancel(dataset, client.name, _cancelled_by(client)):
            now = await self._store.dataset(dataset.dataset_id) or dataset
            if now.state != "cancelled":
                raise WrongStateError(f"{dataset.dataset_id} is {now.state}; only what is being made can be cancelled")

    async def request_to_cancel(self, topic_id: str) -> Topic | None:
        """The request that is meant by who cancels ``topic_id``: one that has no dataset, where nobody makes one of
        that id.
        """
        topic, dataset = await self._store.topic(topic_id), await self._store.dataset(topic_id)
        if topic is None or topic.dataset_id is not None:
            return None
        return topic if dataset is None or (topic.is_active and not dataset.is_active) else None

    async def cancel_request(self, topic: Topic, client: Client) -> Answer:
        """End a request whose dataset is not known yet, for all who wait for it; once more is no fault.

        Raises `WrongStateError` for one that has ended otherwise, or has a dataset by now, and `ForbiddenError` where
        others wait for it too.
        """
        if topic.state != "cancelled":
            for owner in await self._store.askers_of(topic):
                require_own(client, owner)
            await self._preparations.cancel(topic, client.name, _cancelled_by(client))
        now = await self._store.topic(topic.topic_id) or topic
        if now.state != "cancelled":
            raise WrongStateError(f"the request {topic.topic_id} is {now.state}, and not to be cancelled this way")
        return Answer(now, None)

    async def resume(self) -> None:
        """Go on with the requests an earlier server was at; asks nobody beyond this machine."""
        await self._preparations.resume()

    def stop(self) -> None:
        """Refuse what is new from now on."""
        self._stopping = True

    async def close(self) -> None:
        """Stop preparing; what is not attached yet is taken up by the next server."""
        self.stop()
        await self._preparations.close()

    async def _attach(self, topic: Topic, resolved: Resolved, effective: str) -> None:
        """Tie a request to its dataset, and start that if nobody has; nothing if its attempt is over by now."""
        dataset_id = hash_dataset_name(topic.dataset_name, resolved.version, effective)
        wanted = Wanted(dataset_id, topic.dataset_name, resolved.version, effective, topic.client, topic.priority)
        more: dict[str, Any] = {}
        async with self._lock(f"dataset {dataset_id}"):
            attached, started = False, None
            try:
                while not attached:  # again, if it is evicted or deleted in between
                    if not await self._is_open(topic):
                        break
                    seen = await self._store.dataset(dataset_id)
                    claimed = await self._claim(wanted, seen)
                    if claimed:
                        started = claimed
                        self._builds.start(claimed, resolved)
                        if seen and seen.state == "ready":
                            more = {"reason": "stale" if await self._cache.is_there(seen) else "lost"}
                    place = self._builds.place(dataset_id)
                    attached = await self._store.attach(topic, dataset_id, {**place, **more})
            finally:  # it may have been cancelled meanwhile, and this with it
                if started and not await self._is_open(topic):
                    await self._builds.cancel_unless_waited_for(started)
        self._hub.wake([topic.topic_id])

    async def _is_open(self, topic: Topic) -> bool:
        """Whether an attempt is the topic's present one, and has not ended."""
        now = await self._store.topic(topic.topic_id)
        return now is not None and now.is_active and now.attempt == topic.attempt

    async def _claim(self, wanted: Wanted, seen: Dataset | None) -> Dataset | None:
        """A new build of a dataset; None if it is ready, or somebody builds it."""
        while True:
            if seen and (seen.is_active or await self._is_current(seen)):
                return None
            if claimed := await self._builds.claim(wanted, seen):
                return claimed
            seen = await self._store.dataset(wanted.dataset_id)

    def _answer(self, topic: Topic, dataset: Dataset | None) -> Answer:
        return Answer(topic, dataset, self._builds.progress(dataset.dataset_id) if dataset else None)


def _cancelled_by(client: Client) -> str:
    return f"cancelled by {client.name}" if client.name else "cancelled by request"
