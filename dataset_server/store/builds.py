"""Builds in the database: claims, leases, and what a build writes. Every method is one transaction.

A build writes under a `Lease`; where that has been lost – the dataset was claimed by another server, cancelled, or has
ended – nothing changes, and `LeaseLostError` is raised.
"""

import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from .database import Database
from .datasets import archive_data, shard_data
from .events import append
from .schema import (
    ACTIVE,
    DATASET_COLUMNS,
    Dataset,
    Shard,
    askers,
    datasets,
    events,
    manifests,
    revisions,
    shards,
    topics,
)

#: Bits of the fence that a dataset begins with.
_FENCE_BITS = 48


class LeaseLostError(Exception):
    """The dataset is not this build's any more: it was claimed by another, cancelled, or has ended."""


@dataclass(frozen=True)
class Lease:
    """The right to build a dataset, as long as the fence is that of the database."""

    dataset_id: str
    fence: int


@dataclass(frozen=True)
class Wanted:
    """A dataset that somebody wants made, for ``client``, with ``priority``."""

    dataset_id: str
    dataset_name: str
    resolved_version: str
    config: str
    client: str = ""
    priority: int = 0


@dataclass(frozen=True)
class NewArchive:
    """What was published: the archive's size, sha256, manifest and provenance, and each shard's offset in it."""

    revision: int
    size: int
    sha256: str
    manifest: str
    provenance: str
    offsets: Mapping[str, int]
    build_seconds: float


class BuildStore:
    """What builds write."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- claims

    async def start(self, wanted: Wanted, seen: Dataset | None, owner: str, until: float) -> Dataset | None:
        """Claim a new attempt of a dataset that nobody makes; None if it is not any more as it was ``seen``.

        An archive that is there stays, as a revision, until it is replaced. A new dataset begins with a fence of its
        own: one that was deleted and is asked for again must not be taken for the one of before.
        """
        async with self._database.writing() as db:
            where = datasets.c.dataset_id == wanted.dataset_id
            row = (await db.execute(select(*DATASET_COLUMNS).where(where).with_for_update())).one_or_none()
            now = Dataset(**row._mapping) if row else None
            if (now and (now.state, now.attempt)) != (seen and (seen.state, seen.attempt)):
                return None
            lease = {"lease_owner": owner, "lease_until": until, "tries": 0, "not_before": None, "crashes": 0}
            turn = {"state": "queued", "client": wanted.client, "priority": wanted.priority}
            if now is None:
                identity: dict[str, Any] = {"dataset_id": wanted.dataset_id, "dataset_name": wanted.dataset_name}
                identity |= {"resolved_version": wanted.resolved_version, "config": wanted.config}
                identity |= {"attempt": 1, "fence": secrets.randbits(_FENCE_BITS), "created_at": time.time()}
                await db.execute(insert(datasets).values(**identity, **turn, **lease))
            else:
                if now.state == "ready":
                    await _supersede(db, now)
                ahead = {"attempt": datasets.c.attempt + 1, "fence": datasets.c.fence + 1}
                await db.execute(
                    update(datasets).where(where).values(**turn, **lease, **ahead, error=None, finished_at=None)
                )
                await db.execute(delete(shards).where(shards.c.dataset_id == wanted.dataset_id))
            return Dataset(**(await db.execute(select(*DATASET_COLUMNS).where(where))).one()._mapping)

    async def claim(self, seen: Dataset, owner: str, until: float) -> Dataset | None:
        """Take over a build that its owner has left; None if its lease is not any more as it was ``seen``.

        It waits for its turn again. Another owner that was at it and has not given it back is counted: it may have gone
        down because of it.
        """
        crashed = seen.lease_owner not in (None, owner) and seen.state != "queued"
        async with self._database.writing() as db:
            changed = await db.execute(
                update(datasets)
                .where(
                    datasets.c.dataset_id == seen.dataset_id,
                    datasets.c.fence == seen.fence,
                    datasets.c.lease_owner.is_not_distinct_from(seen.lease_owner),
                    datasets.c.lease_until.is_not_distinct_from(seen.lease_until),
                    datasets.c.state.in_(ACTIVE),
                )
                .values(
                    state="queued",
                    fence=datasets.c.fence + 1,
                    lease_owner=owner,
                    lease_until=until,
                    crashes=datasets.c.crashes + int(crashed),
                )
            )
            if not changed.rowcount:
                return None
            where = datasets.c.dataset_id == seen.dataset_id
            return Dataset(**(await db.execute(select(*DATASET_COLUMNS).where(where))).one()._mapping)

    async def renew(self, owner: str, until: float) -> set[Lease]:
        """Renew all leases of an owner; returns those it holds."""
        async with self._database.writing() as db:
            held = await db.execute(
                update(datasets)
                .where(datasets.c.lease_owner == owner, datasets.c.state.in_(ACTIVE))
                .values(lease_until=until)
                .returning(datasets.c.dataset_id, datasets.c.fence)
            )
            return {Lease(row.dataset_id, row.fence) for row in held}

    async def give_back(self, owner: str) -> None:
        """Give back all leases of an owner that stops; what it was at goes on elsewhere, or at the next start."""
        async with self._database.writing() as db:
            await db.execute(
                update(datasets).where(datasets.c.lease_owner == owner).values(lease_owner=None, lease_until=None)
            )

    async def active(self) -> list[Dataset]:
        """Datasets that are being made, oldest first."""
        async with self._database.reading() as db:
            rows = await db.execute(
                select(*DATASET_COLUMNS).where(datasets.c.state.in_(ACTIVE)).order_by(datasets.c.created_at)
            )
            return [Dataset(**row._mapping) for row in rows]

    async def topics_of(self, dataset_id: str) -> list[str]:
        """The active topics that wait for a dataset."""
        async with self._database.reading() as db:
            return sorted(await _active_topics(db, dataset_id))

    async def all_topics_of(self, dataset_id: str) -> list[str]:
        """The topics of a dataset, also those whose attempt has ended."""
        wanted = select(topics.c.topic_id).where(topics.c.dataset_id == dataset_id)
        async with self._database.reading() as db:
            return list((await db.execute(wanted)).scalars())

    async def askers_of(self, dataset: Dataset) -> set[str]:
        """The clients whose requests a dataset is, or last was, made for, and who had it made once more."""
        asked = topics.c.dataset_id == dataset.dataset_id
        if dataset.is_active:
            asked &= topics.c.state.in_(ACTIVE)
        began = select(topics.c.client).where(asked)
        joined = select(askers.c.client).join(topics, topics.c.topic_id == askers.c.topic_id).where(asked)
        async with self._database.reading() as db:
            found = set((await db.execute(began.union(joined))).scalars())
        return found | {dataset.client} if dataset.is_active or not found else found

    async def active_builds(self, client: str) -> int:
        """How many datasets are being made in a client's turn."""
        wanted = datasets.c.state.in_(ACTIVE), datasets.c.client == client
        async with self._database.reading() as db:
            return (await db.execute(select(func.count()).select_from(datasets).where(*wanted))).scalar_one()

    # -- what a build writes; each returns the topics that were told

    async def set_state(self, lease: Lease, state: str, **more: Any) -> list[str]:
        """Move a build on, and tell its topics; ``more`` goes into the event."""
        async with self._database.writing() as db:
            await _change(db, lease, {"state": state})
            return await _say_state(db, lease.dataset_id, state, more)

    async def postpone(self, lease: Lease, tries: int, not_before: float, reason: dict[str, Any]) -> list[str]:
        """Queue a build that failed for another try within its attempt, and tell its topics the reason."""
        async with self._database.writing() as db:
            await _change(db, lease, {"state": "queued", "tries": tries, "not_before": not_before})
            more = {**reason, "try": tries + 1, "retry_at": not_before}
            return await _say_state(db, lease.dataset_id, "queued", more)

    async def forget_shards(self, lease: Lease) -> None:
        """Forget the sealed shards of a build that starts over."""
        async with self._database.writing() as db:
            await _hold(db, lease)
            await db.execute(delete(shards).where(shards.c.dataset_id == lease.dataset_id))

    async def seal_shard(self, lease: Lease, shard: Shard) -> list[str]:
        """Note a sealed shard, and tell the topics of its dataset; nothing if the very same was noted before."""
        async with self._database.writing() as db:
            await _hold(db, lease)
            same = (shards.c.dataset_id == shard.dataset_id, shards.c.file == shard.file)
            known = (await db.execute(select(shards).where(*same))).one_or_none()
            if known and Shard(**known._mapping) == shard:
                return []
            await db.execute(delete(shards).where(*same))
            await db.execute(insert(shards).values(**vars(shard)))
            ours = datasets.c.dataset_id == shard.dataset_id, datasets.c.crashes > 0
            await db.execute(update(datasets).where(*ours).values(crashes=0))  # it gets on
            told = await _active_topics(db, shard.dataset_id)
            await append(db, told, "shard", shard_data(shard))
            return told

    async def progress(self, lease: Lease, data: dict[str, Any]) -> list[str]:
        """Tell the topics of a dataset how far it is; only the latest progress is kept."""
        async with self._database.writing() as db:
            await _hold(db, lease)
            told = await _active_topics(db, lease.dataset_id)
            waiting = select(topics.c.topic_id).where(*_waiting_for(lease.dataset_id))
            await db.execute(delete(events).where(events.c.topic_id.in_(waiting), events.c.kind == "progress"))
            await append(db, told, "progress", data)
            return told

    async def publish(self, lease: Lease, made: NewArchive) -> list[str]:
        """Make a dataset ready, and tell its topics."""
        dataset_id, now = lease.dataset_id, time.time()
        async with self._database.writing() as db:
            values = {
                "state": "ready",
                "archive_bytes": made.size,
                "archive_sha256": made.sha256,
                "manifest_sha256": hashlib.sha256(made.manifest.encode()).hexdigest(),
                "revision": made.revision,
                "provenance": made.provenance,
                "build_seconds": made.build_seconds,
                "finished_at": now,
                "checked_at": now,
                **_NO_LEASE,
            }
            await _change(db, lease, values)
            await db.execute(delete(manifests).where(manifests.c.dataset_id == dataset_id))
            await db.execute(insert(manifests).values(dataset_id=dataset_id, manifest=made.manifest))
            # An archive that came out as it was is not superseded after all.
            same = (revisions.c.dataset_id == dataset_id, revisions.c.revision == made.revision)
            await db.execute(delete(revisions).where(*same))
            for file, offset in made.offsets.items():
                await db.execute(
                    update(shards).where(shards.c.dataset_id == dataset_id, shards.c.file == file).values(offset=offset)
                )
            left_out = shards.c.dataset_id == dataset_id, shards.c.offset.is_(None)
            await db.execute(delete(shards).where(*left_out))
            row = (await db.execute(select(*DATASET_COLUMNS).where(datasets.c.dataset_id == dataset_id))).one()
            ready = {"dataset_id": dataset_id, "archive": archive_data(Dataset(**row._mapping))}
            return await _end(db, dataset_id, "ready", ready)

    async def fail(self, lease: Lease, error: dict[str, Any]) -> list[str]:
        """End a build with an error, and tell its topics."""
        async with self._database.writing() as db:
            ended = {"state": "failed", "error": json.dumps(error), "finished_at": time.time()}
            await _change(db, lease, {**ended, **_NO_LEASE})
            return await _end(db, lease.dataset_id, "failed", error)

    async def cancel(self, dataset_id: str, attempt: int, error: dict[str, Any]) -> list[str] | None:
        """End a build because somebody wants it ended, whoever holds it; None if that attempt is over."""
        async with self._database.writing() as db:
            ended = {"state": "cancelled", "error": json.dumps(error), "finished_at": time.time()}
            changed = await db.execute(
                update(datasets)
                .where(datasets.c.dataset_id == dataset_id, datasets.c.attempt == attempt, datasets.c.state.in_(ACTIVE))
                .values(**ended, **_NO_LEASE, fence=datasets.c.fence + 1)
            )
            return await _end(db, dataset_id, "cancelled", error) if changed.rowcount else None


_NO_LEASE: Mapping[str, Any] = {
    "lease_owner": None,
    "lease_until": None,
    "not_before": None,
    "reserved_bytes": None,
}


async def _supersede(db: AsyncConnection, dataset: Dataset) -> None:
    """Keep the archive that there is as a revision, with its shards, whose rows the new build takes."""
    rows = await db.execute(select(shards).where(shards.c.dataset_id == dataset.dataset_id).order_by(shards.c.number))
    sealed = [asdict(Shard(**row._mapping)) for row in rows]
    same = (revisions.c.dataset_id == dataset.dataset_id, revisions.c.revision == dataset.revision)
    await db.execute(delete(revisions).where(*same))
    await db.execute(
        insert(revisions).values(
            dataset_id=dataset.dataset_id,
            revision=dataset.revision,
            bytes=dataset.archive_bytes,
            sha256=dataset.archive_sha256,
            shards=json.dumps(sealed),
            superseded_at=time.time(),
            last_used_at=dataset.last_used_at,
        )
    )


async def _hold(db: AsyncConnection, lease: Lease) -> None:
    """Make sure of a lease until the end of the transaction."""
    held = await db.execute(
        select(datasets.c.fence)
        .where(
            datasets.c.dataset_id == lease.dataset_id,
            datasets.c.fence == lease.fence,
            datasets.c.state.in_(ACTIVE),
        )
        .with_for_update()
    )
    if held.one_or_none() is None:
        raise LeaseLostError(lease.dataset_id)


async def _change(db: AsyncConnection, lease: Lease, values: Mapping[str, Any]) -> None:
    changed = await db.execute(
        update(datasets)
        .where(
            datasets.c.dataset_id == lease.dataset_id,
            datasets.c.fence == lease.fence,
            datasets.c.state.in_(ACTIVE),
        )
        .values(**values)
    )
    if not changed.rowcount:
        raise LeaseLostError(lease.dataset_id)


async def _say_state(db: AsyncConnection, dataset_id: str, state: str, more: Mapping[str, Any]) -> list[str]:
    told = await _active_topics(db, dataset_id)
    await db.execute(update(topics).where(*_waiting_for(dataset_id)).values(state=state))
    await append(db, told, "state", {"state": state, "dataset_id": dataset_id, **more})
    return told


async def _active_topics(db: AsyncConnection, dataset_id: str) -> list[str]:
    """The topics that wait for a dataset; they may be more than a statement can name."""
    return list((await db.execute(select(topics.c.topic_id).where(*_waiting_for(dataset_id)))).scalars())


def _waiting_for(dataset_id: str) -> tuple[ColumnElement[bool], ...]:
    return topics.c.dataset_id == dataset_id, topics.c.state.in_(ACTIVE)


async def _end(db: AsyncConnection, dataset_id: str, kind: str, data: dict[str, Any]) -> list[str]:
    told = await _active_topics(db, dataset_id)
    await db.execute(update(topics).where(*_waiting_for(dataset_id)).values(state=kind))
    await append(db, told, kind, data)
    return told
