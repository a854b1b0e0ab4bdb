"""Requests over a real database: who may change what, and what becomes of those that are cut off."""

import asyncio
from types import SimpleNamespace

import pytest

from dataset_client.protocol import hash_dataset_name
from dataset_server.auth import Client, Role
from dataset_server.errors import ForbiddenError, TooManyRequestsError
from dataset_server.store import Lease
from tests.server.builds_support import ID, WANTED, Scene

OWNER, STRANGER = Client("c", Role.REQUEST), Client("d", Role.REQUEST)
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
    monkeypatch.setattr("dataset_server.catalog.resolve_again", lambda *_: RESOLVED)

    async def make(*_):
        await asyncio.Event().wait()

    builds = scene.builds(make)
    made = scene.catalog(builds)
    yield made
    await made.close()
    await builds.close()


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
    await scene.store.fail(Lease(ID, 1), {"code": "handler_failed", "message": ""})
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
    await catalog.cancel(dataset, Client("root", Role.ADMIN))
    assert await scene.state() == "cancelled"


@pytest.fixture
def handlers(catalog):
    """Handlers that are there and mean by a config what it says."""

    async def ensure(*_):
        return "environment"

    async def effective_config(*_):
        return "{}"

    catalog._installations = SimpleNamespace(ensure=ensure)
    catalog._describer = SimpleNamespace(effective_config=effective_config)


async def test_the_next_server_makes_what_was_promised(scene, catalog, handlers):
    """The same version, in its place in the queue, without asking what the version means now."""

    async def resolve(*_):
        raise AssertionError("somebody was asked")

    catalog._references = SimpleNamespace(resolve=resolve)
    await asked(scene, priority=-7)
    await catalog.resume()
    await asyncio.wait_for(asyncio.gather(*catalog._tasks), 60)
    made = await scene.datasets.dataset(hash_dataset_name("tones", RESOLVED.version, "{}"))
    assert (made.state, made.priority, made.client) == ("queued", -7, "c")


async def test_an_attempt_that_was_replaced_makes_nothing(scene, catalog, handlers):
    old = await asked(scene)
    await asked(scene)
    await catalog._prepare(old, RESOLVED)
    await catalog._attach(old, RESOLVED, "{}")
    assert await scene.store.active() == []
