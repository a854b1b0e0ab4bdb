"""Builds over a real database, with a maker that does as it is told: whose folder it is, and what is left behind."""

import asyncio
import json
import os
import threading
import time
from types import SimpleNamespace

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from dataset_server.errors import EnvironmentFailedError, HandlerFaultError
from dataset_server.hub import Hub
from dataset_server.making import _claim_folder, _refuse_other_size
from dataset_server.notifications import LOOK_SECONDS, _send, news_of
from dataset_server.store import Lease, NewArchive, insist
from dataset_server.store import database as database_module
from tests.server.builds_support import ID, WANTED, Scene
from tests.support import wait_until


@pytest.fixture
async def scene(tmp_path):
    made = Scene(tmp_path)
    await made.database.create()
    yield made
    await made.database.close()


async def started(builds) -> asyncio.Task:
    """The task of a build that was claimed and begun."""
    builds.start(await builds.claim(WANTED, await builds._datasets.dataset(ID)), object())
    return builds._running[ID].task


async def asked(scene):
    """A request that is not tied to a dataset yet."""
    return await scene.datasets.begin_attempt(ID, "tones", "1", "{}", "1", client="c", limit=None)


async def reach(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), 60)


async def test_a_build_that_is_stopped_does_not_fail_of_what_its_end_meets(scene):
    begun, failures = asyncio.Event(), [OSError("the disk cannot be written to any more")]

    async def make(*_):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            if failures:
                raise failures.pop()

    builds = scene.builds(make)
    await started(builds)
    await reach(begun)
    await asyncio.wait_for(builds.close(), 60)
    assert await scene.state() == "queued", "the next server goes on with it"


async def test_a_build_waits_for_the_one_it_follows_though_it_is_cancelled(scene):
    begun, may_end, ended = asyncio.Event(), asyncio.Event(), []

    async def make(*_):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await may_end.wait()
            ended.append("first")

    builds = scene.builds(make)
    first = await started(builds)
    await reach(begun)
    cancelling = asyncio.create_task(builds.cancel(await scene.datasets.dataset(ID), "", "enough"))
    while not first.cancelling():
        await asyncio.sleep(0.001)
    second = await started(builds)
    await asyncio.sleep(0.01)
    second.cancel()
    await asyncio.sleep(0.01)
    assert not second.done(), "the first is in the folder"
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert await cancelling
    assert ended == ["first"]
    await builds.close()


async def test_a_build_that_fails_leaves_no_archive_that_no_row_names(scene):
    async def make(dataset, *_):
        scene.write_archive(dataset.revision + 1)
        raise HandlerFaultError("handler_failed", "after the archive was written")

    builds = scene.builds(make)
    await started(builds)
    await asyncio.wait_for(builds._running[ID].task, 60)
    assert await scene.state() == "failed"
    assert list((scene.settings.data_dir / "archives").iterdir()) == []


async def test_an_archive_that_is_published_stays_when_that_is_told_twice(scene, monkeypatch):
    """The connection breaks after the commit: the second time it is not the build's dataset any more."""
    made = NewArchive(1, 7, 64 * "b", "{}", 64 * "c", {}, 1.5)

    async def make(*_):
        scene.write_archive(1)
        return made

    publish = scene.store.publish

    async def publish_and_break(lease, made):
        await publish(lease, made)
        raise OperationalError("COMMIT", {}, Exception("connection lost"))

    async def at_once(_):
        scene.store.publish = publish

    builds = scene.builds(make)
    scene.store.publish = publish_and_break
    monkeypatch.setattr(database_module, "asyncio", SimpleNamespace(sleep=at_once))
    task = await started(builds)
    await asyncio.wait_for(task, 60)
    assert await scene.state() == "ready"
    assert scene.cache.archive_path(ID, 1).read_bytes() == b"archive"


async def test_what_fails_in_the_database_for_good_is_not_repeated():
    async def wrong():
        raise IntegrityError("INSERT", {}, Exception("UNIQUE constraint failed"))

    with pytest.raises(IntegrityError):
        await asyncio.wait_for(insist(wrong), 60)


async def test_a_full_disk_is_not_kept_full(tmp_path):
    scene = Scene(tmp_path, retry_limit=0)
    await scene.database.create()

    async def make(_dataset, _lease, _resolved, work):
        work.mkdir()
        (work / "half").write_bytes(b"x" * 1000)
        raise OSError(28, "No space left on device")

    builds = scene.builds(make)
    await asyncio.wait_for(await started(builds), 60)
    assert await scene.state() == "failed"
    assert wait_until(lambda: not list(builds.work_root.iterdir()))
    await scene.database.close()


async def test_nobody_waits_for_files_to_be_removed(scene, monkeypatch):
    may_end, removed = threading.Event(), []

    def remove_tree(folder):
        may_end.wait(60)
        removed.append(folder)

    async def make(_dataset, _lease, _resolved, work):
        work.mkdir()
        raise HandlerFaultError("handler_failed", "after many gigabytes")

    monkeypatch.setattr("dataset_server.background.remove_tree", remove_tree)
    builds = scene.builds(make)
    try:
        await asyncio.wait_for(await started(builds), 60)
        assert await scene.state() == "failed"
        (trash,) = builds.work_root.iterdir()
        await builds._remove_orphans()
        assert list(builds.work_root.iterdir()) == [trash], "that goes already"
        await builds.open()
        await builds.close()
    finally:
        may_end.set()
    assert wait_until(lambda: removed == [trash, trash]), "by the build, and at the start of the next server"


async def test_folders_go_unless_a_build_is_in_them_or_about_to_be(scene):
    builds = scene.builds(None)
    work = builds.work_folder(ID)
    work.mkdir()
    builds._claiming.add(ID)
    await builds._remove_orphans()
    builds.discard(ID)
    assert work.is_dir(), "somebody claims it right now"
    builds._claiming.clear()
    await builds._remove_orphans()
    assert wait_until(lambda: not list(builds.work_root.iterdir()))
    (builds.work_root / "trash-1").mkdir()
    await builds.open()
    await builds.close()
    assert wait_until(lambda: not list(builds.work_root.iterdir()))


async def test_what_is_being_claimed_is_not_taken_for_abandoned(scene):
    builds = scene.builds(None)
    dataset = await builds.claim(WANTED, None)
    await builds._adopt()
    assert (await scene.datasets.dataset(ID)).fence == dataset.fence


async def test_a_server_that_is_closed_starts_nothing(scene):
    builds = scene.builds(None)
    dataset = await builds.claim(WANTED, None)
    await builds.close()
    builds.start(dataset, object())
    assert builds._running == {}


async def test_a_build_that_takes_servers_down_is_given_up(scene, monkeypatch):
    monkeypatch.setattr("dataset_server.builds.resolve_again", lambda *_: object())
    builds = scene.builds(None)
    await scene.store.start(WANTED, None, "dead", 1.0)
    for number in range(5):
        seen = await scene.datasets.dataset(ID)
        await scene.store.set_state(Lease(ID, seen.fence), "building")
        assert (await scene.store.claim(await scene.datasets.dataset(ID), f"dead {number}", 1.0)).crashes == number + 1
    await builds._adopt()
    now = await scene.datasets.dataset(ID)
    assert (now.state, "servers in a row" in now.error) == ("failed", True)


async def test_a_source_that_cannot_be_read_now_ends_no_build(scene, monkeypatch, caplog):
    def resolve_again(*_):
        raise EnvironmentFailedError("the handler's source folder cannot be read")

    monkeypatch.setattr("dataset_server.builds.resolve_again", resolve_again)
    await scene.store.start(WANTED, None, "dead", 1.0)
    builds = scene.builds(None)
    await builds._adopt()
    assert "cannot be taken up yet" in caplog.text
    assert await scene.state() == "queued"
    monkeypatch.setattr("dataset_server.builds.LONGEST", 0.0)
    await builds._adopt()
    assert json.loads((await scene.datasets.dataset(ID)).error)["code"] == "environment_failed", "but not for ever"
    await builds._adopt()
    assert builds._unreadable == {}


@pytest.mark.parametrize("is_asked_for", [True, False])
async def test_what_is_taken_up_goes_on_for_its_own_sake_unless_somebody_asked(scene, monkeypatch, is_asked_for):
    async def make(*_):
        await asyncio.Event().wait()

    monkeypatch.setattr("dataset_server.builds.resolve_again", lambda *_: object())
    await scene.store.start(WANTED, None, "dead", 1.0)
    if is_asked_for:
        assert await scene.datasets.attach(await asked(scene), ID, {})
    builds = scene.builds(make)
    await builds._adopt()
    assert builds._running[ID].for_its_own_sake is not is_asked_for
    await builds.close()


async def test_what_this_server_lost_sight_of_is_not_made_for_its_own_sake(scene, monkeypatch):
    async def make(*_):
        await asyncio.Event().wait()

    monkeypatch.setattr("dataset_server.builds.resolve_again", lambda *_: object())
    builds = scene.builds(make)
    await scene.store.start(WANTED, None, builds._owner, 1.0)
    await builds._adopt()
    assert not builds._running[ID].for_its_own_sake
    await builds.close()


async def test_leases_are_kept_whatever_goes_wrong(tmp_path, monkeypatch, caplog):
    """A machine that can start no more threads, for one."""
    scene = Scene(tmp_path, lease_seconds=0.03)
    await scene.database.create()
    builds, renewed = scene.builds(None), asyncio.Event()
    renew, troubles = scene.store.renew, [RuntimeError("can't start new thread"), ValueError("who knows")]

    async def renew_later(*arguments):
        if troubles:
            raise troubles.pop()
        renewed.set()
        return await renew(*arguments)

    monkeypatch.setattr(scene.store, "renew", renew_later)
    keeping = asyncio.create_task(builds._keep_leases())
    await asyncio.wait_for(renewed.wait(), 60)
    assert caplog.text.count("the leases cannot be renewed") == 2
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await scene.database.close()


async def test_who_listens_to_a_build_that_has_just_ended_is_told(tmp_path):
    """Its task may be cancelled for a lost lease before it could tell."""
    scene = Scene(tmp_path, lease_seconds=0.03)
    await scene.database.create()

    async def make(*_):
        await asyncio.Event().wait()

    builds = scene.builds(make)
    task = await started(builds)
    assert await scene.datasets.attach(await asked(scene), ID, {})
    await scene.store.fail(builds._running[ID].lease, {"code": "handler_failed", "message": ""})
    with scene.hub.listen([ID]) as news:
        keeping = asyncio.create_task(builds._keep_leases())
        await reach(news)
    assert task.cancelling()
    keeping.cancel()
    await asyncio.gather(keeping, task, return_exceptions=True)
    await scene.database.close()


async def test_draining_waits_for_turns_not_for_pauses(scene):
    begun, may_fail = asyncio.Event(), asyncio.Event()

    async def make(*_):
        begun.set()
        await may_fail.wait()
        raise OSError(28, "No space left on device")

    builds = scene.builds(make)
    builds._settings = scene.settings.model_copy(update={"retry_seconds": 3600.0})
    await started(builds)
    await reach(begun)
    draining = asyncio.create_task(builds.drain(3600))
    await asyncio.sleep(0.01)
    assert not draining.done()
    may_fail.set()
    await asyncio.wait_for(draining, 60)
    assert (await scene.datasets.dataset(ID)).tries == 1, "what the failure means was told"
    await builds.close()


# What a handler says of its shards, and what an earlier attempt left


def test_a_shard_has_the_size_that_was_announced(tmp_path):
    shard = tmp_path / "shard"
    for make, size in (
        (lambda: None, 3),
        (lambda: shard.write_bytes(b"abc"), 4),
        (lambda: (shard.unlink(), shard.symlink_to(__file__)), os.stat(__file__).st_size),
    ):
        make()
        with pytest.raises(HandlerFaultError) as caught:
            _refuse_other_size(shard, size)
        assert caught.value.code == "handler_protocol"
    shard.unlink()
    shard.write_bytes(b"abc")
    _refuse_other_size(shard, 3)


@pytest.fixture
def half_made(tmp_path):
    """A build's folder whose plan has read a raw file, and that file, which was at rest."""
    raw, work = tmp_path / "raw", tmp_path / "work"
    (raw / "photos").mkdir(parents=True)
    (raw / "photos" / "1.jpg").write_text("old")
    environment = SimpleNamespace(key="e" * 32)
    assert _claim_folder(work, environment, raw)
    (work / "plan").mkdir()
    (work / "plan" / "plan.json").write_text('{"raw_files": [["photos/1.jpg", "0"]]}')
    return raw, work, environment


def test_a_build_goes_on_where_it_was(half_made):
    raw, work, environment = half_made
    os.utime(work / "environment", times=(time.time() + 10, time.time() + 10))  # the raw file was at rest before that
    assert not _claim_folder(work, environment, raw)
    assert (work / "plan").is_dir()


def test_a_build_does_not_go_on_with_other_raw_files(half_made):
    raw, work, environment = half_made
    (raw / "photos" / "1.jpg").write_text("new")
    assert _claim_folder(work, environment, raw)
    assert not (work / "plan").exists()


def test_a_build_starts_over_where_its_note_is_none(half_made):
    raw, work, environment = half_made
    (work / "environment").unlink()
    (work / "environment").symlink_to("/dev/zero")
    assert _claim_folder(work, environment, raw)
    assert (work / "environment").read_text() == environment.key


# A socket hears what nobody here was told of


async def test_a_socket_looks_for_news_by_itself(monkeypatch):
    monkeypatch.setattr("dataset_server.notifications.LOOK_SECONDS", 0.01)
    said, sent = [], []
    heard = asyncio.Event()

    class Stored:
        async def events_after(self, _topic_id, number):
            return [event for event in said if event.number > number]

    class Socket:
        async def send_str(self, text):
            sent.append(text)
            heard.set()

    sending = asyncio.create_task(
        _send(Socket(), Stored(), asyncio.Event(), {"t": 0}, set(), lambda: None, lambda _: None)
    )
    await asyncio.sleep(0.02)
    said.append(SimpleNamespace(number=1, to_json=lambda: "ready"))
    await reach(heard)
    assert sent == ["ready"]
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


async def test_who_can_open_no_socket_waits_for_news(scene):
    """And of what there is already is told at once."""
    waiting = asyncio.create_task(news_of(scene.datasets, scene.hub, {ID: 0}, 50))
    while ID not in scene.hub._listeners:
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await asked(scene)
    scene.hub.wake([ID])
    subscribed, event = await asyncio.wait_for(waiting, LOOK_SECONDS / 2)  # it was woken, and did not look by itself
    assert (subscribed["kind"], subscribed["attempt"]) == ("subscribed", 1)
    assert (event["kind"], event["number"]) == ("state", 1)
    assert await news_of(scene.datasets, scene.hub, {ID: 0}, 50) == [subscribed, event]
    assert await news_of(scene.datasets, scene.hub, {ID: 1}, 0) == [subscribed]
    assert scene.hub._listeners == {}
    await scene.hub.all_told()


async def test_who_stops_can_wait_until_all_is_told():
    hub = Hub()
    with hub.listen(["t"]) as news, hub.listen(["t"]):
        await asyncio.wait_for(hub.all_told(), 60)
        hub.wake(["t"])
        waiting = asyncio.create_task(hub.all_told())
        hub.caught_up(news)
        news.clear()
        hub.caught_up(news)
        await asyncio.sleep(0)
        assert not waiting.done(), "the other has not passed it on"
    await asyncio.wait_for(waiting, 60)
