"""``dataset-server serve``."""

import argparse
import asyncio
import sys

from sqlalchemy.exc import SQLAlchemyError

from ..app import serve
from ..auth import OpenToEveryoneError
from ..claim import AlreadyServedError
from ..connections import allow_open_files
from ..logs import set_up
from ..migrations import SchemaTooNewError
from .options import Commands, add_command, add_settings, settings_of

_EXAMPLES = """\
examples:
  dataset-server serve --raw-root /data/raw --data-dir /data/server
      serves coco, duts and the other built-in handlers over /data/raw/coco, /data/raw/duts …
  dataset-server serve --config server.toml

server.toml:
  raw_root = "/data/raw"
  data_dir = "/data/server"
  [handlers.flowers]
  source = "git+https://example.org/flowers.git@{version}"

Every setting can also be given as an environment variable, DATASET_SERVER_<SETTING>; docs/settings.md lists them.
SIGTERM or Ctrl-C stops it; unfinished builds go on at the next start. "dataset-server check" finds what would not work.
"""

_DATABASE_REMEDY = """\
"dataset-server check" looks at it; if it is damaged, move the data folder aside and restore the last backup
(docs/operations.md)."""


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "serve", "serve until stopped", _EXAMPLES)
    add_settings(parser)
    parser.add_argument("--host", help="address to listen on (127.0.0.1; others need a token)")
    parser.add_argument("--port", type=int, help="port to listen on (8710; 0 takes a free one)")
    workers = "worker processes, shared by the builds that may run at once (one per core)"
    parser.add_argument("--workers", type=int, metavar="N", help=workers)


def run(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; 1 if it cannot start, 2 if it must not with these settings."""
    settings = settings_of(options, "host", "port", "workers")
    set_up(settings.log_format, settings.log_level)
    allow_open_files()
    try:
        asyncio.run(serve(settings))
    except OpenToEveryoneError as error:
        print(f"dataset-server: {error}", file=sys.stderr)
        return 2
    except SQLAlchemyError as error:
        print(f"dataset-server: cannot start: the database: {getattr(error, 'orig', None) or error}", file=sys.stderr)
        print(_DATABASE_REMEDY, file=sys.stderr)
        return 1
    except (OSError, AlreadyServedError, SchemaTooNewError, ImportError) as error:
        print(f"dataset-server: cannot start: {error}", file=sys.stderr)
        return 1
    return 0
