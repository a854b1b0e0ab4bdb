"""The archives on disk, from publication to removal: where they are, who reads them, what goes when room is needed.

A file goes only after the database has given it up, and never while it is read, within
``reader_lease_seconds`` of its last use, or pinned. What is read is known here in memory; that it was, is in the
database before the first byte leaves, so that a restart in the middle of a download takes nothing away.
"""

import asyncio
import contextlib
import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from .archive_folder import ArchiveFolder
from .errors import DiskFullError, InUseError
from .eviction import Candidate, choose, reasons_to_stay
from .freshness import Freshness
from .metrics import Metrics
from .room import Space, bytes_to_keep_free, expected_bytes, in_words, to_reserve
from .scrub import Finding, read_again
from .settings import Settings
from .staleness import StoppedError
from .store import Database
from .store.cache import CacheStore, Revision, Use
from .store.schema import Dataset

logger = logging.getLogger(__name__)

_FLUSH_SECONDS = 5.0
_TIDY_SECONDS = 60.0
_DAY = 24 * 3600.0
#: A rotten archive whose dataset was used within this time is made again at once.
_RECENT = 30 * _DAY

Key = tuple[str, int]
Remake = Callable[[Dataset], Awaitable[None]]


class Cache:
    """The archives of one data folder."""

    def __init__(self, settings: Settings, database: Database, metrics: Metrics) -> None:
        self._settings = settings
        self._store = CacheStore(database)
        self._metrics = metrics
        self._folder = ArchiveFolder(settings.data_dir / "archives")
        self._freshness = Freshness(settings.raw_root, settings.stale_check_seconds, self._folder, self._store)
        self._lease = settings.reader_lease_seconds
        self._open: Counter[Key] = Counter()
        self._going: dict[Key, asyncio.Event] = {}
        self._uses: dict[Key, Use] = {}
        self._leased: dict[Key, float] = {}  # last use that the database knows
        self._reserving = asyncio.Lock()
        self._stop = threading.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._remake: Remake | None = None

    def archive_path(self, dataset_id: str, revision: int) -> Path:
        """Where an archive is, or will be."""
        return self._folder.archive(dataset_id, revision)

    # -- the life of the server

    async def start(self, remake: Remake | None = None) -> None:
        """Take in the archives of earlier servers, remove what nobody knows any more, and begin to look after the rest.

        ``remake`` makes a dataset again whose archive has rotted.
        """
        self._remake = remake
        await asyncio.to_thread(self._folder.tidy, await self._store.expected())
        self._tasks = [asyncio.create_task(self._look_after(), name="cache")]
        if self._settings.scrub_days:
            self._tasks.append(asyncio.create_task(self._scrub_by_turns(), name="scrub"))

    async def close(self) -> None:
        """Stop, and note what was used."""
        self._stop.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, self._freshness.close(), return_exceptions=True)
        with contextlib.suppress(SQLAlchemyError):
            await self.flush()

    async def _look_after(self) -> None:
        tidied = time.monotonic()
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            try:
                for key in list(self._open):
                    await self._renew(key)
                await self.flush()
                if time.monotonic() - tidied > _TIDY_SECONDS:
                    tidied = time.monotonic()
                    await self.remove_superseded()
            except (SQLAlchemyError, OSError):
                logger.exception("the cache cannot be looked after; trying again")

    async def revision(self, dataset_id: str, revision: int) -> Revision | None:
        """An archive that a newer one has taken, or takes, the place of, while it is kept."""
        return await self._store.revision(dataset_id, revision)

    # -- use

    async def is_there(self, dataset: Dataset) -> bool:
        """Whether the archive of a dataset is on disk, whole; asked for, it is safe from eviction for a while."""
        key = (dataset.dataset_id, dataset.revision)
        if dataset.state != "ready" or key in self._going:
            return False
        try:
            # One stat on the data folder's disk takes less than handing it to a thread.
            found = self.archive_path(*key).stat().st_size == dataset.archive_bytes
        except OSError:
            return False
        if found:
            self._note(key, 0)
        return found

    def note_use(self, dataset_id: str) -> None:
        """Note that somebody asked for a dataset that is ready; the database hears of it within seconds."""
        self._note((dataset_id, 0), 1)

    def _note(self, key: Key, times: int) -> None:
        known = self._uses.get(key)
        self._uses[key] = Use(times + (known.times if known else 0), time.time())

    @contextlib.asynccontextmanager
    async def using(self, dataset_id: str, revision: int) -> AsyncIterator[None]:
        """Keep an archive while the context lasts, and for the reader's lease beyond; begin before looking for it."""
        key = (dataset_id, revision)
        while going := self._going.get(key):
            await going.wait()
        self._open[key] += 1
        try:
            try:
                await self._renew(key)
            except SQLAlchemyError:
                logger.exception("a reader's lease cannot be noted")  # while it reads, it is safe all the same
            yield
        finally:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]
            self._note(key, 0)

    async def _renew(self, key: Key) -> None:
        """Have a reader in the database, if what is there is no longer as good as new."""
        now = time.time()
        if not 0 <= now - self._leased.get(key, 0.0) < self._lease / 4:
            await self._store.note_uses({key: Use(0, now)})
            self._leased[key] = now

    async def flush(self) -> None:
        """Have all uses in the database."""
        uses, self._uses = self._uses, {}
        now = time.time()
        self._leased = {key: at for key, at in self._leased.items() if now - at < self._lease}
        if not uses:
            return
        try:
            await self._store.note_uses(uses)
        except BaseException:
            for (dataset_id, revision), use in uses.items():
                later = self._uses.get((dataset_id, revision), Use(0, use.last))
                self._uses[dataset_id, revision] = Use(use.times + later.times, later.last)
            raise

    # -- room

    async def reserve(self, dataset: Dataset, estimate: int = 0, *, examples: int | None = None) -> None:
        """Set room aside for a build whose archive will have ``estimate`` bytes, in place of what was set aside before.

        Without an estimate it is what its archive had before, or what that of so many ``examples``, or of any dataset
        of the name, had on average. Evicts what it must; raises `DiskFullError`.
        """
        if not estimate:
            experience = await self._store.experience(dataset.dataset_name)
            estimate = dataset.archive_bytes or expected_bytes(experience, examples)
        wanted = to_reserve(estimate)
        async with self._reserving:
            await self._make_room(dataset.dataset_id, wanted)
            await self._store.reserve(dataset.dataset_id, wanted)

    async def release(self, dataset_id: str) -> None:
        """Give back what was set aside."""
        await self._store.reserve(dataset_id, None)

    async def _make_room(self, dataset_id: str, wanted: int) -> None:
        for _ in range(3):  # what was chosen may be read by the time it is to go
            promised = await self._store.promised()
            _, written = promised.pop(dataset_id, (0, 0))
            space = await self._space(sum(max(0, reserved - there) for reserved, there in promised.values()))
            lacking = space.lacking(max(0, wanted - written))
            if lacking <= 0:
                return
            candidates, now = await self._candidates(), time.time()
            chosen = choose(candidates, lacking, now, self._lease)
            if not chosen:
                break
            for candidate in chosen:
                await self._evict(candidate)
        raise DiskFullError(
            f"{dataset_id} needs {in_words(wanted)} while it is made, {in_words(lacking)} more than there is: "
            f"{space.in_words()}; {reasons_to_stay(candidates, now, self._lease)}; unpin or delete some, or ask for "
            "less at a time"
        )

    async def _space(self, promised: int) -> Space:
        disk = await asyncio.to_thread(shutil.disk_usage, self._settings.data_dir)
        keep = bytes_to_keep_free(self._settings.disk_reserve, disk.total)
        used = await self._store.used_bytes() if self._settings.quota is not None else 0
        return Space(disk.free, keep, promised, used, self._settings.quota)

    async def _candidates(self) -> list[Candidate]:
        """All archives, with what only this process knows of their use."""
        await self.flush()
        found = await self._store.candidates()
        return [replace(item, held=self._is_held((item.dataset_id, item.revision))) for item in found]

    def _is_held(self, key: Key) -> bool:
        return key in self._open or key in self._uses or (key[0], 0) in self._uses

    async def _evict(self, candidate: Candidate) -> None:
        """Give up an archive and remove its files, unless somebody has come for it meanwhile."""
        key = (candidate.dataset_id, candidate.revision)
        if self._is_held(key) or key in self._going:
            return
        going = self._going[key] = asyncio.Event()
        try:
            reason = {"code": "evicted", "message": "its archive made room for others; ask for it again"}
            if await self._store.evict(*key, reason):
                await asyncio.to_thread(self._folder.remove, *key)
                self._metrics.evicted(candidate.bytes)
                logger.info("evicted %s, revision %d: %s", *key, in_words(candidate.bytes))
        finally:
            del self._going[key]
            going.set()

    async def remove_superseded(self) -> None:
        """Remove superseded archives that nobody has read for the reader's lease."""
        await self.flush()
        for dataset_id, revision in await self._store.superseded(time.time() - self._lease):
            await self._evict(Candidate(dataset_id, revision, 0, 0.0, 0, 0.0))

    async def delete(self, dataset_id: str, *, force: bool) -> None:
        """Remove a dataset: its archives, and what the database knows of it.

        Raises `InUseError` while it is made, and without ``force`` while it is read or pinned.
        """
        ((_, revisions),) = (await self._store.expected(dataset_id)).items()
        keys = [(dataset_id, revision) for revision in revisions]
        if not force and any(key in self._open for key in keys):
            raise InUseError(f"{dataset_id} is being downloaded; try later, or with ?force=true")
        if not await self._store.delete(dataset_id, pinned=force):
            raise InUseError(f"{dataset_id} is being made, or pinned; cancel or unpin it first")
        for key in keys:
            await asyncio.to_thread(self._folder.remove, *key)
        logger.info("deleted %s", dataset_id)

    async def set_pinned(self, dataset_id: str, *, pinned: bool) -> None:
        """Keep a dataset's archive from eviction, or no longer."""
        await self._store.set_pinned(dataset_id, pinned=pinned)

    # -- raw data (`freshness`)

    async def record(self, dataset_id: str, revision: int, work: Path) -> None:
        """Keep what the build in ``work`` read, for `is_stale`; called once the archive is written."""
        await self._freshness.record(dataset_id, revision, work)

    async def is_stale(self, dataset: Dataset) -> bool:
        """Whether raw data has changed since the archive was made of it (`Freshness.is_stale`)."""
        return await self._freshness.is_stale(dataset)

    # -- scrubbing

    async def _scrub_by_turns(self) -> None:
        """Read each archive again once in ``scrub_days``, the one that waits longest first."""
        while True:
            try:
                due = await self._store.due_for_scrub(time.time() - self._settings.scrub_days * _DAY)
                if due:
                    await self.scrub(due)
                    continue
            except (SQLAlchemyError, OSError):
                logger.exception("scrubbing failed; trying again")
            await asyncio.sleep(_TIDY_SECONDS)

    async def scrub_all(
        self, on_bytes: Callable[[int], None] = lambda _: None
    ) -> AsyncIterator[tuple[Dataset, Finding | None]]:
        """Read every archive again, in the order of ids; what is wrong with each, after dealing with it."""
        dataset_id = ""
        while dataset := await self._store.next_ready(dataset_id):
            dataset_id = dataset.dataset_id
            yield dataset, await self.scrub(dataset, on_bytes)

    async def scrub(self, dataset: Dataset, on_bytes: Callable[[int], None] = lambda _: None) -> Finding | None:
        """Read an archive again; one that has rotted is put aside, and made again if it is pinned or in use."""
        key = (dataset.dataset_id, dataset.revision)
        shards = await self._store.shards_of(dataset.dataset_id)
        self._open[key] += 1
        try:
            finding = await asyncio.to_thread(
                read_again,
                self.archive_path(*key),
                dataset.archive_bytes or 0,
                dataset.archive_sha256 or "",
                shards,
                self._settings.scrub_bytes_per_second,
                self._stop,
                on_bytes,
            )
        except StoppedError:
            return None
        finally:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]
        if finding is None:
            await self._store.sound(*key, time.time())
        elif await self._store.evict(*key, finding.to_json(), pinned=True):
            await self._put_aside(dataset, finding)
        return finding

    async def _put_aside(self, dataset: Dataset, finding: Finding) -> None:
        logger.error("%s: %s", finding.code, finding.message)
        self._metrics.scrub_found()
        await asyncio.to_thread(self._folder.put_aside, dataset.dataset_id, dataset.revision)
        used = max(dataset.last_used_at or 0.0, dataset.finished_at or 0.0)
        if self._remake and (dataset.pinned or time.time() - used < _RECENT):
            await self._remake(dataset)
