"""Where two folders that should be equal differ, said so that an author finds the line to mend."""

import filecmp
import itertools
import json
from pathlib import Path
from typing import Any

from ..errors import HandlerError
from ..example_proto import decode_example
from ..tfrecord import read_records


def difference(one: Path, other: Path) -> str | None:
    """The first difference between two folders of JSON files and shards, in words; None if there is none."""
    names = [
        {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} for folder in (one, other)
    ]
    if only := sorted(names[0] ^ names[1]):
        return f"{only[0]} is in one of them only"
    # Shards first: the manifest differs with them, and says less.
    for name in sorted(names[0], key=lambda name: (".tfrecord" not in name, name)):
        a, b = one / name, other / name
        if not filecmp.cmp(a, b, shallow=False):
            return f"{name} differs: {_records(a, b) if '.tfrecord' in name else _json(a, b)}"
    return None


def _records(one: Path, other: Path) -> str:
    try:
        pairs = itertools.zip_longest(read_records(one), read_records(other))
        for index, (a, b) in enumerate(pairs):
            if a is None or b is None:
                return f"one ends after {index} examples"
            if a != b:
                first, second = decode_example(a), decode_example(b)
                fields = [name for name in first | second if first.get(name) != second.get(name)]
                return f"example {index} in {', '.join(f'`{name}`' for name in fields)}"
    except HandlerError as error:
        return str(error)
    return "in bytes between the records"


def _json(one: Path, other: Path) -> str:
    try:
        texts = one.read_text(), other.read_text()
        if one.suffix == ".jsonl":
            for index, (a, b) in enumerate(itertools.zip_longest(*(text.splitlines() for text in texts))):
                if a != b:
                    return f"line {index + 1}"
        found = _path(json.loads(texts[0]), json.loads(texts[1]), "")
    except ValueError as error:
        return str(error)
    return found or "in its spelling only"


def _path(one: Any, other: Any, path: str) -> str | None:
    """Where two JSON values first differ, with what is there."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys()):
            if found := _path(one.get(name), other.get(name), f"{path}/{name}"):
                return found
        return None
    if isinstance(one, list) and isinstance(other, list):
        for index, (a, b) in enumerate(itertools.zip_longest(one, other)):
            if found := _path(a, b, f"{path}/{index}"):
                return found
        return None
    return None if one == other else f"{path or '/'} is {_short(one)} and {_short(other)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:59]}…"
