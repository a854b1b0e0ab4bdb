"""Where the server and the cache are, and how patient the client is: arguments, then the environment, then the
settings file, then defaults.

===========  ======================  =================================================  =======================
key          variable                meaning                                            default
===========  ======================  =================================================  =======================
server_url   DATASET_SERVER_URL      root of the dataset server, http or https          http://127.0.0.1:8710
token        DATASET_SERVER_TOKEN    bearer token                                       none
cache_dir    DATASET_CACHE_DIR       where unpacked datasets live                       the user's cache folder
cache_limit  DATASET_CACHE_LIMIT     bytes they may take: a number, or "200GB", "1TiB"  no limit
===========  ======================  =================================================  =======================

The file is TOML with these keys: ``config.toml`` in the user's configuration folder for ``dataset-client`` (on Linux
``~/.config/dataset-client/config.toml``), or the one that ``DATASET_CLIENT_CONFIG`` names.
"""

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

from dataset_client.backoff import RetryPolicy
from dataset_client.errors import InvalidSettingError
from dataset_client.protocol import API_PREFIX, DEFAULT_PORT

DEFAULT_SERVER_URL = f"http://127.0.0.1:{DEFAULT_PORT}"
#: The keys of a settings file, each with the environment variable that goes before it.
KEYS = {
    "server_url": "DATASET_SERVER_URL",
    "token": "DATASET_SERVER_TOKEN",
    "cache_dir": "DATASET_CACHE_DIR",
    "cache_limit": "DATASET_CACHE_LIMIT",
}

logger = logging.getLogger(__name__)

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kKMGTP])(i?))?B?")


@dataclass(frozen=True)
class Settings:
    """One call's settings; `resolve_settings` makes them. Raises `InvalidSettingError` for an impossible
    URL.

    ``cache_limit`` is in bytes; None is no limit. ``read_timeout_s`` is how long a download may stand still, and
    ``answer_timeout_s`` how long the server may think about a request: it may have to ask a Git host, and to run the
    handler that checks the config. A socket is pinged every ``heartbeat_s``, and given up if that is not answered in
    as long again.
    """

    server_url: str
    cache_dir: Path
    token: str | None = field(default=None, repr=False)
    cache_limit: int | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 20.0
    answer_timeout_s: float = 120.0
    heartbeat_s: float = 20.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.server_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise InvalidSettingError(
                f"{self.server_url!r} is not the root of a server",
                remedy=f"Write something like {DEFAULT_SERVER_URL} (server_url, or DATASET_SERVER_URL).",
            )

    def url(self, reference: str) -> str:
        """The absolute form of a URL from an answer or event, which may be relative to the API's root."""
        return urljoin(f"{self.server_url}{API_PREFIX}/", reference)

    def notifications_url(self, after: Mapping[str, int]) -> str:
        """The WebSocket URL that replays the events of topics after the numbers given, and then follows them."""
        parts = urlsplit(self.url("notifications"))
        scheme = "wss" if parts.scheme == "https" else "ws"
        return urlunsplit((scheme, parts.netloc, parts.path, _subscriptions(after), ""))

    def events_url(self, after: Mapping[str, int], *, wait_s: int) -> str:
        """The URL that gives the same events to who can open no socket, once there are some, or after ``wait_s``."""
        return f"{self.url('events')}?{_subscriptions(after)}&wait={wait_s}"

    def is_own(self, url: str) -> bool:
        """Whether ``url`` is on this server, so that it may see the token."""
        return urlsplit(url)[:2] == urlsplit(self.server_url)[:2]


def _subscriptions(after: Mapping[str, int]) -> str:
    return urlencode([pair for topic, number in after.items() for pair in (("topic", topic), ("after", number))])


def resolve_settings(
    *,
    server_url: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Fill in what the caller left out from ``environ``, then from the settings file, then from the defaults. An
    empty variable counts as unset. Raises `InvalidSettingError`, which says where the fault is.
    """
    chosen = _chosen({"server_url": server_url, "cache_dir": cache_dir, "token": token}, environ)
    limit = chosen.get("cache_limit")
    return Settings(
        server_url=str(chosen.get("server_url") or DEFAULT_SERVER_URL).rstrip("/"),
        cache_dir=_absolute_cache_dir(chosen.get("cache_dir")),
        token=chosen.get("token"),
        cache_limit=None if limit is None else parse_size(limit),
    )


def resolve_cache_dir(
    cache_dir: str | os.PathLike[str] | None = None, *, environ: Mapping[str, str] = os.environ
) -> Path:
    """The cache directory, absolute; it need not exist. Raises `InvalidSettingError` for a faulty settings file."""
    return _absolute_cache_dir(cache_dir or environ.get("DATASET_CACHE_DIR") or _chosen({}, environ).get("cache_dir"))


def parse_size(size: int | str) -> int:
    """Bytes from a number or from text such as ``200GB`` (10**9 each) or ``1.5 TiB`` (2**40 each).

    Raises `InvalidSettingError` for anything else.
    """
    match = _SIZE.fullmatch(str(size).strip())
    if match is None or isinstance(size, bool):
        raise InvalidSettingError(f"{size!r} is not a size", remedy="Write a number of bytes, or for example 200GB.")
    number, unit, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** (" KMGTP".index(unit.upper()) if unit else 0))


def settings_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the settings file is, or would be."""
    if named := environ.get("DATASET_CLIENT_CONFIG"):
        return Path(named).expanduser().absolute()
    import platformdirs  # only needed where nobody chose

    return platformdirs.user_config_path("dataset-client", appauthor=False) / "config.toml"


def read_settings_file(path: Path, *, must_exist: bool) -> dict[str, Any]:
    """The keys of a settings file; none if there is no such file and ``must_exist`` is False.

    Raises `InvalidSettingError` for a file that cannot be read, keys that nobody knows, and values of a wrong type.
    Warns of a file that holds the token and that others of this machine may read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if must_exist:
            remedy = "Correct DATASET_CLIENT_CONFIG, or leave it out."
            raise InvalidSettingError(f"there is no settings file {path}", remedy=remedy) from None
        return {}
    except (OSError, ValueError) as error:
        raise InvalidSettingError(f"the settings file {path} cannot be read: {error}") from error
    import tomllib  # only needed where there is a file

    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidSettingError(f"the settings file {path} is no TOML: {error}") from error
    for key, value in content.items():
        _check(path, key, value)
    if content.get("token") and path.stat().st_mode & 0o077 and os.name == "posix":
        logger.warning("%s holds a token, and others may read it; run: chmod 600 %s", path, path)
    return content


def _chosen(arguments: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """The value of each key that anybody has set: an argument, a variable, or the file."""
    named = bool(environ.get("DATASET_CLIENT_CONFIG"))
    values = [arguments, {key: environ.get(variable) for key, variable in KEYS.items()}]
    values.append(read_settings_file(settings_file(environ), must_exist=named))
    return {key: chosen for key in KEYS if (chosen := _first(source.get(key) for source in values)) is not None}


def _first(values: Any) -> Any:
    return next((value for value in values if value not in {None, ""}), None)


def _check(path: Path, key: str, value: Any) -> None:
    if key not in KEYS:
        import difflib  # only needed for this fault

        near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0)
        remedy = f"Did you mean {near[0]!r}? The keys are {', '.join(KEYS)}."
        raise InvalidSettingError(f"the settings file {path} has the unknown key {key!r}", remedy=remedy)
    kinds = (int, str) if key == "cache_limit" else (str,)
    if not isinstance(value, kinds) or isinstance(value, bool):
        expected = "a number of bytes, or a text such as '200GB'" if key == "cache_limit" else "a text"
        raise InvalidSettingError(f"the settings file {path} has {key} = {value!r}; it is {expected}")


def _absolute_cache_dir(chosen: Any) -> Path:
    if not chosen:
        import platformdirs  # only needed where nobody chose

        chosen = platformdirs.user_cache_dir("dataset-client", appauthor=False)
    return Path(chosen).expanduser().absolute()
