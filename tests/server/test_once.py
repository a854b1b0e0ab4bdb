"""Each dataset is made once, however many ask and however they spell it."""

import asyncio
import json
import random

import aiohttp

from dataset_client.protocol import canonical_json, hash_dataset_name
from tests.support import Server

CONFIG = {"categories": ["figure"], "image_size": [64, 64], "variations_per_sample": 6, "seed": 5}
DEFAULTS = {"limit": None, "flip_horizontal": 0.0, "jpeg_quality": 95, "input_attributes": ["image"], "batch_size": 7}


def spelling(number: int) -> dict:
    """The same config: keys in another order, some defaults spelt out, 0 for 0.0."""
    shuffled = random.Random(number)
    spelt = dict(CONFIG)
    for name, value in DEFAULTS.items():
        if shuffled.random() < 0.5:
            spelt[name] = 0 if value == 0.0 and shuffled.random() < 0.5 else value
    keys = list(spelt)
    shuffled.shuffle(keys)
    return {key: spelt[key] for key in keys}


async def ask_and_wait(session: aiohttp.ClientSession, server: Server, config: dict) -> list[dict]:
    """Subscribe first, ask after; every event up to the end."""
    topic = hash_dataset_name("coco", "0.1.0", canonical_json(config))
    async with session.ws_connect(f"{server.api}/notifications?topic={topic}") as socket:
        await socket.receive_json()  # subscribed
        body = {"dataset_name": "coco", "handler_version": "0.1.0", "dataset_config": config}
        async with session.post(f"{server.api}/datasets", json=body) as answer:
            assert answer.status in (200, 202), await answer.text()
            assert (await answer.json())["topic_id"] == topic
        events = []
        async for message in socket:
            events.append(json.loads(message.data))
            if events[-1]["kind"] in ("ready", "failed", "cancelled"):
                return events
    raise AssertionError("the socket closed before the end")


def shard_files(events: list[dict]) -> list[str]:
    return sorted(event["data"]["file"] for event in events if event["kind"] == "shard")


async def test_twenty_clients_one_build(make_server):
    server = make_server()
    spellings = [spelling(number) for number in range(20)]
    assert len({canonical_json(config) for config in spellings}) > 5
    async with aiohttp.ClientSession() as session:
        told = await asyncio.gather(*(ask_and_wait(session, server, config) for config in spellings))
    ends = [events[-1] for events in told]
    assert [event for event in ends if event["kind"] != "ready"] == []
    assert len({event["data"]["archive"]["sha256"] for event in ends}) == 1
    complete = max((shard_files(events) for events in told), key=len)
    assert len(complete) > 1
    for events in told:
        assert [event["number"] for event in events] == sorted({event["number"] for event in events})
        # Who comes when all is done is told just that; everybody else hears of each shard once.
        assert shard_files(events) in ([], complete)
    listed = server.get("datasets").json()
    assert listed["total"] == 1
    assert listed["datasets"][0]["attempt"] == 1
    log = (server.data_dir / "test-server.log").read_text()
    assert log.count("build of coco") == 2, "one start, one end"
    assert len(list((server.data_dir / "archives").glob("*.zip"))) == 1


def test_configs_that_differ_in_meaning_are_different_datasets(make_server):
    server = make_server()
    ids = {server.make("coco", {**CONFIG, **more})["dataset_id"] for more in ({}, {"seed": 6}, {"rotation": [-5, 5]})}
    assert len(ids) == 3


def test_an_equal_request_later_is_answered_at_once(make_server):
    server = make_server()
    first = server.make("coco", {**CONFIG, "limit": 3})
    again = server.post("coco", {"limit": 3, **CONFIG, "batch_size": 1})
    known = server.post("coco", {**CONFIG, "limit": 3})
    assert known.status_code == 200
    assert known.json()["archive"] == first["archive"]
    assert again.json()["dataset_id"] == first["dataset_id"]
    assert server.get("datasets").json()["total"] == 1


def test_events_are_replayed_after_a_number(make_server):
    server = make_server()
    answer = server.post("coco", {**CONFIG, "limit": 4}).json()
    whole = server.events(answer["topic_id"])
    assert whole[0]["number"] == 1
    middle = whole[len(whole) // 2]["number"]
    assert server.events(answer["topic_id"], after=middle) == [e for e in whole if e["number"] > middle]


def test_more_spellings_of_one_meaning(make_server):
    """The mask is always there; a crop that is not cut cannot be centred; DUTS has no categories."""
    server = make_server()
    plain = {"categories": ["figure"], "limit": 4}
    for name, one, other in (
        ("coco", plain, {**plain, "input_attributes": ["mask", "image"], "random_crop_centered": True}),
        ("composite", {"subjects": "duts", "limit": 3}, {"subjects": "duts", "limit": 3, "subjects_folder": "duts"}),
        ("composite", {"subjects": "duts", "limit": 3}, {"subjects": "duts", "limit": 3, "categories": ["dog"]}),
    ):
        assert server.make(name, one)["dataset_id"] == server.make(name, other)["dataset_id"]
