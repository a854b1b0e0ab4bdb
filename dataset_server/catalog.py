"""Requests and the datasets they share: who asks for what, what that means, and whether it must be made.

A request goes: name and version → something immutable → environment → effective config → dataset. Equal requests meet
at the topic; requests that mean the same meet at the dataset; each dataset is made once.
"""

import asyncio
import json
import logging
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dataset_client.protocol import MalformedConfigError, canonical_json, hash_dataset_name

from .builds import Builds
from .environments import Environment, Environments
from .errors import ConfigRefusedError, HandlerFaultError, ServerFault, UnknownDatasetError, UnknownVersionError
from .handler_events import Described
from .hub import Hub
from .models import RequestedDataset
from .runner import run_command
from .settings import Settings
from .sources import Resolved, resolve, resolve_again
from .store import Store, archive_data, insist
from .store.schema import Dataset, Topic

logger = logging.getLogger(__name__)

#: Handlers that check a config at a time; each is a process of its own.
_CHECKS = 4


@dataclass(frozen=True)
class Answer:
    """Where a request stands."""

    topic: Topic
    dataset: Dataset | None
    progress: dict[str, Any] | None

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

    def __init__(self, settings: Settings, store: Store, hub: Hub, environments: Environments, builds: Builds) -> None:
        self._settings = settings
        self._store = store
        self._hub = hub
        self._environments = environments
        self._builds = builds
        self._resolved: dict[tuple[str, str], Resolved] = {}
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._checking = asyncio.Semaphore(_CHECKS)
        self._tasks: set[asyncio.Task[None]] = set()

    def _lock(self, name: str) -> asyncio.Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    async def resolve(self, dataset_name: str, version: str) -> Resolved:
        """What a version means; found out once, then remembered.

        Raises `UnknownDatasetError`, `UnknownVersionError` or `EnvironmentFailedError`.
        """
        source = self._settings.sources.get(dataset_name)
        if source is None:
            raise UnknownDatasetError(
                f"there is no dataset '{dataset_name}'; this server makes {', '.join(sorted(self._settings.sources))}"
            )
        known = self._resolved.get((dataset_name, version))
        if known is None:
            known = await resolve(dataset_name, source, version, self._settings.install_timeout)
            self._resolved[dataset_name, version] = known
        return known

    async def request(self, request: RequestedDataset) -> Answer:
        """Find or start what is asked for. Raises whatever `ServerFault` can be told at once."""
        resolved = await self.resolve(request.dataset_name, request.handler_version)
        config = request.config
        topic_id = hash_dataset_name(request.dataset_name, request.handler_version, config)
        async with self._lock(topic_id):
            topic = await self._store.topic(topic_id)
            if topic and topic.resolved_version == resolved.version:
                if topic.is_active:
                    return await self._answer(topic)
                answer = await self._answer(topic)
                if answer.is_ready and await asyncio.to_thread(self._is_there, answer.dataset):
                    return answer
            environment = self._environments.find(resolved)
            effective = None
            if environment:
                effective = await self._check(resolved, environment, json.loads(config))
            topic = await self._store.begin_attempt(
                topic_id, request.dataset_name, request.handler_version, config, resolved.version
            )
            self._hub.wake([topic_id])
            if effective is None:
                self._spawn(topic, resolved)
            else:
                try:
                    await self._attach(topic, resolved, effective)
                except Exception:  # the boundary: no attempt is left open
                    await self._fail(topic, ServerFault("the server failed; its log says more"))
                    raise
            return await self._answer(await self._known(topic_id))

    async def describe(self, dataset_name: str, version: str) -> dict[str, Any]:
        """A handler's options, schema and documentation; installs the version if need be."""
        resolved = await self.resolve(dataset_name, version)
        environment = await self._environments.ensure(resolved)
        described = await self._describe(resolved, environment, {})
        shown = described.model_dump(exclude={"event", "effective_config"})
        return {"dataset_name": dataset_name, "resolved_version": resolved.version, **shown}

    async def resume(self) -> None:
        """Go on with what an earlier server was at; asks nobody beyond this machine."""
        await self._builds.remove_orphans()
        for dataset in await self._store.active_datasets():
            source = self._settings.sources.get(dataset.dataset_name)
            resolved = None
            if source:
                version = dataset.resolved_version
                resolved = await asyncio.to_thread(resolve_again, dataset.dataset_name, source, version)
            if resolved:
                self._builds.start(dataset, resolved)
            else:
                fault = UnknownVersionError("the server was given another version of this handler meanwhile; ask again")
                self._hub.wake(await self._store.fail(dataset.dataset_id, dataset.attempt, fault.to_event()))
        for topic in await self._store.unattached_topics():
            self._spawn(topic, None)

    async def close(self) -> None:
        """Stop preparing; what is not attached yet is taken up by the next server."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, topic: Topic, resolved: Resolved | None) -> None:
        task = asyncio.create_task(self._prepare(topic, resolved), name=f"prepare {topic.topic_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _prepare(self, topic: Topic, resolved: Resolved | None) -> None:
        """Install what a request needs, check its config, attach it; any fault becomes its ``failed`` event."""
        try:
            resolved = resolved or await self.resolve(topic.dataset_name, topic.handler_version)
            if await self._store.say(topic, "state", {"state": "installing"}):
                self._hub.wake([topic.topic_id])
            environment = await self._environments.ensure(resolved)
            effective = await self._check(resolved, environment, json.loads(topic.config))
            await self._attach(topic, resolved, effective)
        except ServerFault as fault:
            # What the version means is found out anew by who asks again: a tag or a folder may have changed.
            self._resolved.pop((topic.dataset_name, topic.handler_version), None)
            await self._fail(topic, fault)
        except Exception as error:  # the boundary: a request ends in an event, whatever happens
            logger.exception("preparing %s failed", topic.topic_id)
            await self._fail(topic, ServerFault(f"the server failed ({type(error).__name__}); its log says more"))

    async def _fail(self, topic: Topic, fault: ServerFault) -> None:
        logger.warning("request %s failed: %s: %s", topic.topic_id, fault.code, fault)
        await insist(lambda: self._store.say(topic, "failed", fault.to_event()))
        self._hub.wake([topic.topic_id])

    async def _check(self, resolved: Resolved, environment: Environment, config: dict[str, Any]) -> str:
        """The canonical effective config; raises `ConfigRefusedError`."""
        described = await self._describe(resolved, environment, {"config": config})
        if described.effective_config is None:
            raise HandlerFaultError("handler_protocol", "the handler's description lacks the effective config")
        return canonical(described.effective_config)

    async def _describe(self, resolved: Resolved, environment: Environment, more: dict[str, Any]) -> Described:
        request = {"dataset": resolved.dataset_name, "handler": resolved.entry_point, **more}
        async with self._checking:
            with tempfile.TemporaryDirectory(prefix="dataset-describe-") as folder:
                timeout = self._settings.describe_timeout
                answer = await run_command(environment.python, "describe", request, Path(folder), timeout=timeout)
        assert isinstance(answer, Described)
        return answer

    async def _attach(self, topic: Topic, resolved: Resolved, effective: str) -> None:
        """Tie a request to its dataset, and start that if nobody has."""
        dataset_id = hash_dataset_name(topic.dataset_name, resolved.version, effective)
        async with self._lock(f"dataset {dataset_id}"):
            building = await self._claim(topic, resolved, dataset_id, effective)
            if building:
                self._builds.start(building, resolved)
            await self._store.attach(topic, dataset_id)
        self._hub.wake([topic.topic_id])

    async def _claim(self, topic: Topic, resolved: Resolved, dataset_id: str, effective: str) -> Dataset | None:
        """The build that must run for a dataset: a new one, or one that is active already; None if it is ready."""
        while True:
            seen = await self._store.dataset(dataset_id)
            if seen and seen.is_active:
                return seen  # it runs, or was left behind and is taken up
            if seen and seen.state == "ready" and await asyncio.to_thread(self._is_there, seen):
                return None
            claimed = await self._store.start_build(dataset_id, topic.dataset_name, resolved.version, effective, seen)
            if claimed:
                return claimed

    def _is_there(self, dataset: Dataset | None) -> bool:
        """Whether the archive of a dataset is on disk, whole."""
        if dataset is None:
            return False
        try:
            return self._builds.archive_path(dataset.dataset_id).stat().st_size == dataset.archive_bytes
        except OSError:
            return False

    async def _known(self, topic_id: str) -> Topic:
        topic = await self._store.topic(topic_id)
        assert topic is not None
        return topic

    async def _answer(self, topic: Topic) -> Answer:
        dataset = await self._store.dataset(topic.dataset_id) if topic.dataset_id else None
        return Answer(topic, dataset, self._builds.progress(dataset.dataset_id) if dataset else None)


def canonical(config: dict[str, Any]) -> str:
    """Canonical JSON of what a handler returned; a config it cannot write so is its fault."""
    try:
        return canonical_json(config)
    except MalformedConfigError as error:
        raise ConfigRefusedError(str(error), [{"path": "", "reason": str(error)}]) from error
