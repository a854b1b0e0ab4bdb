"""What there is of a dataset to be downloaded, found in one statement: every download asks, twice."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Integer, String, and_, bindparam, func, select

from .database import Database
from .schema import DATASET_COLUMNS, Dataset, Shard, dataset_of, datasets, revisions, shards

_KEPT = (revisions.c.bytes, revisions.c.sha256, revisions.c.shards)


@dataclass(frozen=True)
class Offer:
    """What there is of a dataset at one moment, as ``revision``: the one that was asked for, or its own.

    ``bytes`` and ``sha256`` are the archive's, None where there is none. ``shard`` is the one that was asked for: in
    the archive at its ``offset``, or without one in the folder of a build.
    """

    dataset: Dataset
    revision: int
    bytes: int | None
    sha256: str | None
    shard: Shard | None


class Offers:
    """Finds what there is of datasets."""

    def __init__(self, database: Database) -> None:
        wanted, revision = bindparam("dataset_id", type_=String), bindparam("revision", type_=Integer)
        kept = revisions.c.dataset_id == wanted, revisions.c.revision == func.coalesce(revision, datasets.c.revision)
        sealed = shards.c.dataset_id == wanted, shards.c.file == bindparam("file")
        # One statement: whatever is published meanwhile, all it returns is from one moment.
        self._fetch = database.prepare(
            select(*DATASET_COLUMNS, *_KEPT, *shards.c)
            .select_from(datasets)
            .outerjoin(revisions, and_(*kept))
            .outerjoin(shards, and_(*sealed))
            .where(datasets.c.dataset_id == wanted)
        )

    async def find(self, dataset_id: str, revision: int | None = None, file: str | None = None) -> Offer | None:
        """What there is of a dataset: its archive of a ``revision``, its own by default, and the shard ``file``.

        Without a revision, the shards of a build at work come before those of the archive it is to take the place of.
        None if there is no such dataset.
        """
        rows = await self._fetch(dataset_id=dataset_id, revision=revision, file=file or "")
        if not rows:
            return None
        row = tuple(rows[0])
        of_kept = len(DATASET_COLUMNS)
        of_shard = of_kept + len(_KEPT)
        dataset, shard = dataset_of(row[:of_kept]), row[of_shard:]
        sealed = Shard(*shard) if shard[0] is not None else None
        asked = dataset.revision if revision is None else revision
        return _offer(dataset, asked, row[of_kept:of_shard], sealed, is_own=revision is None, file=file)


def _offer(
    dataset: Dataset, revision: int, kept: Sequence[Any], sealed: Shard | None, *, is_own: bool, file: str | None
) -> Offer:
    """Make sense of a row: bytes, sha256 and shards of a ``kept`` archive, or nothing; ``sealed`` is the present shard
    of the dataset.
    """
    if dataset.state == "ready" and dataset.revision == revision:
        in_archive = sealed if sealed and sealed.offset is not None else None
        return Offer(dataset, revision, dataset.archive_bytes or 0, dataset.archive_sha256 or "", in_archive)
    size, sha256, kept_shards = kept
    # The shards of an attempt that came to nothing do not hide those of the archive that stayed.
    is_best = dataset.is_active or size is None
    of_build = sealed if is_own and is_best and dataset.state != "evicted" else None
    if size is None:
        return Offer(dataset, revision, None, None, of_build)
    found = (Shard(**shard) for shard in json.loads(kept_shards) if shard["file"] == file) if file else iter(())
    return Offer(dataset, revision, size, sha256, of_build or next(found, None))
