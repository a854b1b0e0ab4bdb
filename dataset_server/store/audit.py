"""Who asked for what: one row per deed, kept for ``audit_days``.

Requests, descriptions and downloads are many and cheap: they are written a second late, all of that second together,
equal ones as one row with the number of ``times``. Everything else is in the database before it is done; what came of
it is added if it was refused or failed: its code, as ``outcome``.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from ..errors import ServerFault
from .database import Database
from .schema import audit

logger = logging.getLogger(__name__)

_FLUSH_SECONDS = 1.0
_PRUNE_SECONDS = 3600.0
#: Rows that may wait; beyond that, who asks waits for the database.
_WAITING = 10_000
#: What is written late.
_MANY = frozenset({"request", "describe", "download"})

_DAY = 24 * 3600.0


@dataclass(frozen=True)
class AuditEntry:
    """One deed; ``at`` is in seconds since the epoch, ``detail`` is JSON."""

    number: int
    at: float
    client: str
    action: str
    subject: str
    detail: str


class Audit:
    """The audit of one server."""

    def __init__(self, database: Database, days: float = 365.0) -> None:
        self._database = database
        self._days = days
        self._waiting: dict[tuple[str, str, str, str], tuple[float, int]] = {}
        self._flusher: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write what is noted late, and to remove what is old."""
        self._flusher = asyncio.create_task(self._run(), name="audit")

    async def close(self) -> None:
        """Stop, and write what still waits; the log counts what the database refuses."""
        if self._flusher:
            self._flusher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._flusher
        try:
            await self.flush()
        except SQLAlchemyError:
            logger.exception("the audit lacks %d entries: the database refuses them", len(self._waiting))

    async def note(self, client: str, action: str, subject: str, detail: dict[str, Any] | None = None) -> None:
        """Note one of many: that ``client`` does ``action`` to ``subject``; it is written within a second.

        Raises `SQLAlchemyError` where too much waits, and the database refuses it.
        """
        assert action in _MANY, action
        key = (client, action, subject, json.dumps(detail or {}, sort_keys=True))
        at, times = self._waiting.get(key, (time.time(), 0))
        self._waiting[key] = at, times + 1
        if len(self._waiting) > _WAITING:
            await self.flush()

    @contextlib.asynccontextmanager
    async def deed(
        self, client: str, action: str, subject: str, detail: dict[str, Any] | None = None
    ) -> AsyncIterator[None]:
        """Note that ``client`` does ``action`` to ``subject`` in the context, before it begins; and if it fails, how.

        Raises `SQLAlchemyError` where the database refuses: what cannot be noted is not done.
        """
        row = {"at": time.time(), "client": client, "action": action, "subject": subject}
        async with self._database.writing() as db:
            noted = await db.execute(insert(audit).values(**row, detail=json.dumps(detail or {})))
            assert noted.inserted_primary_key
            number = noted.inserted_primary_key[0]
        try:
            yield
        except Exception as error:
            outcome = error.code if isinstance(error, ServerFault) else "internal_error"
            failed = update(audit).where(audit.c.number == number)
            try:
                async with self._database.writing() as db:
                    await db.execute(failed.values(detail=json.dumps({**(detail or {}), "outcome": outcome})))
            except (SQLAlchemyError, OSError):
                logger.exception("that %s of %s came to %s cannot be noted", action, subject, outcome)
            raise

    async def flush(self) -> None:
        """Write what waits; it goes on waiting where the database refuses, which is raised."""
        waiting, self._waiting = self._waiting, {}
        try:
            await self._write(waiting)
        except BaseException:
            for key, (at, times) in waiting.items():
                self._waiting[key] = at, times + self._waiting.get(key, (at, 0))[1]
            raise

    async def find(
        self, *, client: str | None, action: str | None, subject: str | None, after: int, limit: int
    ) -> list[AuditEntry]:
        """Entries with a number above ``after``, oldest first."""
        wanted: list[ColumnElement[bool]] = [audit.c.number > after]
        for column, value in ((audit.c.client, client), (audit.c.action, action), (audit.c.subject, subject)):
            if value is not None:
                wanted.append(column == value)
        async with self._database.reading() as db:
            rows = await db.execute(select(audit).where(*wanted).order_by(audit.c.number).limit(limit))
            return [AuditEntry(**row._mapping) for row in rows]

    async def prune(self) -> None:
        """Remove what is older than ``days``."""
        async with self._database.writing() as db:
            await db.execute(delete(audit).where(audit.c.at < time.time() - self._days * _DAY))

    async def _write(self, noted: dict[tuple[str, str, str, str], tuple[float, int]]) -> None:
        if not noted:
            return
        rows = []
        for (client, action, subject, detail), (at, times) in noted.items():
            counted = {**json.loads(detail), "times": times} if times > 1 else json.loads(detail)
            rows.append(
                {"at": at, "client": client, "action": action, "subject": subject, "detail": json.dumps(counted)}
            )
        async with self._database.writing() as db:
            await db.execute(insert(audit), rows)

    async def _run(self) -> None:
        pruned = 0.0
        while True:
            try:
                await self.flush()
                if not pruned or time.monotonic() - pruned > _PRUNE_SECONDS:
                    await self.prune()
                    pruned = time.monotonic()
            except Exception:  # the boundary: whatever it was, it is to be tried again
                logger.exception("the audit cannot be written; trying again")
            await asyncio.sleep(_FLUSH_SECONDS)
