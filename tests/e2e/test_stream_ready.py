"""Streams of datasets that are ready: from the cache at once, from the server file by file."""

import shutil
import threading

import pytest

from dataset_client import request_dataset
from tests.e2e.stream_support import COUNT, VERSION, Gateway, gated_config, numbers


@pytest.fixture
def gate(raw_root, tmp_path):
    yield (gate := raw_root / f"gate-{tmp_path.name}")
    shutil.rmtree(gate)


def test_a_ready_dataset_is_read_while_it_is_downloaded(make_server, plugin_sources, gate, tmp_path):
    server = make_server(handlers=plugin_sources, settings={"workers": 2})
    config = gated_config(gate, free=COUNT, side=512)  # 12 shards of 0.8 MB
    made = server.make("gated", config, VERSION)
    assert made["kind"] == "ready", made
    gateway = Gateway(int(server.url.rpartition(":")[2]), limit=made["archive"]["bytes"] // 2)
    where = {"server_url": gateway.url, "cache_dir": tmp_path / "cache", "progress": False}
    too_late = threading.Timer(15, gateway.open)  # so that a failure is one, and no endless wait
    too_late.start()
    with request_dataset("gated", VERSION, config, stream=True, **where) as stream:
        examples = stream.as_numpy_iterator("train")
        first = next(examples)
        assert stream.whole is None, "half of it cannot have come yet"
        assert too_late.is_alive()
        too_late.cancel()
        gateway.open()
        assert sorted([int(first["number"]), *numbers(examples)]) == list(range(COUNT))
        dataset = stream.dataset(60)
    dataset.verify()
    size = made["archive"]["bytes"]
    assert size <= gateway.answered < 1.1 * size
    assert not gateway.asked_for("/shards/")
    gateway.close()


def test_what_is_in_the_cache_is_read_at_once(make_server, plugin_sources, gate, tmp_path):
    server = make_server(handlers=plugin_sources, settings={"workers": 2})
    config = gated_config(gate, free=COUNT)
    where = {"cache_dir": tmp_path / "cache", "progress": False}
    whole = request_dataset("gated", VERSION, config, server_url=server.url, **where)
    gateway = Gateway(int(server.url.rpartition(":")[2]))
    with request_dataset("gated", VERSION, config, stream=True, server_url=gateway.url, **where) as stream:
        assert numbers(stream.as_numpy_iterator("train")) == numbers(whole.as_numpy_iterator("train"))
    assert gateway.asked == ["/api/v1/datasets"]
    gateway.close()
