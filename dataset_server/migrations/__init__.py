"""The database's history, as Alembic revisions in ``versions``; each file is named by its number.

Migrations run at every start of the server, inside one transaction; no other command runs them. A database of a later
server is refused: going back means restoring the backup that was made before (docs/operations.md).
"""

from pathlib import Path

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

#: The revision that databases have which were made before migrations were recorded.
_FIRST = "0001"


class SchemaTooNewError(Exception):
    """The database was made by a later server."""


class SchemaTooOldError(Exception):
    """The database was made by an earlier server, and is not ours to bring up to date."""


def upgrade(connection: Connection) -> None:
    """Bring the tables to this server's revision, within the caller's transaction; raises `SchemaTooNewError`."""
    scripts = _scripts()
    context = MigrationContext.configure(connection)
    current = revision(connection)
    if current is not None and context.get_current_revision() is None:
        context.stamp(scripts, current)
    if not is_known(current):
        raise SchemaTooNewError(
            f"the database is at revision {current}, this server knows up to {head()}; start the server that wrote it, "
            "or restore the backup from before the upgrade"
        )
    target = scripts.get_current_head()
    if current == target:
        return
    steps = scripts.iterate_revisions(target, current or "base")
    with Operations.context(context):
        for script in reversed(list(steps)):
            script.module.upgrade()
    context.stamp(scripts, "head")


def join(connection: Connection) -> None:
    """Make the tables of an empty database, and leave any other as it is, within the caller's transaction.

    Raises `SchemaTooOldError` or `SchemaTooNewError` for one that is not at this server's revision.
    """
    current = revision(connection)
    if current is not None and current != head() and is_known(current):
        raise SchemaTooOldError(
            f"the database is at revision {current}, this version's is {head()}: use the commands of the version that "
            "serves it, or make a backup and start the server, which brings it up to date"
        )
    upgrade(connection)


def revision(connection: Connection) -> str | None:
    """The revision a database is at; None if it is empty."""
    current = MigrationContext.configure(connection).get_current_revision()
    return _FIRST if current is None and inspect(connection).has_table("topics") else current


def is_known(revision: str | None) -> bool:
    """Whether this server can bring a database of that revision up to date; an empty one it can."""
    return revision is None or revision in {script.revision for script in _scripts().walk_revisions()}


def head() -> str:
    """This server's revision."""
    revision = _scripts().get_current_head()
    assert revision is not None
    return revision


def _scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return ScriptDirectory.from_config(config)
