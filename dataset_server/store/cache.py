"""Archives on disk as the database knows them: use, eviction, revisions, reservations, and the ledger of raw files.

Every method is one transaction. An archive is named by its dataset and revision: that of the dataset itself, or an
earlier one in ``revisions``, which is kept while it is read.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Select, and_, case, delete, func, insert, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ..eviction import Candidate
from ..room import Experience
from .database import Database
from .schema import ACTIVE, DATASET_COLUMNS, Dataset, Shard, datasets, events, raw_files, revisions, shards, topics

_T = TypeVar("_T")

#: Earlier datasets of a handler that an estimate looks at: the latest ones.
_EXPERIENCE = 20
_PATHS_AT_A_TIME = 500
_ACTIVE_IDS = select(datasets.c.dataset_id).where(datasets.c.state.in_(ACTIVE))


@dataclass(frozen=True)
class Use:
    """How often an archive was used since it was last noted, and when last, in seconds since the epoch."""

    times: int
    last: float


@dataclass(frozen=True)
class Revision:
    """An archive that a newer one has taken, or takes, the place of."""

    dataset_id: str
    revision: int
    bytes: int
    sha256: str
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class RawFile:
    """A raw file and what told its content apart when its sha256 was found: a row of the ledger.

    ``path`` is below the raw root; a folder's ends with ``/``, and its ``sha256`` is that of the names in it.
    """

    path: str
    inode: int
    mtime_ns: int
    size: int
    sha256: str


class CacheStore:
    """What `Cache` reads and writes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- archives

    async def candidates(self) -> list[Candidate]:
        """Every archive that should be on disk; to lose a superseded one costs nothing: nobody would make it again."""
        current = select(*DATASET_COLUMNS).where(datasets.c.state == "ready")
        earlier = select(
            revisions.c.dataset_id,
            revisions.c.revision,
            revisions.c.bytes,
            func.coalesce(revisions.c.last_used_at, revisions.c.superseded_at),
        ).where(revisions.c.dataset_id.not_in(_ACTIVE_IDS))
        async with self._database.reading() as db:
            found = [_candidate(Dataset(**row._mapping)) for row in await db.execute(current)]
            rows = await db.execute(earlier)
            return found + [Candidate(name, number, size, 0.0, 0, used) for name, number, size, used in rows]

    async def superseded(self, before: float) -> list[tuple[str, int]]:
        """Superseded archives that nobody has used since ``before``; not those of datasets that are being made.

        What is being made may turn out to be the very same archive, and takes its place then.
        """
        used = func.coalesce(revisions.c.last_used_at, revisions.c.superseded_at)
        unread = and_(used < before, revisions.c.superseded_at < before, revisions.c.dataset_id.not_in(_ACTIVE_IDS))
        async with self._database.reading() as db:
            rows = await db.execute(select(revisions.c.dataset_id, revisions.c.revision).where(unread))
            return [(row.dataset_id, row.revision) for row in rows]

    async def revision(self, dataset_id: str, revision: int) -> Revision | None:
        """A superseded archive."""
        where = revisions.c.dataset_id == dataset_id, revisions.c.revision == revision
        async with self._database.reading() as db:
            row = (await db.execute(select(revisions).where(*where))).one_or_none()
        if row is None:
            return None
        sealed = tuple(Shard(**shard) for shard in json.loads(row.shards))
        return Revision(dataset_id, revision, row.bytes, row.sha256, sealed)

    async def expected(self, dataset_id: str | None = None) -> dict[str, set[int]]:
        """By dataset, the revisions that may be on disk or are just being written; of all, or of one."""
        current = select(datasets.c.dataset_id, datasets.c.state, datasets.c.revision)
        earlier = select(revisions.c.dataset_id, revisions.c.revision)
        if dataset_id is not None:
            current = current.where(datasets.c.dataset_id == dataset_id)
            earlier = earlier.where(revisions.c.dataset_id == dataset_id)
        found: dict[str, set[int]] = {}
        async with self._database.reading() as db:
            for name, state, number in await db.execute(current):
                # An active build may write the next one, or the one before it again.
                found[name] = {number} if state == "ready" else {number, number + 1} if state in ACTIVE else set()
            for name, number in await db.execute(earlier):
                found.setdefault(name, set()).add(number)
        return found

    async def evict(self, dataset_id: str, revision: int, reason: Mapping[str, Any], *, pinned: bool = False) -> bool:
        """Give up an archive before its file goes; False if it is not as it was, or ``pinned`` is not allowed."""
        async with self._database.writing() as db:
            if await self._forget_revision(db, dataset_id, revision):
                return True
            where = [
                datasets.c.dataset_id == dataset_id,
                datasets.c.revision == revision,
                datasets.c.state == "ready",
            ]
            if not pinned:
                where.append(datasets.c.pinned.is_(False))
            changed = await db.execute(update(datasets).where(*where).values(state="evicted", error=json.dumps(reason)))
            return bool(changed.rowcount)

    async def _forget_revision(self, db: AsyncConnection, dataset_id: str, revision: int) -> bool:
        where = revisions.c.dataset_id == dataset_id, revisions.c.revision == revision
        return bool((await db.execute(delete(revisions).where(*where))).rowcount)

    async def note_uses(self, uses: Mapping[tuple[str, int], Use]) -> None:
        """Note uses of archives by dataset and revision, 0 for the current one; those that are gone do not matter."""
        async with self._database.writing() as db:
            for (dataset_id, revision), use in uses.items():
                latest = case(
                    (func.coalesce(datasets.c.last_used_at, 0) > use.last, datasets.c.last_used_at), else_=use.last
                )
                changed = await db.execute(
                    update(datasets)
                    .where(
                        datasets.c.dataset_id == dataset_id,
                        or_(literal(revision) == 0, datasets.c.revision == revision),
                    )
                    .values(uses=datasets.c.uses + use.times, last_used_at=latest)
                )
                if not changed.rowcount:
                    await db.execute(
                        update(revisions)
                        .where(revisions.c.dataset_id == dataset_id, revisions.c.revision == revision)
                        .values(last_used_at=use.last)
                    )

    async def set_pinned(self, dataset_id: str, *, pinned: bool) -> bool:
        """Pin a dataset or not; False if there is none."""
        async with self._database.writing() as db:
            where = datasets.c.dataset_id == dataset_id
            return bool((await db.execute(update(datasets).where(where).values(pinned=pinned))).rowcount)

    async def delete(self, dataset_id: str, *, pinned: bool) -> bool:
        """Forget a dataset that is not being made, with its shards and all that was said of it; False if it may not.

        One that is pinned stays unless ``pinned`` is allowed.

        The topics that asked for it stay as numbers alone, so that whoever listens to one of them hears its next
        attempt; nothing else of them is kept but the config.
        """
        async with self._database.writing() as db:
            where = [datasets.c.dataset_id == dataset_id, datasets.c.state.not_in(ACTIVE)]
            if not pinned:
                where.append(datasets.c.pinned.is_(False))
            gone = await db.execute(delete(datasets).where(*where))
            if not gone.rowcount:
                return False
            for table in (shards, revisions):
                await db.execute(delete(table).where(table.c.dataset_id == dataset_id))
            asked = select(topics.c.topic_id).where(topics.c.dataset_id == dataset_id)
            await db.execute(delete(events).where(events.c.topic_id.in_(asked)))
            await db.execute(
                update(topics).where(topics.c.dataset_id == dataset_id).values(dataset_id=None, state="evicted")
            )
            return True

    # -- room

    async def used_bytes(self) -> int:
        """Bytes of all archives."""
        async with self._database.reading() as db:
            current = select(func.sum(datasets.c.archive_bytes)).where(datasets.c.state == "ready")
            earlier = select(func.sum(revisions.c.bytes))
            return int((await db.execute(current)).scalar() or 0) + int((await db.execute(earlier)).scalar() or 0)

    async def promised(self) -> dict[str, tuple[int, int]]:
        """By dataset that is being made: bytes reserved for it, and bytes of its sealed shards."""
        sealed = func.coalesce(func.sum(shards.c.bytes), 0)
        query = (
            select(datasets.c.dataset_id, func.coalesce(datasets.c.reserved_bytes, 0), sealed)
            .select_from(datasets.outerjoin(shards, shards.c.dataset_id == datasets.c.dataset_id))
            .where(datasets.c.state.in_(ACTIVE))
            .group_by(datasets.c.dataset_id, datasets.c.reserved_bytes)
        )
        async with self._database.reading() as db:
            return {name: (int(reserved), int(there)) for name, reserved, there in await db.execute(query)}

    async def reserve(self, dataset_id: str, size: int | None) -> None:
        """Note how many bytes are set aside for a build; None for no longer any."""
        async with self._database.writing() as db:
            where = datasets.c.dataset_id == dataset_id
            await db.execute(update(datasets).where(where).values(reserved_bytes=size))

    async def experience(self, dataset_name: str) -> Experience:
        """What the latest datasets of this name turned out to be."""
        latest = (
            select(datasets.c.dataset_id, datasets.c.archive_bytes)
            .where(datasets.c.dataset_name == dataset_name, datasets.c.state.in_(("ready", "evicted")))
            .order_by(datasets.c.created_at.desc())
            .limit(_EXPERIENCE)
            .subquery()
        )
        made = select(func.sum(shards.c.bytes), func.sum(shards.c.examples)).where(
            shards.c.dataset_id.in_(select(latest.c.dataset_id))
        )
        async with self._database.reading() as db:
            size = (await db.execute(select(func.avg(latest.c.archive_bytes)))).scalar()
            written, examples = (await db.execute(made)).one()
        per_example = float(written) / float(examples) if examples else None
        return Experience(per_example, float(size) if size is not None else None)

    # -- scrubbing

    async def due_for_scrub(self, before: float) -> Dataset | None:
        """The dataset whose archive was not read again for longest, if not since ``before``."""
        checked = func.coalesce(datasets.c.checked_at, datasets.c.finished_at, 0)
        query = select(*DATASET_COLUMNS).where(datasets.c.state == "ready", checked < before).order_by(checked)
        return await self._first(query)

    async def next_ready(self, after: str) -> Dataset | None:
        """The next dataset with an archive in the order of ids."""
        query = select(*DATASET_COLUMNS).where(datasets.c.state == "ready", datasets.c.dataset_id > after)
        return await self._first(query.order_by(datasets.c.dataset_id))

    async def _first(self, query: Select[Any]) -> Dataset | None:
        async with self._database.reading() as db:
            row = (await db.execute(query.limit(1))).one_or_none()
            return Dataset(**row._mapping) if row else None

    async def sound(self, dataset_id: str, revision: int, at: float) -> None:
        """Note that an archive was read again and is what it was."""
        async with self._database.writing() as db:
            where = datasets.c.dataset_id == dataset_id, datasets.c.revision == revision
            await db.execute(update(datasets).where(*where).values(checked_at=at))

    async def shards_of(self, dataset_id: str) -> list[Shard]:
        """The shards of a dataset that was published, in order."""
        where = shards.c.dataset_id == dataset_id, shards.c.offset.is_not(None)
        async with self._database.reading() as db:
            rows = await db.execute(select(shards).where(*where).order_by(shards.c.number))
            return [Shard(**row._mapping) for row in rows]

    # -- the ledger of raw files

    async def ledger(self, paths: Sequence[str]) -> dict[str, RawFile]:
        """What is known of these raw files."""
        found: dict[str, RawFile] = {}
        async with self._database.reading() as db:
            for part in _parts(paths):
                rows = await db.execute(select(raw_files).where(raw_files.c.path.in_(part)))
                found.update((row.path, RawFile(**row._mapping)) for row in rows)
        return found

    async def write_ledger(self, files: Iterable[RawFile]) -> None:
        """Note what raw files hold now."""
        for part in _parts(list(files)):
            async with self._database.writing() as db:
                paths = [file.path for file in part]
                await db.execute(delete(raw_files).where(raw_files.c.path.in_(paths)))
                await db.execute(insert(raw_files), [vars(file) for file in part])


def _candidate(dataset: Dataset) -> Candidate:
    made = dataset.finished_at or dataset.created_at
    return Candidate(
        dataset.dataset_id,
        dataset.revision,
        dataset.archive_bytes or 0,
        # Of archives that earlier servers made only this is known; it has the time in the queue in it.
        made - dataset.created_at if dataset.build_seconds is None else dataset.build_seconds,
        dataset.uses,
        max(made, dataset.last_used_at or 0.0),
        pinned=dataset.pinned,
    )


def _parts(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[start : start + _PATHS_AT_A_TIME] for start in range(0, len(items), _PATHS_AT_A_TIME))
