"""Requests and datasets in the database, with their shards and events. Every method is one transaction.

States change by compare-and-set: a writer that comes too late changes nothing. What builds write is in `builds`.
"""

import asyncio
import functools
import json
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from dataset_client.protocol import TERMINAL_KINDS, Event

from .database import Database
from .events import append
from .schema import (
    ACTIVE,
    DATASET_COLUMNS,
    Dataset,
    Shard,
    Topic,
    askers,
    dataset_of,
    datasets,
    events,
    manifests,
    shards,
    topics,
)

_TOPIC_COLUMNS: Final = len(topics.c)
#: Characters of texts in a row, its configs above all, up to which it is remembered.
_LONGEST_REMEMBERED = 1 << 14
#: Events that are read at a time, at the most.
EVENTS_AT_ONCE = 500


class Store:
    """Requests, datasets, their shards, and what is said of them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._replays: dict[tuple[str, int, int], _Replay] = {}
        self._find = database.prepare(
            select(*topics.c, *DATASET_COLUMNS)
            .select_from(topics.outerjoin(datasets, topics.c.dataset_id == datasets.c.dataset_id))
            .where(topics.c.topic_id == bindparam("topic_id"))
        )
        self._said = database.prepare(
            select(events.c.topic_id, events.c.number, events.c.attempt, events.c.kind, events.c.data)
            .where(events.c.topic_id == bindparam("topic_id"), events.c.number > bindparam("after"))
            .order_by(events.c.number)
            .limit(bindparam("limit"))
        )

    # -- requests

    async def topic(self, topic_id: str) -> Topic | None:
        """A request, if it was ever made."""
        async with self._database.reading() as db:
            row = (await db.execute(select(topics).where(topics.c.topic_id == topic_id))).one_or_none()
            return Topic(**row._mapping) if row else None

    async def find(self, topic_id: str) -> tuple[Topic, Dataset | None] | None:
        """A request, if it was ever made, with its dataset, once that is known."""
        rows = await self._find(topic_id=topic_id)
        if not rows:
            return None
        row = tuple(rows[0])
        is_short = sum(len(value) for value in row if isinstance(value, str)) <= _LONGEST_REMEMBERED
        return (_remembered if is_short else _topic_and_dataset)(row)

    async def active_requests(self, client: str) -> int:
        """How many requests of a client have not been answered yet."""
        async with self._database.reading() as db:
            return await _active_requests(db, client)

    async def begin_attempt(
        self,
        topic_id: str,
        dataset_name: str,
        handler_version: str,
        config: str,
        resolved_version: str,
        *,
        client: str,
        limit: int | None,
        priority: int = 0,
    ) -> Topic | None:
        """Open the next attempt of a request, not yet tied to a dataset; one that has not ended is cancelled.

        None, and nothing happens, if ``client`` has ``limit`` requests that are not answered yet. Of earlier attempts
        only their ends are kept.
        """
        async with self._database.writing() as db:
            if limit is not None and await _active_requests(db, client) >= limit:
                return None
            before = await db.execute(select(topics.c.state).where(topics.c.topic_id == topic_id).with_for_update())
            if before.scalar() in ACTIVE:
                message = "the handler version means something else now; a new attempt begins"
                await append(db, [topic_id], "cancelled", {"code": "cancelled", "message": message, "by": ""})
            changed = await db.execute(
                update(topics)
                .where(topics.c.topic_id == topic_id)
                .values(
                    resolved_version=resolved_version,
                    dataset_id=None,
                    state="resolving",
                    attempt=topics.c.attempt + 1,
                    client=client,
                    priority=priority,
                )
            )
            await db.execute(delete(askers).where(askers.c.topic_id == topic_id))
            old = events.c.topic_id == topic_id, events.c.kind.not_in(TERMINAL_KINDS)
            await db.execute(delete(events).where(*old))
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
                        client=client,
                        priority=priority,
                    )
                )
            await append(db, [topic_id], "state", {"state": "resolving"})
            row = (await db.execute(select(topics).where(topics.c.topic_id == topic_id))).one()
            return Topic(**row._mapping)

    async def join(self, topic: Topic, client: str) -> None:
        """Note that another client waits for an attempt that has not ended: it is as much its own."""
        same = askers.c.topic_id == topic.topic_id, askers.c.client == client
        async with self._database.reading() as db:
            if (await db.execute(select(askers.c.client).where(*same))).one_or_none():
                return
        async with self._database.writing() as db:
            # With this the topic is locked: where it is not at that attempt any more, there is nothing to join.
            if await _move_topic(db, topic, {"state": topics.c.state}):
                await db.execute(delete(askers).where(*same))
                await db.execute(insert(askers).values(topic_id=topic.topic_id, client=client))

    async def askers_of(self, topic: Topic) -> set[str]:
        """The clients who wait for an attempt at a request: who began it, and who joined."""
        joined = select(askers.c.client).where(askers.c.topic_id == topic.topic_id)
        async with self._database.reading() as db:
            return {topic.client, *(await db.execute(joined)).scalars()}

    async def unattached_topics(self) -> list[Topic]:
        """Active requests whose dataset is not known yet."""
        async with self._database.reading() as db:
            rows = await db.execute(select(topics).where(topics.c.state.in_(ACTIVE), topics.c.dataset_id.is_(None)))
            return [Topic(**row._mapping) for row in rows]

    async def attach(self, topic: Topic, dataset_id: str, more: Mapping[str, Any]) -> bool:
        """Tie an attempt to its dataset, and tell it where that stands: the state, and every shard sealed so far.

        ``more`` goes into the event of a dataset that is queued. A dataset that has ended meanwhile ends the attempt
        too. Nothing happens if the attempt has ended. False if the dataset is gone: evicted, or deleted.
        """
        topic_id = topic.topic_id
        async with self._database.writing() as db:
            there = select(*DATASET_COLUMNS).where(datasets.c.dataset_id == dataset_id).with_for_update()
            row = (await db.execute(there)).one_or_none()
            dataset = Dataset(**row._mapping) if row else None
            if dataset is None or not (dataset.is_active or dataset.state in TERMINAL_KINDS):
                return False
            values = {"dataset_id": dataset_id, "resolved_version": dataset.resolved_version, "state": dataset.state}
            if not await _move_topic(db, topic, values):
                return True
            if dataset.state == "ready":
                await append(db, [topic_id], "ready", {"dataset_id": dataset_id, "archive": archive_data(dataset)})
            elif not dataset.is_active:
                await append(db, [topic_id], dataset.state, json.loads(dataset.error or "{}"))
            else:
                stands = {"state": dataset.state, "dataset_id": dataset_id}
                await append(db, [topic_id], "state", {**stands, **(more if dataset.state == "queued" else {})})
                for shard in await _sealed(db, dataset_id):
                    await append(db, [topic_id], "shard", shard_data(shard))
            return True

    async def say(self, topic: Topic, kind: str, data: dict[str, Any]) -> bool:
        """Say something on an attempt that has neither ended nor a dataset; its state changes with it.

        False if it has by now: then its dataset's build says what there is to say.
        """
        async with self._database.writing() as db:
            state = data["state"] if kind == "state" else kind if kind in TERMINAL_KINDS else topics.c.state
            moved = await _move_topic(db, topic, {"state": state}, topics.c.dataset_id.is_(None))
            if moved:
                await append(db, [topic.topic_id], kind, data)
            return moved

    # -- datasets

    async def dataset(self, dataset_id: str) -> Dataset | None:
        """A dataset, if anybody ever asked for it."""
        async with self._database.reading() as db:
            row = (await db.execute(select(*DATASET_COLUMNS).where(datasets.c.dataset_id == dataset_id))).one_or_none()
            return Dataset(**row._mapping) if row else None

    async def manifest(self, dataset_id: str) -> str | None:
        """The manifest of a dataset, once it is ready."""
        async with self._database.reading() as db:
            wanted = datasets.c.dataset_id == dataset_id, datasets.c.state == "ready"
            ready = manifests.join(datasets, manifests.c.dataset_id == datasets.c.dataset_id)
            return (await db.execute(select(manifests.c.manifest).select_from(ready).where(*wanted))).scalar()

    async def sealed_shards(self, dataset_id: str) -> list[Shard]:
        """The sealed shards of a dataset, in order."""
        async with self._database.reading() as db:
            return await _sealed(db, dataset_id)

    # -- events

    async def events_after(self, topic_id: str, number: int, limit: int = EVENTS_AT_ONCE) -> list[Event]:
        """The first ``limit`` events of a topic that come after ``number``, in order.

        Who asks for the same at the same time, such as all who are woken by one event, shares one reading.
        """
        key = (topic_id, number, limit)
        replay = self._replays.get(key)
        if replay is None:
            replay = self._replays[key] = _Replay(self._replay(*key))
        return await replay.events()

    async def _replay(self, topic_id: str, number: int, limit: int) -> list[Event]:
        del self._replays[topic_id, number, limit]  # what is said from now on may be missing
        rows = await self._said(topic_id=topic_id, after=number, limit=limit)
        return [Event(topic, at, attempt, kind, json.loads(data)) for topic, at, attempt, kind, data in rows]


class _Replay:
    """A reading that many wait for. (Thousands of `asyncio.shield` would take time by the square of their number.)"""

    def __init__(self, reading: Coroutine[Any, Any, list[Event]]) -> None:
        self._task = asyncio.create_task(reading)
        self._done = asyncio.Event()
        self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[list[Event]]) -> None:
        if not task.cancelled():
            task.exception()  # seen, though nobody may wait any more
        self._done.set()

    async def events(self) -> list[Event]:
        """What was read, or raise what that raised; who is cancelled here leaves the reading to the others."""
        await self._done.wait()
        return self._task.result()


def _topic_and_dataset(row: tuple[Any, ...]) -> tuple[Topic, Dataset | None]:
    topic, values = Topic(*row[:_TOPIC_COLUMNS]), row[_TOPIC_COLUMNS:]
    return topic, dataset_of(values) if values[0] is not None else None


#: Making objects of a row takes as long as reading it. Each event of a topic makes a new row of it.
_remembered = functools.lru_cache(maxsize=1024)(_topic_and_dataset)


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
        "url": f"datasets/{dataset.dataset_id}/archive?revision={dataset.revision}",
        "bytes": dataset.archive_bytes,
        "sha256": dataset.archive_sha256,
        "manifest_sha256": dataset.manifest_sha256,
    }


async def _sealed(db: AsyncConnection, dataset_id: str) -> list[Shard]:
    rows = await db.execute(select(shards).where(shards.c.dataset_id == dataset_id).order_by(shards.c.number))
    return [Shard(**row._mapping) for row in rows]


async def _active_requests(db: AsyncConnection, client: str) -> int:
    wanted = topics.c.client == client, topics.c.state.in_(ACTIVE)
    return (await db.execute(select(func.count()).select_from(topics).where(*wanted))).scalar_one()


async def _move_topic(db: AsyncConnection, topic: Topic, values: dict[str, Any], *only: ColumnElement[bool]) -> bool:
    same = topics.c.topic_id == topic.topic_id, topics.c.attempt == topic.attempt, topics.c.state.in_(ACTIVE)
    changed = await db.execute(update(topics).where(*same, *only).values(**values))
    return bool(changed.rowcount)
