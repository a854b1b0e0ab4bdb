"""What the commands share: the options that lead to the settings, and how a wrong one is told."""

import argparse
from pathlib import Path
from typing import TypeAlias

from pydantic import ValidationError

from ..credentials import masked
from ..models import in_words
from ..settings import Settings, load_settings

#: What `add_parser` is given.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class WrongUsageError(Exception):
    """The command line or the settings are wrong; the message says which and how."""


def add_command(commands: Commands, name: str, summary: str, more: str) -> argparse.ArgumentParser:
    """A subcommand whose ``--help`` ends with ``more``, as it is written."""
    return commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The options that say which server is meant."""
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help="settings and handlers")
    parser.add_argument("--raw-root", type=Path, metavar="DIR", help="folder of the raw datasets; only read")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder for database, archives, environments")


def settings_of(options: argparse.Namespace, *names: str) -> Settings:
    """The settings that the options, the environment and the file make; ``names`` are further options that are some.

    Raises `WrongUsageError`.
    """
    given = {name: getattr(options, name) for name in ("raw_root", "data_dir", *names)}
    try:
        return load_settings(options.config, **given)
    except ValidationError as error:
        raise WrongUsageError(masked(in_words(error))) from error
    except (OSError, ValueError) as error:
        raise WrongUsageError(masked(f"the settings cannot be read: {error}")) from error
