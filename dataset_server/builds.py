"""The builds of this server: whose turn it is, who may write, what is tried again, and what is stopped.

Every dataset that is being made is leased to one server run (`ownership`). What loses its lease stops without a word;
what fails is tried again or ends in one event (`retries`); how a dataset is made is in `making`.
"""

import asyncio
import contextlib
import errno
import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from .cache import Cache
from .environments import Environments
from .errors import HandlerFaultError, ServerFault, UnknownVersionError
from .hub import Hub
from .logs import log_context
from .making import Maker, discard, in_thread_to_the_end
from .metrics import Metrics
from .ownership import Abandoned, new_owner
from .queue import FairQueue, Limits, Ticket
from .retries import LONGEST, RESUMABLE, retry_after
from .settings import Settings
from .sources import Resolved, resolve_again
from .store import BuildStore, Lease, LeaseLostError, Store, Wanted, insist
from .store.schema import Dataset

logger = logging.getLogger(__name__)

#: What a build left that was cancelled or failed is kept so long, for somebody to go on with it.
_KEEP_SECONDS = 7 * 24 * 3600.0


@dataclass(eq=False)
class Running:
    """A build of ours, from its claim to its end; ``ticket`` is its place in the queue while it has one."""

    lease: Lease
    ticket: Ticket | None
    task: asyncio.Task[None] = field(init=False)


class Builds:
    """Runs the builds of this server."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        builds: BuildStore,
        hub: Hub,
        environments: Environments,
        cache: Cache,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._datasets = store
        self._store = builds
        self._hub = hub
        self._cache = cache
        self._metrics = metrics
        self._maker = Maker(settings, builds, hub, environments, cache)
        self._queue = FairQueue(Limits(settings.concurrent_builds, per_client=settings.builds_per_client))
        self._owner = new_owner()
        self._abandoned = Abandoned(self._owner, settings.lease_seconds)
        self._running: dict[str, Running] = {}
        self._renewed = time.monotonic()
        self._background: list[asyncio.Task[None]] = []
        self.work_root = settings.data_dir / "work"

    def archive_path(self, dataset_id: str, revision: int) -> Path:
        """Where an archive is."""
        return self._cache.archive_path(dataset_id, revision)

    def work_folder(self, dataset_id: str) -> Path:
        """The folder of a dataset's build."""
        return self.work_root / dataset_id.removesuffix(".zip")

    def progress(self, dataset_id: str) -> dict[str, Any] | None:
        """How far a running build is."""
        progress = self._maker.progress.get(dataset_id)
        return progress.to_json() if progress else None

    def place(self, dataset_id: str) -> dict[str, int]:
        """``position`` of a build that waits (1 is next), and how many builds are ``ahead``; empty if it does not."""
        running = self._running.get(dataset_id)
        position = self._queue.position(running.ticket) if running and running.ticket else None
        return {} if position is None else {"position": position, "ahead": position - 1 + self._queue.running}

    # -- the life of the server

    async def open(self) -> None:
        """Clean up after an earlier run, go on with its builds, and begin to renew leases.

        Asks nobody beyond this machine.
        """
        self.work_root.mkdir(parents=True, exist_ok=True)
        await self._remove_orphans()
        await self._adopt()
        self._background = [asyncio.create_task(self._keep_leases(), name="leases")]
        if self._settings.cancel_unwatched_seconds is not None:
            watching = self._cancel_unwatched(self._settings.cancel_unwatched_seconds)
            self._background.append(asyncio.create_task(watching, name="unwatched builds"))

    async def drain(self, seconds: float) -> None:
        """Start no build any more, and give those that run ``seconds`` to end."""
        self._queue.stop()
        at_work = [running.task for running in self._running.values() if running.ticket and self._has_turn(running)]
        if at_work and seconds > 0:
            logger.info("waiting up to %g s for %d builds", seconds, len(at_work))
            await asyncio.wait(at_work, timeout=seconds)

    async def close(self) -> None:
        """Stop all builds where they are; their states and folders stay, so that the next server goes on."""
        tasks = [*self._background, *(running.task for running in self._running.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(SQLAlchemyError):  # the next server finds out by itself
            await self._store.give_back(self._owner)

    def _has_turn(self, running: Running) -> bool:
        return running.ticket is not None and running.ticket.called.is_set()

    # -- claims

    async def claim(self, wanted: Wanted, seen: Dataset | None) -> Dataset | None:
        """Claim a new attempt of a dataset for this server; None if it is not any more as it was ``seen``."""
        return await self._store.start(wanted, seen, self._owner, self._until())

    def start(self, dataset: Dataset, resolved: Resolved) -> None:
        """Begin the build that was claimed, after the end of an earlier one; one that runs goes on."""
        earlier = self._running.get(dataset.dataset_id)
        lease = Lease(dataset.dataset_id, dataset.fence)
        if earlier and earlier.lease == lease:
            return
        pause = _left(dataset.not_before)
        ticket = None if pause else self._queue.join(client=dataset.client, priority=dataset.priority)
        running = self._running[dataset.dataset_id] = Running(lease, ticket)
        building = self._run(running, dataset, resolved, pause, earlier.task if earlier else None)
        running.task = asyncio.create_task(building, name=f"build {dataset.dataset_id}")
        running.task.add_done_callback(lambda _: self._forget(running))

    def _forget(self, running: Running) -> None:
        if running.ticket:
            self._queue.leave(running.ticket)
        if self._running.get(running.lease.dataset_id) is running:
            del self._running[running.lease.dataset_id]
            self._maker.progress.pop(running.lease.dataset_id, None)

    async def cancel(self, dataset: Dataset, by: str, message: str) -> bool:
        """End an attempt, with its processes; whether it had not ended before."""
        ended = {"code": "cancelled", "message": message, "by": by}
        told = await self._store.cancel(dataset.dataset_id, dataset.attempt, ended)
        if told is None:
            return False
        self._hub.wake(told)
        logger.info("build of %s is cancelled by '%s': %s", dataset.dataset_id, by, message)
        self._metrics.build_ended("cancelled", 0.0)
        running = self._running.get(dataset.dataset_id)
        if running:
            running.task.cancel()
            await asyncio.wait((running.task,))
        return True

    # -- a build

    async def _run(
        self,
        running: Running,
        dataset: Dataset,
        resolved: Resolved,
        pause: float,
        earlier: asyncio.Task[None] | None,
    ) -> None:
        with log_context(build=dataset.dataset_id):
            if earlier:
                await asyncio.wait((earlier,))
            try:
                await self._try_until_it_ends(running, dataset, resolved, pause)
            except LeaseLostError:
                logger.warning("build of %s stops: it is not this server's any more", dataset.dataset_id)

    async def _try_until_it_ends(self, running: Running, dataset: Dataset, resolved: Resolved, pause: float) -> None:
        work = self.work_folder(dataset.dataset_id)
        tries, limit, first = dataset.tries, self._settings.retry_limit, self._settings.retry_seconds
        while True:
            await asyncio.sleep(pause)
            if running.ticket is None:
                running.ticket = self._queue.join(client=dataset.client, priority=dataset.priority)
            started = time.monotonic()
            try:
                async with self._queue.turn(running.ticket):
                    await self._make(dataset, running.lease, resolved, work)
                break
            except LeaseLostError:
                raise
            except Exception as error:  # the boundary: a build ends in an event, whatever happens
                fault = _as_fault(error, dataset.dataset_id)
            finally:
                running.ticket = None
                self._maker.progress.pop(dataset.dataset_id, None)
            wait = retry_after(fault.code, getattr(fault, "retryable", False), tries, limit=limit, first=first)
            if wait is None:
                await self._fail(running.lease, fault, time.monotonic() - started)
                if fault.code not in RESUMABLE:
                    await in_thread_to_the_end(discard, work)
                return
            if fault.code not in RESUMABLE:
                await in_thread_to_the_end(discard, work)
            tries, pause = tries + 1, wait
            await self._postpone(running.lease, fault, tries, wait)
        await in_thread_to_the_end(discard, work)

    async def _make(self, dataset: Dataset, lease: Lease, resolved: Resolved, work: Path) -> None:
        logger.info("build of %s starts", dataset.dataset_id)
        try:
            made = await self._maker.make(dataset, lease, resolved, work)
        finally:
            await self._cache.release(dataset.dataset_id)
        self._hub.wake(await insist(lambda: self._store.publish(lease, made)))
        self._metrics.build_ended("ready", made.build_seconds)
        logger.info("build of %s is ready: %d bytes, sha256 %s", dataset.dataset_id, made.size, made.sha256)

    async def _fail(self, lease: Lease, fault: ServerFault, seconds: float) -> None:
        logger.warning("build of %s failed: %s: %s", lease.dataset_id, fault.code, fault)
        self._hub.wake(await insist(lambda: self._store.fail(lease, fault.to_event())))
        self._metrics.build_ended("failed", seconds)

    async def _postpone(self, lease: Lease, fault: ServerFault, tries: int, wait: float) -> None:
        logger.warning("build of %s failed, again in %g s: %s: %s", lease.dataset_id, wait, fault.code, fault)
        reason = {"reason": fault.code, "message": str(fault)}
        self._hub.wake(await insist(lambda: self._store.postpone(lease, tries, time.time() + wait, reason)))
        self._metrics.build_retried()

    # -- leases

    def _until(self) -> float:
        return time.time() + self._settings.lease_seconds

    async def _keep_leases(self) -> None:
        """Renew what is held, stop what is not ours any more, and take up what others have left."""
        while True:
            await asyncio.sleep(self._settings.lease_seconds / 3)
            ours, began = list(self._running.values()), time.monotonic()
            try:
                held = await self._store.renew(self._owner, self._until())
                self._renewed = began
                lost = [running for running in ours if running.lease not in held]
            except SQLAlchemyError:
                logger.exception("the leases cannot be renewed")
                # Not renewed in time, they may be somebody else's by now.
                lost = ours if time.monotonic() - self._renewed > self._settings.lease_seconds else []
            for running in lost:
                running.task.cancel()
            try:
                await self._adopt()
            except SQLAlchemyError:
                logger.exception("abandoned builds cannot be looked for")

    async def _adopt(self) -> None:
        """Go on with the builds that no server holds any more."""
        active = await self._store.active()
        self._abandoned.keep({dataset.dataset_id for dataset in active})
        for seen in active:
            if seen.dataset_id in self._running or not self._abandoned.may_claim(seen):
                continue
            dataset = await self._store.claim(seen, self._owner, self._until())
            if dataset is None:
                continue
            source = self._settings.sources.get(dataset.dataset_name)
            resolved = None
            if source:
                version = dataset.resolved_version
                resolved = await asyncio.to_thread(resolve_again, dataset.dataset_name, source, version)
            if resolved:
                logger.info("build of %s is taken up", dataset.dataset_id)
                self.start(dataset, resolved)
            else:
                fault = UnknownVersionError("the server was given another version of this handler meanwhile; ask again")
                with contextlib.suppress(LeaseLostError):
                    await self._fail(Lease(dataset.dataset_id, dataset.fence), fault, 0.0)

    async def _remove_orphans(self) -> None:
        """Remove build folders that nobody will go on with: published, failed for good or long ago, or never ours."""
        for folder in self.work_root.iterdir():
            dataset = await self._datasets.dataset(f"{folder.name}.zip")
            if dataset is None or not _may_go_on(dataset):
                await in_thread_to_the_end(discard, folder)

    # -- builds that nobody waits for

    async def _cancel_unwatched(self, seconds: float) -> None:
        """Cancel what nobody has listened to or asked for during ``seconds``."""
        watched: dict[str, float] = {}
        while True:
            await asyncio.sleep(seconds / 4)
            now = time.monotonic()
            watched = {name: watched.get(name, now) for name in self._running}
            try:
                for dataset_id in watched:
                    topic_ids = [topic_id for topic_id, _ in await self._store.topics_of(dataset_id)]
                    watched[dataset_id] = max(watched[dataset_id], self._hub.last_watched([dataset_id, *topic_ids]))
                    if time.monotonic() - watched[dataset_id] <= seconds:
                        continue
                    dataset = await self._datasets.dataset(dataset_id)
                    if dataset and dataset.is_active:
                        await self.cancel(dataset, "", f"nobody waited for it any more, for {seconds:g} s")
            except SQLAlchemyError:
                logger.exception("whether anybody waits for builds cannot be found out")


def _left(not_before: float | None) -> float:
    """Seconds until then; never more than a wait can be, whatever the clock was set to."""
    return 0.0 if not_before is None else min(LONGEST, max(0.0, not_before - time.time()))


def _may_go_on(dataset: Dataset) -> bool:
    """Whether a build's folder may be of use: it is at work, or ended in a way that can be resumed, not long ago."""
    if dataset.is_active:
        return True
    code = json.loads(dataset.error).get("code") if dataset.error else None
    return code in RESUMABLE and time.time() - (dataset.finished_at or 0.0) < _KEEP_SECONDS


def _as_fault(error: Exception, dataset_id: str) -> ServerFault:
    if isinstance(error, ServerFault):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HandlerFaultError("disk_full", "no space left on the server's disk; free some and ask again")
    logger.error("build of %s failed", dataset_id, exc_info=error)
    return ServerFault(f"the server failed ({type(error).__name__}); its log says more")
