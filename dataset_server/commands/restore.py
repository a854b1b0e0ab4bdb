"""``dataset-server restore``."""

import argparse
import sys
from pathlib import Path

from ..backup import BackupError, restore
from .options import Commands, add_command

_EXAMPLES = """\
example:
  dataset-server restore /backups/2026-03-01 --data-dir /data/server-restored
  dataset-server serve --config server.toml --data-dir /data/server-restored

Every file is compared with its checksum before the database appears. A folder that holds anything is refused, and so
is a backup of a later server. Datasets whose archives are not in the backup are made again when somebody asks for them.
What handler versions are locked to comes to NEW/environments: where the setting environments_dir names another folder,
and that is lost, move these files there. settings.json in the backup says what the settings were; secrets are masked.
"""


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "restore", "make a data folder of a backup", _EXAMPLES)
    parser.add_argument("source", type=Path, metavar="DIR", help="folder that `backup` made")
    parser.add_argument("--data-dir", type=Path, required=True, metavar="NEW", help="data folder to make")


def run(options: argparse.Namespace) -> int:
    """Restore; 1 if that cannot be done."""
    try:
        manifest = restore(options.source, options.data_dir)
    except BackupError as error:
        print(f"dataset-server: nothing was restored: {error}", file=sys.stderr)
        return 1
    left_out = len(manifest.left_out)
    print(f"{options.data_dir}: {len(manifest.files)} files; {left_out} datasets will be made again when asked for")
    return 0
