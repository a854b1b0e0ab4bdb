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
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import replace
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from .archive_folder import ArchiveFolder
from .background import StoppedError, in_background
from .errors import DiskFullError, InUseError
from .eviction import Candidate, choose, reasons_to_stay
from .freshness import Freshness
from .metrics import Metrics
from .room import FLOOR, Space, bytes_in, bytes_to_keep_free, expected_bytes, in_words, to_reserve
from .scrub import Finding, read_again
from .settings import Settings
from .store import Database
from .store.cache import CacheStore, Use
from .store.offers import Offer, Offers
from .store.schema import Dataset

logger = logging.getLogger(__name__)

_FLUSH_SECONDS = 5.0
_SUPERSEDED_SECONDS = 60.0
_TIDY_SECONDS = 3600.0
_SCRUB_SECONDS = 60.0
_DAY = 24 * 3600.0
#: Times that archives are chosen to make room: some may be asked for by the time they are to go.
_CHOICES = 3
#: A rotten archive whose dataset was used within this time is made again at once.
_RECENT = 30 * _DAY

Key = tuple[str, int]
Remake = Callable[[Dataset], Awaitable[None]]


class Cache:
    """The archives of one data folder."""

    def __init__(self, settings: Settings, database: Database, metrics: Metrics) -> None:
        self._settings = settings
        self._store = CacheStore(database)
        self._offers = Offers(database)
        self._metrics = metrics
        self._folder = ArchiveFolder(settings.data_dir / "archives")
        self._freshness = Freshness(settings.raw_root, settings.stale_check_seconds, self._folder, self._store)
        self._lease = settings.reader_lease_seconds
        self._open: Counter[Key] = Counter()
        self._going: dict[Key, asyncio.Event] = {}
        self._uses: dict[Key, Use] = {}
        self._leased: dict[Key, float] = {}  # last use that the database knows
        self._flushing = asyncio.Lock()
        self._reserving = asyncio.Lock()
        self._giving_up: set[asyncio.Task[None]] = set()
        self._rotten_bytes = 0  # put aside; counted anew by each tidying
        self._stop = threading.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._remake: Remake | None = None

    def archive_path(self, dataset_id: str, revision: int) -> Path:
        """Where an archive is, or will be."""
        return self._folder.archive(dataset_id, revision)

    def remove_unpublished(self, dataset: Dataset) -> None:
        """Remove the archive that was to come after that of ``dataset``, and will not be published."""
        self._folder.remove(dataset.dataset_id, dataset.revision + 1)

    # -- the life of the server

    async def start(self, remake: Remake | None = None) -> None:
        """Take in the archives of earlier servers, remove what nobody knows any more, and begin to look after the rest.

        ``remake`` makes a dataset again whose archive has rotted.
        """
        self._remake = remake
        self._rotten_bytes = await asyncio.to_thread(self._folder.tidy, await self._store.expected())
        self._tasks = [asyncio.create_task(self._look_after(), name="cache")]
        if self._settings.scrub_days:
            self._tasks.append(asyncio.create_task(self._scrub_by_turns(), name="scrub"))

    async def close(self) -> None:
        """Stop, and note what was used."""
        self._stop.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._giving_up, self._freshness.close(), return_exceptions=True)
        with contextlib.suppress(SQLAlchemyError):
            await self.flush()

    async def _look_after(self) -> None:
        looked = tidied = time.monotonic()
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            now = time.monotonic()
            try:
                for key in list(self._open):
                    await self._renew(key)
                await self.flush()
                if now - looked > _SUPERSEDED_SECONDS:
                    looked = now
                    await self.remove_superseded()
                if now - tidied > _TIDY_SECONDS:
                    tidied = now
                    await self.tidy()
            except Exception:  # the boundary: whatever it was, it is to be tried again
                logger.exception("the cache cannot be looked after; trying again")

    async def tidy(self) -> None:
        """Remove files that lie about since yesterday: left by removals that were cut off, or rotten for too long."""
        expected = await self._store.expected()
        self._rotten_bytes = await asyncio.to_thread(self._folder.tidy, expected, older_than=_DAY)

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

    @contextlib.asynccontextmanager
    async def offered(
        self, dataset_id: str, revision: int | None = None, file: str | None = None
    ) -> AsyncIterator[Offer | None]:
        """What there is of a dataset (`Offers.find`), kept as by `using` while the context lasts.

        Of what is not there nothing is kept, and nothing noted.
        """
        found = await self._offers.find(dataset_id, revision, file)
        while found is not None and (found.sha256 is not None or found.shard is not None):
            async with self.using(dataset_id, found.revision):
                now = await self._offers.find(dataset_id, revision, file)
                if now is not None and now.revision == found.revision:
                    yield now
                    return
            found = now  # another revision was published meanwhile: it is that which is to be kept
        yield found

    async def _renew(self, key: Key) -> None:
        """Have a reader in the database, if what is there is no longer as good as new."""
        now = time.time()
        if not 0 <= now - self._leased.get(key, 0.0) < self._lease / 4:
            await self._store.note_uses({key: Use(0, now)})
            self._leased[key] = now

    async def flush(self) -> None:
        """Have all uses until now in the database, those too that are on their way there."""
        async with self._flushing:
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

    async def reserve(
        self, dataset: Dataset, estimate: int = 0, *, examples: int | None = None, folder: Path | None = None
    ) -> None:
        """Set room aside for a build whose archive will have ``estimate`` bytes, in place of what was set aside before.

        Without an estimate it is what its archive had before; else `FLOOR` until it is planned, then what that of so
        many ``examples`` had on average, or where the plan does not say how many (0), that of any dataset of the name.
        ``folder`` is where its shards are, those of earlier attempts too: for these there is room already. Evicts what
        it must; raises `DiskFullError`.
        """
        estimate = estimate or dataset.archive_bytes or 0
        if not estimate and examples is not None:
            estimate = expected_bytes(await self._store.experience(dataset.dataset_name), examples or None)
        wanted = to_reserve(estimate or FLOOR)
        async with self._reserving:
            await self._make_room(dataset.dataset_id, wanted, folder)
            await self._store.reserve(dataset.dataset_id, wanted)

    async def release(self, dataset_id: str) -> None:
        """Give back what was set aside."""
        await self._store.reserve(dataset_id, None)

    async def _make_room(self, dataset_id: str, wanted: int, folder: Path | None) -> None:
        swept, choices = False, 0
        while (lacking := (space := await self._space(dataset_id, folder)).lacking(wanted)) > 0:
            if not swept:  # what has rotted nobody asks for; the scrub command puts some aside, too, unknown here
                swept, self._rotten_bytes = True, 0
                await asyncio.to_thread(self._folder.remove_rotten)
                continue
            candidates, now = await self._candidates(), time.time()
            chosen = await asyncio.to_thread(choose, candidates, lacking, now, self._lease)
            choices += 1
            if not chosen or choices > _CHOICES:
                raise DiskFullError(
                    f"{dataset_id} needs {in_words(wanted)} while it is made, {in_words(lacking)} more than there is: "
                    f"{space.in_words()}; {reasons_to_stay(candidates, now, self._lease)}; "
                    "unpin or delete some, or ask for less at a time"
                )
            for candidate in chosen:
                await self._evict((candidate.dataset_id, candidate.revision), candidate.bytes)

    async def _space(self, dataset_id: str, folder: Path | None) -> Space:
        """The room there is for a build, whose shards are in ``folder``."""
        others = await self._store.promised()
        _, written = others.pop(dataset_id, (0, 0))
        if folder:
            written = max(written, await asyncio.to_thread(bytes_in, folder))
        disk = await asyncio.to_thread(shutil.disk_usage, self._settings.data_dir)
        used = await self._store.used_bytes() + self._rotten_bytes if self._settings.quota is not None else 0
        return Space(
            free=disk.free,
            keep_free=bytes_to_keep_free(self._settings.disk_reserve, disk.total),
            promised=sum(max(0, reserved - there) for reserved, there in others.values()),
            written=written,
            used=used + sum(max(reserved, there) for reserved, there in others.values()),
            quota=self._settings.quota,
        )

    async def _candidates(self) -> list[Candidate]:
        """All archives, with what only this process knows of their use."""
        await self.flush()
        found, held = await self._store.candidates(), {*self._open, *self._uses}
        return await asyncio.to_thread(_with_readers, found, held)

    def _is_held(self, key: Key) -> bool:
        return key in self._open or key in self._uses or (key[0], 0) in self._uses

    async def _evict(self, key: Key, size: int | None = None) -> None:
        """Give up an archive and remove its files, unless somebody has come for it; ``size`` where it makes room.

        Goes on when who waits for it is cancelled: a file that the database has given up is to go.
        """
        task = asyncio.create_task(self._give_up(key, size), name=f"evict {key[0]}")
        self._giving_up.add(task)
        task.add_done_callback(self._giving_up.discard)
        await asyncio.shield(task)

    async def _give_up(self, key: Key, size: int | None) -> None:
        if self._is_held(key) or key in self._going:
            return
        going = self._going[key] = asyncio.Event()  # from now on nobody is told that it is there
        try:
            await self.flush()
            reason = {"code": "evicted", "message": "its archive made room for others; ask for it again"}
            if key not in self._open and await self._store.evict(key, reason, before=time.time() - self._lease):
                await asyncio.to_thread(self._folder.remove, *key)
                if size is None:
                    logger.info("removed %s, revision %d, which a newer one has replaced", *key)
                else:
                    self._metrics.evicted(size)
                    logger.info("evicted %s, revision %d: %s", *key, in_words(size))
        finally:
            del self._going[key]
            going.set()

    async def remove_superseded(self) -> None:
        """Remove superseded archives that nobody has read for the reader's lease."""
        await self.flush()
        for key in await self._store.superseded(time.time() - self._lease):
            await self._evict(key)

    async def delete(self, dataset_id: str, *, force: bool) -> None:
        """Remove a dataset: its archives, and what the database knows of it.

        Raises `InUseError` while it is made, and without ``force`` while it is read or pinned.
        """
        keys = [(dataset_id, revision) for revision in (await self._store.expected(dataset_id)).get(dataset_id, ())]
        if not force and any(key in self._open for key in keys):
            raise InUseError(f"{dataset_id} is being downloaded; try later, or with ?force=true")
        # Files go while the database still knows whose they are, so that none is left behind, whatever happens.
        reason = {"code": "evicted", "message": "it was deleted; ask for it again"}
        if await self._store.give_up(dataset_id, reason, pinned=force):
            for key in keys:
                await asyncio.to_thread(self._folder.remove, *key)
            await self._store.forget(dataset_id)
            logger.info("deleted %s", dataset_id)
        elif await self._store.expected(dataset_id):  # not deleted by another at the same time
            raise InUseError(f"{dataset_id} is being made, or pinned; cancel or unpin it first")

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
        unreadable: set[str] = set()  # now; others are not to wait for them
        while True:
            due = None
            try:
                due = await self._store.due_for_scrub(time.time() - self._settings.scrub_days * _DAY, unreadable)
                if due:
                    await self.scrub(due)
                    continue
                unreadable.clear()
            except Exception:  # the boundary: as above
                logger.exception("scrubbing %s failed; trying again", due and due.dataset_id)
                if due:
                    unreadable.add(due.dataset_id)
            await asyncio.sleep(_SCRUB_SECONDS)

    async def scrub_all(
        self, on_bytes: Callable[[int], None] = lambda _: None
    ) -> AsyncIterator[tuple[Dataset, Finding | None]]:
        """Read every archive again, in the order of ids; what is wrong with each, after dealing with it."""
        dataset_id = ""
        while dataset := await self._store.next_ready(dataset_id):
            dataset_id = dataset.dataset_id
            try:
                finding = await self.scrub(dataset, on_bytes)
            except OSError as error:
                finding = Finding("archive_unreadable", f"its archive cannot be read now: {error.strerror}; it stays")
            yield dataset, finding

    async def scrub(self, dataset: Dataset, on_bytes: Callable[[int], None] = lambda _: None) -> Finding | None:
        """Read an archive again; one that has rotted is put aside, and made again if it is pinned or in use.

        None if it is sound, or is not the dataset's any more. Raises `OSError` where it cannot be read now. This is no
        use: it may be evicted or deleted meanwhile.
        """
        key = (dataset.dataset_id, dataset.revision)
        shards = await self._store.shards_of(dataset.dataset_id)
        try:
            finding = await in_background(
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
        if finding is None:
            await self._store.sound(dataset, time.time())
        elif await self._store.evict(key, finding.to_json(), before=0.0, made=dataset.finished_at or 0.0):
            await self._put_aside(dataset, finding)
            return finding
        return None

    async def _put_aside(self, dataset: Dataset, finding: Finding) -> None:
        logger.error("%s: %s", finding.code, finding.message)
        self._metrics.scrub_found()
        self._rotten_bytes += await asyncio.to_thread(self._folder.put_aside, dataset.dataset_id, dataset.revision)
        used = max(dataset.last_used_at or 0.0, dataset.finished_at or 0.0)
        if self._remake and (dataset.pinned or time.time() - used < _RECENT):
            await self._remake(dataset)


def _with_readers(candidates: list[Candidate], held: Collection[Key]) -> list[Candidate]:
    """The candidates, those that are ``held``, by revision or as a dataset's current one, marked."""
    return [
        replace(item, held=True) if (item.dataset_id, item.revision) in held or (item.dataset_id, 0) in held else item
        for item in candidates
    ]
