"""What a handler process may say, checked line by line: it is foreign code, and names of files come from it."""

import json
import math
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from .errors import HandlerFaultError

_MetadataFile = Literal["features.json", "dataset_info.json", "lineage.jsonl", "manifest.json"]
METADATA_FILES: tuple[str, ...] = get_args(_MetadataFile)

_Split = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
#: Never a path: what is called otherwise is neither stored nor served.
ShardFile = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*-[a-z][a-z0-9_]*\.tfrecord-\d{5,9}-of-\d{5,9}$", max_length=200)
]
_Count = Annotated[int, Field(ge=0, le=2**53)]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Described(_Event):
    """The answer to ``describe``; everything beyond these fields is passed on as it is."""

    model_config = ConfigDict(frozen=True, extra="allow")

    event: Literal["described"]
    handler_api: Any = None
    effective_config: dict[str, Any] | None = None


class Planned(_Event):
    """The answer to ``plan``."""

    event: Literal["planned"]


class Progress(_Event):
    """How many samples of how many are done."""

    event: Literal["progress"]
    done: _Count
    total: _Count


class Shard(_Event):
    """A sealed shard."""

    event: Literal["shard"]
    number: _Count
    file: ShardFile
    split: _Split
    examples: _Count
    bytes: _Count
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Finished(_Event):
    """The end of ``build``: every file of the dataset, shards first."""

    event: Literal["finished"]
    files: tuple[ShardFile | _MetadataFile, ...]


class ConfigFault(_Event):
    """One fault of a config; ``path`` is a JSON pointer into it."""

    path: str
    reason: str


class Fault(_Event):
    """Why a command failed."""

    event: Literal["error"]
    code: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")] = "handler_failed"
    message: str = ""
    faults: tuple[ConfigFault, ...] = ()


HandlerEvent = Described | Planned | Progress | Shard | Finished | Fault

_EVENTS: TypeAdapter[HandlerEvent] = TypeAdapter(Annotated[HandlerEvent, Field(discriminator="event")])


def loads_foreign(content: bytes, what: str) -> Any:
    """The JSON (RFC 8259) in a handler's ``content``.

    Raises `HandlerFaultError` (``handler_protocol``), which says that the handler wrote ``what``, for what is no JSON,
    is nested too deep, or has numbers that JSON does not have or Python cannot hold (NaN, Infinity, 1e999).
    """
    try:
        return json.loads(content, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError, OverflowError) as error:
        raise HandlerFaultError("handler_protocol", f"the handler wrote {what}") from error


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:30]} is too large")
    return number


def parse_event(line: bytes) -> HandlerEvent:
    """Read one line; raises `HandlerFaultError` (``handler_protocol``) for what is no event."""
    shown = line[:100].decode(errors="replace").strip()
    try:
        return _EVENTS.validate_python(loads_foreign(line, f"a line that is no event: {shown!r}"))
    except ValidationError as error:
        reason = f" ({error.errors()[0]['msg']})"
        raise HandlerFaultError(
            "handler_protocol", f"the handler printed what is no event{reason}: {shown!r}"
        ) from error
