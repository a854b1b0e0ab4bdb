"""Archives on disk as the database knows them: use, eviction, revisions, reservations, and the ledger of raw files.

Every method is one transaction. An archive is named by its dataset and revision: that of the dataset itself, or an
earlier one in ``revisions``, which is kept while it is read.
"""

import asyncio
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from dataset_client.protocol import TERMINAL_KINDS

from ..eviction import Candidate
from ..room import Experience
from .database import Database
from .schema import (
    ACTIVE,
    DATASET_COLUMNS,
    Dataset,
    Shard,
    askers,
    datasets,
    events,
    manifests,
    raw_files,
    revisions,
    shards,
    topics,
)

_T = TypeVar("_T")

#: Earlier datasets of a handler that an estimate looks at: the latest ones.
_EXPERIENCE = 20
_PATHS_AT_A_TIME = 500
#: Whether a row of ``revisions`` is its dataset's own archive: one that is being made anew, or whose rebuild failed.
IS_CURRENT = exists().where(
    datasets.c.dataset_id == revisions.c.dataset_id, datasets.c.revision == revisions.c.revision
)
_ENDED = ("failed", "cancelled")
#: Whether a dataset has an archive that a rebuild, which came to nothing, was to take the place of.
_HAS_KEPT = and_(datasets.c.state.in_(_ENDED), IS_CURRENT)


@dataclass(frozen=True)
class Use:
    """How often an archive was used since it was last noted, and when last, in seconds since the epoch."""

    times: int
    last: float


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
        """Every archive that may be given up; to lose a superseded one costs nothing: nobody would make it again.

        A dataset's own archive stays while it is made anew: it may come out the same, and takes its place then.
        """
        own = [
            datasets.c.dataset_id,
            datasets.c.revision,
            # Of archives that earlier servers made only this is known; it has the time in the queue in it.
            func.coalesce(datasets.c.build_seconds, datasets.c.finished_at - datasets.c.created_at, 0.0),
            datasets.c.uses,
            func.coalesce(datasets.c.finished_at, datasets.c.created_at),
            func.coalesce(datasets.c.last_used_at, 0.0),
            datasets.c.pinned,
        ]
        ready = select(*own, func.coalesce(datasets.c.archive_bytes, 0)).where(datasets.c.state == "ready")
        of_failed = (
            select(*own, revisions.c.bytes)
            .select_from(datasets.join(revisions, revisions.c.dataset_id == datasets.c.dataset_id))
            .where(revisions.c.revision == datasets.c.revision, datasets.c.state.not_in(ACTIVE))
        )
        used = func.coalesce(revisions.c.last_used_at, revisions.c.superseded_at)
        earlier = select(revisions.c.dataset_id, revisions.c.revision, revisions.c.bytes, used).where(~IS_CURRENT)
        async with self._database.reading() as db:
            rows = [*await db.execute(ready), *await db.execute(of_failed)]
            superseded = list(await db.execute(earlier))
        return await asyncio.to_thread(_as_candidates, rows, superseded)

    async def superseded(self, before: float) -> list[tuple[str, int]]:
        """Archives that a newer one has taken the place of, and nobody has used since ``before``."""
        used = func.coalesce(revisions.c.last_used_at, revisions.c.superseded_at)
        unread = and_(used < before, revisions.c.superseded_at < before, ~IS_CURRENT)
        async with self._database.reading() as db:
            rows = await db.execute(select(revisions.c.dataset_id, revisions.c.revision).where(unread))
            return [(row.dataset_id, row.revision) for row in rows]

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

    async def evict(
        self, candidate: tuple[str, int], reason: Mapping[str, Any], *, before: float, made: float | None = None
    ) -> bool:
        """Give up an archive, named by dataset and revision, before its file goes; False if that may not be.

        It may if it was not used since ``before``, and is neither pinned nor to be made anew now. With ``made``, an
        archive that has rotted goes in any case, provided that its dataset was published, or failed to be made anew,
        then.
        """
        dataset_id, revision = candidate
        used = func.coalesce(revisions.c.last_used_at, revisions.c.superseded_at)
        own = datasets.c.dataset_id == dataset_id, datasets.c.revision == revision
        kept = revisions.c.dataset_id == dataset_id, revisions.c.revision == revision
        may_go: tuple[ColumnElement[bool], ...]
        kept_may_go: tuple[ColumnElement[bool], ...]
        if made is None:
            may_go = (
                datasets.c.pinned.is_(False),
                func.coalesce(datasets.c.last_used_at, datasets.c.finished_at, 0) <= before,
            )
            stays = exists().where(*own, or_(datasets.c.pinned, datasets.c.state.in_(ACTIVE)))
            kept_may_go = used <= before, ~stays
        else:
            may_go = (datasets.c.finished_at == made,)
            kept_may_go = (exists().where(*own, datasets.c.state.in_(_ENDED), *may_go),)
        async with self._database.writing() as db:
            if (await db.execute(delete(revisions).where(*kept, *kept_may_go))).rowcount:
                return True
            values = {"state": "evicted", "error": json.dumps(reason)}
            ready = *own, datasets.c.state == "ready", *may_go
            changed = await db.execute(update(datasets).where(*ready).values(**values))
            return bool(changed.rowcount)

    async def note_uses(self, uses: Mapping[tuple[str, int], Use]) -> None:
        """Note uses of archives by dataset and revision, 0 for the current one; those that are gone do not matter."""
        async with self._database.writing() as db:
            for (dataset_id, revision), use in uses.items():
                latest = case(
                    (func.coalesce(datasets.c.last_used_at, 0) > use.last, datasets.c.last_used_at), else_=use.last
                )
                await db.execute(
                    update(datasets)
                    .where(
                        datasets.c.dataset_id == dataset_id,
                        or_(literal(revision) == 0, datasets.c.revision == revision),
                    )
                    .values(uses=datasets.c.uses + use.times, last_used_at=latest)
                )
                if revision:  # that of a dataset that is being made anew is in both
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

    async def give_up(self, dataset_id: str, reason: Mapping[str, Any], *, pinned: bool) -> bool:
        """Give up all archives of a dataset, so that their files may go; False if it is being made, or gone.

        One that is pinned stays unless ``pinned`` is allowed.
        """
        async with self._database.writing() as db:
            where = [datasets.c.dataset_id == dataset_id, datasets.c.state.not_in(ACTIVE)]
            if not pinned:
                where.append(datasets.c.pinned.is_(False))
            values = {"state": "evicted", "error": json.dumps(reason)}
            if not (await db.execute(update(datasets).where(*where).values(**values))).rowcount:
                return False
            await db.execute(delete(revisions).where(revisions.c.dataset_id == dataset_id))
            return True

    async def forget(self, dataset_id: str) -> bool:
        """Forget a dataset that was given up, with all that is known of it; False if it is wanted again meanwhile.

        The topics that asked for it stay, with how their attempts ended: whoever listens to one of them hears that, and
        its next attempt. Nothing else of them is kept but the config.
        """
        async with self._database.writing() as db:
            where = datasets.c.dataset_id == dataset_id, datasets.c.state == "evicted"
            if not (await db.execute(delete(datasets).where(*where))).rowcount:
                return False
            for table in (shards, manifests):
                await db.execute(delete(table).where(table.c.dataset_id == dataset_id))
            asked = select(topics.c.topic_id).where(topics.c.dataset_id == dataset_id)
            said = events.c.topic_id.in_(asked), events.c.kind.not_in(TERMINAL_KINDS)
            await db.execute(delete(events).where(*said))
            await db.execute(delete(askers).where(askers.c.topic_id.in_(asked)))
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

    async def due_for_scrub(self, before: float, but: Collection[str] = ()) -> Dataset | None:
        """The dataset whose archive was not read again for longest, if not since ``before``; none of those in ``but``.

        Archives that a newer one has taken the place of, or is about to, are not looked at: they are gone within hours.
        """
        waits = datasets.c.checked_at < before, datasets.c.dataset_id.not_in(but)
        found = [  # one query for both would sort all that wait
            await self._first(select(*DATASET_COLUMNS).where(has_archive, *waits).order_by(datasets.c.checked_at))
            for has_archive in (datasets.c.state == "ready", _HAS_KEPT)
        ]
        return min((due for due in found if due), key=lambda due: due.checked_at or 0.0, default=None)

    async def next_ready(self, after: str) -> Dataset | None:
        """The next dataset with an archive in the order of ids, but for those that are being made anew."""
        has_archive = or_(datasets.c.state == "ready", _HAS_KEPT)
        query = select(*DATASET_COLUMNS).where(has_archive, datasets.c.dataset_id > after)
        return await self._first(query.order_by(datasets.c.dataset_id))

    async def _first(self, query: Select[Any]) -> Dataset | None:
        async with self._database.reading() as db:
            row = (await db.execute(query.limit(1))).one_or_none()
            return Dataset(**row._mapping) if row else None

    async def sound(self, dataset: Dataset, at: float) -> None:
        """Note that an archive was read again and is what it was."""
        async with self._database.writing() as db:
            same = datasets.c.revision == dataset.revision, datasets.c.finished_at == dataset.finished_at
            where = datasets.c.dataset_id == dataset.dataset_id, *same
            await db.execute(update(datasets).where(*where).values(checked_at=at))

    async def shards_of(self, dataset_id: str) -> list[Shard]:
        """The shards of a dataset's own archive, in order."""
        where = shards.c.dataset_id == dataset_id, shards.c.offset.is_not(None)
        kept = select(revisions.c.shards).where(revisions.c.dataset_id == dataset_id, IS_CURRENT)
        async with self._database.reading() as db:
            rows = await db.execute(select(shards).where(*where).order_by(shards.c.number))
            found = [Shard(**row._mapping) for row in rows]
            if not found:
                found = [Shard(**shard) for shard in json.loads((await db.execute(kept)).scalar() or "[]")]
            return found

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


def _as_candidates(own: Iterable[Sequence[Any]], superseded: Iterable[Sequence[Any]]) -> list[Candidate]:
    return [
        *(
            Candidate(name, number, size, seconds, uses, max(made, last), pinned=bool(pinned))
            for name, number, seconds, uses, made, last, pinned, size in own
        ),
        *(Candidate(name, number, size, 0.0, 0, last) for name, number, size, last in superseded),
    ]


def _parts(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[start : start + _PATHS_AT_A_TIME] for start in range(0, len(items), _PATHS_AT_A_TIME))
