"""Looks into, copies and amends a SQLite database as a file, beside a server that may be using it."""

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, create_engine, delete, func, or_, select, update
from sqlalchemy.pool import NullPool

from ..migrations import head, revision
from .cache import IS_CURRENT
from .schema import ACTIVE, datasets, revisions, tokens

_BUSY_SECONDS = 30.0


@dataclass(frozen=True)
class Inspection:
    """What a database is like: ``faults`` as SQLite's own check words them; ``revision`` is None for an empty one.

    ``owners`` says how many active datasets are leased by whom, and ``latest`` when something last began or ended, in
    seconds since the epoch; these and ``has_tokens`` only where the tables are this server's.
    """

    faults: Sequence[str]
    revision: str | None
    owners: dict[str, int]
    latest: float | None
    has_tokens: bool = False


@dataclass(frozen=True)
class Archive:
    """An archive that the database says is there; ``bytes`` and ``sha256`` are what it must be."""

    dataset_id: str
    revision: int
    bytes: int
    sha256: str


def inspect_database(path: Path) -> Inspection:
    """Read all of a database, and say what is in it; raises `sqlalchemy.exc.DBAPIError` for what cannot be read."""
    with _reading(path) as db:
        faults = [row[0] for row in db.exec_driver_sql("PRAGMA integrity_check(20)") if row[0] != "ok"]
        current = revision(db)
        if faults or current != head():
            return Inspection(faults, current, {}, None)
        rows = db.execute(
            select(datasets.c.lease_owner, func.count())
            .where(datasets.c.state.in_(ACTIVE), datasets.c.lease_owner.is_not(None))
            .group_by(datasets.c.lease_owner)
        )
        owners = {row[0]: row[1] for row in rows}
        latest = db.execute(select(func.max(datasets.c.created_at), func.max(datasets.c.finished_at))).one()
        known = max((time for time in latest if time is not None), default=None)
        has_tokens = db.execute(select(tokens.c.token_id).limit(1)).one_or_none() is not None
        return Inspection([], current, owners, known, has_tokens)


def copy_database(source: Path, target: Path) -> None:
    """Copy a database as it is at one moment, by SQLite's online backup; its server may go on writing."""
    with (
        contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as live,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        live.execute(f"PRAGMA busy_timeout={int(1000 * _BUSY_SECONDS)}")
        live.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, complete without a log beside it


def ready_archives(path: Path) -> list[Archive]:
    """The archives of a database whose tables are this server's; of those kept beside newer ones, none.

    That of a dataset which is being made anew, or could not be, is its own still.
    """
    with _reading(path) as db:
        columns = (datasets.c.dataset_id, datasets.c.revision, datasets.c.archive_bytes, datasets.c.archive_sha256)
        has_archive = or_(datasets.c.state == "ready", IS_CURRENT)
        rows = db.execute(select(*columns).where(has_archive).order_by(datasets.c.dataset_id))
        return [Archive(*row) for row in rows]


def mark_evicted(path: Path, dataset_ids: Iterable[str]) -> None:
    """Note that these archives are not there, so that they are made again when somebody asks.

    Nor are superseded ones, of any dataset: no backup has them.
    """
    reason = json.dumps({"code": "archive_missing", "message": "its archive was not in the backup that was restored"})
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    with engine.begin() as db:
        db.execute(delete(revisions).where(~IS_CURRENT))
        for dataset_id in dataset_ids:
            db.execute(delete(revisions).where(revisions.c.dataset_id == dataset_id))
            where = (datasets.c.dataset_id == dataset_id, datasets.c.state == "ready")
            db.execute(update(datasets).where(*where).values(state="evicted", error=reason))


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[Connection]:
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)

    with create_engine("sqlite://", creator=connect, poolclass=NullPool).connect() as db:
        yield db
