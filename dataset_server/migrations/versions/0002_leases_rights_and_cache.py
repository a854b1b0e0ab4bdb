"""Leases and retries of builds, revisions and use of archives, tokens, the audit, and the ledger of raw files."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add to ``topics`` and ``datasets``, take the manifests out of these, and make the tables that are new."""
    op.add_column("topics", sa.Column("client", sa.String(64), nullable=False, server_default=""))
    op.add_column("topics", sa.Column("priority", sa.Integer, nullable=False, server_default="0"))
    op.create_index("topics_by_client", "topics", ["client", "state"])
    op.create_table(
        "askers",
        sa.Column("topic_id", sa.String(255), primary_key=True),
        sa.Column("client", sa.String(64), primary_key=True),
    )
    for column in (
        sa.Column("client", sa.String(64), nullable=False, server_default=""),
        sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
        sa.Column("fence", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("lease_owner", sa.String(64)),
        sa.Column("lease_until", sa.Float),
        sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("not_before", sa.Float),
        sa.Column("crashes", sa.Integer, nullable=False, server_default="0"),
        sa.Column("build_seconds", sa.Float),
        sa.Column("reserved_bytes", sa.BigInteger),
        sa.Column("revision", sa.Integer, nullable=False, server_default="0"),
        sa.Column("provenance", sa.String(64)),
        sa.Column("pinned", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("uses", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("last_used_at", sa.Float),
        sa.Column("checked_at", sa.Float),
    ):
        op.add_column("datasets", column)
    op.execute(
        "UPDATE datasets SET revision = 1, last_used_at = finished_at, checked_at = finished_at WHERE state = 'ready'"
    )
    op.drop_index("ix_datasets_dataset_name", "datasets")
    op.create_index("datasets_by_name", "datasets", ["dataset_name", "state", "resolved_version", "pinned"])
    for key in ("created_at", "last_used_at", "archive_bytes"):
        listed = [key, "dataset_id", "dataset_name", "state", "resolved_version", "pinned"]
        op.create_index(f"datasets_by_{key}", "datasets", listed)
    op.create_index("datasets_by_checked_at", "datasets", ["state", "checked_at"])
    op.create_table(
        "manifests",
        sa.Column("dataset_id", sa.String(255), primary_key=True),
        sa.Column("manifest", sa.Text, nullable=False),
    )
    op.execute(
        "INSERT INTO manifests (dataset_id, manifest) SELECT dataset_id, manifest FROM datasets "
        "WHERE manifest IS NOT NULL"
    )
    op.drop_column("datasets", "manifest")
    op.create_table(
        "revisions",
        sa.Column("dataset_id", sa.String(255), primary_key=True),
        sa.Column("revision", sa.Integer, primary_key=True),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("superseded_at", sa.Float, nullable=False),
        sa.Column("last_used_at", sa.Float),
        sa.Column("shards", sa.Text, nullable=False),
    )
    op.create_table(
        "raw_files",
        sa.Column("path", sa.String(1024), primary_key=True),
        sa.Column("inode", sa.BigInteger, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
    )
    op.create_table(
        "tokens",
        sa.Column("token_id", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float),
        sa.Column("revoked_at", sa.Float),
        sa.Column("last_used_at", sa.Float),
        sa.Column("requests_per_minute", sa.Integer),
        sa.Column("queue_limit", sa.Integer),
    )
    op.create_index("ix_tokens_digest", "tokens", ["digest"], unique=True)
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("client", sa.String(64), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_index("ix_audit_subject", "audit", ["subject"])
