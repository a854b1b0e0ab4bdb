"""The tables, and their rows as the rest of the server sees them. Queries are in `store`.

``topics`` holds requests, ``datasets`` what is made of them, ``shards`` what is sealed of a dataset, and ``events``
what was said on each topic.
"""

from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text

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
)
datasets = Table(
    "datasets",
    metadata,
    Column("dataset_id", String(255), primary_key=True),
    Column("dataset_name", String(64), nullable=False, index=True),
    Column("resolved_version", String(128), nullable=False),
    Column("config", Text, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("error", Text),
    Column("archive_bytes", BigInteger),
    Column("archive_sha256", String(64)),
    Column("manifest", Text),  # large: read by `Store.manifest` alone
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
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

    @property
    def is_active(self) -> bool:
        """Whether it is being made."""
        return self.state in ACTIVE


#: All of a dataset but its manifest.
DATASET_COLUMNS = [column for column in datasets.c if column.name != "manifest"]


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
