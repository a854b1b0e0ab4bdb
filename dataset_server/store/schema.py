"""The tables, and their rows as the rest of the server sees them. The migrations make them; a test holds both equal.

``topics`` holds requests, ``askers`` the clients who joined the attempt a topic is at, ``datasets`` what is made of
requests, ``manifests`` the manifests of their archives, ``shards`` what is sealed of a dataset, and ``events`` what was
said on each topic. ``revisions`` holds archives that a newer one has taken the place of while they are read, and those
that a rebuild is to take the place of until it has,
``raw_files`` the digests of raw files by what tells that they changed, ``tokens`` who may ask, and ``audit`` who did
what. A *client* is the name of a token; empty where none was needed. Times are seconds since the epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text, false

#: States in which somebody works, or will work, on it.
ACTIVE = ("resolving", "installing", "queued", "planning", "building", "publishing")

metadata = MetaData()

topics = Table(
    "topics",
    metadata,
    Column("topic_id", String(255), primary_key=True),
    Column("dataset_name", String(64), nullable=False),
    Column("handler_version", String(128), nullable=False),
    Column("config", Text, nullable=False),
    Column("resolved_version", String(128), nullable=False),
    Column("dataset_id", String(255), index=True),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("last_number", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("client", String(64), nullable=False, server_default=""),  # who began its attempt
    Column("priority", Integer, nullable=False, server_default="0"),  # of its attempt
    Index("topics_by_client", "client", "state"),
)
askers = Table(
    "askers",
    metadata,
    Column("topic_id", String(255), primary_key=True),
    Column("client", String(64), primary_key=True),
)
datasets = Table(
    "datasets",
    metadata,
    Column("dataset_id", String(255), primary_key=True),
    Column("dataset_name", String(64), nullable=False),
    Column("resolved_version", String(128), nullable=False),
    Column("config", Text, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("error", Text),
    Column("archive_bytes", BigInteger),
    Column("archive_sha256", String(64)),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
    Column("client", String(64), nullable=False, server_default=""),  # whose turn its build takes
    Column("priority", Integer, nullable=False, server_default="0"),  # higher goes first
    Column("fence", BigInteger, nullable=False, server_default="0"),  # rises with each claim of the lease
    Column("lease_owner", String(64)),
    Column("lease_until", Float),
    Column("tries", Integer, nullable=False, server_default="0"),  # failures of this attempt that were tried again
    Column("not_before", Float),  # when the next try may begin
    Column("crashes", Integer, nullable=False, server_default="0"),  # servers that went down with it since a new shard
    Column("build_seconds", Float),  # what making it again would cost: the try that ended well took so long
    Column("reserved_bytes", BigInteger),  # disk set aside while it is built
    Column("revision", Integer, nullable=False, server_default="0"),  # of its archive: 1, 2 …; 0 before the first
    Column("provenance", String(64)),
    Column("pinned", Boolean, nullable=False, server_default=false()),
    Column("uses", BigInteger, nullable=False, server_default="0"),
    Column("last_used_at", Float),
    Column("checked_at", Float),  # when its archive was last published, or read again and found sound
    Column("manifest_sha256", String(64)),  # of the manifest in its archive
    # What lists are counted and read from, for each order: see `listing`.
    Index("datasets_by_name", "dataset_name", "state", "resolved_version", "pinned"),
    *(
        Index(f"datasets_by_{key}", key, "dataset_id", "dataset_name", "state", "resolved_version", "pinned")
        for key in ("created_at", "last_used_at", "archive_bytes")
    ),
    Index("datasets_by_checked_at", "state", "checked_at"),
)
manifests = Table(
    "manifests",
    metadata,
    Column("dataset_id", String(255), primary_key=True),
    # A column in the middle of a row of ``datasets`` would have to be read past to get at those after it.
    Column("manifest", Text, nullable=False),
)
revisions = Table(
    "revisions",
    metadata,
    Column("dataset_id", String(255), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("superseded_at", Float, nullable=False),
    Column("last_used_at", Float),
    Column("shards", Text, nullable=False),  # JSON: rows of `Shard`; large
)
raw_files = Table(
    "raw_files",
    metadata,
    Column("path", String(1024), primary_key=True),  # below the raw root
    Column("inode", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
)
tokens = Table(
    "tokens",
    metadata,
    Column("token_id", String(16), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("digest", String(64), nullable=False, unique=True, index=True),  # sha256 of the token
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
    Column("last_used_at", Float),
    Column("requests_per_minute", Integer),
    Column("queue_limit", Integer),
)
audit = Table(
    "audit",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False, index=True),
    Column("client", String(64), nullable=False),
    Column("action", String(32), nullable=False),
    Column("subject", String(255), nullable=False, index=True),
    Column("detail", Text, nullable=False),
)
shards = Table(
    "shards",
    metadata,
    Column("dataset_id", String(255), primary_key=True),
    Column("file", String(255), primary_key=True),
    Column("number", Integer, nullable=False),
    Column("split", String(64), nullable=False),
    Column("examples", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("offset", BigInteger),
)
events = Table(
    "events",
    metadata,
    Column("topic_id", String(255), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("data", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Index("events_by_kind", "topic_id", "kind"),
)


@dataclass(frozen=True)
class Topic:
    """A request as it was sent; ``dataset_id`` is known once the handler has read the config."""

    topic_id: str
    dataset_name: str
    handler_version: str
    config: str
    resolved_version: str
    dataset_id: str | None
    state: str
    attempt: int
    last_number: int
    created_at: float
    client: str
    priority: int

    @property
    def is_active(self) -> bool:
        """Whether its attempt has not ended."""
        return self.state in ACTIVE


@dataclass(frozen=True)
class Dataset:
    """What equal requests share; ``config`` is the canonical effective config."""

    dataset_id: str
    dataset_name: str
    resolved_version: str
    config: str
    state: str
    attempt: int
    error: str | None
    archive_bytes: int | None
    archive_sha256: str | None
    created_at: float
    finished_at: float | None
    client: str
    priority: int
    fence: int
    lease_owner: str | None
    lease_until: float | None
    tries: int
    not_before: float | None
    crashes: int
    build_seconds: float | None
    reserved_bytes: int | None
    revision: int
    provenance: str | None
    pinned: bool
    uses: int
    last_used_at: float | None
    checked_at: float | None
    manifest_sha256: str | None

    @property
    def is_active(self) -> bool:
        """Whether it is being made."""
        return self.state in ACTIVE


#: What a `Dataset` is made of, in its order.
DATASET_COLUMNS = list(datasets.c)
_PINNED = DATASET_COLUMNS.index(datasets.c.pinned)


def dataset_of(row: Sequence[Any]) -> Dataset:
    """A dataset from the values of `DATASET_COLUMNS`; SQLite's own answer to whether it is pinned is a number."""
    values = list(row)
    values[_PINNED] = bool(values[_PINNED])
    return Dataset(*values)


@dataclass(frozen=True)
class Shard:
    """A sealed shard; ``offset`` is where its bytes start in the archive, once that is published."""

    dataset_id: str
    file: str
    number: int
    split: str
    examples: int
    bytes: int
    sha256: str
    offset: int | None
