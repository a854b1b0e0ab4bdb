"""Databases of every earlier server become this one's, and lose nothing; later ones are refused."""

import hashlib
import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, inspect, text

from dataset_server.migrations import SchemaTooNewError, head, upgrade
from dataset_server.migrations import _scripts as scripts
from dataset_server.store.schema import metadata


@pytest.fixture
def connection(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'server.db'}")
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def first_database(connection) -> None:
    """What the first servers made, before migrations were recorded."""
    with Operations.context(MigrationContext.configure(connection)):
        scripts().get_revision("0001").module.upgrade()


def test_a_new_database_is_what_the_tables_say(connection):
    upgrade(connection)
    assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert MigrationContext.configure(connection).get_current_revision() == head()


def test_a_database_from_before_migrations_keeps_its_rows(connection):
    first_database(connection)
    assert not inspect(connection).has_table("tokens")
    connection.execute(
        text(
            "INSERT INTO datasets (dataset_id, dataset_name, resolved_version, config, state, attempt, created_at, "
            "finished_at, manifest) VALUES ('coco_1_x.zip', 'coco', '1', '{}', 'ready', 3, 1.0, 2.0, '{\"a\": 1}'), "
            "('coco_1_y.zip', 'coco', '1', '{}', 'failed', 1, 1.0, 2.0, NULL)"
        )
    )
    upgrade(connection)
    assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    columns = "state, attempt, revision, last_used_at, checked_at, pinned"
    rows = list(connection.execute(text(f"SELECT {columns} FROM datasets")))
    assert rows == [("ready", 3, 1, 2.0, 2.0, 0), ("failed", 1, 0, None, None, 0)]
    assert list(connection.execute(text("SELECT * FROM manifests"))) == [("coco_1_x.zip", '{"a": 1}')]
    found = list(connection.execute(text("SELECT manifest_sha256 FROM datasets ORDER BY dataset_id")).scalars())
    assert found == [hashlib.sha256(b'{"a": 1}').hexdigest(), None]


def test_twice_is_once(connection):
    upgrade(connection)
    connection.execute(text("INSERT INTO audit (at, client, action, subject, detail) VALUES (1, 'a', 'b', 'c', '{}')"))
    upgrade(connection)
    assert connection.execute(text("SELECT count(*) FROM audit")).scalar() == 1


def test_a_later_database_is_refused_and_left_alone(connection):
    upgrade(connection)
    connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaTooNewError, match="9999.*restore the backup"):
        upgrade(connection)
    assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "9999"


def test_the_server_says_so(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    engine = create_engine(f"sqlite:///{folder / 'server.db'}")
    with engine.begin() as connection:
        upgrade(connection)
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    assert "9999" in refused_start(tmp_path, folder)


def test_a_damaged_database_is_refused_with_a_remedy(tmp_path):
    (tmp_path / "server.db").write_bytes(b"no database " * 1000)
    said = refused_start(tmp_path, tmp_path)
    assert "the database: file is not a database" in said
    assert "restore the last backup" in said


def refused_start(raw_root, data_dir):
    """What a server says that cannot start."""
    command = [
        sys.executable,
        "-m",
        "dataset_server",
        "serve",
        "--raw-root",
        str(raw_root),
        "--data-dir",
        str(data_dir),
    ]
    run = subprocess.run([*command, "--port", "0"], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert "cannot start" in run.stderr
    return run.stderr
