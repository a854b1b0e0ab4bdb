"""What is in a backup, and what a disk that fails makes of it; the commands are in `test_operations`."""

import asyncio
import errno
import os
import time

import pytest
from sqlalchemy import select

from dataset_server import backup as module
from dataset_server.archive_folder import ArchiveFolder
from dataset_server.backup import BackupError, back_up, restore
from dataset_server.store.schema import revisions
from tests.server.cache_support import Scene, dataset_id, opened


@pytest.fixture
async def scene(tmp_path):
    """Two datasets that are ready."""
    async with opened(Scene(tmp_path)) as made:
        for number in (1, 2):
            await made.add(number, 1000)
        yield made


async def backed_up(scene, target, *, archives=True):
    settings = scene.settings
    folder = ArchiveFolder(scene.archives) if archives else None
    file = settings.data_dir / "server.db"
    return await asyncio.to_thread(back_up, file, "{}", target, settings.environments, folder)


def fail(number, *at):
    """A function of files that fails for those of these names."""

    def failing(path, *_, **__):
        if not at or path.name in at:
            raise OSError(number, os.strerror(number), str(path))
        return measure(path)

    measure = module._measure
    return failing


def names(folder):
    return {path.name for path in (folder / "archives").iterdir()}


@pytest.mark.parametrize("part", ["", "sources.jsonl"])
async def test_one_archive_that_the_disk_cannot_read_is_left_out(scene, tmp_path, monkeypatch, part):
    first, second = (scene.cache.archive_path(dataset_id(number), 1) for number in (1, 2))
    for path in (first, second):
        path.with_suffix(".sources.jsonl").write_text("")
    bad = first.with_suffix(f".{part}") if part else first
    monkeypatch.setattr(module, "_measure", fail(errno.EIO, bad.name))
    made = await backed_up(scene, tmp_path / "backup")
    assert (made.rotten, made.manifest.left_out) == ([dataset_id(1)], [dataset_id(1)])
    assert names(tmp_path / "backup") == {second.name, second.with_suffix(".sources.jsonl").name}


async def test_so_is_one_that_cannot_be_copied(scene, tmp_path):
    path = scene.cache.archive_path(dataset_id(1), 1)
    path.unlink()
    path.mkdir()  # has no second name, and no bytes
    made = await backed_up(scene, tmp_path / "backup")
    assert made.rotten == [dataset_id(1)]
    assert names(tmp_path / "backup") == {scene.cache.archive_path(dataset_id(2), 1).name}


async def test_what_may_pass_is_no_rot(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_measure", fail(errno.EMFILE, f"{dataset_id(1)[:-4]}.r1.zip"))
    with pytest.raises(BackupError, match=f"{scene.archives}.*cannot be read: Too many"):
        await backed_up(scene, tmp_path / "backup")


async def test_a_target_that_fails_is_not_taken_for_rot(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(module.os, "link", fail(errno.EXDEV))
    monkeypatch.setattr(module.os, "utime", fail(errno.EIO))
    with pytest.raises(BackupError, match="backup cannot be made"):
        await backed_up(scene, tmp_path / "backup")


async def test_a_restore_says_whose_disk_fails(scene, tmp_path):
    await backed_up(scene, tmp_path / "backup")
    path = tmp_path / "backup" / "archives" / scene.cache.archive_path(dataset_id(1), 1).name
    path.unlink()
    path.mkdir()
    with pytest.raises(BackupError, match=f"{path} cannot be read: Is a directory"):
        restore(tmp_path / "backup", tmp_path / "restored")


@pytest.mark.parametrize("archives", [True, False])
async def test_archives_whose_rebuild_failed_or_is_under_way(scene, tmp_path, archives):
    for number, state in ((1, "failed"), (2, "building")):
        await scene.keep(await scene.dataset(number), state=state, lease_until=time.time())
    await scene.add(3, 1000, revision=2)
    await scene.supersede(3, 1, 50)
    made = await backed_up(scene, tmp_path / "backup", archives=archives)
    assert made.manifest.left_out == ([] if archives else [dataset_id(number) for number in (1, 2, 3)])
    (tmp_path / "other").mkdir()
    await asyncio.to_thread(restore, tmp_path / "backup", tmp_path / "other" / "data")
    async with opened(Scene(tmp_path / "other")) as other:
        assert await other.states() == {1: "failed", 2: "building", 3: "ready" if archives else "evicted"}
        assert other.files() == ({"1.1", "2.1", "3.2"} if archives else set())
        for number in (1, 2):
            assert ((await other.offers.find(dataset_id(number))).sha256 is not None) == archives
        async with other.database.reading() as db:
            kept = (await db.execute(select(revisions.c.dataset_id).order_by(revisions.c.dataset_id))).scalars().all()
        assert kept == ([dataset_id(1), dataset_id(2)] if archives else [])
