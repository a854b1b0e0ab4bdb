"""Room, eviction, readers, pins and revisions: a real database and real files."""

import asyncio
import time

import pytest

from dataset_server.errors import DiskFullError, InUseError
from dataset_server.room import FLOOR
from tests.server.cache_support import DAY, Scene, dataset_id, run_in

MB = 1_000_000


async def building(scene, number=9, **values):
    return await scene.add(number, 0, state="building", revision=0, archive_bytes=None, **values)


def test_a_quota_makes_room_by_worth(tmp_path):
    async def test(scene):
        await scene.add(1, 40 * MB, build_seconds=1000.0, sparse=True)
        await scene.add(2, 40 * MB, build_seconds=10.0, sparse=True)
        await scene.add(3, 10 * MB, build_seconds=500.0, sparse=True)
        wanted = await building(scene)
        await scene.cache.reserve(wanted, 15 * MB)
        assert await scene.states() == {1: "ready", 2: "evicted", 3: "ready", 9: "building"}
        assert scene.files() == {"1.1", "3.1"}
        assert (await scene.dataset(9)).reserved_bytes == 30 * MB
        assert scene.metrics.evictions._value.get() == 1
        assert scene.metrics.evicted_bytes._value.get() == 40 * MB
        await scene.cache.release(wanted.dataset_id)
        assert (await scene.dataset(9)).reserved_bytes is None

    run_in(Scene(tmp_path, quota="100MB"), test)


def test_what_is_pinned_read_or_used_stays_and_the_refusal_says_so(tmp_path):
    async def test(scene):
        await scene.add(1, 30 * MB, sparse=True, pinned=True)
        await scene.add(2, 30 * MB, sparse=True)
        await scene.add(3, 20 * MB, sparse=True, age=60.0)
        await scene.add(4, 10 * MB, sparse=True)
        wanted = await building(scene)
        async with scene.cache.using(dataset_id(2), 1):
            with pytest.raises(DiskFullError) as caught:
                await scene.cache.reserve(wanted, 20 * MB)
        for words in ("needs 40 MB", "30 MB are pinned", "50 MB were in use", "10 MB could go", "quota of 100 MB"):
            assert words in str(caught.value)
        assert (caught.value.status, caught.value.code) == (507, "disk_full")
        assert scene.files() == {"1.1", "2.1", "3.1", "4.1"}, "nothing goes if it is not enough"
        assert (await scene.dataset(9)).reserved_bytes is None

    run_in(Scene(tmp_path, quota="100MB"), test)


def test_builds_under_way_keep_their_room(tmp_path):
    async def test(scene):
        first, second = await building(scene, 8), await building(scene, 9)
        await scene.cache.reserve(first, 30 * MB)
        with pytest.raises(DiskFullError, match="60 MB are for other builds"):
            await scene.cache.reserve(second, 25 * MB)
        await scene.cache.reserve(first, 20 * MB)  # it turned out smaller
        await scene.cache.reserve(second, 25 * MB)

    run_in(Scene(tmp_path, quota="100MB"), test)


def test_what_stays_free_on_the_disk(tmp_path):
    async def test(scene):
        with pytest.raises(DiskFullError, match="stay free"):
            await scene.cache.reserve(await building(scene), 1)

    run_in(Scene(tmp_path, disk_reserve="1000000TB"), test)


def test_estimates_come_from_earlier_datasets(tmp_path):
    async def test(scene):
        unknown = await building(scene, 7, dataset_name="other")
        await scene.cache.reserve(unknown)
        assert (await scene.dataset(7)).reserved_bytes == 2 * FLOOR
        await scene.add(1, 1000)
        await scene.add(2, 3000)
        wanted = await building(scene)
        await scene.cache.reserve(wanted)
        assert (await scene.dataset(9)).reserved_bytes == 2 * 2000, "the mean archive"
        await scene.cache.reserve(wanted, examples=10)
        assert (await scene.dataset(9)).reserved_bytes == 2 * 10 * 200, "200 bytes an example"
        await scene.cache.reserve(wanted, 77)
        assert (await scene.dataset(9)).reserved_bytes == 2 * 77

    run_in(Scene(tmp_path), test)


def test_uses_are_written_late_and_readers_at_once(tmp_path):
    async def test(scene):
        first, second = await scene.add(1, 10), await scene.add(2, 10)
        for _ in range(3):
            scene.cache.note_use(first.dataset_id)
        assert (await scene.dataset(1)).uses == 0
        await scene.cache.flush()
        assert (await scene.dataset(1)).uses == 3
        assert time.time() - (await scene.dataset(1)).last_used_at < 60
        async with scene.cache.using(second.dataset_id, 1):
            assert time.time() - (await scene.dataset(2)).last_used_at < 60, "before the first byte"
        scene.cache.note_use(first.dataset_id)
        await scene.cache.close()
        assert (await scene.dataset(1)).uses == 4, "closing loses nothing"

    run_in(Scene(tmp_path), test)


def test_a_reader_of_an_earlier_run_is_remembered(tmp_path):
    async def read(scene):
        await scene.add(1, 50 * MB, sparse=True)
        async with scene.cache.using(dataset_id(1), 1):
            pass

    async def make_room(scene):
        with pytest.raises(DiskFullError):
            await scene.cache.reserve(await building(scene), 40 * MB)
        assert scene.files() == {"1.1"}

    run_in(Scene(tmp_path, quota="100MB"), read)
    run_in(Scene(tmp_path, quota="100MB"), make_room)


def test_who_comes_during_an_eviction_waits_for_its_end(tmp_path, monkeypatch):
    async def test(scene):
        await scene.add(1, 50 * MB, sparse=True)
        asked, allowed = asyncio.Event(), asyncio.Event()
        evict = type(scene.cache._store).evict

        async def slowly(*arguments, **more):
            asked.set()
            await allowed.wait()
            return await evict(*arguments, **more)

        monkeypatch.setattr(type(scene.cache._store), "evict", slowly)
        making = asyncio.create_task(scene.cache.reserve(await building(scene), 40 * MB))
        await asked.wait()
        assert not await scene.cache.is_there(await scene.dataset(1)), "nobody is told that it is there"
        seen = []

        async def read():
            async with scene.cache.using(dataset_id(1), 1):
                seen.append((await scene.dataset(1)).state)

        reading = asyncio.create_task(read())
        await asyncio.sleep(0)
        allowed.set()
        await asyncio.gather(making, reading)
        assert seen == ["evicted"]

    run_in(Scene(tmp_path, quota="100MB"), test)


def test_superseded_archives_go_when_nobody_reads_them(tmp_path):
    async def test(scene):
        await scene.add(1, 100, revision=3)
        await scene.supersede(1, 1, 50)
        await scene.supersede(1, 2, 50, age=60.0)
        await scene.add(2, 100, state="building", revision=1)
        await scene.supersede(2, 1, 50)
        async with scene.cache.using(dataset_id(1), 1):
            await scene.cache.remove_superseded()
        assert scene.files() == {"1.1", "1.2", "1.3", "2.1"}, "read, just superseded, current, perhaps made again"
        assert (await scene.cache.revision(dataset_id(1), 2)).bytes == 50

    async def an_hour_later(scene):
        async with scene.database.writing() as db:
            await db.exec_driver_sql("UPDATE revisions SET superseded_at = 0, last_used_at = 0")
        await scene.cache.remove_superseded()
        assert scene.files() == {"1.3", "2.1"}
        assert await scene.cache.revision(dataset_id(1), 2) is None

    run_in(Scene(tmp_path), test)
    run_in(Scene(tmp_path), an_hour_later)


def test_superseded_archives_make_room_first(tmp_path):
    async def test(scene):
        await scene.add(1, 40 * MB, revision=2, build_seconds=0.001, sparse=True)
        await scene.supersede(1, 1, 40 * MB, age=DAY)
        await scene.cache.reserve(await building(scene), 30 * MB)
        assert scene.files() == {"1.2"}

    run_in(Scene(tmp_path, quota="100MB"), test)


def test_deleting(tmp_path):
    async def test(scene):
        await scene.add(1, 100, revision=2)
        await scene.supersede(1, 1, 50)
        await scene.add(2, 100, pinned=True)
        await building(scene, 3)
        async with scene.cache.using(dataset_id(1), 1):
            with pytest.raises(InUseError, match="downloaded"):
                await scene.cache.delete(dataset_id(1), force=False)
        for number in (2, 3):
            with pytest.raises(InUseError):
                await scene.cache.delete(dataset_id(number), force=False)
        with pytest.raises(InUseError):
            await scene.cache.delete(dataset_id(3), force=True)
        await scene.cache.delete(dataset_id(1), force=False)
        await scene.cache.set_pinned(dataset_id(2), pinned=False)
        await scene.cache.delete(dataset_id(2), force=False)
        assert await scene.states() == {3: "building"}
        assert scene.files() == set()
        assert await scene.store.shards_of(dataset_id(1)) == []

    run_in(Scene(tmp_path), test)


def test_the_folder_is_brought_in_line_at_start(tmp_path):
    async def test(scene):
        await scene.add(1, 10)
        scene.cache.archive_path(dataset_id(1), 1).rename(
            scene.archives / dataset_id(1)
        )  # as earlier servers called it
        await scene.add(2, 10, revision=2)
        scene.write(dataset_id(2), 1, b"", 5)
        scene.write(dataset_id(2), 3, b"", 5)
        await scene.add(3, 10, state="building", revision=1)
        scene.write(dataset_id(3), 2, b"", 5)
        await scene.add(4, 10, state="evicted")
        scene.write(dataset_id(4), 1, b"", 5)
        scene.write(dataset_id(5), 1, b"another database's", 5)
        (scene.archives / f".{dataset_id(1)}.7.partial").write_bytes(b"cut off")
        await scene.cache.start()
        assert scene.files() == {"1.1", "2.2", "3.2", "5.1"}
        assert {path.suffix for path in scene.archives.iterdir()} == {".zip"}
        assert await scene.cache.is_there(await scene.dataset(1))

    run_in(Scene(tmp_path), test)


def test_what_is_there(tmp_path):
    async def test(scene):
        ready = await scene.add(1, 10)
        assert await scene.cache.is_there(ready)
        scene.write(ready.dataset_id, 1, b"", 9)
        assert not await scene.cache.is_there(ready)
        scene.cache.archive_path(ready.dataset_id, 1).unlink()
        assert not await scene.cache.is_there(ready)
        assert not await scene.cache.is_there(await building(scene))

    run_in(Scene(tmp_path), test)
