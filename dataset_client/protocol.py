"""What client and server agree on: identities, states, events, and the limits of a request.

Identity
--------
A *topic* names a request, and the client can compute it before it asks::

    topic_id = hash_dataset_name(dataset_name, handler_version, canonical_json(config as sent))

A *dataset id* names the one archive that all equal requests share; only the server can compute it::

    dataset_id = hash_dataset_name(dataset_name, resolved version, canonical_json(effective config))

Both read ``<dataset_name>_<version>_<md5, 32 hex digits>.zip``.

Messages on the notification socket, one JSON object per text frame
--------------------------------------------------------------------
::

    {"kind": "subscribed", "topic_id": str, "number": last event so far, "attempt": current attempt}
    {"kind": one of EVENT_KINDS, "topic_id": str, "number": 1, 2, 3 …, "attempt": 1, 2 …, "data": {…}}

``subscribed`` answers each subscription once, before the replay; an attempt of 0 means that nobody has asked for
this topic yet. Numbers rise by topic; numbers of outdated ``progress`` events may be missing from a replay.
``data`` by kind:

=========  =======================================================================================
state      ``state`` (one of STATES), ``dataset_id`` once it is known; where it is ``queued`` perhaps
           ``position`` (1 is next) and ``ahead``, or why: ``reason``, ``message``, ``try``, ``retry_at``
progress   ``done``, ``total`` (samples), ``rate`` (samples/s), ``eta`` (seconds or null)
shard      ``file``, ``split``, ``examples``, ``bytes``, ``sha256``, ``url``
ready      ``dataset_id``, ``archive``: ``{url, bytes, sha256, manifest_sha256}``
failed     ``code``, ``message``, ``log`` (the handler's last lines), ``faults`` (with code config_refused)
cancelled  ``message``, ``code``, ``by`` (a client; empty for the server itself)
=========  =======================================================================================

Each attempt ends in exactly one of TERMINAL_KINDS.
"""

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import rfc8785

API_PREFIX = "/api/v1"
DEFAULT_PORT = 8710

STATES = (
    "resolving",
    "installing",
    "queued",
    "planning",
    "building",
    "publishing",
    "ready",
    "failed",
    "cancelled",
    "evicted",  # of datasets alone: it was ready, and its archive is gone; who asks for it has it made again
)
EVENT_KINDS = ("state", "progress", "shard", "ready", "failed", "cancelled")
TERMINAL_KINDS = frozenset({"ready", "failed", "cancelled"})

#: A dataset name is also a TensorFlow Datasets name and a part of file names.
NAME_PATTERN = re.compile(r"[a-z][a-z0-9_]{0,63}")
#: A handler version: a release, tag or commit; never an option, a path or a range.
VERSION_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
ID_PATTERN = re.compile(rf"({NAME_PATTERN.pattern})_({VERSION_PATTERN.pattern})_([0-9a-f]{{32}})\.zip")

MAX_REQUEST_BYTES = 1 << 20
MAX_CONFIG_DEPTH = 64


class MalformedConfigError(ValueError):
    """The configuration cannot be written as canonical JSON."""


def hash_dataset_name(dataset_name: str, handler_version: str, dataset_config: str) -> str:
    """Name a request or a dataset: ``'<dataset_name>_<handler_version>_<md5 of dataset_config, utf-8>.zip'``.

    ``dataset_config`` is canonical JSON (see `canonical_json`). The md5 names; it proves nothing.
    """
    return f"{dataset_name}_{handler_version}_{config_md5(dataset_config)}.zip"


def config_md5(dataset_config: str) -> str:
    """The md5 of a canonical config in hex, as it appears in an id."""
    return hashlib.md5(dataset_config.encode("utf-8"), usedforsecurity=False).hexdigest()


def canonical_json(config: Mapping[str, Any]) -> str:
    """Write ``config`` as canonical JSON (RFC 8785): sorted keys, shortest numbers, no spaces.

    Tuples count as lists. Raises `MalformedConfigError` for what JSON cannot say exactly: NaN and infinities,
    integers beyond 2**53 - 1, lone surrogates, keys that are no strings, other types, and nesting deeper than
    `MAX_CONFIG_DEPTH`.
    """
    if not isinstance(config, Mapping):
        raise MalformedConfigError(f"a config is a JSON object, not {type(config).__name__}")
    try:
        return rfc8785.dumps(_plain(config, "", 1)).decode("utf-8")
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise MalformedConfigError(f"the config has no canonical JSON form: {error}") from error


def _plain(value: Any, path: str, depth: int) -> Any:
    """``value`` in the JSON types alone, or `MalformedConfigError` with the path of what is not."""
    if depth > MAX_CONFIG_DEPTH:
        raise MalformedConfigError(f"the config is nested deeper than {MAX_CONFIG_DEPTH} levels")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise MalformedConfigError(f"{path or '/'}: key {key!r} is {type(key).__name__}, not a string")
        return {key: _plain(item, f"{path}/{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}/{index}", depth + 1) for index, item in enumerate(value)]
    raise MalformedConfigError(f"{path or '/'}: {type(value).__name__} is not a JSON type")


@dataclass(frozen=True)
class Event:
    """A message on a topic; ``kind`` and ``data`` as the module describes them."""

    topic_id: str
    number: int
    attempt: int
    kind: str
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def is_terminal(self) -> bool:
        """Whether its attempt ends with it."""
        return self.kind in TERMINAL_KINDS

    def to_json(self) -> str:
        """The text frame that carries it; made once, however many it is sent to."""
        return self._text

    @functools.cached_property
    def _text(self) -> str:
        return json.dumps(
            {
                "kind": self.kind,
                "topic_id": self.topic_id,
                "number": self.number,
                "attempt": self.attempt,
                "data": self.data,
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> "Event":
        """Read a text frame; raises `ValueError` for what is not an event (or a ``subscribed`` message)."""
        return cls.from_message(json.loads(text))

    @classmethod
    def from_message(cls, message: Any) -> "Event":
        """Read what JSON says; raises `ValueError` for what is not an event (or a ``subscribed`` message)."""
        try:
            return cls(
                topic_id=str(message["topic_id"]),
                number=int(message["number"]),
                attempt=int(message["attempt"]),
                kind=str(message["kind"]),
                data=dict(message.get("data") or {}),
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not an event: {str(message)[:200]}") from error
