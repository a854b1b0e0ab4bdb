"""Room, eviction, readers, pins and revisions: a real database and real files."""

import asyncio
import contextlib
import os
import shutil
import time
from dataclasses import asdict

import pytest
from sqlalchemy import delete, insert, select, update

from dataset_server import archive_folder
from dataset_server.errors import DiskFullError, InUseError
from dataset_server.room import FLOOR
from dataset_server.store import BuildStore, Lease, NewArchive, Store, Wanted
from dataset_server.store.cache import CacheStore
from dataset_server.store.offers import Offers
from dataset_server.store.schema import Shard, datasets, events, revisions, shards, topics
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
        await scene.cache.reserve(unknown, examples=10)
        assert (await scene.dataset(7)).reserved_bytes == 2 * FLOOR
        await scene.add(1, 1000)
        await scene.add(2, 3000)
        wanted = await building(scene)
        for options, expected in (
            ({}, 2 * FLOOR),  # not planned yet: others may have been far larger
            ({"examples": 0}, 2 * 2000),  # the mean archive
            ({"examples": 10}, 2 * 10 * 200),  # 200 bytes an example
            ({"estimate": 77}, 2 * 77),
        ):
            await scene.cache.reserve(wanted, **options)
            assert (await scene.dataset(9)).reserved_bytes == expected
        again = await scene.add(3, 500, state="building", archive_bytes=5000)
        await scene.cache.reserve(again)
        assert (await scene.dataset(3)).reserved_bytes == 2 * 5000, "as it was before"

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
        await scene.add(3, 100, state="failed", revision=1)
        await scene.supersede(3, 1, 50)
        async with scene.cache.using(dataset_id(1), 1):
            await scene.cache.remove_superseded()
        assert scene.files() == {"1.1", "1.2", "1.3", "2.1", "3.1"}, "read, just superseded, or current"
        assert (await scene.offers.find(dataset_id(1), 2)).bytes == 50

    async def an_hour_later(scene):
        async with scene.database.writing() as db:
            await db.exec_driver_sql("UPDATE revisions SET superseded_at = 0, last_used_at = 0")
        await scene.cache.remove_superseded()
        assert scene.files() == {"1.3", "2.1", "3.1"}, "a rebuild that fails leaves the archive that there is"
        assert (await scene.offers.find(dataset_id(1), 2)).sha256 is None
        assert scene.metrics.evictions._value.get() == 0, "that made no room"

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
        await scene.cache.tidy()
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


# -- archives that are to be replaced


def sealed_by_a_build(number, file="s0", size=7):
    return Shard(dataset_id(number), file, 0, "train", 1, size, "b" * 64, None)


async def rebuild(scene, number):
    """Claim a rebuild of a dataset that is ready."""
    builds, seen = BuildStore(scene.database), await scene.dataset(number)
    wanted = Wanted(seen.dataset_id, seen.dataset_name, seen.resolved_version, seen.config)
    claimed = await builds.start(wanted, seen, "owner", time.time() + 60)
    return builds, Lease(claimed.dataset_id, claimed.fence)


@pytest.mark.parametrize("ending", ["failed", "cancelled"])
def test_a_rebuild_that_comes_to_nothing_leaves_the_archive(tmp_path, ending):
    async def test(scene):
        before = await scene.add(1, 40_000, pinned=True)
        builds, lease = await rebuild(scene, 1)
        if ending == "failed":
            await builds.fail(lease, {"code": "x", "message": "x"})
        else:
            await builds.cancel(lease.dataset_id, 2, {"code": "cancelled", "message": "x"})
        offer = await scene.offers.find(dataset_id(1), None, "s1")
        assert (offer.revision, offer.sha256, offer.shard.offset) == (1, before.archive_sha256, 20_000)
        async with scene.database.writing() as db:
            await db.execute(update(revisions).values(superseded_at=0, last_used_at=0))
            await db.execute(update(datasets).values(last_used_at=0, finished_at=0))
        await scene.cache.remove_superseded()
        with pytest.raises(DiskFullError, match="40 kB are pinned"):
            await scene.cache.reserve(await building(scene), 40_000)
        assert scene.files() == {"1.1"}
        await scene.cache.set_pinned(dataset_id(1), pinned=False)
        (candidate,) = await scene.store.candidates()
        assert candidate.build_seconds == 10.0, "it would have to be made again"
        await scene.cache.reserve(await scene.dataset(9), 40_000)
        assert scene.files() == set()
        assert await scene.states() == {1: ending, 9: "building"}

    run_in(Scene(tmp_path, quota="100kB"), test)


def test_what_is_offered_while_it_is_made_anew(tmp_path):
    async def test(scene):
        before = await scene.add(1, 100)
        builds, lease = await rebuild(scene, 1)
        await builds.seal_shard(lease, sealed_by_a_build(1))
        old = await scene.offers.find(dataset_id(1), 1, "s0")
        assert (old.sha256, old.bytes, old.shard.offset, old.shard.bytes) == (before.archive_sha256, 100, 0, 50)
        new = await scene.offers.find(dataset_id(1), None, "s0")
        assert (new.sha256, new.shard) == (before.archive_sha256, sealed_by_a_build(1)), (
            "no bytes of one as the other's"
        )
        assert (await scene.offers.find(dataset_id(1), None, "s1")).shard.offset == 50, "not sealed again yet"
        assert (await scene.offers.find(dataset_id(1), 1, "nothing")).shard is None
        assert await scene.offers.find(dataset_id(2)) is None
        made = NewArchive(2, 77, "c" * 64, '{"a": 1}', "p", {"s0": 33}, 1.0)
        await builds.publish(lease, made)
        assert (await scene.offers.find(dataset_id(1), 1, "s0")).shard.offset == 0
        assert (await scene.offers.find(dataset_id(1), None, "s0")).shard.offset == 33
        assert (await scene.offers.find(dataset_id(1), 2, "s1")).shard is None
        assert await Store(scene.database).manifest(dataset_id(1)) == '{"a": 1}'
        assert time.time() - (await scene.dataset(1)).checked_at < 60, "it was read while it was written"

    run_in(Scene(tmp_path), test)


@pytest.mark.parametrize("kept", [True, False])
def test_shards_of_an_attempt_that_failed_do_not_hide_those_of_the_archive(tmp_path, kept):
    async def test(scene):
        await scene.add(1, 100)
        builds, lease = await rebuild(scene, 1)
        await builds.seal_shard(lease, sealed_by_a_build(1))
        await builds.fail(lease, {"code": "x", "message": "x"})
        if not kept:
            async with scene.database.writing() as db:
                await db.execute(delete(revisions))
        offer = await scene.offers.find(dataset_id(1), None, "s0")
        assert offer.shard.offset == (0 if kept else None)

    run_in(Scene(tmp_path), test)


def test_what_is_published_between_two_looks_is_kept_instead(tmp_path, monkeypatch):
    async def test(scene):
        await scene.add(1, 100)
        looks, find = [], Offers.find

        async def find_then_publish(*arguments):
            found = await find(*arguments)
            if not looks:
                async with scene.database.writing() as db:
                    await db.execute(update(datasets).values(revision=2, archive_sha256="c" * 64))
            looks.append(found.revision)
            return found

        monkeypatch.setattr(Offers, "find", find_then_publish)
        async with scene.cache.offered(dataset_id(1), None, "s0") as found:
            assert (found.revision, found.sha256) == (2, "c" * 64)
            assert set(scene.cache._open) == {(dataset_id(1), 2)}, "that is the file which may not go"
        assert looks == [1, 2, 2]

    run_in(Scene(tmp_path), test)


def test_revisions_that_never_were_cost_nothing(tmp_path, monkeypatch):
    async def test(scene):
        await scene.add(1, 100)
        monkeypatch.setattr(CacheStore, "note_uses", lambda *_: pytest.fail("that is noted"))
        async with scene.cache.offered(dataset_id(1), 7) as found:
            assert found.sha256 is None
        async with scene.cache.offered(dataset_id(2)) as found:
            assert found is None
        monkeypatch.undo()

    run_in(Scene(tmp_path), test)


def test_readers_of_what_is_to_be_replaced_are_noted_there(tmp_path):
    async def test(scene):
        await scene.add(1, 100, state="building", revision=1)
        await scene.supersede(1, 1, 50)
        async with scene.cache.using(dataset_id(1), 1), scene.database.reading() as db:
            used = (await db.execute(select(revisions.c.last_used_at))).scalar_one()
        assert time.time() - used < 60

    run_in(Scene(tmp_path), test)


# -- what comes in between


def test_an_archive_that_was_used_since_it_was_chosen_stays(tmp_path):
    async def test(scene):
        await scene.add(1, 100, last_used_at=1000.0, finished_at=1000.0, pinned=True)
        key = (dataset_id(1), 1)
        assert not await scene.store.evict(key, {}, before=999.0)
        assert not await scene.store.evict(key, {}, before=1000.0), "pinned"
        assert not await scene.store.evict(key, {}, before=0.0, made=999.0), "published again since it was read"
        assert await scene.store.evict(key, {}, before=0.0, made=1000.0)

    run_in(Scene(tmp_path), test)


def test_a_use_that_is_being_noted_counts(tmp_path, monkeypatch):
    async def test(scene):
        await scene.add(1, 50 * MB, sparse=True)
        asked, allowed, note_uses = asyncio.Event(), asyncio.Event(), CacheStore.note_uses

        async def slowly(*arguments):
            asked.set()
            await allowed.wait()
            await note_uses(*arguments)

        assert await scene.cache.is_there(await scene.dataset(1))
        monkeypatch.setattr(CacheStore, "note_uses", slowly)
        flushing = asyncio.create_task(scene.cache.flush())
        await asked.wait()
        making = asyncio.create_task(scene.cache.reserve(await building(scene), 40 * MB))
        await asyncio.sleep(0)
        allowed.set()
        await flushing
        with pytest.raises(DiskFullError):
            await making
        assert scene.files() == {"1.1"}

    run_in(Scene(tmp_path, quota="100MB"), test)


def test_an_eviction_ends_though_its_build_is_cancelled(tmp_path, monkeypatch):
    async def test(scene):
        await scene.add(1, 50 * MB, sparse=True)
        asked, allowed, evict = asyncio.Event(), asyncio.Event(), CacheStore.evict

        async def slowly(*arguments, **more):
            evicted = await evict(*arguments, **more)
            asked.set()
            await allowed.wait()
            return evicted

        monkeypatch.setattr(CacheStore, "evict", slowly)
        making = asyncio.create_task(scene.cache.reserve(await building(scene), 40 * MB))
        await asked.wait()
        making.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await making
        allowed.set()
        await scene.cache.close()
        assert await scene.states() == {1: "evicted", 9: "building"}
        assert scene.files() == set(), "no file without a row"

    run_in(Scene(tmp_path, quota="100MB"), test)


def test_what_only_the_last_choice_frees_is_enough(tmp_path, monkeypatch):
    async def test(scene):
        await scene.add(1, 50 * MB, sparse=True)
        evict, tries = scene.cache._evict, []

        async def late(*arguments):
            tries.append(arguments)
            if len(tries) == 3:
                await evict(*arguments)

        monkeypatch.setattr(scene.cache, "_evict", late)
        await scene.cache.reserve(await building(scene), 40 * MB)
        assert scene.files() == set()

    run_in(Scene(tmp_path, quota="100MB"), test)


def test_what_builds_have_written_is_part_of_the_quota(tmp_path):
    async def test(scene):
        first, second = await building(scene, 8), await building(scene, 9)
        await scene.cache.reserve(first, 40 * MB)
        async with scene.database.writing() as db:
            await db.execute(insert(shards).values(**{**asdict(sealed_by_a_build(8, "s7", 40 * MB)), "number": 7}))
        with pytest.raises(DiskFullError, match="80 MB of a quota of 100 MB"):
            await scene.cache.reserve(second, 15 * MB)
        await scene.cache.reserve(second, 10 * MB)

    run_in(Scene(tmp_path, quota="100MB"), test)


def test_room_for_what_an_earlier_attempt_left_is_there_already(tmp_path, monkeypatch):
    async def test(scene):
        wanted, folder = await building(scene), tmp_path / "dataset"
        folder.mkdir()
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=50 * MB))
        with pytest.raises(DiskFullError):
            await scene.cache.reserve(wanted, 40 * MB, folder=folder)
        for name in ("sealed", ".half.partial"):
            (folder / name).touch()
            os.truncate(folder / name, 20 * MB)
        (folder / "link").symlink_to(folder / "sealed")
        await scene.cache.reserve(wanted, 40 * MB, folder=folder)
        with pytest.raises(DiskFullError):
            await scene.cache.reserve(wanted, 46 * MB, folder=folder)

    run_in(Scene(tmp_path), test)


def test_two_delete_at_once(tmp_path):
    async def test(scene):
        await scene.add(1, 100)
        await asyncio.gather(*(scene.cache.delete(dataset_id(1), force=False) for _ in range(3)))
        assert (await scene.states(), scene.files()) == ({}, set())

    run_in(Scene(tmp_path), test)


def test_deleting_leaves_no_file_behind_even_if_it_is_cut_off(tmp_path, monkeypatch):
    async def test(scene):
        await scene.add(1, 100)
        monkeypatch.setattr(archive_folder.ArchiveFolder, "remove", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await scene.cache.delete(dataset_id(1), force=False)
        monkeypatch.undo()
        assert await scene.states() == {1: "evicted"}, "it is known whose file that is"
        await scene.cache.start()
        assert scene.files() == set()

    run_in(Scene(tmp_path), test)


def test_how_attempts_ended_is_told_after_deletion(tmp_path):
    async def test(scene):
        await scene.add(1, 100)
        topic = {
            "topic_id": "t",
            "dataset_name": "tones",
            "handler_version": "1.0",
            "config": "{}",
            "resolved_version": "1.0",
            "dataset_id": dataset_id(1),
            "state": "ready",
            "attempt": 1,
            "last_number": 3,
            "created_at": 0.0,
        }
        said = {"topic_id": "t", "attempt": 1, "data": "{}", "created_at": 0.0}
        async with scene.database.writing() as db:
            await db.execute(insert(topics).values(**topic))
            for number, kind in enumerate(("state", "progress", "ready"), 1):
                await db.execute(insert(events).values(number=number, kind=kind, **said))
        await scene.cache.delete(dataset_id(1), force=False)
        async with scene.database.reading() as db:
            assert [*(await db.execute(select(events.c.kind))).scalars()] == ["ready"]
            assert (await db.execute(select(topics.c.dataset_id, topics.c.last_number))).one() == (None, 3)

    run_in(Scene(tmp_path), test)


# -- what lies about


def test_tidying_beside_a_running_server_spares_what_is_new(tmp_path, monkeypatch):
    async def test(scene):
        await scene.add(1, 10, state="evicted")
        scene.write(dataset_id(1), 1, b"", 5)
        (scene.archives / ".x.partial").write_bytes(b"being written")
        await scene.cache.tidy()
        assert len(list(scene.archives.iterdir())) == 2
        now = time.time()
        monkeypatch.setattr(archive_folder.time, "time", lambda: now + 2 * DAY)
        await scene.cache.tidy()
        assert list(scene.archives.iterdir()) == []

    run_in(Scene(tmp_path), test)


def put_aside(scene, size):
    """A file that has rotted."""
    rotten = scene.archives / f"{dataset_id(2).removesuffix('.zip')}.r1.rotten"
    rotten.touch()
    os.truncate(rotten, size)
    return rotten


def test_what_the_scrub_command_has_put_aside_goes_too(tmp_path, monkeypatch):
    async def test(scene):
        await scene.add(1, 30 * MB, sparse=True)
        await scene.cache.start()
        rotten, usage = put_aside(scene, 60 * MB), shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0 if rotten.exists() else 60 * MB))
        await scene.cache.reserve(await building(scene), 20 * MB)
        assert not rotten.exists()
        assert scene.files() == {"1.1"}

    run_in(Scene(tmp_path), test)


def test_what_has_rotted_counts_and_is_the_first_to_go(tmp_path):
    async def test(scene):
        await scene.add(1, 30 * MB, sparse=True)
        rotten = put_aside(scene, 60 * MB)
        await scene.cache.start()
        await scene.cache.reserve(await building(scene), 5 * MB)
        assert rotten.exists()
        await scene.cache.reserve(await scene.dataset(9), 20 * MB)
        assert not rotten.exists()
        assert scene.files() == {"1.1"}

    run_in(Scene(tmp_path, quota="100MB"), test)


def test_a_revision_that_was_never_published(tmp_path):
    async def test(scene):
        dataset = await scene.add(1, 10)
        scene.write(dataset.dataset_id, 2, b"", 5)
        scene.cache.remove_unpublished(dataset)
        assert scene.files() == {"1.1"}

    run_in(Scene(tmp_path), test)
