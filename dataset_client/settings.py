"""Where the server and the cache are, and how patient the client is: arguments, then the environment, then
defaults.

======================  ==============================================  =======================
variable                meaning                                         default
======================  ==============================================  =======================
DATASET_SERVER_URL      root of the dataset server, http or https       http://127.0.0.1:8710
DATASET_SERVER_TOKEN    bearer token                                    none
DATASET_CACHE_DIR       where unpacked datasets live                    the user's cache folder
======================  ==============================================  =======================
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

from dataset_client.backoff import RetryPolicy
from dataset_client.errors import InvalidSettingError
from dataset_client.protocol import API_PREFIX, DEFAULT_PORT

DEFAULT_SERVER_URL = f"http://127.0.0.1:{DEFAULT_PORT}"


@dataclass(frozen=True)
class Settings:
    """One call's settings; `resolve_settings` makes them. Raises `InvalidSettingError` for an impossible
    URL.

    ``read_timeout_s`` is how long a download may stand still, and ``answer_timeout_s`` how long the server may think
    about a request: it may have to ask a Git host, and to run the handler that checks the config.
    """

    server_url: str
    cache_dir: Path
    token: str | None = field(default=None, repr=False)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 20.0
    answer_timeout_s: float = 120.0

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

    def notifications_url(self, topic_id: str) -> str:
        """The WebSocket URL that replays a topic's events and then follows it."""
        parts = urlsplit(self.url("notifications"))
        query = urlencode({"topic": topic_id, "after": 0})
        return urlunsplit(("wss" if parts.scheme == "https" else "ws", parts.netloc, parts.path, query, ""))

    def is_own(self, url: str) -> bool:
        """Whether ``url`` is on this server, so that it may see the token."""
        return urlsplit(url)[:2] == urlsplit(self.server_url)[:2]


def resolve_settings(
    *,
    server_url: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Fill in what the caller left out from ``environ``, then from the defaults. An empty variable counts
    as unset.
    """
    return Settings(
        server_url=(server_url or environ.get("DATASET_SERVER_URL") or DEFAULT_SERVER_URL).rstrip("/"),
        cache_dir=resolve_cache_dir(cache_dir, environ=environ),
        token=token or environ.get("DATASET_SERVER_TOKEN") or None,
    )


def resolve_cache_dir(
    cache_dir: str | os.PathLike[str] | None = None, *, environ: Mapping[str, str] = os.environ
) -> Path:
    """The cache directory, absolute; it need not exist."""
    chosen = cache_dir or environ.get("DATASET_CACHE_DIR")
    if not chosen:
        import platformdirs  # only needed where nobody chose

        chosen = platformdirs.user_cache_dir("dataset-client", appauthor=False)
    return Path(chosen).expanduser().absolute()
