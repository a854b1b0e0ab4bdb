"""``dataset-server backup``."""

import argparse
import sys
from pathlib import Path

from ..archive_folder import ArchiveFolder
from ..backup import BackupError, back_up
from ..checks.database import database_file
from ..credentials import masked
from .options import Commands, WrongUsageError, add_command, add_settings, settings_of

_EXAMPLES = """\
examples:
  dataset-server backup /backups/2026-03-01 --config server.toml
      database and settings: a few megabytes; archives are made again when they are asked for
  dataset-server backup /backups/2026-03-01 --archives --config server.toml
      with the archives: hard links where the backup is on the same disk, copies elsewhere

The server may run: the database is copied as it is at one moment. What handler versions are locked to is taken along.
Raw data is never part of a backup; nor are environments and unfinished builds, which are made again. A hard link guards
against deletion, not against a disk that fails: copy such a backup to another disk. Every archive is read and compared
with its sha256; one that has rotted is left out and named, with exit status 1.
"""


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "backup", "copy the database, the settings and perhaps the archives", _EXAMPLES)
    parser.add_argument("target", type=Path, metavar="DIR", help="folder to make; must not exist, or be empty")
    parser.add_argument("--archives", action="store_true", help="take the archives along")
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Make the backup; 1 if it cannot be made, or an archive has rotted."""
    settings = settings_of(options)
    database = database_file(settings)
    if database is None:
        raise WrongUsageError("the database is not SQLite: back it up with its own tools, such as pg_dump")
    archives = ArchiveFolder(settings.data_dir / "archives") if options.archives else None
    try:
        made = back_up(
            database, masked(settings.model_dump_json(indent=2)), options.target, settings.environments, archives
        )
    except BackupError as error:
        print(f"dataset-server: no backup was made: {error}", file=sys.stderr)
        return 1
    files = made.manifest.files
    size = sum(file.bytes for file in files.values())
    print(f"{options.target}: {len(files)} files, {size} bytes; {len(made.manifest.left_out)} archives are not in it")
    for dataset_id in made.rotten:
        print(
            f"dataset-server: the archive of {dataset_id} is not what it was, or cannot be read; it was left out",
            file=sys.stderr,
        )
    return 1 if made.rotten else 0
