"""``dataset-server openapi``."""

import argparse
import json

from ..openapi import document
from .options import Commands, add_command

_EXAMPLES = """\
example:
  dataset-server openapi > openapi.json
      the document that a running server has at /api/v1/openapi.json; needs no settings
"""


def add_parser(commands: Commands) -> None:
    """Add the command."""
    add_command(commands, "openapi", "print the OpenAPI 3.1 document of the API", _EXAMPLES)


def run(_: argparse.Namespace) -> int:
    """Print the document."""
    print(json.dumps(document(), indent=2))
    return 0
