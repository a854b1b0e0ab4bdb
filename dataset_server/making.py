"""Making one dataset: the handler's plan, its shards, and the archive. Whose turn it is, is decided in `builds`.

A build's folder outlives the server: who starts again finds the plan and the sealed shards, and goes on. Nothing is
told to the database before it would survive a power cut.
"""

import asyncio
import json
import logging
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from . import handler_events as events
from .archive import Published, complete_manifest, publish
from .cache import Cache
from .confinement import for_handlers
from .durable import sync_folder, write_file
from .environments import Environment, Environments
from .errors import HandlerFaultError
from .handler_events import HandlerEvent
from .hub import Hub
from .room import extrapolated, planned_samples
from .runner import refuse_links, run_command
from .settings import Settings
from .sources import Resolved
from .store import BuildStore, Lease, NewArchive
from .store.schema import Dataset, Shard

logger = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")

_PROGRESS_SECONDS = 0.5


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


def workers_of_a_build(settings: Settings) -> int:
    """Worker processes of one build: ``workers`` is what the machine has, shared by the builds that may run at once."""
    return max(1, settings.workers // settings.concurrent_builds)


class Maker:
    """Makes datasets with handlers, and tells the database and the topics how far that is."""

    def __init__(
        self, settings: Settings, store: BuildStore, hub: Hub, environments: Environments, cache: Cache
    ) -> None:
        self._settings = settings
        self._store = store
        self._hub = hub
        self._environments = environments
        self._cache = cache
        self.progress: dict[str, Progress] = {}

    async def make(self, dataset: Dataset, lease: Lease, resolved: Resolved, work: Path) -> NewArchive:
        """Make a dataset that is leased to us and its archive; returns what is to be published.

        Raises the `ServerFault` that ends it, or `LeaseLostError`.
        """
        started = time.monotonic()
        environment = await self._environments.ensure(resolved)
        with self._environments.using(environment):
            await self._cache.reserve(dataset)
            if await in_thread_to_the_end(_claim_folder, work, environment):
                await self._store.forget_shards(lease)
            await asyncio.to_thread(refuse_links, work)  # what an earlier server left was not looked at
            request = self._request(dataset, resolved, work)
            if not (work / "plan" / "plan.json").exists():
                await self._plan(lease, environment, request, work)
            files, sealed = await self._build(dataset, lease, environment, request, work)
        self._hub.wake(await self._store.set_state(lease, "publishing"))
        await self._cache.reserve(dataset, sum(shard.bytes for shard in sealed.values()))
        made = await in_thread_to_the_end(self._publish, dataset, resolved, environment, work, files, sealed)
        revision = await in_thread_to_the_end(self._settle, dataset, made)
        await self._cache.record(dataset.dataset_id, revision, work)
        return NewArchive(
            revision=revision,
            size=made.size,
            sha256=made.sha256,
            manifest=made.manifest,
            provenance=json.loads(made.manifest)["provenance"]["sha256"],
            offsets={file: made.offsets[file] for file in sealed},
            build_seconds=time.monotonic() - started,
        )

    def _request(self, dataset: Dataset, resolved: Resolved, work: Path) -> dict[str, Any]:
        return {
            "dataset": dataset.dataset_name,
            "handler": resolved.entry_point,
            "config": json.loads(dataset.config),
            "raw_root": str(self._settings.raw_root),
            "work_dir": str(work),
            "workers": workers_of_a_build(self._settings),
        }

    async def _plan(self, lease: Lease, environment: Environment, request: dict[str, Any], work: Path) -> None:
        self._hub.wake(await self._store.set_state(lease, "planning"))
        await run_command(
            environment.python,
            "plan",
            request,
            work,
            timeout=self._settings.plan_timeout,
            confinement=for_handlers(self._settings),
        )
        await asyncio.to_thread(sync_folder, work)  # the handler made the folders of plan and shards in it

    async def _build(
        self, dataset: Dataset, lease: Lease, environment: Environment, request: dict[str, Any], work: Path
    ) -> tuple[tuple[str, ...], dict[str, events.Shard]]:
        """All shards; returns the files of the dataset, and what the handler said of each shard."""
        self._hub.wake(await self._store.set_state(lease, "building"))
        progress = self.progress[lease.dataset_id] = Progress()
        sealed: dict[str, events.Shard] = {}
        planned = await asyncio.to_thread(planned_samples, work)
        await self._cache.reserve(dataset, examples=sum(planned.values()) or None)

        async def on_event(event: HandlerEvent) -> None:
            if isinstance(event, events.Progress):
                await self._tell_progress(lease, progress, event)
            elif isinstance(event, events.Shard):
                sealed[event.file] = event
                shard = Shard(dataset_id=lease.dataset_id, offset=None, **event.model_dump(exclude={"event"}))
                self._hub.wake(await self._store.seal_shard(lease, shard))
                expected = extrapolated(planned, {file: shard.bytes for file, shard in sealed.items()})
                if expected and len(sealed).bit_count() == 1:  # after 1, 2, 4, 8 …: the more there are, the surer it is
                    await self._cache.reserve(dataset, expected)

        finished = await run_command(
            environment.python,
            "build",
            request,
            work,
            timeout=self._settings.build_timeout,
            stall_timeout=self._settings.stall_timeout,
            on_event=on_event,
            confinement=for_handlers(self._settings),
        )
        assert isinstance(finished, events.Finished)
        if sorted(finished.files) != sorted([*sealed, *events.METADATA_FILES]):
            raise HandlerFaultError("handler_protocol", "the handler's last word does not list what it announced")
        return finished.files, sealed

    async def _tell_progress(self, lease: Lease, progress: Progress, event: events.Progress) -> None:
        progress.update(event.done, event.total)
        if time.monotonic() - progress.told > _PROGRESS_SECONDS or event.done == event.total:
            progress.told = time.monotonic()
            self._hub.wake(await self._store.progress(lease, progress.to_json()))

    def _publish(
        self,
        dataset: Dataset,
        resolved: Resolved,
        environment: Environment,
        work: Path,
        files: tuple[str, ...],
        sealed: dict[str, events.Shard],
    ) -> Published:
        folder = work / "dataset"
        manifest = json.loads((folder / "manifest.json").read_bytes())
        handler = {"version": resolved.version}
        if environment.runtime:
            handler["dataset_handlers"] = environment.runtime
        complete = complete_manifest(manifest, dataset_id=dataset.dataset_id, handler=handler)
        target = self._cache.archive_path(dataset.dataset_id, dataset.revision + 1)
        return publish(folder, files, complete, {file: shard.sha256 for file, shard in sealed.items()}, target)

    def _settle(self, dataset: Dataset, made: Published) -> int:
        """The revision of a new archive: one that came out as it was before takes its place under the same number."""
        revision = dataset.revision + 1
        if made.sha256 != dataset.archive_sha256:
            return revision
        before = self._cache.archive_path(dataset.dataset_id, dataset.revision)
        self._cache.archive_path(dataset.dataset_id, revision).replace(before)
        sync_folder(before.parent)
        return dataset.revision


def _claim_folder(work: Path, environment: Environment) -> bool:
    """Keep what an earlier attempt left only if it was made in the very same environment; whether it starts over."""
    note = work / "environment"
    if note.is_file() and note.read_text() == environment.key:
        return False
    discard(work)
    work.mkdir(parents=True)
    write_file(note, environment.key.encode(), work / ".environment.partial")
    sync_folder(work.parent)
    return True


def discard(folder: Path) -> None:
    """Remove a build's folder; renamed first, so that it is never found half-removed."""
    if folder.exists():
        trash = folder.with_name(f"trash-{uuid.uuid4().hex}")
        try:
            folder.rename(trash)
        except OSError:
            logger.exception("%s cannot be removed", folder)
        shutil.rmtree(trash, ignore_errors=True)


async def in_thread_to_the_end(action: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run ``action`` in a thread; who is cancelled meanwhile stays until it is over, and then is.

    A thread cannot be stopped: whoever comes next must not meet it at work in the same folder.
    """
    task = asyncio.ensure_future(asyncio.to_thread(action, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
