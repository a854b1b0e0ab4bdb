"""The connection to the database: SQLite in the data folder, or what ``database_url`` names.

Every transaction goes through `Database.reading` or `Database.writing`. The tables are made and brought up to date by
the migrations in `dataset_server/migrations`.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import ExceptionContext, Select, event, select, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ..background import look
from ..migrations import join, upgrade

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_PROBE = "SELECT version_num FROM alembic_version"

#: What the same statement meets again whenever it is repeated.
_PERMANENT = (DataError, IntegrityError, NotSupportedError, ProgrammingError)


async def insist(action: Callable[[], Awaitable[_T]]) -> _T:
    """Do what must not be lost, such as telling how an attempt ended, until the database takes it.

    A database that is locked or not there, or a disk that is full, is waited for; what is wrong with the statement
    itself is raised.
    """
    pause = 0.5
    while True:
        try:
            return await action()
        except (DBAPIError, PoolTimeoutError, OSError) as error:
            if isinstance(error, _PERMANENT):
                raise
            logger.exception("the database refuses; trying again in %g s", pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, 30.0)


class Database:
    """The engine behind all parts of the store."""

    def __init__(self, url: str) -> None:
        self._engine: AsyncEngine = create_async_engine(url)
        self._quick: _Quick | None = None
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine.sync_engine, "connect", _tune_sqlite)
            event.listen(self._engine.sync_engine, "begin", _begin)
            event.listen(self._engine.sync_engine, "handle_error", _open_anew)
            file = self._engine.url.database
            self._quick = _Quick(Path(file)) if file and file != ":memory:" else None
        # Writers queue for SQLite's lock at their start, where waiting is possible; readers never wait.
        self._writing = self._engine.execution_options(immediate=True)

    async def create(self) -> None:
        """Make the tables, or bring them up to date; raises `SchemaTooNewError` for those of a later server."""
        async with self.writing() as db:
            await db.run_sync(upgrade)

    async def join(self) -> None:
        """Make the tables where there are none, and change no others: a server of another version may be using them.

        Raises `SchemaTooOldError` or `SchemaTooNewError` for those that are not this version's.
        """
        async with self.writing() as db:
            await db.run_sync(join)

    async def close(self) -> None:
        """Close all connections."""
        if self._quick:
            self._quick.close()
        await self._engine.dispose()

    async def ping(self) -> None:
        """Raise if the database does not answer; it may be without our tables."""
        async with self.reading() as db:
            await db.execute(select(1))

    async def probe(self) -> None:
        """Raise if our tables cannot be read; of SQLite from the file, which may be damaged or gone.

        May take as long as the disk does, in a thread.
        """
        if self._quick:
            await look(self._quick.probe)
            return
        async with self.reading() as db:
            (await db.execute(text(_PROBE))).one()

    def reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that changes nothing."""
        return self._engine.connect()

    def prepare(self, statement: Select[Any]) -> Callable[..., Awaitable[Sequence[Sequence[Any]]]]:
        """A query for a few rows, made ready once; call it with its parameters by name.

        For what every request and every event needs: from SQLite it reads on the caller's own thread, for which the
        fraction of a millisecond that an indexed row takes is less than what handing it to another thread costs.
        """
        compiled = statement.compile(dialect=self._engine.dialect)
        text, names, defaults = str(compiled), compiled.positiontup or (), compiled.params

        async def fetch(**values: Any) -> Sequence[Sequence[Any]]:
            if self._quick:
                with contextlib.suppress(sqlite3.Error):  # locked, for one: below it is waited for
                    return self._quick.fetch(text, [values.get(name, defaults[name]) for name in names])
            async with self.reading() as db:
                rows: Sequence[Sequence[Any]] = (await db.execute(statement, values)).all()
                return rows

        return fetch

    def writing(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that is committed at the end of its context, or rolled back if that raises."""
        return self._writing.begin()


class _Quick:
    """A connection to SQLite of the event loop's own thread; it reads only, and never waits for a lock."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._connection: sqlite3.Connection | None = None

    def fetch(self, text: str, values: Sequence[Any]) -> list[Sequence[Any]]:
        """All rows: a statement that is not read to its end would keep the write-ahead log from being emptied."""
        if self._connection is None:
            uri = f"{self._file.absolute().as_uri()}?mode=rw"
            self._connection = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)
            self._connection.execute("PRAGMA query_only=ON")
        return self._connection.execute(text, values).fetchall()

    def probe(self) -> None:
        """Read a row by a connection of its own, in any thread: an open one remembers what it read, and holds a file
        that was removed. Raises `OSError`.
        """
        try:
            uri = f"{self._file.absolute().as_uri()}?mode=rw"
            with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
                if connection.execute(_PROBE).fetchone() is None:
                    raise OSError(f"{self._file} is empty")
        except sqlite3.Error as error:
            raise OSError(f"{self._file} cannot be read: {error}") from error

    def close(self) -> None:
        """Close it; the next `fetch` opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _tune_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's "begin" below opens the transactions
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA {pragma}")
        cursor.close()


def _open_anew(failed: ExceptionContext) -> None:
    """Give up connections that SQLite opened when the file could not be written to: they stay read-only for good."""
    code = getattr(failed.original_exception, "sqlite_errorcode", 0)
    if code & 0xFF == sqlite3.SQLITE_READONLY:
        failed.is_disconnect = True


def _begin(connection: Any) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
