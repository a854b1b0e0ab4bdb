"""Making one dataset: the handler's plan, its shards, and the archive. Whose turn it is, is decided in `builds`.

A build's folder outlives the server: who starts again finds the plan and the sealed shards, and goes on. Nothing is
told to the database before it would survive a power cut.
"""

import asyncio
import json
import logging
import stat
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from . import handler_events as events
from .archive import Published, Sealed, complete_manifest, publish, read_manifest
from .background import in_thread_to_the_end, look, remove_aside, until_stopped
from .cache import Cache
from .confinement import for_handlers
from .durable import read_bounded, sync_folder, write_file
from .environments import Environment, Environments
from .errors import HandlerFaultError
from .handler_events import HandlerEvent
from .hub import Hub
from .installations import Installations
from .room import extrapolated, planned_samples
from .runner import refuse_links, run_command
from .settings import Settings
from .sources import Resolved
from .staleness import changed_since_begun
from .store import BuildStore, Lease, NewArchive
from .store.schema import Dataset, Shard

logger = logging.getLogger(__name__)

_PROGRESS_SECONDS = 0.5
_LONGEST_NOTE = 256
#: What the name of a build's folder begins with that is being removed.
TRASH: Final = "trash-"


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


class Maker:
    """Makes datasets with handlers, and tells the database and the topics how far that is."""

    def __init__(
        self,
        settings: Settings,
        store: BuildStore,
        hub: Hub,
        environments: Environments,
        installations: Installations,
        cache: Cache,
    ) -> None:
        self._settings = settings
        self._store = store
        self._hub = hub
        self._environments = environments
        self._installations = installations
        self._cache = cache
        self.progress: dict[str, Progress] = {}

    async def make(self, dataset: Dataset, lease: Lease, resolved: Resolved, work: Path) -> NewArchive:
        """Make a dataset that is leased to us and its archive; returns what is to be published.

        Raises the `ServerFault` that ends it, or `LeaseLostError`.
        """
        started = time.monotonic()
        environment = await self._installations.ensure(resolved, dataset.client)
        with self._environments.using(environment):
            await self._cache.reserve(dataset, folder=work / "dataset")
            if await in_thread_to_the_end(_claim_folder, work, environment, self._settings.raw_root):
                await self._store.forget_shards(lease)
            request = self._request(dataset, resolved, work)
            if not (work / "plan" / "plan.json").exists():
                await self._plan(lease, environment, request, work)
            files, sealed = await self._build(dataset, lease, environment, request, work)
        self._hub.wake(await self._store.set_state(lease, "publishing"))
        await self._cache.reserve(dataset, sum(shard.bytes for shard in sealed.values()))
        made = await until_stopped(self._publish, dataset, resolved, environment, work, files, sealed)
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
            "workers": self._settings.workers_of_a_build,
        }

    async def _plan(self, lease: Lease, environment: Environment, request: dict[str, Any], work: Path) -> None:
        self._hub.wake(await self._store.set_state(lease, "planning"))
        await run_command(
            environment.python,
            "plan",
            request,
            work,
            timeout=self._settings.plan_timeout,
            confinement=await look(for_handlers, self._settings),
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
        await self._cache.reserve(dataset, examples=sum(planned.values()), folder=work / "dataset")

        async def on_event(event: HandlerEvent) -> None:
            if isinstance(event, events.Progress):
                await self._tell_progress(lease, progress, event)
            elif isinstance(event, events.Shard):
                await asyncio.to_thread(_refuse_other_size, work / "dataset" / event.file, event.bytes)
                sealed[event.file] = event
                shard = Shard(dataset_id=lease.dataset_id, offset=None, **event.model_dump(exclude={"event"}))
                self._hub.wake(await self._store.seal_shard(lease, shard))
                expected = extrapolated(planned, {file: shard.bytes for file, shard in sealed.items()})
                if expected and len(sealed).bit_count() == 1:  # after 1, 2, 4, 8 …: the more there are, the surer it is
                    await self._cache.reserve(dataset, expected, folder=work / "dataset")

        finished = await run_command(
            environment.python,
            "build",
            request,
            work,
            timeout=self._settings.build_timeout,
            stall_timeout=self._settings.stall_timeout,
            on_event=on_event,
            confinement=await look(for_handlers, self._settings),
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
        stop: threading.Event,
        dataset: Dataset,
        resolved: Resolved,
        environment: Environment,
        work: Path,
        files: tuple[str, ...],
        sealed: dict[str, events.Shard],
    ) -> Published:
        folder = work / "dataset"
        handler = {"version": resolved.version}
        if environment.runtime:
            handler["dataset_handlers"] = environment.runtime
        complete = complete_manifest(read_manifest(folder), dataset_id=dataset.dataset_id, handler=handler)
        target = self._cache.archive_path(dataset.dataset_id, dataset.revision + 1)
        announced = {file: Sealed(shard.bytes, shard.sha256) for file, shard in sealed.items()}
        return publish(folder, files, complete, announced, target, stop)

    def _settle(self, dataset: Dataset, made: Published) -> int:
        """The revision of a new archive: one that came out as it was before takes its place under the same number."""
        revision = dataset.revision + 1
        if made.sha256 != dataset.archive_sha256:
            return revision
        before = self._cache.archive_path(dataset.dataset_id, dataset.revision)
        self._cache.archive_path(dataset.dataset_id, revision).replace(before)
        sync_folder(before.parent)
        return dataset.revision


def _refuse_other_size(shard: Path, size: int) -> None:
    """Raise `HandlerFaultError` unless a shard is a file of the size that was announced of it."""
    try:
        found = shard.lstat()
    except OSError as error:
        message = f"the handler announced {shard.name}, which is not there"
        raise HandlerFaultError("handler_protocol", message) from error
    if not stat.S_ISREG(found.st_mode) or found.st_size != size:
        message = f"the handler announced {size} bytes of {shard.name}, which is no file of that size"
        raise HandlerFaultError("handler_protocol", message)


def _claim_folder(work: Path, environment: Environment, raw_root: Path) -> bool:
    """Keep what an earlier attempt left only if that was made in the very same environment, of raw files that are
    still the same; whether it starts over. Raises `HandlerFaultError` for links among what was left.
    """
    note = work / "environment"
    if _made_in(note, environment):
        refuse_links(work)  # what an earlier server left was not looked at
        if (changed := changed_since_begun(raw_root, work)) is None:
            return False
        logger.info("%s starts over: %s has changed", work.name, changed)
    discard(work)
    work.mkdir(parents=True)
    write_file(note, environment.key.encode(), work / ".environment.partial")
    sync_folder(work.parent)
    return True


def _made_in(note: Path, environment: Environment) -> bool:
    try:
        return read_bounded(note, _LONGEST_NOTE) == environment.key.encode()
    except (OSError, HandlerFaultError):
        return False


def discard(folder: Path) -> None:
    """Take a build's folder away at once; its files, which may take minutes, go in the background."""
    if trash := put_aside(folder):
        remove_aside([trash])


def put_aside(folder: Path) -> Path | None:
    """Rename a build's folder to one that nobody looks for, which is returned: None if there was none."""
    trash = folder.with_name(f"{TRASH}{uuid.uuid4().hex}")
    try:
        folder.rename(trash)
    except FileNotFoundError:
        return None
    except OSError:
        logger.exception("%s cannot be removed", folder)
        return None
    return trash
