"""What a handler says of itself, as text for people."""

import json
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any


def render(name: str, event: Mapping[str, Any]) -> str:
    """The ``described`` event: what the handler is, every option with its default, and what a config means."""
    return "\n".join(_lines(name, event)) + "\n"


def _lines(name: str, event: Mapping[str, Any]) -> Iterator[str]:
    width = max(60, min(100, shutil.get_terminal_size().columns))
    yield from textwrap.wrap(f"{name}: {event.get('doc') or 'not documented'}", width)
    yield ""
    for option, about in event["options"].items():
        default = json.dumps(about["default"], ensure_ascii=False) if "default" in about else "required"
        reader = "  (for the reader alone)" if about.get("reader_only") else ""
        yield f"  {option} = {default}{reader}"
        yield from textwrap.wrap(str(about.get("doc", "")), width, initial_indent="      ", subsequent_indent="      ")
    if "effective_config" in event:
        yield ""
        yield f"effective config: {json.dumps(event['effective_config'], ensure_ascii=False)}"
