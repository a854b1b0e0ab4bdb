"""``dataset-server scrub``."""

import argparse
import asyncio
import sys

from sqlalchemy.exc import SQLAlchemyError

from ..cache import Cache
from ..metrics import Metrics
from ..migrations import SchemaTooNewError, SchemaTooOldError
from ..settings import Settings
from ..store import Database
from .options import Commands, add_command, add_settings, settings_of

_EXAMPLES = """\
example:
  dataset-server scrub --config server.toml

Reads every archive from the disk and compares it with its sha256, at scrub_bytes_per_second at most. What has rotted is
put aside as ARCHIVE.rotten; what has rotted or is missing is made again when somebody asks for it. The server does the
same by itself, each archive once in scrub_days; it may run meanwhile. A database of an earlier version is left alone.
Exit status: 0 all archives are sound, 1 some are not.
"""


def add_parser(commands: Commands) -> None:
    """Add the command."""
    add_settings(add_command(commands, "scrub", "read all archives again, and put aside what has rotted", _EXAMPLES))


def run(options: argparse.Namespace) -> int:
    """Scrub; 1 if anything was found, or the database cannot be used."""
    try:
        return asyncio.run(_scrub(settings_of(options)))
    except (OSError, SQLAlchemyError, SchemaTooNewError, SchemaTooOldError) as error:
        print(f"dataset-server: cannot scrub: {error}", file=sys.stderr)
        return 1


async def _scrub(settings: Settings) -> int:
    database = Database(settings.database)
    cache = Cache(settings, database, Metrics.create())
    sound = unsound = 0
    try:
        await database.join()
        async for dataset, finding in cache.scrub_all():
            if finding is None:
                sound += 1
            else:
                unsound += 1
                print(f"{dataset.dataset_id}: {finding.message}")
    finally:
        await cache.close()  # ends the reading under way, for which this process would stay else
        await database.close()
    print(f"{sound} archives are sound, {unsound} are not")
    return 1 if unsound else 0
