"""Requests over a real database: who may change what, and what becomes of those that are cut off."""

import asyncio
import contextlib
import json
from types import SimpleNamespace

import pytest
from sqlalchemy import update

from dataset_client.protocol import hash_dataset_name
from dataset_server.auth import Client, Role
from dataset_server.errors import (
    ConfigRefusedError,
    EnvironmentFailedError,
    ForbiddenError,
    HandlerFaultError,
    TooManyRequestsError,
    WrongStateError,
)
from dataset_server.handler_events import Described
from dataset_server.store import Lease, NewArchive
from dataset_server.store.datasets import _remembered
from dataset_server.store.schema import datasets
from tests.server.builds_support import ID, WANTED, Scene

ADMIN = Client("root", Role.ADMIN)
OWNER, STRANGER = Client("c", Role.REQUEST), Client("d", Role.REQUEST)
ID_OF_EMPTY = hash_dataset_name("tones", "1.0+abc", "{}")
RESOLVED = SimpleNamespace(dataset_name="tones", version="1.0+abc")


@pytest.fixture
async def scene(tmp_path):
    made = Scene(tmp_path)
    await made.database.create()
    yield made
    await made.database.close()


@pytest.fixture
async def catalog(scene, monkeypatch):
    """Requests whose builds never end."""
    for module in ("catalog", "preparing"):
        monkeypatch.setattr(f"dataset_server.{module}.resolve_again", lambda *_: RESOLVED)

    async def make(*_):
        await asyncio.Event().wait()

    builds = scene.builds(make)
    made = scene.catalog(builds)
    yield made
    await made.close()
    await builds.close()


async def leased(scene) -> Lease:
    return Lease(ID, (await scene.datasets.dataset(ID)).fence)


async def asked(scene, **more):
    """A request of the owner's, not tied to a dataset yet."""
    return await scene.datasets.begin_attempt(
        ID, "tones", "1.0", "{}", RESOLVED.version, client=OWNER.name, limit=None, **more
    )


async def waited_for(scene):
    """A dataset that the owner's request waits for."""
    await scene.store.start(WANTED, None, "x", 1.0)
    topic = await asked(scene)
    assert await scene.datasets.attach(topic, ID, {})
    return topic, await scene.datasets.dataset(ID)


async def test_only_who_asked_may_try_again(scene, catalog):
    await waited_for(scene)
    await scene.store.fail(await leased(scene), {"code": "handler_failed", "message": ""})
    failed = await scene.datasets.dataset(ID)
    with pytest.raises(ForbiddenError):
        await catalog.retry(failed, STRANGER)
    with pytest.raises(TooManyRequestsError):
        await catalog.retry(failed, Client("c", Role.REQUEST, queue_limit=0))
    again, _ = await catalog.retry(failed, OWNER)
    assert (again.attempt, again.client) == (2, "c")


async def test_what_is_made_for_others_too_is_not_cancelled(scene, catalog):
    topic, dataset = await waited_for(scene)
    await scene.datasets.join(topic, STRANGER.name)
    with pytest.raises(ForbiddenError):
        await catalog.cancel(dataset, OWNER)
    assert await scene.state() == "queued"
    await catalog.cancel(dataset, ADMIN)
    assert await scene.state() == "cancelled"


async def test_only_what_is_not_there_is_made_again(scene, catalog):
    _, dataset = await waited_for(scene)
    lease = await leased(scene)
    await scene.store.publish(lease, NewArchive(1, 7, 64 * "b", "{}", 64 * "c", {}, 1.5))
    await catalog.make_again(dataset)
    assert await scene.state() == "ready", "somebody was quicker"
    async with scene.database.writing() as db:
        await db.execute(update(datasets).values(state="evicted"))
    await catalog.make_again(dataset)
    assert await scene.state() == "queued"


# Requests whose dataset is not known yet


@pytest.fixture
def installing(catalog):
    """Handlers whose installation never ends."""
    began = asyncio.Event()

    async def ensure(*_):
        began.set()
        await asyncio.Event().wait()

    catalog._preparations._installations = SimpleNamespace(ensure=ensure)
    return began


async def test_a_request_that_is_installed_for_can_be_cancelled(scene, catalog, installing):
    topic = await asked(scene)
    await catalog.resume()
    (task,) = catalog._preparations._tasks
    await asyncio.wait_for(installing.wait(), 60)
    assert (await catalog.request_to_cancel(ID)).topic_id == ID
    for client in (STRANGER, OWNER):
        if client is OWNER:
            await scene.datasets.join(topic, STRANGER.name)
        with pytest.raises(ForbiddenError):
            await catalog.cancel_request(topic, client)
    with scene.hub.listen([ID]) as news:
        answer = await catalog.cancel_request(topic, ADMIN)
        assert news.is_set()
    assert (answer.topic.state, answer.to_json()["dataset_id"]) == ("cancelled", None)
    with pytest.raises(asyncio.CancelledError):
        await task
    last = (await scene.datasets.events_after(ID, 0))[-1]
    assert (last.kind, last.data["by"]) == ("cancelled", "root")
    assert (await catalog.cancel_request(answer.topic, OWNER)).topic.state == "cancelled", "once more is no fault"


async def test_cancelling_a_request_means_its_dataset_once_there_is_one(scene, catalog):
    early = await asked(scene)
    await scene.store.start(WANTED, None, "x", 1.0)
    assert await catalog.request_to_cancel(ID) is None, "the dataset of that id, which is being made"
    assert await scene.datasets.attach(early, ID, {})
    with pytest.raises(WrongStateError):
        await catalog.cancel_request(early, OWNER)
    assert (await scene.datasets.topic(ID)).state == "queued"


async def test_nobody_installs_for_nobody(tmp_path, monkeypatch):
    for module in ("catalog", "preparing"):
        monkeypatch.setattr(f"dataset_server.{module}.resolve_again", lambda *_: RESOLVED)
    scene = Scene(tmp_path, cancel_unwatched_seconds=0.02)
    await scene.database.create()
    catalog = scene.catalog(scene.builds(None))

    async def ensure(*_):
        await asyncio.Event().wait()

    catalog._preparations._installations = SimpleNamespace(ensure=ensure)
    await asked(scene)
    with scene.hub.listen([ID]) as news:
        await catalog.resume()
        (task,) = catalog._preparations._tasks
        for _ in range(10):
            await asyncio.sleep(0.01)
        assert not task.done(), "somebody listens"
        news.clear()
    await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 60)
    assert (await scene.datasets.topic(ID)).state == "cancelled"
    await catalog.close()
    await scene.database.close()


@pytest.fixture
def handlers(catalog):
    """Handlers that are there and mean by a config what it says."""

    async def ensure(*_):
        return "environment"

    async def effective_config(*_):
        return "{}"

    catalog._installations = catalog._preparations._installations = SimpleNamespace(ensure=ensure)
    catalog._preparations._describer = SimpleNamespace(effective_config=effective_config)


async def test_the_next_server_makes_what_was_promised(scene, catalog, handlers):
    """The same version, in its place in the queue, without asking what the version means now."""

    async def resolve(*_):
        raise AssertionError("somebody was asked")

    catalog._preparations._references = SimpleNamespace(resolve=resolve)
    await asked(scene, priority=-7)
    await catalog.resume()
    await asyncio.wait_for(asyncio.gather(*catalog._preparations._tasks), 60)
    made = await scene.datasets.dataset(hash_dataset_name("tones", RESOLVED.version, "{}"))
    assert (made.state, made.priority, made.client) == ("queued", -7, "c")


async def test_a_request_that_is_stopped_does_not_fail_of_what_its_end_meets(scene, catalog, monkeypatch):
    begun, failures = asyncio.Event(), [EnvironmentFailedError("the disk cannot be written to any more")]

    async def ensure(*_):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            if failures:
                raise failures.pop()

    monkeypatch.setattr(catalog._installations, "ensure", ensure)
    topic = await asked(scene)
    await catalog.resume()
    await asyncio.wait_for(begun.wait(), 60)
    await asyncio.wait_for(catalog.close(), 60)
    assert (await scene.datasets.topic(topic.topic_id)).is_active, "the next server goes on with it"


async def test_a_description_does_not_speak_for_the_server(catalog, handlers, monkeypatch):
    async def resolve(*_):
        return RESOLVED

    async def describe(*_):
        return Described(event="described", options=[], dataset_name="another's", resolved_version="9")

    async def refuse(*_):
        raise ConfigRefusedError("nothing is not enough", [])

    monkeypatch.setattr(catalog._preparations, "resolve", resolve)
    catalog._describer = SimpleNamespace(describe=describe)
    shown = await catalog.describe("tones", "1.0", OWNER)
    assert (shown["dataset_name"], shown["resolved_version"], shown["options"]) == ("tones", RESOLVED.version, [])
    catalog._describer = SimpleNamespace(describe=refuse)
    with pytest.raises(HandlerFaultError) as refused:
        await catalog.describe("tones", "1.0", OWNER)
    assert refused.value.code == "handler_protocol"


async def test_only_small_rows_are_remembered(scene, catalog):
    _remembered.cache_clear()
    await asked(scene)
    assert await scene.datasets.find(ID) == await scene.datasets.find(ID)
    assert _remembered.cache_info().currsize == 1
    large = json.dumps({"ids": list(range(10_000))})
    topic = hash_dataset_name("tones", "1.0", large)
    await scene.datasets.begin_attempt(topic, "tones", "1.0", large, RESOLVED.version, client="c", limit=None)
    assert (await scene.datasets.find(topic))[0].config == large
    assert _remembered.cache_info().currsize == 1


async def test_an_attempt_that_another_one_replaces_ends_as_all_do(scene, catalog):
    await asked(scene)
    await asked(scene)
    (end,) = [event for event in await scene.datasets.events_after(ID, 0) if event.is_terminal]
    assert (end.kind, end.attempt, end.data["code"], end.data["by"]) == ("cancelled", 1, "cancelled", "")


async def test_an_attempt_that_was_replaced_makes_nothing(scene, catalog, handlers):
    old = await asked(scene)
    await asked(scene)
    await catalog._preparations._prepare(old, RESOLVED)
    await catalog._attach(old, RESOLVED, "{}")
    assert await scene.store.active() == []


@pytest.mark.parametrize("cut", [False, True])
async def test_what_was_begun_for_a_request_that_is_cancelled_ends_with_it(scene, catalog, handlers, monkeypatch, cut):
    attach = scene.datasets.attach
    catalog._cache = SimpleNamespace()

    async def attach_too_late(topic, *more):
        await catalog._preparations.cancel(topic, "root", "in the last moment")
        if cut:
            raise asyncio.CancelledError
        return await attach(topic, *more)

    monkeypatch.setattr(scene.datasets, "attach", attach_too_late)
    topic = await asked(scene)
    with contextlib.suppress(asyncio.CancelledError):
        await catalog._attach(topic, RESOLVED, "{}")
    assert (await scene.datasets.dataset(ID_OF_EMPTY)).state == "cancelled"


async def test_a_request_that_fails_without_a_dataset_is_counted(scene, catalog, monkeypatch):
    async def refuse(*_):
        raise EnvironmentFailedError("a package is not in the index")

    monkeypatch.setattr(catalog._installations, "ensure", refuse)
    topic = await asked(scene)
    await catalog.resume()
    await asyncio.gather(*catalog._preparations._tasks)
    assert (await scene.datasets.topic(topic.topic_id)).state == "failed"
    counted = scene.metrics.registry.get_sample_value
    assert counted("dataset_server_requests_failed_total", {"code": "environment_failed"}) == 1
    assert counted("dataset_server_builds_total", {"outcome": "failed"}) == 0
