"""Requests and datasets in the database, with their shards and events. Every method is one transaction.

States change by compare-and-set: a writer that comes too late changes nothing.
"""

import json
import time
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, insert, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from dataset_client.protocol import TERMINAL_KINDS, Event

from .database import Database
from .events import append
from .schema import ACTIVE, DATASET_COLUMNS, Dataset, Shard, Topic, datasets, events, shards, topics


class Store:
    """Requests, datasets, their shards, and what is said of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- requests

    async def topic(self, topic_id: str) -> Topic | None:
        """A request, if it was ever made."""
        async with self._database.reading() as db:
            row = (await db.execute(select(topics).where(topics.c.topic_id == topic_id))).one_or_none()
            return Topic(**row._mapping) if row else None

    async def begin_attempt(
        self, topic_id: str, dataset_name: str, handler_version: str, config: str, resolved_version: str
    ) -> Topic:
        """Open the next attempt of a request, not yet tied to a dataset; one that has not ended is cancelled."""
        async with self._database.writing() as db:
            active = select(topics.c.topic_id).where(topics.c.topic_id == topic_id, topics.c.state.in_(ACTIVE))
            if (await db.execute(active)).one_or_none():
                message = "the handler version means something else now; a new attempt begins"
                await append(db, [topic_id], "cancelled", {"message": message})
            changed = await db.execute(
                update(topics)
                .where(topics.c.topic_id == topic_id)
                .values(
                    resolved_version=resolved_version,
                    dataset_id=None,
                    state="resolving",
                    attempt=topics.c.attempt + 1,
                )
            )
            if not changed.rowcount:
                await db.execute(
                    insert(topics).values(
                        topic_id=topic_id,
                        dataset_name=dataset_name,
                        handler_version=handler_version,
                        config=config,
                        resolved_version=resolved_version,
                        state="resolving",
                        attempt=1,
                        last_number=0,
                        created_at=time.time(),
                    )
                )
            await append(db, [topic_id], "state", {"state": "resolving"})
            row = (await db.execute(select(topics).where(topics.c.topic_id == topic_id))).one()
            return Topic(**row._mapping)

    async def unattached_topics(self) -> list[Topic]:
        """Active requests whose dataset is not known yet."""
        async with self._database.reading() as db:
            rows = await db.execute(select(topics).where(topics.c.state.in_(ACTIVE), topics.c.dataset_id.is_(None)))
            return [Topic(**row._mapping) for row in rows]

    async def attach(self, topic: Topic, dataset_id: str) -> None:
        """Tie an attempt to its dataset, and tell it where that stands: the state, and every shard sealed so far.

        A dataset that has ended meanwhile ends the attempt too. Nothing happens if the attempt has ended.
        """
        topic_id = topic.topic_id
        async with self._database.writing() as db:
            row = (await db.execute(select(*DATASET_COLUMNS).where(datasets.c.dataset_id == dataset_id))).one()
            dataset = Dataset(**row._mapping)
            values = {"dataset_id": dataset_id, "resolved_version": dataset.resolved_version, "state": dataset.state}
            if not await _move_topic(db, topic, values):
                return
            if dataset.state == "ready":
                await append(db, [topic_id], "ready", _ready_data(dataset))
                return
            if not dataset.is_active:
                await append(db, [topic_id], dataset.state, json.loads(dataset.error or "{}"))
                return
            await append(db, [topic_id], "state", {"state": dataset.state, "dataset_id": dataset_id})
            sealed = await db.execute(select(shards).where(shards.c.dataset_id == dataset_id).order_by(shards.c.number))
            for row in sealed:
                await append(db, [topic_id], "shard", shard_data(Shard(**row._mapping)))

    async def say(self, topic: Topic, kind: str, data: dict[str, Any]) -> bool:
        """Say something on an attempt that has not ended; a ``state`` or terminal event changes its state too."""
        async with self._database.writing() as db:
            state = data["state"] if kind == "state" else kind if kind in TERMINAL_KINDS else topics.c.state
            moved = await _move_topic(db, topic, {"state": state})
            if moved:
                await append(db, [topic.topic_id], kind, data)
            return moved

    # -- datasets

    async def dataset(self, dataset_id: str) -> Dataset | None:
        """A dataset, if anybody ever asked for it."""
        async with self._database.reading() as db:
            row = (await db.execute(select(*DATASET_COLUMNS).where(datasets.c.dataset_id == dataset_id))).one_or_none()
            return Dataset(**row._mapping) if row else None

    async def list_datasets(
        self, *, name: str | None, state: str | None, limit: int, offset: int
    ) -> tuple[int, list[Dataset]]:
        """How many datasets match, and a page of them, newest first."""
        wanted: ColumnElement[bool] = true()
        if name:
            wanted = and_(wanted, datasets.c.dataset_name == name)
        if state:
            wanted = and_(wanted, datasets.c.state == state)
        async with self._database.reading() as db:
            total = (await db.execute(select(func.count()).select_from(datasets).where(wanted))).scalar_one()
            rows = await db.execute(
                select(*DATASET_COLUMNS)
                .where(wanted)
                .order_by(datasets.c.created_at.desc(), datasets.c.dataset_id)
                .limit(limit)
                .offset(offset)
            )
            return total, [Dataset(**row._mapping) for row in rows]

    async def active_datasets(self) -> list[Dataset]:
        """Datasets somebody was making, oldest first."""
        async with self._database.reading() as db:
            rows = await db.execute(
                select(*DATASET_COLUMNS).where(datasets.c.state.in_(ACTIVE)).order_by(datasets.c.created_at)
            )
            return [Dataset(**row._mapping) for row in rows]

    async def start_build(
        self, dataset_id: str, dataset_name: str, resolved_version: str, config: str, seen: Dataset | None
    ) -> Dataset | None:
        """Claim a new build of a dataset that nobody makes; None if it is not any more as it was ``seen``."""
        async with self._database.writing() as db:
            where = datasets.c.dataset_id == dataset_id
            row = (await db.execute(select(datasets.c.state, datasets.c.attempt).where(where))).one_or_none()
            if (row and (row.state, row.attempt)) != (seen and (seen.state, seen.attempt)):
                return None
            if row is None:
                await db.execute(
                    insert(datasets).values(
                        dataset_id=dataset_id,
                        dataset_name=dataset_name,
                        resolved_version=resolved_version,
                        config=config,
                        state="queued",
                        attempt=1,
                        created_at=time.time(),
                    )
                )
            else:
                fresh = dict.fromkeys(("error", "archive_bytes", "archive_sha256", "manifest", "finished_at"))
                await db.execute(
                    update(datasets)
                    .where(datasets.c.dataset_id == dataset_id)
                    .values(state="queued", attempt=datasets.c.attempt + 1, **fresh)
                )
                await db.execute(delete(shards).where(shards.c.dataset_id == dataset_id))
            claimed = (await db.execute(select(*DATASET_COLUMNS).where(datasets.c.dataset_id == dataset_id))).one()
            return Dataset(**claimed._mapping)

    async def manifest(self, dataset_id: str) -> str | None:
        """The manifest of a dataset, once it is ready."""
        async with self._database.reading() as db:
            return (await db.execute(select(datasets.c.manifest).where(datasets.c.dataset_id == dataset_id))).scalar()

    async def forget_shards(self, dataset_id: str) -> None:
        """Forget the sealed shards of a build that starts over."""
        async with self._database.writing() as db:
            await db.execute(delete(shards).where(shards.c.dataset_id == dataset_id))

    async def set_state(self, dataset_id: str, attempt: int, state: str) -> list[str]:
        """Move a build on, and tell its topics; returns them. Nothing happens if this attempt is over."""
        async with self._database.writing() as db:
            if not await _move(db, dataset_id, attempt, {"state": state}):
                return []
            told = await _active_topics(db, dataset_id)
            await db.execute(update(topics).where(topics.c.topic_id.in_(told)).values(state=state))
            await append(db, told, "state", {"state": state, "dataset_id": dataset_id})
            return told

    async def seal_shard(self, shard: Shard) -> list[str]:
        """Note a sealed shard once, and tell the topics of its dataset; returns them."""
        async with self._database.writing() as db:
            same = (shards.c.dataset_id == shard.dataset_id, shards.c.file == shard.file)
            known = (await db.execute(select(shards.c.sha256).where(*same))).scalar()
            if known == shard.sha256:
                return []
            await db.execute(delete(shards).where(*same))
            await db.execute(insert(shards).values(**vars(shard)))
            told = await _active_topics(db, shard.dataset_id)
            await append(db, told, "shard", shard_data(shard))
            return told

    async def progress(self, dataset_id: str, data: dict[str, Any]) -> list[str]:
        """Tell the topics of a dataset how far it is; only the latest progress is kept."""
        async with self._database.writing() as db:
            told = await _active_topics(db, dataset_id)
            await db.execute(delete(events).where(events.c.topic_id.in_(told), events.c.kind == "progress"))
            await append(db, told, "progress", data)
            return told

    async def publish(
        self, dataset_id: str, attempt: int, *, size: int, sha256: str, manifest: str, offsets: dict[str, int]
    ) -> list[str]:
        """Make a dataset ready, and tell its topics; returns them."""
        async with self._database.writing() as db:
            values = {
                "state": "ready",
                "archive_bytes": size,
                "archive_sha256": sha256,
                "manifest": manifest,
                "finished_at": time.time(),
            }
            if not await _move(db, dataset_id, attempt, values):
                return []
            await db.execute(
                delete(shards).where(shards.c.dataset_id == dataset_id, shards.c.file.not_in(list(offsets)))
            )
            for file, offset in offsets.items():
                await db.execute(
                    update(shards).where(shards.c.dataset_id == dataset_id, shards.c.file == file).values(offset=offset)
                )
            row = (await db.execute(select(*DATASET_COLUMNS).where(datasets.c.dataset_id == dataset_id))).one()
            return await _end(db, dataset_id, "ready", _ready_data(Dataset(**row._mapping)))

    async def fail(self, dataset_id: str, attempt: int, error: dict[str, Any]) -> list[str]:
        """End a build with an error, and tell its topics; returns them."""
        async with self._database.writing() as db:
            values = {"state": "failed", "error": json.dumps(error), "finished_at": time.time()}
            if not await _move(db, dataset_id, attempt, values):
                return []
            return await _end(db, dataset_id, "failed", error)

    async def sealed_shards(self, dataset_id: str) -> list[Shard]:
        """The sealed shards of a dataset, in order."""
        async with self._database.reading() as db:
            rows = await db.execute(select(shards).where(shards.c.dataset_id == dataset_id).order_by(shards.c.number))
            return [Shard(**row._mapping) for row in rows]

    # -- events

    async def events_after(self, topic_id: str, number: int, limit: int = 500) -> list[Event]:
        """The events of a topic that come after ``number``, in order."""
        async with self._database.reading() as db:
            rows = await db.execute(
                select(events)
                .where(events.c.topic_id == topic_id, events.c.number > number)
                .order_by(events.c.number)
                .limit(limit)
            )
            return [Event(topic_id, row.number, row.attempt, row.kind, json.loads(row.data)) for row in rows]


def shard_data(shard: Shard) -> dict[str, Any]:
    """The data of a ``shard`` event."""
    return {
        "file": shard.file,
        "split": shard.split,
        "examples": shard.examples,
        "bytes": shard.bytes,
        "sha256": shard.sha256,
        "url": f"datasets/{shard.dataset_id}/shards/{shard.file}",
    }


def archive_data(dataset: Dataset) -> dict[str, Any]:
    """What a client needs to fetch an archive and to trust it."""
    return {
        "url": f"datasets/{dataset.dataset_id}/archive",
        "bytes": dataset.archive_bytes,
        "sha256": dataset.archive_sha256,
    }


def _ready_data(dataset: Dataset) -> dict[str, Any]:
    return {"dataset_id": dataset.dataset_id, "archive": archive_data(dataset)}


async def _move(db: AsyncConnection, dataset_id: str, attempt: int, values: dict[str, Any]) -> bool:
    changed = await db.execute(
        update(datasets)
        .where(datasets.c.dataset_id == dataset_id, datasets.c.attempt == attempt, datasets.c.state.in_(ACTIVE))
        .values(**values)
    )
    return bool(changed.rowcount)


async def _move_topic(db: AsyncConnection, topic: Topic, values: dict[str, Any]) -> bool:
    changed = await db.execute(
        update(topics)
        .where(topics.c.topic_id == topic.topic_id, topics.c.attempt == topic.attempt, topics.c.state.in_(ACTIVE))
        .values(**values)
    )
    return bool(changed.rowcount)


async def _active_topics(db: AsyncConnection, dataset_id: str) -> list[str]:
    rows = await db.execute(
        select(topics.c.topic_id).where(topics.c.dataset_id == dataset_id, topics.c.state.in_(ACTIVE))
    )
    return list(rows.scalars())


async def _end(db: AsyncConnection, dataset_id: str, kind: str, data: dict[str, Any]) -> list[str]:
    told = await _active_topics(db, dataset_id)
    await db.execute(update(topics).where(topics.c.topic_id.in_(told)).values(state=kind))
    await append(db, told, kind, data)
    return told
