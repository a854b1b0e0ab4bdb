"""A cache over a real database and real files, without a server around it."""

import asyncio
import contextlib
import hashlib
import json
import time
from dataclasses import asdict

from sqlalchemy import delete, insert, select, update

from dataset_server.cache import Cache
from dataset_server.metrics import Metrics
from dataset_server.settings import Settings
from dataset_server.store import Database
from dataset_server.store.cache import CacheStore
from dataset_server.store.offers import Offers
from dataset_server.store.schema import DATASET_COLUMNS, Dataset, Shard, datasets, revisions, shards

DAY = 24 * 3600.0


def dataset_id(number: int) -> str:
    return f"tones_1.0_{number:032x}.zip"


class Scene:
    """Datasets in a database, with archives of the given sizes on disk."""

    def __init__(self, tmp_path, **options) -> None:
        (tmp_path / "raw").mkdir(exist_ok=True)
        given = {"quota": None, "disk_reserve": 0, **options}
        self.settings = Settings(raw_root=tmp_path / "raw", data_dir=tmp_path / "data", **given)
        self.settings.data_dir.mkdir(exist_ok=True)
        self.metrics = Metrics.create()
        self.database = Database(self.settings.database)
        self.store = CacheStore(self.database)
        self.offers = Offers(self.database)
        self.cache = Cache(self.settings, self.database, self.metrics)

    async def add(self, number: int, size: int, *, age: float = DAY, sparse: bool = False, **values) -> Dataset:
        """A dataset that is ready since ``age`` seconds, its archive two shards of half its ``size``; ``sparse`` files
        are zeros that take no room."""
        name, then = dataset_id(number), time.time() - age
        content = b"" if sparse else bytes(number + index for index in range(2)) * (size // 2)
        halves = [content[: size // 2], content[size // 2 :]]
        row = {
            "dataset_id": name,
            "dataset_name": "tones",
            "resolved_version": "1.0",
            "config": "{}",
            "state": "ready",
            "attempt": 1,
            "created_at": then - 10,
            "finished_at": then,
            "checked_at": then,
            "archive_bytes": size,
            "archive_sha256": hashlib.sha256(content).hexdigest(),
            "revision": 1,
            "build_seconds": 10.0,
            **values,
        }
        sealed = [
            Shard(
                name, f"s{place}", place, "train", 5, size // 2, hashlib.sha256(half).hexdigest(), place * (size // 2)
            )
            for place, half in enumerate(halves)
        ]
        async with self.database.writing() as db:
            await db.execute(insert(datasets).values(**row))
            await db.execute(insert(shards), [asdict(shard) for shard in sealed])
        if row["state"] == "ready":
            self.write(name, row["revision"], content, size)
        return await self.dataset(number)

    async def supersede(self, number: int, revision: int, size: int, *, age: float = DAY) -> None:
        """An archive that a newer one has taken the place of, since ``age`` seconds."""
        row = {"bytes": size, "sha256": "0" * 64, "shards": "[]", "superseded_at": time.time() - age}
        async with self.database.writing() as db:
            await db.execute(insert(revisions).values(dataset_id=dataset_id(number), revision=revision, **row))
        self.write(dataset_id(number), revision, bytes(size), size)

    async def keep(self, dataset: Dataset, **values) -> None:
        """Have the archive of a dataset that is ready kept, as while it is made anew, and with these values after."""
        ours = {"dataset_id": dataset.dataset_id}
        async with self.database.writing() as db:
            sealed = [dict(row._mapping) for row in await db.execute(select(shards).filter_by(**ours))]
            row = {"revision": dataset.revision, "bytes": dataset.archive_bytes, "sha256": dataset.archive_sha256}
            kept = {**ours, **row, "shards": json.dumps(sealed), "superseded_at": time.time()}
            await db.execute(insert(revisions).values(**kept))
            await db.execute(delete(shards).filter_by(**ours))
            await db.execute(update(datasets).filter_by(**ours).values(**values))

    def write(self, name: str, revision: int, content: bytes, size: int) -> None:
        path = self.cache.archive_path(name, revision)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(content)
            file.truncate(size)

    async def dataset(self, number: int) -> Dataset:
        async with self.database.reading() as db:
            where = datasets.c.dataset_id == dataset_id(number)
            return Dataset(**(await db.execute(select(*DATASET_COLUMNS).where(where))).one()._mapping)

    async def states(self) -> dict[int, str]:
        async with self.database.reading() as db:
            rows = await db.execute(select(datasets.c.dataset_id, datasets.c.state))
            return {int(name[-36:-4], 16): state for name, state in rows}

    def files(self) -> set[str]:
        """The archives that are there, as ``number.revision``."""
        found = (path.name.removesuffix(".zip").rpartition("_")[2] for path in self.archives.glob("*.zip"))
        return {f"{int(name.split('.r')[0], 16)}.{name.split('.r')[1]}" for name in found}

    @property
    def archives(self):
        return self.settings.data_dir / "archives"


@contextlib.asynccontextmanager
async def opened(scene: Scene):
    await scene.database.create()
    try:
        yield scene
    finally:
        await scene.cache.close()
        await scene.database.close()


def run_in(scene: Scene, test) -> None:
    """Run ``test(scene)`` with the database open."""

    async def run() -> None:
        async with opened(scene):
            await test(scene)

    asyncio.run(run())
