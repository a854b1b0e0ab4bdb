"""Reading archives again: what has rotted is found, named, put aside and made again."""

import asyncio
import errno
import hashlib
import os
import threading
import time

import pytest

from dataset_server import cache as cache_module
from dataset_server import scrub
from dataset_server.background import StoppedError
from dataset_server.commands import scrub as command
from dataset_server.scrub import read_again
from dataset_server.store.schema import Shard
from tests.server.cache_support import DAY, Scene, dataset_id, run_in

FAST = 1e12


@pytest.fixture
def archive(tmp_path):
    """An archive of 3 MB with three shards and some bytes around them."""
    parts = [bytes([number]) * 900_000 for number in range(3)]
    content = b"head" + b"gap".join(parts) + b"tail"
    shards, position = [], 4
    for number, part in enumerate(parts):
        shards.append(
            Shard("d", f"s{number}", number, "train", 1, len(part), hashlib.sha256(part).hexdigest(), position)
        )
        position += len(part) + 3
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    return path, len(content), hashlib.sha256(content).hexdigest(), shards


def again(archive, **more):
    return read_again(*archive, more.pop("speed", FAST), more.pop("stop", threading.Event()), **more)


def damage(path, position):
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 1]))


def test_a_sound_archive(archive):
    read = []
    assert again(archive, on_bytes=read.append) is None
    assert sum(read) == archive[1]


@pytest.mark.parametrize(("position", "named"), [(4, "s0"), (900_003, "s0"), (900_007, "s1"), (2_700_009, "s2")])
def test_one_bit_is_found_and_its_shard_named(archive, position, named):
    damage(archive[0], position)
    finding = again(archive)
    assert (finding.code, finding.rotten) == ("archive_rotten", (named,))
    assert named in finding.message


@pytest.mark.parametrize("position", [0, 900_004, 2_700_012])
def test_a_bit_between_the_shards(archive, position):
    damage(archive[0], position)
    finding = again(archive)
    assert (finding.code, finding.rotten) == ("archive_rotten", ())
    assert "headers or metadata" in finding.message


def test_cut_off_grown_or_gone(archive):
    path, size = archive[0], archive[1]
    with path.open("ab") as file:
        file.write(b"x")
    assert again(archive).code == "archive_rotten"
    with path.open("r+b") as file:
        file.truncate(size - 1_000_000)
    assert again(archive).rotten == ("s1", "s2")
    path.unlink()
    assert again(archive).code == "archive_missing"
    path.mkdir()
    assert again(archive).code == "archive_rotten"


def failing(number):
    def fail(_descriptor):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.EIO, errno.EBADMSG])
def test_what_the_disk_cannot_give_back_is_rotten(archive, monkeypatch, number):
    monkeypatch.setattr(scrub, "_forget", failing(number))
    assert again(archive).code == "archive_rotten"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EACCES])
def test_what_may_pass_is_no_rot(archive, monkeypatch, number):
    monkeypatch.setattr(scrub, "_forget", failing(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        again(archive)


def test_what_cannot_be_read_now_stays_and_holds_up_nothing(tmp_path, monkeypatch):
    async def test(scene):
        await scene.add(1, 1000, age=50 * DAY)
        await scene.add(2, 1000, age=40 * DAY)
        monkeypatch.setattr(scrub, "_forget", failing(errno.EMFILE))
        findings = [finding async for _, finding in scene.cache.scrub_all()]
        assert [finding.code for finding in findings] == ["archive_unreadable"] * 2
        assert await scene.states() == {1: "ready", 2: "ready"}
        assert scene.files() == {"1.1", "2.1"}
        due = await scene.store.due_for_scrub(time.time() - 30 * DAY, {dataset_id(1)})
        assert due.dataset_id == dataset_id(2)

    run_in(Scene(tmp_path), test)


def test_what_was_evicted_meanwhile_is_not_rotten(tmp_path):
    async def test(scene):
        dataset = await scene.add(1, 1000)
        assert await scene.store.evict((dataset_id(1), 1), {}, before=time.time())
        scene.cache.archive_path(dataset_id(1), 1).unlink()
        assert await scene.cache.scrub(dataset) is None
        assert scene.metrics.scrub_findings._value.get() == 0

    run_in(Scene(tmp_path), test)


def test_whose_turn_it_is_is_read_from_an_index(tmp_path):
    async def test(scene):
        query = "SELECT dataset_id FROM datasets WHERE state = 'ready' AND checked_at < 5 ORDER BY checked_at LIMIT 1"
        async with scene.database.reading() as db:
            plan = (await db.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")).all()
        assert "USING INDEX datasets_by_checked_at (state=? AND checked_at<?)" in str(plan)
        assert "SORT" not in str(plan).upper().replace("SORTED", "")

    run_in(Scene(tmp_path), test)


def test_it_can_be_stopped_however_slow_it_is(archive):
    stop = threading.Event()
    with pytest.raises(StoppedError):
        again(archive, speed=0.001, stop=stop, on_bytes=lambda _: stop.set())


def test_what_has_rotted_is_put_aside_and_made_again(tmp_path):
    made_again = []

    async def remake(dataset):
        made_again.append(dataset.dataset_id)

    async def test(scene):
        old = 100 * DAY
        for number, options in enumerate([{}, {"pinned": True, "age": old}, {"age": old}, {"age": old}]):
            await scene.add(number, 1000, checked_at=time.time(), **options)
        await scene.cache.start(remake)
        for number in range(3):
            damage(scene.cache.archive_path(dataset_id(number), 1), 600)
        found = {dataset.dataset_id: finding async for dataset, finding in scene.cache.scrub_all()}
        assert [found[dataset_id(number)] is None for number in range(4)] == [False, False, False, True]
        assert found[dataset_id(0)].rotten == ("s1",)
        assert await scene.states() == {0: "evicted", 1: "evicted", 2: "evicted", 3: "ready"}
        assert '"archive_rotten"' in (await scene.dataset(0)).error
        assert made_again == [dataset_id(0), dataset_id(1)], "used lately, or pinned; the third waits to be asked for"
        assert scene.files() == {"3.1"}
        assert len(list(scene.archives.glob("*.rotten"))) == 3
        assert scene.metrics.scrub_findings._value.get() == 3
        assert time.time() - (await scene.dataset(3)).checked_at < 60

    run_in(Scene(tmp_path, scrub_bytes_per_second="1TB"), test)


def test_reading_again_is_no_use(tmp_path):
    """It spoils no eviction, and what is deleted meanwhile is not rotten."""
    reading, may_end = threading.Event(), threading.Event()

    def wait(_):
        reading.set()
        assert may_end.wait(60)

    async def test(scene):
        scrubbing = asyncio.create_task(scene.cache.scrub(await scene.add(1, 1000), wait))
        try:
            await asyncio.to_thread(reading.wait, 60)
            await scene.cache.delete(dataset_id(1), force=False)
        finally:
            may_end.set()
        assert await scrubbing is None
        assert (await scene.states(), scene.files()) == ({}, set())
        assert scene.metrics.scrub_findings._value.get() == 0

    run_in(Scene(tmp_path), test)


def test_whatever_goes_wrong_it_is_tried_again(tmp_path, monkeypatch):
    calls = []

    async def fail(self, *_):
        calls.append(self)
        raise RuntimeError("nobody thought of this")

    async def test(scene):
        for name in ("_SCRUB_SECONDS", "_FLUSH_SECONDS"):
            monkeypatch.setattr(cache_module, name, 0.001)
        monkeypatch.setattr(type(scene.store), "due_for_scrub", fail)
        monkeypatch.setattr(type(scene.cache), "flush", fail)
        await scene.cache.start()
        async with asyncio.timeout(60):
            while min(calls.count(scene.cache), calls.count(scene.cache._store)) < 2:
                await asyncio.sleep(0.001)
        monkeypatch.undo()

    run_in(Scene(tmp_path), test)


async def test_the_command_can_be_interrupted(tmp_path, monkeypatch):
    reading, stopped = threading.Event(), threading.Event()

    def read(*arguments):
        (stop,) = [argument for argument in arguments if isinstance(argument, threading.Event)]
        reading.set()
        if stop.wait(60):
            stopped.set()
        raise StoppedError

    scene = Scene(tmp_path)
    await scene.database.create()
    await scene.add(1, 1000)
    await scene.database.close()
    monkeypatch.setattr(cache_module, "read_again", read)
    running = asyncio.create_task(command._scrub(scene.settings))
    await asyncio.to_thread(reading.wait, 60)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await asyncio.to_thread(stopped.wait, 30), "else the process stays until all is read"


def test_an_archive_whose_rebuild_failed_is_read_again(tmp_path):
    async def test(scene):
        for number, state in enumerate(["failed", "cancelled", "building"]):
            dataset = await scene.add(number, 1000, state="ready", age=50 * DAY, pinned=number == 0)
            await scene.keep(dataset, state=state, checked_at=number)
        made_again = []

        async def remake(dataset):
            made_again.append(dataset.dataset_id)

        scene.cache._remake = remake
        damage(scene.cache.archive_path(dataset_id(0), 1), 600)
        due = await scene.store.due_for_scrub(time.time() - 30 * DAY)
        assert due.dataset_id == dataset_id(0)
        found = {dataset.dataset_id: finding async for dataset, finding in scene.cache.scrub_all()}
        assert found.keys() == {dataset_id(0), dataset_id(1)}, "the third is about to be replaced"
        assert found[dataset_id(0)].rotten == ("s1",)
        assert found[dataset_id(1)] is None
        assert await scene.states() == {0: "failed", 1: "cancelled", 2: "building"}
        assert (await scene.offers.find(dataset_id(0))).sha256 is None
        assert (await scene.offers.find(dataset_id(1))).sha256 is not None
        assert scene.files() == {"1.1", "2.1"}
        assert made_again == [dataset_id(0)]
        assert await scene.store.due_for_scrub(time.time() - 30 * DAY) is None

    run_in(Scene(tmp_path), test)


def test_whose_turn_it_is(tmp_path):
    async def test(scene):
        await scene.add(1, 10, age=50 * DAY)
        await scene.add(2, 10, age=90 * DAY, checked_at=time.time() - DAY)
        await scene.add(3, 10, age=40 * DAY)
        before = time.time() - 30 * DAY
        assert (await scene.store.due_for_scrub(before)).dataset_id == dataset_id(1)
        await scene.cache.scrub(await scene.dataset(1))
        assert (await scene.store.due_for_scrub(before)).dataset_id == dataset_id(3)
        await scene.cache.scrub(await scene.dataset(3))
        assert await scene.store.due_for_scrub(before) is None

    run_in(Scene(tmp_path), test)
