"""All SQL is in this package; `schema` holds the tables, `database` the connection, the others a subject each."""

from .builds import BuildStore, Lease, LeaseLostError, NewArchive, Wanted
from .database import Database, insist
from .datasets import EVENTS_AT_ONCE, Store, archive_data, shard_data

__all__ = [
    "EVENTS_AT_ONCE",
    "BuildStore",
    "Database",
    "Lease",
    "LeaseLostError",
    "NewArchive",
    "Store",
    "Wanted",
    "archive_data",
    "insist",
    "shard_data",
]
