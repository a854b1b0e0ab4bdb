"""The connection to the database: SQLite in the data folder, or what ``database_url`` names.

Every transaction goes through `Database.reading` or `Database.writing`. The tables are made and brought up to date by
the migrations in `dataset_server/migrations`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from sqlalchemy import event, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ..migrations import upgrade

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


async def insist(action: Callable[[], Awaitable[_T]]) -> _T:
    """Do what must not be lost, such as telling how an attempt ended, until the database takes it.

    A database that is locked, or a disk that is full, is waited for.
    """
    pause = 0.5
    while True:
        try:
            return await action()
        except SQLAlchemyError:
            logger.exception("the database refuses; trying again in %g s", pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, 30.0)


class Database:
    """The engine behind all parts of the store."""

    def __init__(self, url: str) -> None:
        self._engine: AsyncEngine = create_async_engine(url)
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine.sync_engine, "connect", _tune_sqlite)
            event.listen(self._engine.sync_engine, "begin", _begin)
        # Writers queue for SQLite's lock at their start, where waiting is possible; readers never wait.
        self._writing = self._engine.execution_options(immediate=True)

    async def create(self) -> None:
        """Make the tables, or bring them up to date; raises `SchemaTooNewError` for those of a later server."""
        async with self.writing() as db:
            await db.run_sync(upgrade)

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()

    async def ping(self) -> None:
        """Raise if the database does not answer."""
        async with self.reading() as db:
            await db.execute(select(1))

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that changes nothing."""
        return self._engine.connect()

    def writing(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that is committed at the end of its context, or rolled back if that raises."""
        return self._writing.begin()


def _tune_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's "begin" below opens the transactions
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA {pragma}")
        cursor.close()


def _begin(connection: Any) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
