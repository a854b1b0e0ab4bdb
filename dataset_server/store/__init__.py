"""All SQL is in this package; `schema` holds the tables, `database` the connection, the others a subject each."""

from .database import Database, insist
from .datasets import Store, archive_data, shard_data

__all__ = ["Database", "Store", "archive_data", "insist", "shard_data"]
