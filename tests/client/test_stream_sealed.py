"""Shards of a dataset that is being made, in a cache that others use, too."""

import asyncio
import shutil

import pytest
from client_server import stall

from dataset_client import claim
from dataset_client.cache import Cache
from dataset_client.sealed import SealedShard, fetch_shard
from dataset_client.transfer import Pace
from dataset_client.workspace import new_owner_name
from tests.support import wait_until


@pytest.mark.parametrize("other", ["fetches it", "gives it up"])
async def test_who_was_taken_for_dead_leaves_a_shard_to_who_took_it(server, topic, settings, monkeypatch, other):
    monkeypatch.setattr(claim, "BEAT_EVERY_S", 0.02)
    archive = topic.archive  # any bytes can be a shard
    shard = SealedShard(
        "discs-train.tfrecord-00000-of-00001",
        "train",
        7,
        len(archive.data),
        archive.sha256,
        f"datasets/{archive.dataset_id}/archive",
    )
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
