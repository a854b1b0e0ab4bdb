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
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from .background import in_thread_to_the_end, outlast, remove_aside
from .cache import Cache
from .environments import Environments
from .errors import EnvironmentFailedError, HandlerFaultError, ServerFault, UnknownVersionError
from .hub import Hub
from .installations import Installations
from .logs import log_context
from .making import TRASH, Maker, discard, put_aside
from .metrics import Metrics
from .ownership import Abandoned, new_owner
from .queue import FairQueue, Limits, Ticket
from .retries import LONGEST, RESUMABLE, retry_after
from .settings import Settings
from .sources import Resolved, resolve_again
from .store import BuildStore, Lease, LeaseLostError, Store, Wanted, insist
from .store.schema import Dataset
from .unwatched import Unwatched

logger = logging.getLogger(__name__)

#: What a build left that was cancelled or failed is kept so long, for somebody to go on with it.
_KEEP_SECONDS = 7 * 24 * 3600.0
_TIDY_SECONDS = 3600.0
#: Servers in a row that may go down while they make a dataset, with no new shard, before it is given up.
_MOST_CRASHES = 5


@dataclass(eq=False)
class Running:
    """A build of ours, from its claim to its end; ``ticket`` is its place in the queue while it has one.

    ``for_its_own_sake`` is one that goes on though nobody waits for it.
    """

    lease: Lease
    ticket: Ticket | None
    for_its_own_sake: bool
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
        installations: Installations,
        cache: Cache,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._datasets = store
        self._store = builds
        self._hub = hub
        self._cache = cache
        self._metrics = metrics
        self._maker = Maker(settings, builds, hub, environments, installations, cache)
        self._queue = FairQueue(Limits(settings.concurrent_builds, per_client=settings.builds_per_client))
        self._owner = new_owner()
        self._abandoned = Abandoned(self._owner, settings.lease_seconds)
        self._unreadable: dict[str, float] = {}  # abandoned builds whose code cannot be read, and since when
        self._running: dict[str, Running] = {}
        self._claiming: set[str] = set()  # from before the claim until `start`
        self._closed = False
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
        remove_aside(self.work_root.glob(f"{TRASH}*"))
        await self._remove_orphans()
        await self._adopt()
        self._background = [
            asyncio.create_task(self._keep_leases(), name="leases"),
            asyncio.create_task(self._tidy(), name="build folders"),
        ]
        if self._settings.cancel_unwatched_seconds is not None:
            watching = self._cancel_unwatched(self._settings.cancel_unwatched_seconds)
            self._background.append(asyncio.create_task(watching, name="unwatched builds"))

    async def drain(self, seconds: float) -> None:
        """Start no build any more, and give those that run ``seconds`` to end, well or not."""
        self._queue.stop()
        if self._queue.running and seconds > 0:
            logger.info("waiting up to %g s for %d builds", seconds, self._queue.running)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._queue.idle()

    async def close(self) -> None:
        """Stop all builds where they are; their states and folders stay, so that the next server goes on."""
        self._closed = True
        tasks = [*self._background, *(running.task for running in self._running.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(SQLAlchemyError):  # the next server finds out by itself
            await self._store.give_back(self._owner)

    # -- claims

    async def claim(self, wanted: Wanted, seen: Dataset | None) -> Dataset | None:
        """Claim a new attempt of a dataset for this server; None if it is not any more as it was ``seen``.

        Who claims one calls `start` at once.
        """
        self._claiming.add(wanted.dataset_id)
        claimed = None
        try:
            claimed = await self._store.start(wanted, seen, self._owner, self._until())
        finally:
            if claimed is None:
                self._claiming.discard(wanted.dataset_id)
        return claimed

    def start(self, dataset: Dataset, resolved: Resolved, *, for_its_own_sake: bool = False) -> None:
        """Begin the build that was claimed, after the end of an earlier one; one that runs goes on.

        One ``for_its_own_sake`` is not cancelled because nobody waits for it. A server that stops leaves it to the
        next.
        """
        self._claiming.discard(dataset.dataset_id)
        earlier = self._running.get(dataset.dataset_id)
        lease = Lease(dataset.dataset_id, dataset.fence)
        if self._closed or (earlier and earlier.lease == lease):
            return
        pause = _left(dataset.not_before)
        ticket = None if pause else self._queue.join(client=dataset.client, priority=dataset.priority)
        running = self._running[dataset.dataset_id] = Running(lease, ticket, for_its_own_sake)
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
            _stop([running])
            await asyncio.wait((running.task,))
        return True

    async def cancel_unless_waited_for(self, dataset: Dataset) -> None:
        """End an attempt that was begun for a request which has ended meanwhile."""
        if not await self._store.topics_of(dataset.dataset_id):
            await self.cancel(dataset, "", "the request that it was made for has ended")

    def discard(self, dataset_id: str) -> None:
        """Remove what is left of the build of a dataset; nothing of one that runs, or is to."""
        if not self._is_ours(dataset_id):
            discard(self.work_folder(dataset_id))

    def _is_ours(self, dataset_id: str) -> bool:
        return dataset_id in self._running or dataset_id in self._claiming

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
                await outlast(earlier)  # it is in the folder until then
            try:
                await self._try_until_it_ends(running, dataset, resolved, pause)
            except LeaseLostError:
                logger.warning("build of %s stops: it is not this server's any more", dataset.dataset_id)
                # Whoever ended it, or goes on with it, cannot wake those who listen here.
                with contextlib.suppress(SQLAlchemyError, OSError):
                    self._hub.wake(await self._store.all_topics_of(dataset.dataset_id))
            except Exception:  # the boundary: that it is still to be made, is seen by `_adopt`
                logger.exception("build of %s stops: its end cannot be told", dataset.dataset_id)

    async def _try_until_it_ends(self, running: Running, dataset: Dataset, resolved: Resolved, pause: float) -> None:
        tries: int | None = dataset.tries
        while tries is not None:
            await asyncio.sleep(pause)
            if running.ticket is None:
                running.ticket = self._queue.join(client=dataset.client, priority=dataset.priority)
            try:
                async with self._queue.turn(running.ticket):
                    tries, pause = await self._try(running.lease, dataset, resolved, tries)
            finally:
                running.ticket = None
                self._maker.progress.pop(dataset.dataset_id, None)

    async def _try(self, lease: Lease, dataset: Dataset, resolved: Resolved, tries: int) -> tuple[int | None, float]:
        """One try, to its end and told: how many tries there were before the next one, None if there is none; and
        the seconds until then.
        """
        work, started = self.work_folder(dataset.dataset_id), time.monotonic()
        try:
            await self._make(dataset, lease, resolved, work)
        except LeaseLostError:
            raise
        except Exception as error:  # the boundary: a build ends in an event, whatever happens
            if (task := asyncio.current_task()) and task.cancelling():  # on its way out, taken for a fault
                raise asyncio.CancelledError from error
            fault = _as_fault(error, dataset.dataset_id)
        else:
            await in_thread_to_the_end(discard, work)
            return None, 0.0
        limit, first = self._settings.retry_limit, self._settings.retry_seconds
        wait = retry_after(fault.code, getattr(fault, "retryable", False), tries, limit=limit, first=first)
        # What filled the disk would keep it full, and nobody else could build.
        if fault.code not in RESUMABLE or (wait is None and fault.code == "disk_full"):
            await in_thread_to_the_end(discard, work)
        if wait is None:
            await self._fail(lease, fault, time.monotonic() - started)
            return None, 0.0
        await self._postpone(lease, fault, tries + 1, wait)
        return tries + 1, wait

    async def _make(self, dataset: Dataset, lease: Lease, resolved: Resolved, work: Path) -> None:
        logger.info("build of %s starts", dataset.dataset_id)
        try:
            made = await self._maker.make(dataset, lease, resolved, work)
        except BaseException:
            await self._give_up(dataset, lease)
            raise
        try:
            self._hub.wake(await insist(lambda: self._store.publish(lease, made)))
        except Exception:  # who is cancelled in here cannot tell whether the archive is published by now
            await self._give_up(dataset, lease)
            raise
        self._metrics.build_ended("ready", made.build_seconds)
        logger.info("build of %s is ready: %d bytes, sha256 %s", dataset.dataset_id, made.size, made.sha256)

    async def _give_up(self, dataset: Dataset, lease: Lease) -> None:
        """Give back the room of a try that did not end well, and remove an archive that no row of the database names.

        What cannot be looked at now, the cache finds when it tidies up.
        """
        try:
            now = await self._datasets.dataset(dataset.dataset_id)
            if now is None or now.revision == dataset.revision:
                await in_thread_to_the_end(self._cache.remove_unpublished, dataset)
            if now and now.fence == lease.fence:
                await self._cache.release(dataset.dataset_id)
        except (SQLAlchemyError, OSError):
            logger.exception("the room set aside for %s cannot be given back yet", dataset.dataset_id)

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
            except Exception:  # the boundary: whatever it was, it is to be tried again
                logger.exception("the leases cannot be renewed")
                # Not renewed in time, they may be somebody else's by now.
                lost = ours if time.monotonic() - self._renewed > self._settings.lease_seconds else []
            _stop(lost)
            try:
                for running in lost:  # one that has just ended is cancelled before it could tell
                    self._hub.wake(await self._store.all_topics_of(running.lease.dataset_id))
                await self._adopt()
            except Exception:  # the boundary: whatever it was, it is to be tried again
                logger.exception("abandoned builds cannot be looked for")

    async def _adopt(self) -> None:
        """Go on with the builds that no server holds any more."""
        active = await self._store.active()
        names = {dataset.dataset_id for dataset in active}
        self._abandoned.keep(names)
        self._unreadable = {name: since for name, since in self._unreadable.items() if name in names}
        for seen in active:
            if not self._is_ours(seen.dataset_id) and self._abandoned.may_claim(seen):
                await self._take_up(seen)

    async def _take_up(self, seen: Dataset) -> None:
        """Claim an abandoned build, and go on with it; one whose code cannot be read waits `LONGEST` for it."""
        source = self._settings.sources.get(seen.dataset_name)
        resolved = unreadable = None
        if source:
            try:
                resolved = await asyncio.to_thread(resolve_again, seen.dataset_name, source, seen.resolved_version)
                self._unreadable.pop(seen.dataset_id, None)
            except EnvironmentFailedError as error:
                unreadable = error
                since = self._unreadable.setdefault(seen.dataset_id, time.monotonic())
                if time.monotonic() - since <= LONGEST:
                    logger.warning("build of %s cannot be taken up yet: %s", seen.dataset_id, error)
                    return
        waited_for = await self._store.topics_of(seen.dataset_id)
        if self._is_ours(seen.dataset_id):
            return
        dataset = await self._store.claim(seen, self._owner, self._until())
        if dataset is None:
            return
        if resolved and dataset.crashes < _MOST_CRASHES:
            logger.info("build of %s is taken up", dataset.dataset_id)
            self.start(dataset, resolved, for_its_own_sake=not waited_for and seen.lease_owner != self._owner)
            return
        fault: ServerFault
        if unreadable:
            fault = unreadable
        elif resolved:
            fault = ServerFault(f"{dataset.crashes} servers in a row went down while they made it; their logs say more")
        else:
            fault = UnknownVersionError("the server was given another version of this handler meanwhile; ask again")
        with contextlib.suppress(LeaseLostError):
            await self._fail(Lease(dataset.dataset_id, dataset.fence), fault, 0.0)

    # -- what builds leave

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(_TIDY_SECONDS)
            try:
                await self._remove_orphans()
            except Exception:  # the boundary: whatever it was, it is to be tried again
                logger.exception("the folders of builds cannot be tidied")

    async def _remove_orphans(self) -> None:
        """Remove build folders that nobody will go on with: published, failed for good or long ago, or never ours."""
        trash: list[Path] = []
        for folder in list(self.work_root.iterdir()):
            if folder.name.startswith(TRASH):
                continue  # that goes already
            dataset_id = f"{folder.name}.zip"
            dataset = await self._datasets.dataset(dataset_id)
            if (dataset is None or not _may_go_on(dataset)) and not self._is_ours(dataset_id):
                trash += filter(None, [put_aside(folder)])
        remove_aside(trash)

    # -- builds that nobody waits for

    async def _cancel_unwatched(self, seconds: float) -> None:
        """Cancel what nobody has listened to or asked for during ``seconds``."""
        unwatched = Unwatched(self._hub, seconds)
        while True:
            await asyncio.sleep(seconds / 4)
            waited_for = [name for name, running in self._running.items() if not running.for_its_own_sake]
            unwatched.keep(waited_for)
            try:
                for dataset_id in waited_for:
                    if not unwatched.is_so(dataset_id, await self._store.topics_of(dataset_id)):
                        continue
                    dataset = await self._datasets.dataset(dataset_id)
                    if dataset and dataset.is_active:
                        await self.cancel(dataset, "", f"nobody waited for it any more, for {seconds:g} s")
            except Exception:  # the boundary: whatever it was, it is to be tried again
                logger.exception("whether anybody waits for builds cannot be found out")


def _stop(builds: Iterable[Running]) -> None:
    """Cancel builds; one that is ending already is left to it."""
    for running in builds:
        if not running.task.cancelling():
            running.task.cancel()


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
