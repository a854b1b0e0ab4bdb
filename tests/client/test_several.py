"""Several datasets at once, and one by its id."""

import asyncio
import pickle

import pytest
from client_archives import make_archive
from topics_server import Known, TopicsServer, not_our_words

from dataset_client import errors, make_request, pull_dataset, request_datasets, request_datasets_async

REQUESTS = [("discs", "v1", {"limit": limit}) for limit in (7, 8, 9)]
TOPICS = [make_request(*request).topic_id for request in REQUESTS]


@pytest.fixture
async def server():
    server = TopicsServer()
    for request, topic in zip(REQUESTS, TOPICS, strict=True):
        server.topics[topic] = Known(archive=make_archive(config=request[2]), at_each_look=["building"] * 9)
    async with server.running():
        yield server


@pytest.fixture
def where(server, tmp_path):
    return {"server_url": server.url, "cache_dir": tmp_path / "cache", "timeout": 60}


async def finish(server, topic):
    known = server.topics[topic]
    await server.until(lambda: topic in server.posts)
    await server.say(topic, "ready", {"dataset_id": known.archive.dataset_id, "archive": known.archive.as_json()})


async def test_several_are_asked_for_at_once_and_heard_of_over_one_socket(server, where, capsys):
    call = asyncio.create_task(request_datasets_async(REQUESTS, **where))
    await server.until(lambda: set(server.posts) == set(TOPICS))
    for topic in reversed(TOPICS):
        await finish(server, topic)
    datasets = await call
    assert [dataset.config for dataset in datasets] == [config for _, _, config in REQUESTS]
    assert [dataset.dataset_id for dataset in datasets] == [server.topics[t].archive.dataset_id for t in TOPICS]
    (socket,) = server.sockets
    assert set(socket) == set(TOPICS)
    said = capsys.readouterr().err
    for topic in TOPICS:
        assert f"dataset-client: {topic.rpartition('_')[0]}_{topic.rpartition('_')[2][:4]}: building\n" in said


async def test_one_that_fails_does_not_stop_the_others(server, where):
    call = asyncio.create_task(request_datasets_async(REQUESTS, progress=False, **where))
    await server.until(lambda: set(server.posts) == set(TOPICS))
    await server.say(TOPICS[1], "failed", {"code": "handler_crashed", "message": "it died"})
    await finish(server, TOPICS[0])
    await finish(server, TOPICS[2])
    with pytest.raises(errors.SomeFailedError, match="1 of 3 requests failed\n- .handler_crashed. it died") as caught:
        await call
    first, failed, last = caught.value.results
    assert first.path.is_dir()
    assert last.path.is_dir()
    assert caught.value.errors == (failed,)
    assert failed.code == "handler_crashed"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


async def test_what_is_not_ready_in_time_is_an_error_of_its_own(server, where):
    with pytest.raises(errors.SomeFailedError, match="2 of 2") as caught:
        await request_datasets_async(REQUESTS[:2], progress=False, **(where | {"timeout": 0.3}))
    assert {type(error) for error in caught.value.errors} == {errors.WaitTimeoutError}


async def test_equal_requests_are_one(server, where):
    call = asyncio.create_task(request_datasets_async([REQUESTS[0]] * 3, progress=False, **where))
    await finish(server, TOPICS[0])
    assert len({dataset.path for dataset in await call}) == 1
    assert len(server.posts) == 1


async def test_all_are_checked_before_the_first_is_sent(server, where):
    with pytest.raises(errors.InvalidRequestError, match="dataset name"):
        await request_datasets_async([REQUESTS[0], ("Discs", "v1", {})], **where)
    assert server.posts == []


async def test_nothing_asked_for_is_nothing_got(server, where):
    assert await request_datasets_async([], **where) == []


async def test_several_are_polled_where_sockets_are_blocked(server, where, capsys):
    server.block = not_our_words(403)
    for known in server.topics.values():
        known.at_each_look = ["building"]
    assert len(await asyncio.to_thread(request_datasets, REQUESTS, **where)) == 3
    assert capsys.readouterr().err.count("WebSockets do not get through") == 1


async def test_a_dataset_is_pulled_by_its_id_and_waited_for(server, where):
    known = server.topics[TOPICS[0]]
    known.at_each_look = ["building"]
    dataset = await asyncio.to_thread(pull_dataset, known.archive.dataset_id, progress=False, **where)
    assert dataset.config == {"limit": 7}
    assert server.posts == []
    with pytest.raises(errors.InvalidRequestError, match="no dataset id"):
        await asyncio.to_thread(pull_dataset, "discs", **where)
    known.state, known.error = "failed", {"code": "c", "message": "it died"}
    with pytest.raises(errors.BuildFailedError, match="it died"):
        await asyncio.to_thread(pull_dataset, known.archive.dataset_id, progress=False, **where)


async def test_a_dataset_that_is_replaced_while_it_is_pulled_is_asked_for_again(server, where):
    known = server.topics[TOPICS[0]]
    known.at_each_look = []
    offered, known.archive = known.archive.as_json(), make_archive(config=REQUESTS[0][2], seed=50)
    server.stale_offers.append(offered)
    dataset = await asyncio.to_thread(pull_dataset, known.archive.dataset_id, progress=False, **where)
    assert dataset.path.name.endswith(known.archive.sha256[:16])
    dataset.verify()
    server.stale_offers.extend([offered] * 2)
    where["cache_dir"] = where["cache_dir"].with_name("another")
    with pytest.raises(errors.IntegrityError, match="replaced"):
        await asyncio.to_thread(pull_dataset, known.archive.dataset_id, progress=False, **where)
