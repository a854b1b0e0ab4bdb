"""Shards of a dataset that is being made, in a cache that others use, too."""

import asyncio
import shutil
import time
from dataclasses import asdict

import pytest
from client_server import stall

from dataset_client import claim, streaming
from dataset_client.cache import Cache
from dataset_client.errors import DatasetClientError
from dataset_client.sealed import SealedShard, fetch_shard
from dataset_client.transfer import Pace
from dataset_client.uses import announce, is_held, release
from dataset_client.workspace import new_owner_name
from tests.support import wait_until


@pytest.fixture
def shard(topic):
    """A shard that the server has: any bytes can be one."""
    archive = topic.archive
    name, url = "discs-train.tfrecord-00000-of-00001", f"datasets/{archive.dataset_id}/archive"
    return SealedShard(name, "train", 7, len(archive.data), archive.sha256, url)


@pytest.mark.parametrize("other", ["fetches it", "gives it up"])
async def test_who_was_taken_for_dead_leaves_a_shard_to_who_took_it(server, topic, settings, shard, monkeypatch, other):
    monkeypatch.setattr(claim, "BEAT_EVERY_S", 0.02)
    archive = topic.archive
    cache = Cache(settings.cache_dir)
    cache.prepare()
    server.archive_script.append(stall(1000))
    fetching = asyncio.create_task(fetch_shard(settings, cache, shard, Pace()))
    container = cache.downloads / f"shard-{shard.sha256}"
    assert await asyncio.to_thread(wait_until, lambda: server.gets)
    (own,) = container.iterdir()
    taken = own.rename(container / f"work.{new_owner_name()}")
    await asyncio.sleep(0.2)  # some beats
    assert not fetching.done()
    assert len(server.gets) == 1
    if other == "fetches it":
        (cache.shards / shard.sha256).write_bytes(archive.data)
        shutil.rmtree(container)
    else:
        taken.rename(container / "work.free-0")
    path = await asyncio.wait_for(fetching, 20)
    assert path.read_bytes() == archive.data
    assert len(server.gets) > 1 or other == "fetches it"
    assert not container.exists()


@pytest.mark.parametrize("how", ["is made", "fails"])
def test_shards_of_a_stream_are_in_use_until_it_is_closed(server, topic, request_, settings, reporter, shard, how):
    topic.on_ask = [("state", {"state": "building"}), ("shard", asdict(shard))]
    path = settings.cache_dir / "shards" / shard.sha256
    stream = streaming.start(request_, settings, reporter)
    assert next(stream._arriving("train")) == path
    assert is_held(path, time.time())
    if how == "fails":
        server.emit(request_.topic_id, "failed", {"message": "it died"})
        with pytest.raises(DatasetClientError, match="it died"):
            stream.dataset(20)
    assert is_held(path, time.time()), "somebody may read it yet"
    stream.close()
    assert not is_held(path, time.time())
    assert path.exists()


async def test_of_two_who_want_a_shard_one_is_cancelled_and_the_other_has_it_open(server, settings, shard):
    cache = Cache(settings.cache_dir)
    cache.prepare()
    server.archive_script.append(stall(1000))
    fetching = asyncio.create_task(fetch_shard(settings, cache, shard, Pace()))
    assert await asyncio.to_thread(wait_until, lambda: server.gets)
    path = cache.shards / shard.sha256
    announce(path)  # as another stream of this process does
    fetching.cancel()
    await asyncio.wait([fetching])
    assert is_held(path, time.time())
    release(path)
    assert not is_held(path, time.time())
