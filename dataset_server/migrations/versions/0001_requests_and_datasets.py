"""Requests, datasets, shards and events, as the first servers made them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the four tables."""
    op.create_table(
        "topics",
        sa.Column("topic_id", sa.String(255), primary_key=True),
        sa.Column("dataset_name", sa.String(64), nullable=False),
        sa.Column("handler_version", sa.String(128), nullable=False),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("resolved_version", sa.String(128), nullable=False),
        sa.Column("dataset_id", sa.String(255)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("last_number", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_index("ix_topics_dataset_id", "topics", ["dataset_id"])
    op.create_table(
        "datasets",
        sa.Column("dataset_id", sa.String(255), primary_key=True),
        sa.Column("dataset_name", sa.String(64), nullable=False),
        sa.Column("resolved_version", sa.String(128), nullable=False),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("archive_bytes", sa.BigInteger),
        sa.Column("archive_sha256", sa.String(64)),
        sa.Column("manifest", sa.Text),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("finished_at", sa.Float),
    )
    op.create_index("ix_datasets_dataset_name", "datasets", ["dataset_name"])
    op.create_index("ix_datasets_state", "datasets", ["state"])
    op.create_table(
        "shards",
        sa.Column("dataset_id", sa.String(255), primary_key=True),
        sa.Column("file", sa.String(255), primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("split", sa.String(64), nullable=False),
        sa.Column("examples", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("offset", sa.BigInteger),
    )
    op.create_table(
        "events",
        sa.Column("topic_id", sa.String(255), primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_index("events_by_kind", "events", ["topic_id", "kind"])
