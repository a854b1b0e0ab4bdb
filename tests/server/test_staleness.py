"""Raw data that changed is found, and nothing else is taken for a change."""

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import shutil
import threading
import time

import pytest

from dataset_server import freshness as checking
from dataset_server import staleness
from dataset_server.archive_folder import ArchiveFolder
from dataset_server.background import StoppedError
from dataset_server.freshness import Freshness
from dataset_server.staleness import Looked, began_at, look, note, record, settle
from dataset_server.store import Database
from dataset_server.store.cache import CacheStore
from dataset_server.store.schema import Dataset

PHOTO, OTHER, LABELS = "photos/day/a.jpg", "photos/day/b.jpg", "labels.json"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def raw(tmp_path):
    """Raw data that has been there for an hour, and the folder of a build that read all of it."""
    root, work = tmp_path / "raw", tmp_path / "work"
    for path in (PHOTO, OTHER, LABELS):
        file = root / "flowers" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)
    (work / "plan").mkdir(parents=True)
    (work / "sealed").mkdir()
    (work / "environment").write_text("key")
    pairs = {path: [f"flowers/{path}", sha256(path)] for path in (PHOTO, OTHER, LABELS)}
    (work / "plan" / "plan.json").write_text(json.dumps({"raw_files": [pairs[LABELS]]}))
    sealed = {"lineage": [{"key": "a", "files": [pairs[PHOTO]]}], "quarantined_files": [pairs[OTHER]]}
    (work / "sealed" / "shard.json").write_text(json.dumps(sealed))
    return root


def listed(raw, tmp_path, began=None):
    """The list of a build that began in a minute, so that all that is there was at rest; or ``began`` at that time."""
    target = tmp_path / "sources.jsonl"
    record(raw, tmp_path / "work", time.time() + 60 if began is None else began, target)
    return target


def check(raw, sources, ledger=None):
    looked = look(raw, sources)
    if looked.gone or not looked.doubtful:
        return looked.gone
    return settle(raw, looked.doubtful, ledger or {}, threading.Event())[0]


def test_what_is_listed(raw, tmp_path):
    lines = [json.loads(line) for line in listed(raw, tmp_path).read_text().splitlines()]
    folders = ["flowers/", "flowers/photos/", "flowers/photos/day/"]
    assert sorted(line[0] for line in lines) == sorted([*folders, *(f"flowers/{x}" for x in (PHOTO, OTHER, LABELS))])
    stat = (raw / "flowers" / PHOTO).stat()
    assert [f"flowers/{PHOTO}", stat.st_ino, stat.st_mtime_ns, stat.st_size, sha256(PHOTO)] in lines


def test_left_alone(raw, tmp_path):
    assert look(raw, listed(raw, tmp_path)) == Looked(None)


def test_touched_or_copied_back_is_no_change_and_is_read_once(raw, tmp_path):
    sources, file = listed(raw, tmp_path), raw / "flowers" / PHOTO
    shutil.copyfile(file, tmp_path / "copy")
    file.unlink()
    shutil.move(tmp_path / "copy", file)
    os.utime(raw / "flowers" / LABELS, (1, 1))
    looked = look(raw, sources)
    assert {entry.path for entry in looked.doubtful} >= {f"flowers/{PHOTO}", f"flowers/{LABELS}"}
    changed, found = settle(raw, looked.doubtful, {}, threading.Event())
    assert changed is None
    note(sources, found)
    assert look(raw, sources) == Looked(None)


@pytest.mark.parametrize("path", [PHOTO, OTHER, LABELS])
def test_another_content_is_a_change_whatever_its_mtime(raw, tmp_path, path):
    sources, file = listed(raw, tmp_path), raw / "flowers" / path
    before = file.stat()
    (tmp_path / "copy").write_text("x" * before.st_size)
    os.utime(tmp_path / "copy", ns=(before.st_atime_ns, before.st_mtime_ns))
    shutil.move(tmp_path / "copy", file)
    assert check(raw, sources) == f"flowers/{path}"


def test_a_photo_added_or_removed(raw, tmp_path):
    sources = listed(raw, tmp_path)
    (raw / "flowers" / "photos" / "day" / ".DS_Store").write_text("x")
    (raw / "elsewhere").mkdir()
    assert check(raw, sources) is None
    (raw / "flowers" / "photos" / "night").mkdir()
    assert check(raw, sources) == "flowers/photos/"
    (raw / "flowers" / "photos" / "night").rmdir()
    assert check(raw, sources) is None
    (raw / "flowers" / PHOTO).unlink()
    assert check(raw, sources) == f"flowers/{PHOTO}"


def test_raw_data_that_is_away_altogether_is_no_change(raw, tmp_path):
    sources = listed(raw, tmp_path)
    raw.rename(tmp_path / "unmounted")
    assert check(raw, sources) is None
    (raw / "flowers").mkdir(parents=True)
    assert check(raw, sources) is None, "where its disk would be mounted"
    (raw / "flowers" / "others.txt").write_text("x")
    assert check(raw, sources) == "flowers/labels.json"


@pytest.mark.parametrize("what", ["stat", "content"])
def test_what_cannot_be_read_now_is_no_change(raw, tmp_path, monkeypatch, what):
    def fail(path, *_, **__):
        raise OSError(errno.EIO, "the disk fails", str(path))

    sources = listed(raw, tmp_path)
    os.utime(raw / "flowers" / PHOTO, (5, 5))
    if what == "stat":
        monkeypatch.setattr(staleness.os, "stat", fail)
    else:
        monkeypatch.setattr(staleness, "_digest", fail)
    with pytest.raises(OSError, match="the disk fails"):
        check(raw, sources)


def test_what_changed_while_it_was_built_is_read_again(raw, tmp_path):
    sources = listed(raw, tmp_path, began=time.time() - 60)
    assert all(entry.inode == 0 for entry in look(raw, sources).doubtful)
    assert check(raw, sources) == "flowers/", "which names the handler saw is not known"
    entries = [entry for entry in look(raw, sources).doubtful if not entry.path.endswith("/")]
    assert settle(raw, entries, {}, threading.Event())[0] is None
    (raw / "flowers" / PHOTO).write_text("changed since it was read")
    assert settle(raw, entries, {}, threading.Event())[0] == f"flowers/{PHOTO}"


def test_a_build_began_when_its_first_note_was_written(raw, tmp_path):
    work = tmp_path / "work"
    os.utime(work / "environment", (1000, 1000))
    (work / "request.json").write_text("{}")
    (work / "handler.txt").write_text("copied with its time")
    os.utime(work / "handler.txt", (500, 500))
    assert began_at(work) == 1000


def test_times_that_lie_ahead_are_those_of_a_clock_that_was_set_back(raw, tmp_path):
    ahead = time.time() + 3600
    for path in (raw / "flowers" / PHOTO, raw / "flowers" / "photos"):
        os.utime(path, (ahead, ahead))
    assert look(raw, listed(raw, tmp_path)) == Looked(None), "else it would be stale until then"


def test_inodes_beyond_what_databases_hold(raw, tmp_path, monkeypatch):
    sources, stat_of = listed(raw, tmp_path), os.stat
    found = os.stat_result((0o100644, 2**64 - 5, 1, 1, 0, 0, 7, 0, 0, 0))
    assert staleness._as_it_is("a", found).inode == -5

    class Far:
        st_ino, st_mtime_ns, st_size = 2**64 - 5, 7, 9

    sources.write_text('["flowers/labels.json", -5, 7, 9, "x"]\n')
    monkeypatch.setattr(staleness.os, "stat", lambda *_: Far)
    assert look(raw, sources) == Looked(None)
    monkeypatch.setattr(staleness.os, "stat", stat_of)


def test_the_longest_name_has_a_list(raw, tmp_path):
    folder = ArchiveFolder(tmp_path)
    target = folder.sources(f"{'n' * 64}_{'1' * 128}_{'0' * 32}.zip", 999_999)
    record(raw, tmp_path / "work", time.time(), target)
    assert target.is_file()


def test_the_ledger_spares_reading(raw, tmp_path, monkeypatch):
    sources, file = listed(raw, tmp_path), raw / "flowers" / PHOTO
    os.utime(file, (5, 5))
    doubtful = look(raw, sources).doubtful
    _, found = settle(raw, doubtful, {}, threading.Event())
    ledger = {entry.path: entry for entry in found}
    file.chmod(0o400)
    monkeypatch.setattr(staleness, "_digest", lambda *_: pytest.fail("it was read again"))
    assert settle(raw, doubtful, ledger, threading.Event()) == (None, found)


def test_paths_that_lead_elsewhere_are_not_followed(raw, tmp_path):
    plan = {"raw_files": [["/etc/passwd", "0"], ["flowers/../../x", "0"], ["", "0"], ["a\0b", "0"], ["\ud800", "0"], 7]}
    (tmp_path / "work" / "plan" / "plan.json").write_text(json.dumps(plan))
    (tmp_path / "work" / "sealed" / "shard.json").write_text('{"lineage": 5}')
    assert listed(raw, tmp_path).read_text() == ""


def test_what_is_no_file_any_more_is_not_read(raw, tmp_path):
    sources, file = listed(raw, tmp_path), raw / "flowers" / PHOTO
    file.unlink()
    os.mkfifo(file)
    assert check(raw, sources) == f"flowers/{PHOTO}"


def test_stopping_ends_a_long_reading(raw, tmp_path):
    sources, stop = listed(raw, tmp_path), threading.Event()
    os.utime(raw / "flowers" / PHOTO, (5, 5))
    stop.set()
    with pytest.raises(StoppedError):
        settle(raw, look(raw, sources).doubtful, {}, stop)


@pytest.mark.parametrize("content", [b"nonsense\n", b"[1]\n", b'["a", "b", 1, 2, 3]\n', b"\xff", b"[" * 9**6])
def test_a_damaged_list_says_nothing(raw, tmp_path, content):
    async def run():
        database = Database(f"sqlite+aiosqlite:///{tmp_path / 'server.db'}")
        await database.create()
        folder = ArchiveFolder(tmp_path)
        folder.sources("a_1_x.zip", 1).write_bytes(content)
        (raw / "a").write_text("x")
        try:
            freshness = Freshness(raw, 0.0, folder, CacheStore(database))
            assert not await freshness.is_stale(_dataset("a_1_x.zip", 1))
            await freshness.close()
        finally:
            await database.close()

    asyncio.run(run())


def test_a_list_that_is_not_there_says_nothing(raw, tmp_path):
    assert look(raw, tmp_path / "nothing") == Looked(None)


def test_checks_are_shared_and_remembered(raw, tmp_path, monkeypatch):
    looks = []

    def slow_look(*arguments):
        looks.append(arguments)
        return look(*arguments)

    async def run():
        database = Database(f"sqlite+aiosqlite:///{tmp_path / 'server.db'}")
        await database.create()
        folder = ArchiveFolder(tmp_path)
        freshness = Freshness(raw, 3600.0, folder, CacheStore(database))
        listed(raw, tmp_path).rename(folder.sources("a_1_x.zip", 1))
        monkeypatch.setattr(staleness, "look", slow_look)
        os.utime(raw / "flowers" / PHOTO, (5, 5))
        dataset = _dataset("a_1_x.zip", 1)
        try:
            answers = await asyncio.gather(*(freshness.is_stale(dataset) for _ in range(10)))
            assert answers == [False] * 10
            assert len(looks) == 1
            (raw / "flowers" / PHOTO).write_text("changed")
            assert not await freshness.is_stale(dataset), "not looked at for an hour"
            assert len(looks) == 1
            ledger = await CacheStore(database).ledger([f"flowers/{PHOTO}"])
            assert ledger[f"flowers/{PHOTO}"].sha256 == sha256(PHOTO)
            again = Freshness(raw, 0.0, folder, CacheStore(database))
            assert await again.is_stale(dataset)
            await again.close()
        finally:
            await freshness.close()
            await database.close()

    asyncio.run(run())


@contextlib.asynccontextmanager
async def freshness_of(raw, folder, every=3600.0):
    """What a server knows of the raw data, with a real ledger."""
    database = Database(f"sqlite+aiosqlite:///{folder.root / 'server.db'}")
    await database.create()
    freshness = Freshness(raw, every, folder, CacheStore(database))
    try:
        yield freshness
    finally:
        await freshness.close()
        await database.close()


async def test_files_that_are_read_for_long_hold_up_nothing_else(raw, tmp_path, monkeypatch):
    folder, reading, may_end, digest = ArchiveFolder(tmp_path), threading.Event(), threading.Event(), staleness._digest
    os.utime(raw / "flowers" / PHOTO, (5, 5))
    names = [f"{name}_1_x.zip" for name in "abcd"]
    for name in names:
        shutil.copy(listed(raw, tmp_path), folder.sources(name, 1))
    os.utime(raw / "flowers" / PHOTO, (6, 6))
    shutil.copy(listed(raw, tmp_path), folder.sources(names[3], 1))  # this one was made after the change

    def slowly(*arguments):
        reading.set()
        assert may_end.wait(60)
        return digest(*arguments)

    monkeypatch.setattr(staleness, "_digest", slowly)
    monkeypatch.setattr(checking, "_PATIENCE", 0.05)
    async with freshness_of(raw, folder) as freshness:
        try:
            waiting = [asyncio.create_task(freshness.is_stale(_dataset(name, 1))) for name in names[:3]]
            assert await asyncio.wait_for(asyncio.gather(*waiting), 60) == [False] * 3, "not known yet"
            assert await asyncio.to_thread(reading.wait, 60)
            monkeypatch.setattr(checking, "_PATIENCE", 60.0)
            assert not await freshness.is_stale(_dataset(names[3], 1))
            assert freshness._known.keys() == {names[3]}, "a look is enough for it"
            (raw / "flowers" / PHOTO).write_text("changed")
        finally:
            may_end.set()
        assert await freshness.is_stale(_dataset(names[0], 1)), "the check went on"


async def test_what_was_read_before_a_file_that_cannot_be_read_is_kept(raw, tmp_path, monkeypatch):
    digest = staleness._digest

    def fail(path, stop):
        if path.name == "a.jpg":
            raise OSError(errno.EIO, "the disk fails", str(path))
        return digest(path, stop)

    folder = ArchiveFolder(tmp_path)
    listed(raw, tmp_path).rename(folder.sources("a_1_x.zip", 1))
    for path in (PHOTO, LABELS):
        os.utime(raw / "flowers" / path, (5, 5))
    monkeypatch.setattr(staleness, "_digest", fail)
    monkeypatch.setattr(checking, "_PART", 1)
    touched = [entry.path for entry in look(raw, folder.sources("a_1_x.zip", 1)).doubtful]
    assert touched == [f"flowers/{LABELS}", f"flowers/{PHOTO}"]
    async with freshness_of(raw, folder) as freshness:
        assert not await freshness.is_stale(_dataset("a_1_x.zip", 1))
        assert set(await freshness._store.ledger(touched)) == {f"flowers/{LABELS}"}


async def test_a_list_that_is_being_written_is_there_before_its_build_ends(raw, tmp_path, monkeypatch):
    begun, may_end, written = threading.Event(), threading.Event(), []

    def slowly(*_):
        begun.set()
        assert may_end.wait(60)
        written.append(True)

    monkeypatch.setattr(staleness, "record", slowly)
    async with freshness_of(raw, ArchiveFolder(tmp_path)) as freshness:
        recording = asyncio.create_task(freshness.record("a_1_x.zip", 1, tmp_path / "work"))
        await asyncio.to_thread(begun.wait, 60)
        recording.cancel()
        await asyncio.sleep(0.01)
        assert not recording.done(), "else it is written after the archive was removed"
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await recording
        assert written


def test_what_cannot_be_looked_for_now_ends_no_build(raw, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "the disk fails")

    (raw / "flowers" / PHOTO).unlink()
    assert staleness.changed_since_begun(raw, tmp_path / "work") is not None
    os.utime(tmp_path / "work" / "environment", (time.time() + 3600,) * 2)
    assert staleness.changed_since_begun(raw, tmp_path / "work") == f"flowers/{PHOTO}"
    monkeypatch.setattr(staleness, "_is_away", fail)
    assert staleness.changed_since_begun(raw, tmp_path / "work") is None


def _dataset(dataset_id, revision):
    values = dict.fromkeys(Dataset.__dataclass_fields__)
    return Dataset(**{**values, "dataset_id": dataset_id, "revision": revision, "state": "ready"})
