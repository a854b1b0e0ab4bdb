"""What takes room in a cache, and what goes so that there is some."""

import asyncio
import hashlib
import json
import os
import threading
import time
from dataclasses import asdict, replace

import pytest
from client_archives import make_archive
from client_cache import put
from client_server import Topic

from dataset_client import claim, errors, room, sealed, shards, upkeep
from dataset_client.cache import Cache, CachedDataset, read_note, revision_of
from dataset_client.claim import try_claim
from dataset_client.concurrency import StoppedError
from dataset_client.manifest import Member, sidecar_of
from dataset_client.online import obtain
from dataset_client.request import make_request
from dataset_client.sealed import SealedShard, fetch_shard, keep
from dataset_client.transfer import Pace
from dataset_client.uses import announce, hold, is_held, release

PACE = Pace(tail=4096, piece=8192, block=1024, connections=1)


@pytest.fixture
def cache(tmp_path):
    cache = Cache(tmp_path / "cache")
    cache.prepare()
    return cache


def test_the_least_recently_used_goes_and_nothing_that_is_open(cache):
    now = time.time()
    first, second, third = put(cache, "a", 100, now - 300), put(cache, "b", 200, now - 200), put(cache, "c", 300, now)
    hold(first)
    assert [entry.in_use for entry in upkeep.usage(cache)] == [True, False, False]
    assert [entry.bytes for entry in upkeep.collect(cache, 450, dry_run=True)] == [200]
    assert second.is_dir()
    room.make_room(cache, 100, 100, 600)
    assert [path.exists() for path in (first, second, third)] == [True, False, True]
    with pytest.raises(errors.CacheError) as caught:
        room.make_room(cache, 800, 0, 850)
    assert caught.value.code == "cache_limit"
    assert third.exists(), "nothing goes in vain"
    with pytest.raises(errors.CacheError) as caught:
        upkeep.remove(cache, first)
    assert caught.value.code == "in_use"
    release(first)
    assert upkeep.remove(cache, first.name) == 100
    with pytest.raises(errors.NotCachedError):
        upkeep.remove(cache, first)
    assert list(cache.scratch.iterdir()) == []
    assert {path.name for path in (cache.root / "uses").iterdir()} == {third.name}


def test_old_revisions_go_with_collect(cache):
    old, new = put(cache, "a", 100, 1000.0), put(cache, "a", 200, 2000.0)
    assert [entry.path for entry in upkeep.collect(cache)] == [old]
    assert new.is_dir()
    assert upkeep.collect(cache) == []


async def test_a_fetch_makes_room_within_the_limit(server, topic, settings, request_, reporter):
    cache = Cache(settings.cache_dir)
    cache.prepare()
    old = put(cache, "old", 50_000, 1000.0)
    topic.is_ready, topic.attempt = True, 1
    limited = replace(settings, cache_limit=60_000)
    assert (await obtain(request_, limited, reporter)).path.is_dir()
    assert not old.exists()
    topic.archive = make_archive(splits={"train": 40})
    with pytest.raises(errors.CacheError) as caught:
        await obtain(request_, limited, reporter)
    assert caught.value.code == "cache_limit"


# --- what is being fetched


async def test_what_somebody_else_fetches_counts(server, settings, reporter, cache):
    names, gate = ("discs", "rings"), threading.Event()
    for seed, name in enumerate(names):
        archive = make_archive(name=name, seed=seed, splits={"train": 24})
        topic = Topic(archive=archive, is_ready=True, attempt=1)
        server.topics[make_request(name, "v1", {"limit": 7}).topic_id] = topic
    size = len(archive.data)

    async def wait():
        while not gate.is_set():
            await asyncio.sleep(0.01)

    server.archive_script.extend([lambda *_: None, lambda *_: wait()])  # the end of the archive, and a piece
    limited = replace(settings, cache_limit=size * 3 // 2)
    first, second = (obtain(make_request(name, "v1", {"limit": 7}), limited, reporter, PACE) for name in names)
    first = asyncio.create_task(first)
    while len(server.gets) < 2:
        await asyncio.sleep(0.01)
    (entry,) = upkeep.usage(cache)
    assert entry.in_use
    assert size // 2 < entry.bytes <= size, "what it will have"
    with pytest.raises(errors.CacheError) as caught:
        await second
    assert caught.value.code == "cache_limit"
    gate.set()
    assert (await first).path.is_dir()


def test_of_two_that_ask_at_the_same_moment_one_has_room(cache, monkeypatch):
    """Each has said what he will take before the other one counts."""
    make_room, both, first_times = room.make_room, threading.Barrier(2), threading.local()

    def at_once(*arguments, **options):
        if not hasattr(first_times, "is_over"):
            first_times.is_over = True
            both.wait(10)
        make_room(*arguments, **options)

    monkeypatch.setattr(room, "make_room", at_once)
    outcomes = []

    def ask(name):
        work = try_claim(cache.downloads, cache.scratch, name)
        try:
            room.reserve(cache, work, 600_000, 0, 1_000_000, threading.Event())
            outcomes.append("in")
        except errors.CacheError as error:
            outcomes.append(error.code)

    askers = [threading.Thread(target=ask, args=[name]) for name in "ab"]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert sorted(outcomes) == ["cache_limit", "in"]


def test_what_was_left_in_the_middle_counts_and_makes_room(cache):
    work = try_claim(cache.downloads, cache.scratch, "stem")
    (work.files / "a").write_bytes(bytes(100_000))
    work.give_up()
    (entry,) = upkeep.usage(cache)
    assert entry.bytes >= 100_000
    assert not entry.in_use
    room.make_room(cache, 50_000, 0, 160_000)
    assert work.path.parent.is_dir()
    room.make_room(cache, 50_000, 0, 140_000)
    assert list(cache.downloads.iterdir()) == []


def test_what_was_left_counts_though_it_has_other_names_among_the_shards(cache):
    work, shard = try_claim(cache.downloads, cache.scratch, "stem"), put_shard(cache, bytes(100_000))
    (work.files / "a").hardlink_to(shard)
    work.give_up()
    assert sum(entry.bytes for entry in upkeep.usage(cache)) >= 100_000
    room.make_room(cache, 50_000, 0, 140_000)
    assert list(cache.downloads.iterdir()) == list(cache.shards.iterdir()) == []


def test_what_is_given_up_while_it_is_looked_at_counts(cache, monkeypatch):
    work, look = try_claim(cache.downloads, cache.scratch, "stem"), claim._bytes_in
    (work.files / "a").write_bytes(bytes(100_000))

    def and_its_owner_gives_it_up(folder):
        if work.path.is_dir():
            work.give_up()
        return look(folder)

    monkeypatch.setattr(claim, "_bytes_in", and_its_owner_gives_it_up)
    (entry,) = upkeep.usage(cache)
    assert entry.bytes >= 100_000


def test_gc_tells_of_downloads_that_nobody_went_on_with(cache):
    for name, days in (("old", 8), ("new", 6)):
        work = try_claim(cache.downloads, cache.scratch, name)
        (work.files / "a").write_bytes(bytes(100_000))
        work.give_up()
        (left,) = work.path.parent.iterdir()
        then = time.time() - days * 24 * 3600
        for path in (left / "beat", left.parent):
            os.utime(path, (then, then))
    for options in ({"dry_run": True}, {}):
        assert [entry.path.name for entry in upkeep.collect(cache, **options)] == ["old"]
    assert [path.name for path in cache.downloads.iterdir()] == ["new"]


def test_without_a_limit_and_with_space_nothing_is_looked_at(cache, monkeypatch):
    looked = []
    monkeypatch.setattr(room, "holdings", lambda cache: looked.append(cache) or [])
    room.make_room(cache, 100, 0, None)
    assert looked == []
    room.make_room(cache, 100, 0, 100)
    assert looked


def test_who_is_cancelled_makes_no_room(cache):
    path, stop = put(cache, "a", 100, 1000.0), threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        room.make_room(cache, 100, 0, 100, stop=stop)
    assert path.is_dir()


def test_a_dataset_that_is_opened_while_it_should_go(cache, monkeypatch):
    path, evict = put(cache, "a", 100, 1000.0), room.evict

    def too_late(cache, entry):
        hold(path)
        return evict(cache, entry)

    monkeypatch.setattr(room, "evict", too_late)
    with pytest.raises(errors.CacheError) as caught:
        room.make_room(cache, 50, 0, 100)
    assert caught.value.code == "cache_limit"
    assert path.is_dir()
    release(path)


def test_a_dataset_that_another_removes_is_removed(cache, monkeypatch):
    path, evict = put(cache, "a", 100, 1000.0), upkeep.evict

    def be_second(cache, entry, *, force):
        evict(cache, entry)
        return evict(cache, entry, force=force)

    monkeypatch.setattr(upkeep, "evict", be_second)
    assert upkeep.remove(cache, path) == 100
    assert not path.exists()


def test_a_dataset_that_cannot_be_removed_stays_one(cache, monkeypatch):
    path, move = put(cache, "a", 100, 1000.0), room.move

    def refuse(source, target):
        if source == path:
            raise PermissionError(13, "Permission denied")
        move(source, target)

    monkeypatch.setattr(room, "move", refuse)
    with pytest.raises(errors.CacheError, match="denied"):
        upkeep.remove(cache, path)
    assert cache.paths() == [path]
    assert list(cache.scratch.iterdir()) == []


def test_others_go_in_the_place_of_what_cannot_be_removed(cache, monkeypatch):
    first, second, third = (put(cache, name, 100, 1000.0 + number) for number, name in enumerate("abc"))
    move = room.move

    def refuse(source, target):
        if source == first:
            raise PermissionError(13, "Permission denied")
        move(source, target)

    monkeypatch.setattr(room, "move", refuse)
    room.make_room(cache, 100, 100, 300)
    assert cache.paths() == [first, third]
    assert [entry.path for entry in upkeep.collect(cache, 0)] == [third]
    assert cache.paths() == [first]
    with pytest.raises(errors.CacheError) as caught:
        room.make_room(cache, 100, 100, 100)
    assert caught.value.code == "cache_limit"
    assert not second.exists()


def test_who_has_left_when_it_is_found_has_nothing_open(cache, monkeypatch):
    path, stop = put(cache, "a", 100, 1000.0), threading.Event()
    revision = revision_of(read_note(sidecar_of(path)))

    def find(*_):
        stop.set()
        return CachedDataset(revision, path, {})

    monkeypatch.setattr(Cache, "find", find)
    with pytest.raises(StoppedError):
        cache.take(revision, stop)
    assert not is_held(path, time.time())


def test_who_fetches_a_dataset_again_keeps_his_mark_while_another_forgets_it(cache):
    path = put(cache, "a", 100, 1000.0)
    hold(path)
    upkeep.remove(cache, path, force=True)
    assert is_held(path, time.time())
    release(path)
    assert not (cache.root / "uses" / path.name).exists()


async def test_a_dataset_is_in_use_from_the_moment_in_which_it_is_there(
    topic, settings, request_, reporter, monkeypatch
):
    topic.is_ready, topic.attempt, install = True, 1, Cache.install

    def and_another_tidies_up(self, *arguments):
        path = install(self, *arguments)
        upkeep.collect(self, 0)
        return path

    monkeypatch.setattr(Cache, "install", and_another_tidies_up)
    assert (await obtain(request_, settings, reporter)).path.is_dir()


def test_the_latest_revision_is_the_one_that_was_installed_last(cache):
    """Whatever a copy of the cache has made of the times of its files."""
    old, new = put(cache, "a", 100, 2000.0), put(cache, "a", 200, 1000.0)
    for installed, path in enumerate((old, new), start=1):
        sidecar = sidecar_of(path)
        times = sidecar.stat()
        sidecar.write_text(json.dumps(json.loads(sidecar.read_bytes()) | {"installed": float(installed)}))
        os.utime(sidecar, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert [entry.path for entry in upkeep.collect(cache)] == [old]


async def test_what_does_not_belong_to_a_dataset_goes_when_it_is_mended(topic, settings, request_, reporter):
    topic.is_ready, topic.attempt = True, 1
    path = (await obtain(request_, settings, reporter)).path
    names = {file.name for file in path.iterdir()}
    next(path.glob("*train*")).unlink()
    (path / "foreign").write_text("some")
    (path / "folder").mkdir()
    await obtain(request_, settings, reporter)
    assert {file.name for file in path.iterdir()} == names


# --- shards without datasets


def put_shard(cache, data):
    path = cache.shards / hashlib.sha256(data).hexdigest()
    path.write_bytes(data)
    return path


def test_shards_without_a_dataset_are_room_to_be_had(cache):
    lone, held, linked = (put_shard(cache, bytes([n]) * 100) for n in range(3))
    (cache.scratch / "another").hardlink_to(linked)
    announce(held)
    assert [(entry.bytes, entry.in_use) for entry in upkeep.usage(cache)] == [(100, True), (100, False)]
    room.make_room(cache, 100, 0, 300)
    assert lone.exists()
    room.make_room(cache, 100, 0, 200)
    assert [path.exists() for path in (lone, held, linked)] == [False, True, True]
    with pytest.raises(errors.CacheError, match="limit"):
        room.make_room(cache, 100, 0, 199)
    assert upkeep.collect(cache) == []
    free = put_shard(cache, b"free")
    assert [entry.bytes for entry in upkeep.collect(cache)] == [4]
    assert not free.exists()
    release(held)
    assert [entry.bytes for entry in upkeep.collect(cache)] == [100]
    assert not held.exists()
    assert upkeep.usage(cache) == []


def test_a_shard_that_cannot_be_removed(cache, monkeypatch):
    path, refusals = put_shard(cache, bytes(100)), iter([PermissionError()] * 10)

    def refuse(*_):
        raise next(refusals)  # and something else where it goes on for ever

    monkeypatch.setattr(shards, "move", refuse)
    with pytest.raises(errors.CacheError) as caught:
        room.make_room(cache, 100, 0, 100)
    assert caught.value.code == "cache_limit"
    assert path.exists()


def test_open_shards_are_not_even_moved(cache, monkeypatch):
    held, free = put_shard(cache, b"held"), put_shard(cache, b"free")
    announce(held)
    moved, move = [], shards.move
    monkeypatch.setattr(shards, "move", lambda *paths: moved.append(paths[0]) or move(*paths))
    monkeypatch.setattr(shards, "OLD_AFTER_S", -1.0)
    upkeep.collect(cache)
    assert moved == [free]
    release(held)


def test_the_shards_of_a_dataset_go_with_it(cache):
    path = put(cache, "a", 100, 1000.0)
    own, others = put_shard(cache, b"own"), put_shard(cache, b"others")
    (path / "shard").hardlink_to(own)
    sidecar = sidecar_of(path)
    members = [asdict(Member("shard", 3, own.name))]
    sidecar.write_text(json.dumps(json.loads(sidecar.read_bytes()) | {"members": members}))
    upkeep.remove(cache, path)
    assert not own.exists()
    assert others.exists(), "its dataset may be being made"


def test_shards_go_by_when_they_came_and_not_by_when_they_were_written(cache, monkeypatch):
    written = cache.scratch / "file"
    written.write_bytes(b"some")
    os.utime(written, (1000.0, 1000.0))
    path, opened = keep(cache, written, "a" * 64), put_shard(cache, b"opened")
    release(path)
    announce(opened)
    upkeep.collect(cache)
    assert path.exists()
    monkeypatch.setattr(shards, "OLD_AFTER_S", -1.0)
    upkeep.collect(cache)
    assert not path.exists()
    assert opened.exists()
    assert written.exists()
    release(opened)


def test_a_damaged_shard_makes_way_for_the_right_one(cache):
    right = cache.scratch / "file"
    right.write_bytes(b"right")
    damaged = put_shard(cache, b"right")
    damaged.write_bytes(b"wrong")
    for _ in range(2):
        assert keep(cache, right, damaged.name).samefile(right)
    assert list(cache.scratch.iterdir()) == [right]


@pytest.fixture
def shard(server, topic):
    """A shard that the server has: what it says of archives will do."""
    archive = topic.archive
    url = f"{server.url}/api/v1/datasets/{archive.dataset_id}/archive"
    return SealedShard("a", "train", 1, len(archive.data), archive.sha256, url)


async def test_a_damaged_shard_is_fetched_again(server, topic, settings, cache, shard):
    damaged = cache.shards / shard.sha256
    damaged.write_bytes(bytes(shard.bytes))
    path = await fetch_shard(settings, cache, shard, PACE)
    assert path.read_bytes() == topic.archive.data
    assert is_held(path, time.time())
    server.gets.clear()
    assert await fetch_shard(settings, cache, shard, PACE) == path
    assert server.gets == []


def test_a_damaged_shard_is_removed_by_who_fetches_it_alone(cache, shard):
    """Another may have put the right one there in this moment."""
    damaged = cache.shards / shard.sha256
    damaged.write_bytes(bytes(shard.bytes))
    assert not sealed._is_whole(threading.Event(), damaged, shard)
    assert damaged.exists()


async def test_a_shard_that_does_not_fit(server, settings, cache, shard):
    limited, huge = replace(settings, cache_limit=shard.bytes - 1), replace(shard, bytes=1 << 60)
    for where, what, code in ((limited, shard, "cache_limit"), (settings, huge, "disk_full")):
        with pytest.raises(errors.CacheError) as caught:
            await fetch_shard(where, cache, what, PACE)
        assert caught.value.code == code
    assert server.gets == []
    assert list((cache.root / "uses").iterdir()) == list(cache.downloads.iterdir()) == []
