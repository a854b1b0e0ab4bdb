"""Whether datasets are still made of the raw data there is: `staleness`, asked often and looked up rarely."""

import asyncio
import logging
import threading
import time
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from . import staleness
from .archive_folder import ArchiveFolder
from .background import StoppedError, in_background, in_thread_to_the_end
from .store.cache import CacheStore, RawFile
from .store.schema import Dataset

logger = logging.getLogger(__name__)

_LOOKS = 8  # at a time; builds and scrubs are to find a thread, too, while the raw data's disk hangs
_READINGS = 2
#: Seconds that a request waits for a check.
_PATIENCE = 10.0
#: Doubtful files after which what was found is kept: who is cut off goes on there the next time.
_PART = 100


class Freshness:
    """What is known of the freshness of datasets, and the checks under way."""

    def __init__(self, raw_root: Path, every: float, folder: ArchiveFolder, store: CacheStore) -> None:
        self._raw_root = raw_root
        self._every = every
        self._folder = folder
        self._store = store
        self._known: dict[str, tuple[int, float, bool]] = {}  # revision, when by the monotonic clock, stale
        self._under_way: dict[tuple[str, int], asyncio.Task[bool]] = {}
        self._looking = asyncio.Semaphore(_LOOKS)
        self._reading = asyncio.Semaphore(_READINGS)
        self._stop = threading.Event()

    async def close(self) -> None:
        """Stop the checks under way."""
        self._stop.set()
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def record(self, dataset_id: str, revision: int, work: Path) -> None:
        """Keep what the build in ``work`` read; called once the archive is written."""
        target = self._folder.sources(dataset_id, revision)

        def write() -> None:
            staleness.record(self._raw_root, work, staleness.began_at(work), target)

        await in_thread_to_the_end(write)  # who gives the archive up removes the list as well: not before it is there
        self._known[dataset_id] = (revision, time.monotonic(), False)

    async def is_stale(self, dataset: Dataset) -> bool:
        """Whether raw data has changed since the archive was made of it, as of the last ``every`` seconds.

        The first request after that waits for the check, and those that come meanwhile for the same one: less than a
        second for 100,000 files that were left alone, for files that were touched as long as reading takes, but never
        more than `_PATIENCE`. What is not known by then counts as no change yet, while the check goes on. What cannot
        be found out now – a disk that fails, a list that is damaged, a database that is locked – counts as no change
        until the next check: the archive is as good as it was.
        """
        revision, at, stale = self._known.get(dataset.dataset_id, (0, 0.0, False))
        if revision == dataset.revision and time.monotonic() - at < self._every:
            return stale
        key = (dataset.dataset_id, dataset.revision)
        check = self._under_way.get(key)
        if check is None:
            check = self._under_way[key] = asyncio.create_task(self._check(*key), name=f"raw data of {key[0]}")
            check.add_done_callback(lambda _: self._under_way.pop(key, None))
        done, _ = await asyncio.wait((check,), timeout=_PATIENCE)
        return check in done and check.result()

    async def _check(self, dataset_id: str, revision: int) -> bool:
        sources, changed = self._folder.sources(dataset_id, revision), None
        try:
            async with self._looking:
                looked = await in_background(staleness.look, self._raw_root, sources)
            changed = looked.gone
            if changed is None and looked.doubtful:
                async with self._reading:
                    changed = await self._settle(sources, looked.doubtful)
        # A damaged list has lines that are no JSON or no `RawFile`, or hold numbers beyond the database's.
        except (StoppedError, OSError, SQLAlchemyError, ValueError, TypeError, OverflowError, RecursionError):
            logger.exception("whether %s is stale cannot be found out now", dataset_id)
        if changed is not None:
            logger.info("%s is stale: %s is not what it was made of", dataset_id, changed)
        self._known[dataset_id] = (revision, time.monotonic(), changed is not None)
        return changed is not None

    async def _settle(self, sources: Path, doubtful: tuple[RawFile, ...]) -> str | None:
        ledger = await self._store.ledger([entry.path for entry in doubtful])
        unchanged: list[RawFile] = []
        for start in range(0, len(doubtful), _PART):
            part = doubtful[start : start + _PART]
            changed, found = await in_background(staleness.settle, self._raw_root, part, ledger, self._stop)
            await self._store.write_ledger([entry for entry in found if ledger.get(entry.path) != entry])
            if changed is not None:
                return changed
            unchanged += found
        await in_background(staleness.note, sources, unchanged)
        return None
