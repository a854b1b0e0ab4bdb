"""Builds outlive servers: leases with fences, kills in every state, stopping with and without patience."""

import asyncio
import json
import signal
import sqlite3
import threading
import time
from dataclasses import fields, replace

import pytest
import requests
from sqlalchemy import delete
from websockets.exceptions import ConnectionClosed

from dataset_server import ownership
from dataset_server.ownership import Abandoned, new_owner, owner_may_live
from dataset_server.store import BuildStore, Database, Lease, LeaseLostError, NewArchive, Store, Wanted
from dataset_server.store.events import append
from dataset_server.store.schema import Dataset, Shard, datasets
from tests.support import connect, wait_until

ID = "tones_1_" + 32 * "a" + ".zip"
WANTED = Wanted(ID, "tones", "1", "{}", client="c")
SHARD = Shard(ID, "tones-train.tfrecord-00000-of-00001", 0, "train", 1, 10, 64 * "a", None)
MADE = NewArchive(1, 100, 64 * "b", '{"shards": []}', 64 * "c", {SHARD.file: 7}, 1.5)

# Leases in one database


@pytest.fixture
async def database(tmp_path):
    made = Database(f"sqlite+aiosqlite:///{tmp_path / 'server.db'}")
    await made.create()
    yield made
    await made.close()


@pytest.fixture
async def topic(database):
    """A request that waits for the dataset."""
    store = Store(database)
    await BuildStore(database).start(WANTED, None, "first", 10.0)
    made = await store.begin_attempt(ID, "tones", "1", "{}", "1", client="c", limit=None)
    assert await store.attach(made, ID, {"position": 1})
    return made


async def leased(builds) -> Lease:
    """The lease of the dataset that is being made, whoever holds it."""
    (dataset,) = await builds.active()
    return Lease(dataset.dataset_id, dataset.fence)


async def told(database) -> list[tuple[str, dict]]:
    return [(event.kind, event.data) for event in await Store(database).events_after(ID, 0)]


async def test_who_asks_at_the_same_time_shares_one_reading(database, topic):
    store, numbers = Store(database), []

    async def ask(number):
        events = await store.events_after(ID, number)
        numbers.append([event.number for event in events])
        return events

    first, second, third = await asyncio.gather(ask(0), ask(0), ask(1))
    assert first is second
    assert first[1:] == third
    # What is said once a reading has begun is for the next one.
    begun = asyncio.create_task(ask(0))
    while not store._replays:
        await asyncio.sleep(0)
    while store._replays:
        await asyncio.sleep(0)
    async with database.writing() as db:
        await append(db, [ID], "progress", {"done": 1, "total": 2, "rate": None, "eta": None})
    assert [event.kind for event in await ask(0)][-1] == "progress"
    await begun


async def test_only_one_of_two_servers_gets_a_dataset(database):
    builds = BuildStore(database)
    first = await builds.start(WANTED, None, "first", 10.0)
    assert (first.attempt, first.lease_owner, first.state) == (1, "first", "queued")
    assert await builds.start(WANTED, None, "second", 10.0) is None
    claims = [await builds.claim(first, owner, 20.0) for owner in ("second", "third")]
    assert (claims[0].fence, claims[0].lease_owner, claims[1]) == (first.fence + 1, "second", None)


async def test_what_was_deleted_and_is_made_again_is_not_what_it_was(database):
    builds = BuildStore(database)
    first = await builds.start(WANTED, None, "first", 10.0)
    async with database.writing() as db:
        await db.execute(delete(datasets))
    again = await builds.start(WANTED, None, "first", 10.0)
    assert (again.attempt, again.fence != first.fence) == (1, True)
    with pytest.raises(LeaseLostError):
        await builds.set_state(Lease(ID, first.fence), "building")


async def test_who_lost_its_lease_writes_nothing(database, topic):
    builds, store = BuildStore(database), Store(database)
    seen = await store.dataset(ID)
    stale = Lease(ID, seen.fence)
    taken = await builds.claim(seen, "second", 20.0)
    before = await store.dataset(ID), await told(database), await store.sealed_shards(ID)
    for write in (
        lambda: builds.set_state(stale, "building"),
        lambda: builds.postpone(stale, 1, 5.0, {"reason": "worker_died"}),
        lambda: builds.forget_shards(stale),
        lambda: builds.seal_shard(stale, SHARD),
        lambda: builds.progress(stale, {"done": 1, "total": 2}),
        lambda: builds.publish(stale, MADE),
        lambda: builds.fail(stale, {"code": "handler_failed", "message": ""}),
    ):
        with pytest.raises(LeaseLostError):
            await write()
    assert (await store.dataset(ID), await told(database), await store.sealed_shards(ID)) == before
    assert await builds.renew("first", 99.0) == set()
    held = Lease(ID, taken.fence)
    assert await builds.renew("second", 99.0) == {held}
    assert await builds.seal_shard(held, SHARD) == [ID]
    assert await builds.publish(held, MADE) == [ID]
    assert (await told(database))[-1][0] == "ready"


async def test_a_cancelled_build_writes_nothing_more(database, topic):
    builds, store = BuildStore(database), Store(database)
    seen = await store.dataset(ID)
    assert await builds.cancel(ID, seen.attempt, {"code": "cancelled", "message": "enough", "by": "c"}) == [ID]
    assert await builds.cancel(ID, seen.attempt, {"code": "cancelled", "message": "again", "by": "d"}) is None
    with pytest.raises(LeaseLostError):
        await builds.publish(Lease(ID, seen.fence), MADE)
    kinds = [kind for kind, _ in await told(database)]
    assert kinds == ["state", "state", "cancelled"]
    assert (await store.dataset(ID)).state == "cancelled"


async def test_failures_that_are_tried_again_end_nothing(database, topic):
    builds, store = BuildStore(database), Store(database)
    seen = await store.dataset(ID)
    assert await builds.postpone(Lease(ID, seen.fence), 1, 5.0, {"reason": "worker_died", "message": "m"}) == [ID]
    kind, data = (await told(database))[-1]
    assert (kind, data["state"], data["reason"], data["try"], data["retry_at"]) == (
        "state", "queued", "worker_died", 2, 5.0
    )  # fmt: skip
    now = await store.dataset(ID)
    assert (now.tries, now.not_before, now.attempt, now.fence) == (1, 5.0, 1, seen.fence)


async def test_an_archive_is_there_until_the_next_revision_is(database, topic):
    builds, store = BuildStore(database), Store(database)
    await builds.seal_shard(await leased(builds), SHARD)
    await builds.publish(await leased(builds), MADE)
    ready = await store.dataset(ID)
    again = await builds.start(WANTED, ready, "first", 10.0)
    assert (again.revision, again.archive_sha256, again.attempt) == (1, MADE.sha256, 2)
    assert await store.manifest(ID) is None, "that of the new one is not there yet"
    with sqlite3.connect(database._engine.url.database) as raw:
        ((number, sha256, sealed),) = raw.execute("SELECT revision, sha256, shards FROM revisions")
    assert (number, sha256, json.loads(sealed)[0]["offset"]) == (1, MADE.sha256, 7)
    await builds.publish(Lease(ID, again.fence), MADE)  # it came out as it was
    assert (await store.dataset(ID)).revision == 1
    with sqlite3.connect(database._engine.url.database) as raw:
        assert list(raw.execute("SELECT * FROM revisions")) == []


async def test_who_goes_down_with_a_build_is_counted_until_it_gets_on(database, topic):
    builds, store = BuildStore(database), Store(database)
    seen = await builds.claim(await store.dataset(ID), "second", 20.0)
    assert seen.crashes == 0, "it had not begun"
    await builds.set_state(Lease(ID, seen.fence), "building")
    seen = await builds.claim(await store.dataset(ID), "third", 30.0)
    assert seen.crashes == 1
    await builds.seal_shard(Lease(ID, seen.fence), SHARD)
    assert (await store.dataset(ID)).crashes == 0
    await builds.set_state(Lease(ID, seen.fence), "building")
    seen = await builds.claim(await store.dataset(ID), "third", 35.0)
    assert seen.crashes == 0, "it is there itself to take it up"
    await builds.set_state(Lease(ID, seen.fence), "building")
    await builds.give_back("third")
    assert (await builds.claim(await store.dataset(ID), "fourth", 40.0)).crashes == 0, "it was asked to stop"


async def test_a_shard_that_is_announced_otherwise_is_noted_so(database, topic):
    builds = BuildStore(database)
    for shard in (SHARD, SHARD, replace(SHARD, bytes=11)):
        await builds.seal_shard(await leased(builds), shard)
    assert await Store(database).sealed_shards(ID) == [replace(SHARD, bytes=11)]
    assert [data["bytes"] for kind, data in await told(database) if kind == "shard"] == [10, 11]


async def test_only_shards_of_the_archive_stay(database, topic):
    builds = BuildStore(database)
    left_out = replace(SHARD, file=SHARD.file.replace("00000-of", "00001-of"))
    for shard in (SHARD, left_out):
        await builds.seal_shard(await leased(builds), shard)
    await builds.publish(await leased(builds), MADE)
    assert await Store(database).sealed_shards(ID) == [replace(SHARD, offset=7)]


async def test_who_joins_a_request_has_asked_for_it(database, topic):
    builds, store = BuildStore(database), Store(database)
    for _ in range(2):
        await store.join(topic, "d")
    assert await builds.askers_of(await store.dataset(ID)) == {"c", "d"}
    await builds.fail(await leased(builds), {"code": "handler_failed", "message": ""})
    assert await builds.askers_of(await store.dataset(ID)) == {"c", "d"}
    await store.join(topic, "late")
    again = await store.begin_attempt(ID, "tones", "1", "{}", "1", client="e", limit=None, priority=-3)
    assert again.priority == -3
    assert await store.attach(again, ID, {})
    failed = await store.dataset(ID)
    assert await builds.askers_of(failed) == {"e"}
    again = await builds.start(replace(WANTED, client="d"), failed, "first", 10.0)
    assert await builds.askers_of(again) == {"d"}
    topic = await store.begin_attempt(ID, "tones", "1", "{}", "1", client="c", limit=None)
    assert await store.attach(topic, ID, {})
    assert await builds.askers_of(again) == {"c", "d"}, "who had it made once more still waits for it"


async def test_what_is_said_of_a_request_is_said_by_its_dataset_once_there_is_one(database, topic):
    store = Store(database)
    assert not await store.say(topic, "cancelled", {"message": "enough"})
    assert (await store.topic(ID)).state == "queued"
    other = "other_" + ID
    before = await store.begin_attempt(other, "tones", "1", "{}", "1", client="c", limit=None)
    assert await store.say(before, "cancelled", {"message": "enough"})
    assert (await store.topic(other)).state == "cancelled"


async def test_how_much_a_client_has_under_way(database, topic):
    builds = BuildStore(database)
    assert (await builds.active_builds("c"), await builds.active_builds("d")) == (1, 0)


async def test_of_earlier_attempts_only_the_ends_are_kept(database, topic):
    builds, store = BuildStore(database), Store(database)
    await builds.progress(await leased(builds), {"done": 1, "total": 2})
    await builds.fail(await leased(builds), {"code": "handler_failed", "message": ""})
    await store.begin_attempt(ID, "tones", "1", "{}", "1", client="c", limit=None)
    events = await store.events_after(ID, 0)
    assert [(event.attempt, event.kind) for event in events] == [(1, "failed"), (2, "state")]
    assert await store.begin_attempt(ID, "tones", "1", "{}", "1", client="c", limit=1) is None


# Whose lease may be taken


def test_a_lease_lapses_by_our_own_clock_alone(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(ownership.time, "monotonic", lambda: now)
    elsewhere = "1.2.boot.abcdef@another-machine"
    dataset = _dataset(lease_owner=elsewhere, lease_until=time.time() - 1e6)  # a clock an hour ahead says: long ago
    leases = Abandoned("ours", 30.0)
    assert not leases.may_claim(dataset), "seen for the first time"
    now += 29
    assert not leases.may_claim(dataset)
    dataset = replace(dataset, lease_until=dataset.lease_until - 50)  # renewed, by a clock that was set back
    assert not leases.may_claim(dataset)
    now += 31
    assert leases.may_claim(dataset)


def test_the_leases_of_the_dead_are_free_at_once():
    leases = Abandoned("ours", 30.0)
    alive = new_owner()
    process, host = alive.split("@", 1)
    pid, started, boot, run = process.split(".")
    assert owner_may_live(alive)
    assert len(alive) <= 64
    for owner in (
        f"{pid}.{int(started) + 1}.{boot}.{run}@{host}",  # the number is another process's by now
        f"{pid}.{started}.{boot[::-1]}x.{run}@{host}",  # before this boot
        f"{2**22 + 1}.{started}.{boot}.{run}@{host}",  # gone
        "nonsense",
    ):
        assert not owner_may_live(owner)
        assert leases.may_claim(_dataset(lease_owner=owner))
    for owner in (None, "ours"):
        assert leases.may_claim(_dataset(lease_owner=owner))
    assert not leases.may_claim(_dataset(lease_owner=alive))


def _dataset(**values):
    blank = {field.name: None for field in fields(Dataset)}
    return Dataset(**{**blank, "dataset_id": ID, "fence": 1, "state": "building", **values})


# Real servers

CONFIG = {"fault": "slow", "count": 24, "examples_per_shard": 3}


@pytest.fixture(scope="module")
def undisturbed(server):
    """The sha256 that all others must come to."""
    return server.make("faulty", CONFIG, version="1.0")["archive"]["sha256"]


def state_of(server, dataset_id: str) -> str:
    """Straight from the database: asking the server would count as waiting."""
    with sqlite3.connect(server.data_dir / "server.db") as database:
        rows = list(database.execute("SELECT state FROM datasets WHERE dataset_id = ?", (dataset_id,)))
    return rows[0][0] if rows else ""


def test_killed_in_every_state(make_server, plugin_sources, undisturbed):
    """One folder, killed again and again: queued or planning, building, publishing or just after, ready."""
    options = {"handlers": plugin_sources, "settings": {"workers": 2, "retry_seconds": 0.05}}
    first = make_server("killed", **options)
    answer = first.post("faulty", CONFIG, version="1.0").json()

    def reach_and_kill(server, *states: str) -> None:
        assert wait_until(lambda: state_of(server, answer["dataset_id"]) in states, 60)
        server.stop(signal.SIGKILL)

    reach_and_kill(first, "queued", "planning", "building")
    reach_and_kill(make_server("killed", **options), "building")
    reach_and_kill(make_server("killed", **options), "publishing", "ready")
    reach_and_kill(make_server("killed", **options), "ready")
    last = make_server("killed", **options)
    events = last.events(answer["topic_id"])
    assert [event["kind"] for event in events if event["kind"] in ("ready", "failed", "cancelled")] == ["ready"]
    assert events[-1]["data"]["archive"]["sha256"] == undisturbed
    assert last.get(f"datasets/{answer['dataset_id']}").json()["attempt"] == 1
    assert list((last.data_dir / "work").iterdir()) == []


def test_a_server_that_is_asked_to_stop_lets_builds_end(make_server, plugin_sources, undisturbed):
    server = make_server("drained", handlers=plugin_sources, settings={"workers": 2, "drain_seconds": 120})
    answer = server.post("faulty", CONFIG, version="1.0").json()
    url = f"{server.api.replace('http', 'ws', 1)}/notifications?topic={answer['topic_id']}"
    heard, ended = [], threading.Event()

    def listen() -> None:
        with connect(url) as socket:
            try:
                while True:
                    heard.append(json.loads(socket.recv(timeout=120)))
            except ConnectionClosed as closed:
                heard.append({"kind": "closed", "code": closed.rcvd and closed.rcvd.code})
                ended.set()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    assert wait_until(lambda: any(message["kind"] == "shard" for message in heard), 60)
    server.process.send_signal(signal.SIGTERM)
    assert wait_until(lambda: requests.get(f"{server.url}/readyz", timeout=60).status_code == 503)
    refused = server.post("faulty", {**CONFIG, "seed": 2}, version="1.0")
    assert (refused.status_code, refused.json()["code"]) == (503, "stopping")
    assert int(refused.headers["Retry-After"]) > 0
    assert ended.wait(120)
    assert [message["kind"] for message in heard[-2:]] == ["ready", "closed"]
    assert heard[-1]["code"] == 1001
    assert heard[-2]["data"]["archive"]["sha256"] == undisturbed
    assert server.process.wait(60) == 0
    server.stop()  # which closes its files


def test_asked_twice_it_stops_at_once_and_the_next_goes_on(make_server, plugin_sources, undisturbed):
    options = {"handlers": plugin_sources, "settings": {"workers": 2, "drain_seconds": 3600}}
    server = make_server("hurried", **options)
    answer = server.post("faulty", CONFIG, version="1.0").json()
    assert wait_until(lambda: state_of(server, answer["dataset_id"]) == "building", 60)
    server.process.send_signal(signal.SIGTERM)
    assert wait_until(lambda: requests.get(f"{server.url}/readyz", timeout=60).status_code == 503)
    assert server.stop() == 0
    with sqlite3.connect(server.data_dir / "server.db") as database:
        assert list(database.execute("SELECT lease_owner FROM datasets")) == [(None,)], "given back"
    events = make_server("hurried", **options).events(answer["topic_id"])
    assert events[-1]["data"]["archive"]["sha256"] == undisturbed


def test_what_nobody_waits_for_is_cancelled(make_server, plugin_sources):
    settings = {"workers": 2, "cancel_unwatched_seconds": 0.5}
    server = make_server("unwatched", handlers=plugin_sources, settings=settings)
    config = {"fault": "slow", "count": 5000}
    answer = server.post("faulty", config, version="1.0").json()
    assert wait_until(lambda: state_of(server, answer["dataset_id"]) == "cancelled", 60)
    last = server.events(answer["topic_id"])[-1]
    assert "nobody waited" in last["data"]["message"]
    # Who asks again, and listens, is served: for longer than anybody was missing.
    again = server.post("faulty", config, version="1.0").json()
    with connect(f"{server.api.replace('http', 'ws', 1)}/notifications?topic={again['topic_id']}") as socket:
        progress = 0
        while progress < 30:  # a tenth of a second each, by two workers
            message = json.loads(socket.recv(timeout=60))
            assert message["attempt"] == 1 or message["kind"] != "cancelled" or message["attempt"] < again["attempt"]
            if message["kind"] == "progress" and message["attempt"] == again["attempt"]:
                progress = message["data"]["done"]
    assert wait_until(lambda: state_of(server, again["dataset_id"]) == "cancelled", 60), "nobody listens any more"
