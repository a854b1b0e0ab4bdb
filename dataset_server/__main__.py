"""The command line: ``dataset-server serve``."""

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from .app import serve
from .claim import AlreadyServedError
from .migrations import SchemaTooNewError
from .models import in_words
from .settings import load_settings

_EPILOG = """\
examples:
  dataset-server serve --raw-root /data/raw --data-dir /data/server
      serves coco, duts and composite over /data/raw/coco, /data/raw/duts, /data/raw/backgrounds
  dataset-server serve --config server.toml

server.toml:
  raw_root = "/data/raw"
  data_dir = "/data/server"
  [handlers.flowers]
  source = "git+https://example.org/flowers.git@{version}"

Every setting can also be given as an environment variable, DATASET_SERVER_<SETTING>; docs/settings.md lists them.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="dataset-server", description="Makes datasets on request, each one once.")
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser(
        "serve",
        help="serve until stopped",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serving.add_argument("--config", type=Path, metavar="FILE.toml", help="settings and handlers")
    serving.add_argument("--raw-root", type=Path, metavar="DIR", help="folder of the raw datasets; only read")
    serving.add_argument("--data-dir", type=Path, metavar="DIR", help="folder for database, archives, environments")
    serving.add_argument("--host", help="address to listen on (127.0.0.1; others need DATASET_SERVER_TOKEN)")
    serving.add_argument("--port", type=int, help="port to listen on (8710; 0 takes a free one)")
    serving.add_argument("--workers", type=int, metavar="N", help="worker processes of a build (one per core)")
    options = vars(parser.parse_args(arguments))
    options.pop("command")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = load_settings(options.pop("config"), **options)
    except ValidationError as error:
        print(f"dataset-server: {in_words(error)}\n(see dataset-server serve --help)", file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        print(f"dataset-server: the settings cannot be read: {error}", file=sys.stderr)
        return 2
    try:
        asyncio.run(serve(settings))
    except (OSError, AlreadyServedError, SchemaTooNewError, SQLAlchemyError, ImportError) as error:
        print(f"dataset-server: cannot start: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
