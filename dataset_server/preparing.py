"""Requests whose dataset is not known yet: what their version means, the environment it needs, the config checked."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable

from .describing import Describer
from .errors import ServerFault, UnknownDatasetError
from .hub import Hub
from .installations import Installations
from .logs import add_to_context
from .metrics import Metrics
from .references import References
from .retries import retry_after
from .settings import Settings
from .sources import Resolved, resolve_again
from .store import Store, insist
from .store.schema import Topic
from .unwatched import Unwatched

logger = logging.getLogger(__name__)


class Preparations:
    """Prepares requests, each in a task of its own, and hands them with their effective config to ``attach``."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        hub: Hub,
        references: References,
        installations: Installations,
        describer: Describer,
        metrics: Metrics,
        attach: Callable[[Topic, Resolved, str], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._store = store
        self._hub = hub
        self._references = references
        self._installations = installations
        self._describer = describer
        self._metrics = metrics
        self._attach = attach
        self._tasks: dict[asyncio.Task[None], Topic] = {}
        self._watching: asyncio.Task[None] | None = None

    async def resolve(self, dataset_name: str, version: str, client: str) -> Resolved:
        """What a version means now; remembered as long as `References` says, asked for in the client's turn.

        Raises `UnknownDatasetError`, `UnknownVersionError` or `EnvironmentFailedError`.
        """
        source = self._settings.sources.get(dataset_name)
        if source is None:
            raise UnknownDatasetError(
                f"there is no dataset '{dataset_name}'; this server makes {', '.join(sorted(self._settings.sources))}"
            )
        return await self._references.resolve(dataset_name, source, version, client)

    async def resume(self) -> None:
        """Go on with the requests an earlier server was at, and watch that somebody waits, if the settings say so."""
        for topic in await self._store.unattached_topics():
            self.start(topic, None)
        if self._settings.cancel_unwatched_seconds is not None:
            watching = self._cancel_unwatched(self._settings.cancel_unwatched_seconds)
            self._watching = asyncio.create_task(watching, name="unwatched requests")

    async def close(self) -> None:
        """Stop; what is not attached yet is taken up by the next server."""
        tasks = [*self._tasks, *([self._watching] if self._watching else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def start(self, topic: Topic, resolved: Resolved | None) -> None:
        """Prepare a request in the background; what its version means is found out where ``resolved`` is None."""
        task = asyncio.create_task(self._prepare(topic, resolved), name=f"prepare {topic.topic_id}")
        self._tasks[task] = topic
        task.add_done_callback(self._tasks.pop)

    async def cancel(self, topic: Topic, by: str, message: str) -> None:
        """End a request, and what is done for it, by a ``cancelled`` event; nothing if it has a dataset by now."""
        if await self._store.say(topic, "cancelled", {"code": "cancelled", "message": message, "by": by}):
            self._hub.wake([topic.topic_id])
            logger.info("request %s is cancelled by '%s': %s", topic.topic_id, by, message)
            for task, prepared in self._tasks.items():
                if (prepared.topic_id, prepared.attempt) == (topic.topic_id, topic.attempt):
                    task.cancel()

    async def fail(self, topic: Topic, fault: ServerFault) -> None:
        """End a request by a ``failed`` event; nothing if it has ended."""
        logger.warning("request %s failed: %s: %s", topic.topic_id, fault.code, fault)
        if await insist(lambda: self._store.say(topic, "failed", fault.to_event())):
            self._metrics.request_failed(fault.code)
        self._hub.wake([topic.topic_id])

    async def _prepare(self, topic: Topic, resolved: Resolved | None) -> None:
        """Install what a request needs, check its config, attach it; any fault becomes its ``failed`` event."""
        add_to_context(topic=topic.topic_id)
        tries = 0
        while True:
            try:
                return await self._try_to_prepare(topic, resolved or await self._resolved_before(topic))
            except ServerFault as error:
                fault = error
                # What the version means is found out anew by who asks again: a tag or a folder may have changed.
                if source := self._settings.sources.get(topic.dataset_name):
                    self._references.forget(source, topic.handler_version)
            except Exception as error:  # the boundary: a request ends in an event, whatever happens
                logger.exception("preparing %s failed", topic.topic_id)
                fault = ServerFault(f"the server failed ({type(error).__name__}); its log says more")
            if (task := asyncio.current_task()) and task.cancelling():  # on its way out, taken for a fault
                raise asyncio.CancelledError from fault
            limit, first = self._settings.retry_limit, self._settings.retry_seconds
            wait = retry_after(fault.code, getattr(fault, "retryable", False), tries, limit=limit, first=first)
            if wait is None:
                await self.fail(topic, fault)
                return None
            tries += 1
            if not await self._postpone(topic, fault, tries, wait):
                return None
            await asyncio.sleep(wait)

    async def _resolved_before(self, topic: Topic) -> Resolved:
        """What the version of a request meant when it was answered; where that is gone, what it means now."""
        source, found = self._settings.sources.get(topic.dataset_name), None
        if source:
            found = await asyncio.to_thread(resolve_again, topic.dataset_name, source, topic.resolved_version)
        return found or await self.resolve(topic.dataset_name, topic.handler_version, topic.client)

    async def _try_to_prepare(self, topic: Topic, resolved: Resolved) -> None:
        if not await self._store.say(topic, "state", {"state": "installing"}):
            return  # another attempt has taken its place
        self._hub.wake([topic.topic_id])
        environment = await self._installations.ensure(resolved, topic.client)
        effective = await self._describer.effective_config(
            resolved, environment, json.loads(topic.config), topic.client
        )
        await self._attach(topic, resolved, effective)

    async def _postpone(self, topic: Topic, fault: ServerFault, tries: int, wait: float) -> bool:
        logger.warning("request %s failed, again in %g s: %s: %s", topic.topic_id, wait, fault.code, fault)
        reason = {"reason": fault.code, "message": str(fault), "try": tries + 1, "retry_at": time.time() + wait}
        goes_on = await insist(lambda: self._store.say(topic, "state", {"state": "queued", **reason}))
        self._hub.wake([topic.topic_id])
        return goes_on

    async def _cancel_unwatched(self, seconds: float) -> None:
        """Cancel requests without a dataset that nobody has listened to or asked for during ``seconds``."""
        unwatched = Unwatched(self._hub, seconds)
        while True:
            await asyncio.sleep(seconds / 4)
            prepared = {topic.topic_id: topic for topic in self._tasks.values()}
            unwatched.keep(prepared)
            try:
                for topic_id, topic in prepared.items():
                    if unwatched.is_so(topic_id):
                        await self.cancel(topic, "", f"nobody waited for it any more, for {seconds:g} s")
            except Exception:  # the boundary: whatever it was, it is to be tried again
                logger.exception("what nobody waits for cannot be cancelled")
