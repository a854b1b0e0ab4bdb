"""Builds: from a claimed dataset to its published archive, through the handler's plan and shards.

A build's folder outlives the server: who starts again finds the plan and the sealed shards, and goes on.
"""

import asyncio
import errno
import json
import logging
import shutil
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import handler_events as events
from .archive import Published, complete_manifest, publish
from .environments import Environment, Environments
from .errors import HandlerFaultError, ServerFault
from .handler_events import HandlerEvent
from .hub import Hub
from .runner import run_command
from .settings import Settings
from .sources import Resolved
from .store import Store, insist
from .store.schema import Dataset, Shard

logger = logging.getLogger(__name__)

_PROGRESS_SECONDS = 0.5

#: After these a second attempt goes on where the first one stopped; after others it starts afresh, since the fault
#: may lie in what was made so far.
_RESUMABLE = {"worker_died", "handler_exited", "handler_timeout", "disk_full", "internal_error"}


@dataclass
class Progress:
    """How far a build is, in samples."""

    done: int = 0
    total: int = 0
    resumed: int | None = None
    started: float = field(default_factory=time.monotonic)
    told: float = 0.0

    def update(self, done: int, total: int) -> None:
        """Take a handler's word; what is there at the start was made earlier and says nothing of the speed."""
        self.done, self.total = done, total
        if self.resumed is None:
            self.resumed, self.started = done, time.monotonic()

    def to_json(self) -> dict[str, Any]:
        """A ``progress`` event's data."""
        seconds = time.monotonic() - self.started
        rate = (self.done - (self.resumed or 0)) / seconds if seconds > 0 else 0.0
        eta = (self.total - self.done) / rate if rate > 0 else None
        return {"done": self.done, "total": self.total, "rate": round(rate, 2), "eta": eta and round(eta, 1)}


@dataclass(frozen=True)
class Running:
    """A build under way."""

    attempt: int
    task: asyncio.Task[None]


class Builds:
    """Runs the builds of this server."""

    def __init__(self, settings: Settings, store: Store, hub: Hub, environments: Environments) -> None:
        self._settings = settings
        self._store = store
        self._hub = hub
        self._environments = environments
        self._slots = asyncio.Semaphore(settings.concurrent_builds)
        self._running: dict[str, Running] = {}
        self._progress: dict[str, Progress] = {}
        self.work_root = settings.data_dir / "work"
        self.archive_root = settings.data_dir / "archives"

    def archive_path(self, dataset_id: str) -> Path:
        """Where the archive of a dataset is, or will be."""
        return self.archive_root / dataset_id

    def work_folder(self, dataset_id: str) -> Path:
        """The folder of a dataset's build."""
        return self.work_root / dataset_id.removesuffix(".zip")

    def progress(self, dataset_id: str) -> dict[str, Any] | None:
        """How far a running build is."""
        progress = self._progress.get(dataset_id)
        return progress.to_json() if progress else None

    def prepare(self) -> None:
        """Make the folders, and remove what a publication left that was cut off."""
        for folder in (self.work_root, self.archive_root):
            folder.mkdir(parents=True, exist_ok=True)
        for path in self.archive_root.glob(".*.partial"):
            path.unlink(missing_ok=True)

    async def remove_orphans(self) -> None:
        """Remove build folders that nobody will go on with: published, failed for good, or never ours."""
        for folder in self.work_root.iterdir():
            dataset = await self._store.dataset(f"{folder.name}.zip")
            failed = json.loads(dataset.error)["code"] if dataset and dataset.error else None
            if dataset is None or dataset.state == "ready" or (failed and failed not in _RESUMABLE):
                await asyncio.to_thread(_discard, folder)

    def start(self, dataset: Dataset, resolved: Resolved) -> None:
        """Start the build that its caller has claimed, after the end of an earlier attempt; one that runs goes on."""
        running = self._running.get(dataset.dataset_id)
        if running and running.attempt == dataset.attempt:
            return
        task = asyncio.create_task(
            self._run(dataset, resolved, running.task if running else None), name=f"build {dataset.dataset_id}"
        )
        self._running[dataset.dataset_id] = Running(dataset.attempt, task)
        task.add_done_callback(lambda _: self._forget(dataset.dataset_id, task))

    def _forget(self, dataset_id: str, task: asyncio.Task[None]) -> None:
        running = self._running.get(dataset_id)
        if running and running.task is task:
            del self._running[dataset_id]
            self._progress.pop(dataset_id, None)

    async def close(self) -> None:
        """Stop all builds where they are; their states and folders stay, so that the next server goes on."""
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, dataset: Dataset, resolved: Resolved, earlier: asyncio.Task[None] | None) -> None:
        dataset_id, attempt = dataset.dataset_id, dataset.attempt
        work = self.work_folder(dataset_id)
        if earlier:
            await asyncio.wait((earlier,))
        try:
            async with self._slots:
                await self._build(dataset, resolved, work)
        except Exception as error:  # the boundary: a build ends in an event, whatever happens
            fault = _as_fault(error)
            if fault.code == "internal_error":
                logger.exception("build of %s failed", dataset_id)
            else:
                logger.warning("build of %s failed: %s: %s", dataset_id, fault.code, fault)
            self._hub.wake(await insist(lambda: self._store.fail(dataset_id, attempt, fault.to_event())))
            if fault.code not in _RESUMABLE:
                await asyncio.to_thread(_discard, work)
        else:
            await asyncio.to_thread(_discard, work)

    async def _build(self, dataset: Dataset, resolved: Resolved, work: Path) -> None:
        dataset_id = dataset.dataset_id
        logger.info("build of %s starts", dataset_id)
        environment = await self._environments.ensure(resolved)
        request = {
            "dataset": dataset.dataset_name,
            "handler": resolved.entry_point,
            "config": json.loads(dataset.config),
            "raw_root": str(self._settings.raw_root),
            "work_dir": str(work),
            "workers": self._settings.workers,
        }
        if await asyncio.to_thread(_claim_folder, work, environment):
            await self._store.forget_shards(dataset_id)
        if not (work / "plan" / "plan.json").exists():
            await self._move(dataset, "planning")
            timeout = self._settings.plan_timeout
            await run_command(environment.python, "plan", request, work, timeout=timeout)
        await self._move(dataset, "building")
        self._progress[dataset_id] = Progress()
        announced: dict[str, str] = {}

        async def on_event(event: HandlerEvent) -> None:
            if isinstance(event, events.Progress):
                await self._tell_progress(dataset_id, event.done, event.total)
            elif isinstance(event, events.Shard):
                announced[event.file] = event.sha256
                shard = Shard(dataset_id=dataset_id, offset=None, **event.model_dump(exclude={"event"}))
                self._hub.wake(await self._store.seal_shard(shard))

        finished = await run_command(
            environment.python,
            "build",
            request,
            work,
            timeout=self._settings.build_timeout,
            stall_timeout=self._settings.stall_timeout,
            on_event=on_event,
        )
        assert isinstance(finished, events.Finished)
        if sorted(finished.files) != sorted([*announced, *events.METADATA_FILES]):
            raise HandlerFaultError("handler_protocol", "the handler's last word does not list what it announced")
        await self._move(dataset, "publishing")
        made = await asyncio.to_thread(self._publish, dataset, resolved, environment, work, finished.files, announced)
        told = await self._store.publish(
            dataset_id,
            dataset.attempt,
            size=made.size,
            sha256=made.sha256,
            manifest=made.manifest,
            offsets={file: made.offsets[file] for file in announced},
        )
        self._hub.wake(told)
        logger.info("build of %s is ready: %d bytes, sha256 %s", dataset_id, made.size, made.sha256)

    def _publish(
        self,
        dataset: Dataset,
        resolved: Resolved,
        environment: Environment,
        work: Path,
        files: Sequence[str],
        sealed: dict[str, str],
    ) -> Published:
        folder = work / "dataset"
        manifest = json.loads((folder / "manifest.json").read_bytes())
        handler = {"version": resolved.version}
        if environment.runtime:
            handler["dataset_handlers"] = environment.runtime
        complete = complete_manifest(manifest, dataset_id=dataset.dataset_id, handler=handler)
        return publish(folder, files, complete, sealed, self.archive_path(dataset.dataset_id))

    async def _move(self, dataset: Dataset, state: str) -> None:
        self._hub.wake(await self._store.set_state(dataset.dataset_id, dataset.attempt, state))

    async def _tell_progress(self, dataset_id: str, done: int, total: int) -> None:
        progress = self._progress[dataset_id]
        progress.update(done, total)
        if time.monotonic() - progress.told > _PROGRESS_SECONDS or done == total:
            progress.told = time.monotonic()
            self._hub.wake(await self._store.progress(dataset_id, progress.to_json()))


def _claim_folder(work: Path, environment: Environment) -> bool:
    """Keep what an earlier attempt left only if it was made in the very same environment; whether it starts over."""
    note = work / "environment"
    if note.is_file() and note.read_text() == environment.key:
        return False
    _discard(work)
    work.mkdir(parents=True)
    note.write_text(environment.key)
    return True


def _discard(folder: Path) -> None:
    """Remove a build's folder; renamed first, so that it is never found half-removed."""
    if folder.exists():
        trash = folder.with_name(f"trash-{uuid.uuid4().hex}")
        try:
            folder.rename(trash)
        except OSError:
            logger.exception("%s cannot be removed", folder)
        shutil.rmtree(trash, ignore_errors=True)


def _as_fault(error: Exception) -> ServerFault:
    if isinstance(error, ServerFault):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HandlerFaultError("disk_full", "no space left on the server's disk; free some and ask again")
    return ServerFault(f"the server failed ({type(error).__name__}); its log says more")
