"""The sha256 of the manifest in a dataset's archive."""

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add it to ``datasets``, and find it for those that have a manifest, one at a time: manifests are large."""
    op.add_column("datasets", sa.Column("manifest_sha256", sa.String(64)))
    connection = op.get_bind()
    manifests = sa.table("manifests", sa.column("dataset_id"), sa.column("manifest"))
    datasets = sa.table("datasets", sa.column("dataset_id"), sa.column("manifest_sha256"))
    for dataset_id in connection.execute(sa.select(manifests.c.dataset_id)).scalars().all():
        wanted = sa.select(manifests.c.manifest).where(manifests.c.dataset_id == dataset_id)
        text: str = connection.execute(wanted).scalar_one()
        found = hashlib.sha256(text.encode()).hexdigest()
        same = datasets.c.dataset_id == dataset_id
        connection.execute(sa.update(datasets).where(same).values(manifest_sha256=found))
