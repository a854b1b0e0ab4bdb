"""``dataset-server check``."""

import argparse
import asyncio
import json
from collections.abc import Sequence

from pydantic import ValidationError

from ..checks import machine
from ..checks.everything import check_everything
from ..checks.finding import Finding, failed
from ..settings import load_settings
from .options import Commands, add_command, add_settings

_EXAMPLES = """\
examples:
  dataset-server check --config server.toml
  dataset-server check --config server.toml --json | jq '.findings[] | select(.level != "ok")'

It looks at the settings, programs, the kernel's containment of handlers, data folder, raw data, database, clock,
handlers' sources (over the network), environments, TLS files, port and open files, and says what to do about each
fault. It leaves nothing behind, and works while the server runs. Run it as the server's user.
Exit status: 0 nothing has failed (there may be warnings), 1 something has.
"""


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "check", "find what would not work, and say what to do about it", _EXAMPLES)
    add_settings(parser)
    parser.add_argument("--host", help="address to listen on")
    parser.add_argument("--port", type=int, help="port to listen on")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")


def run(options: argparse.Namespace) -> int:
    """Print what was found; 1 if anything has failed."""
    found = asyncio.run(_findings(options))
    failures = sum(finding.level == "failed" for finding in found)
    warnings = sum(finding.level == "warning" for finding in found)
    if options.json:
        findings = [finding.to_json() for finding in found]
        print(json.dumps({"failed": failures, "warnings": warnings, "findings": findings}, indent=2))
    else:
        print(*(finding.to_text() for finding in found), sep="\n")
        print(f"{failures} failed, {warnings} warnings")
    return 1 if failures else 0


async def _findings(options: argparse.Namespace) -> Sequence[Finding]:
    names = ("raw_root", "data_dir", "host", "port")
    try:
        settings = load_settings(options.config, **{name: getattr(options, name) for name in names})
    except ValidationError as error:
        return [*_faults(error), *await machine.programs(None)]
    except (OSError, ValueError) as error:
        return [failed("settings", f"they cannot be read: {error}", "correct the file given by --config")]
    return await check_everything(settings)


def _faults(error: ValidationError) -> list[Finding]:
    """Every fault of the settings that is known so far; some show only when others are gone."""
    found = []
    for item in error.errors(include_url=False):
        name = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        setting = str(item["loc"][0]) if item["loc"] else ""
        remedy = (
            f"set {setting} in the TOML file, or DATASET_SERVER_{setting.upper()}"
            if setting
            else "see docs/settings.md"
        )
        found.append(failed("settings", f"{name}: {message}" if name else message, remedy))
    return found
