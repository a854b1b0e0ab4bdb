"""The command line, ``dataset-server COMMAND``; the commands are in `dataset_server.commands`."""

import argparse
import sys

from .commands import backup, check, openapi, restore, scrub, serve, token
from .commands.options import WrongUsageError

_COMMANDS = {
    "serve": serve,
    "check": check,
    "backup": backup,
    "restore": restore,
    "scrub": scrub,
    "openapi": openapi,
    "token": token,
}
_EPILOG = """\
first steps:
  dataset-server check --raw-root /data/raw --data-dir /data/server    would it work here?
  dataset-server serve --raw-root /data/raw --data-dir /data/server
"COMMAND --help" shows examples. Exit status: 0 all went well, 1 something failed or is wrong, 2 wrong usage.
docs/operations.md is the handbook.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="dataset-server",
        description="Makes datasets on request, each one once.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS.values():
        command.add_parser(commands)
    options = parser.parse_args(arguments)
    try:
        status: int = _COMMANDS[options.command].run(options)
    except WrongUsageError as error:
        print(f"dataset-server: {error}\n(see dataset-server {options.command} --help)", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
