"""The database: whole, of this server's time, and its leases held by somebody who lives."""

from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from ..migrations import head, is_known
from ..ownership import owner_may_live
from ..settings import Settings
from ..store.database import Database
from ..store.inspection import Inspection, inspect_database
from .finding import Finding, failed, ok, warning


def database_file(settings: Settings) -> Path | None:
    """The SQLite file; None where another database is used."""
    url = make_url(settings.database)
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


async def answers(settings: Settings) -> Finding:
    """Whether a database that is no file of ours answers."""
    database = Database(settings.database)
    try:
        await database.ping()
    except (SQLAlchemyError, OSError, ImportError) as error:
        return failed("database", f"it does not answer: {error}", "start it, or correct database_url")
    finally:
        await database.close()
    return ok("database", "it answers")


def inspect_file(path: Path) -> tuple[list[Finding], Inspection | None]:
    """How a SQLite database is, and what was seen of it if it could be read."""
    try:
        path.stat()
    except FileNotFoundError:
        return [ok("database", f"{path} will be made at the first start")], None
    except OSError as error:
        return [failed("database", f"it cannot be looked at: {error}", "run check as the server's user")], None
    try:
        inspection = inspect_database(path)
    except SQLAlchemyError as error:
        why = getattr(error, "orig", None) or error
        return [failed("database", f"{path} cannot be read: {why}", _RESTORE)], None
    return judge(inspection, {owner: owner_may_live(owner) for owner in inspection.owners}), inspection


_RESTORE = "stop the server, move the data folder aside and restore the last backup (docs/operations.md)"


def judge(inspection: Inspection, living: Mapping[str, bool]) -> list[Finding]:
    """What an inspection means; ``living`` says which owners of leases may still run."""
    if inspection.faults:
        return [failed("database", f"it is damaged: {'; '.join(inspection.faults[:3])}", _RESTORE)]
    if not is_known(inspection.revision):
        return [
            failed(
                "database",
                f"it is at revision {inspection.revision}, this server knows up to {head()}",
                "start the server that wrote it, or restore the backup from before the upgrade",
            )
        ]
    found = [ok("database", f"it is whole, at revision {inspection.revision}")]
    if inspection.revision != head():
        found = [
            warning(
                "database",
                f"it is whole, at revision {inspection.revision}; the next start brings it to {head()}",
                "back it up first: there is no way back but a backup",
            )
        ]
    left = sum(count for owner, count in inspection.owners.items() if not living[owner])
    if left:
        found.append(
            warning(
                "leases", f"{left} builds were left by a server that is gone", "start the server: it goes on with them"
            )
        )
    return found
