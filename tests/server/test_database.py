"""The database as one that can refuse."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from dataset_server.store import Database
from dataset_server.store.audit import Audit


@pytest.fixture
async def database(tmp_path):
    made = Database(f"sqlite+aiosqlite:///{tmp_path / 'server.db'}")
    await made.create()
    yield made
    await made.close()


async def make_read_only(database):
    """What SQLite does by itself where a connection is opened while the file cannot be written to."""
    async with database.reading() as db:
        await db.execute(text("PRAGMA query_only=ON"))


async def test_a_connection_that_can_only_read_is_not_kept(database):
    await make_read_only(database)
    with pytest.raises(OperationalError, match="readonly"):
        async with database.writing() as db:
            await db.execute(text("DELETE FROM events"))
    async with database.writing() as db:
        await db.execute(text("DELETE FROM events"))


async def test_an_audit_that_is_refused_at_the_end_holds_up_nothing(database, caplog):
    audit = Audit(database, 30)
    await audit.note("her", "request", "a topic")
    await make_read_only(database)
    await audit.close()
    assert "the audit lacks 1 entries" in caplog.text
