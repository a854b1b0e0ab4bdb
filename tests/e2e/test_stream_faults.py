"""What breaks while a dataset is streamed: the build, the server, the consumer."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter

import pytest

from dataset_client import errors, request_dataset
from tests.e2e.stream_support import COUNT, VERSION, Gateway, gated_config, numbers
from tests.support import ROOT, wait_until

EVERY = list(range(COUNT))


@pytest.fixture
def gate(raw_root, tmp_path):
    yield (gate := raw_root / f"gate-{tmp_path.name}")
    shutil.rmtree(gate)


@pytest.fixture
def options(plugin_sources):
    return {"handlers": plugin_sources, "settings": {"workers": 2, "retry_limit": 0}}


def stream_from(url, config, cache):
    return request_dataset("gated", VERSION, config, stream=True, server_url=url, cache_dir=cache, progress=False)


def few(examples, count=4):
    return [next(examples) for _ in range(count)]


def threads_of_ours():
    return {t for t in threading.enumerate() if t.name.startswith("dataset") and t.name != "dataset-client-marks"}


def check_cache(cache, whole):
    """Nothing that is half made is left where it could be taken for whole, nor claimed, nor forgotten."""
    assert not [path for path in (cache / "downloads").glob("*/work.*") if not path.name.startswith("work.free-")]
    assert not [*(cache / "tmp").iterdir()]
    for path in (cache / "shards").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    assert len([*(cache / "datasets").glob("*.json")]) == whole


def test_a_build_that_fails_half_way(server, gate, tmp_path):
    config = gated_config(gate)
    with stream_from(server.url, config, tmp_path / "cache") as stream:
        examples = stream.as_numpy_iterator("train")
        seen = numbers(few(examples))
        (gate / "fail").touch()
        (gate / "open").touch()
        with pytest.raises(errors.BuildFailedError) as raised:
            seen += numbers(examples)
        assert len(seen) == len(set(seen)) < COUNT
        error = next(iter(server.get("datasets").json()["datasets"]))["error"]
        assert (raised.value.message, raised.value.code) == (error["message"], error["code"])
        assert "the handler's own mistake" in str(raised.value)
        assert "what the handler said last" in "\n".join(raised.value.log)
        for ask in (stream.dataset, lambda: list(stream.batches("train", batch_size=2))):
            with pytest.raises(errors.BuildFailedError, match="the handler's own mistake"):
                ask()
    # Asked again, the build goes on from what is sealed; and so do we.
    (gate / "fail").unlink()
    gateway = Gateway(int(server.url.rpartition(":")[2]))
    with stream_from(gateway.url, config, tmp_path / "cache") as stream:
        assert sorted(numbers(stream.as_numpy_iterator("train"))) == EVERY
        stream.dataset(60).verify()
    asked = Counter(gateway.asked_for("/shards/"))
    assert set(asked.values()) <= {1}
    assert len(asked) <= COUNT - len(seen)
    gateway.close()


def test_batches_before_a_failure_are_given(server, gate, tmp_path):
    with stream_from(server.url, gated_config(gate), tmp_path / "cache") as stream:
        batches = stream.batches("train", batch_size=2)
        seen = [number for batch in few(batches, 2) for number in batch["number"].tolist()]
        assert len(set(seen)) == 4
        (gate / "fail").touch()
        (gate / "open").touch()
        with pytest.raises(errors.BuildFailedError):
            list(batches)
    assert wait_until(lambda: not threads_of_ours()), threads_of_ours()


def test_the_server_is_killed_and_comes_back(make_server, options, gate, tmp_path):
    server = make_server(**options)
    server.port = int(server.url.rpartition(":")[2])
    with stream_from(server.url, gated_config(gate), tmp_path / "cache") as stream:
        examples = stream.as_numpy_iterator("train")
        seen = numbers(few(examples))
        server.stop(signal.SIGKILL)
        server.start()
        (gate / "open").touch()
        seen += numbers(examples)
        assert sorted(seen) == EVERY
        assert numbers(stream.as_numpy_iterator("train")) == numbers(stream.dataset(60).as_numpy_iterator("train"))


def test_a_server_that_lost_its_data_and_makes_other_examples(make_server, options, gate, tmp_path):
    server = make_server(**options)
    server.port = int(server.url.rpartition(":")[2])
    with stream_from(server.url, gated_config(gate), tmp_path / "cache") as stream:
        examples = stream.as_numpy_iterator("train")
        few(examples)
        server.stop(signal.SIGKILL)
        server.data_dir = tmp_path / "another"
        (gate / "other").touch()
        (gate / "open").touch()
        server.start()
        with pytest.raises(errors.IntegrityError, match="made anew .* with other examples"):
            list(examples)
    # What was given is not what there is now: another request gives that.
    with stream_from(server.url, gated_config(gate), tmp_path / "cache") as stream:
        assert sorted(numbers(stream.as_numpy_iterator("train"))) == EVERY
        stream.dataset(60).verify()


def test_examples_that_hold_something_else_than_was_said(make_server, options, gate, tmp_path):
    """The server says of the examples what the handler has written, which may write it anew in the end."""
    server, config = make_server(**options), gated_config(gate)
    server.post("gated", config, VERSION)

    def sealed():
        (dataset,) = server.get("datasets").json()["datasets"]
        return len(server.get(f"datasets/{dataset['dataset_id']}").json()["shards"])

    assert wait_until(lambda: sealed() == 4, 60)
    (said,) = server.data_dir.glob("work/*/dataset/features.json")
    said.write_text(said.read_text().replace('"int64"', '"int32"'))
    with stream_from(server.url, config, tmp_path / "cache") as stream:
        examples = stream.as_numpy_iterator("train")
        assert next(examples)["number"].dtype == "int32"
        (gate / "open").touch()
        with pytest.raises(errors.IntegrityError, match="hold something else"):
            list(examples)
    with stream_from(server.url, config, tmp_path / "cache") as stream:
        assert next(stream.as_numpy_iterator("train"))["number"].dtype == "int64"


def test_where_parts_are_not_served_all_comes_with_the_archive(server, gate, tmp_path):
    gateway = Gateway(int(server.url.rpartition(":")[2]), ranges=False)
    with stream_from(gateway.url, gated_config(gate), tmp_path / "cache") as stream:
        assert wait_until(lambda: len(gateway.asked_for("/shards/")) >= 4)
        (gate / "open").touch()
        assert sorted(numbers(stream.as_numpy_iterator("train"))) == EVERY
        stream.dataset(60).verify()
    gateway.close()


def test_several_processes_on_one_cache(server, gate, tmp_path):
    config = gated_config(gate, side=128)
    gateway = Gateway(int(server.url.rpartition(":")[2]))
    cache = tmp_path / "cache"
    readers = [begin_reader(gateway.url, config, cache) for _ in range(3)]
    first = [reader.stdout.readline() for reader in readers]
    (gate / "open").touch()
    for reader, line in zip(readers, first, strict=True):
        with reader:
            assert sorted(map(int, [line, *reader.stdout])) == EVERY, reader.stderr.read()
        assert reader.returncode == 0
    shards = Counter(gateway.asked_for("/shards/"))
    assert len(shards) >= 4
    assert set(shards.values()) == {1}
    size = sum(path.stat().st_size for path in (cache / "shards").iterdir())
    assert size < gateway.answered < 1.5 * size, "each shard came once"
    check_cache(cache, whole=1)
    gateway.close()


def test_a_consumer_that_stops_early(server, gate, tmp_path):
    config, cache = gated_config(gate), tmp_path / "cache"
    with stream_from(server.url, config, cache) as stream:
        for _ in stream.batches("train", batch_size=2, workers=2):
            break
        batches = stream.batches("train", batch_size=2)
        next(batches)
        assert wait_until(lambda: len([*(cache / "shards").iterdir()]) == 4)
    with pytest.raises(errors.BuildCancelledError, match="closed"):
        list(batches)
    assert wait_until(lambda: not threads_of_ours()), threads_of_ours()
    check_cache(cache, whole=0)
    assert len([*(cache / "shards").iterdir()]) == 4
    check_that_the_build_goes_on(server, gate, config, cache)


def test_ctrl_c_in_the_middle(server, gate, tmp_path):
    config, cache = gated_config(gate), tmp_path / "cache"
    reader = begin_reader(server.url, config, cache)
    for _ in range(4):
        reader.stdout.readline()
    reader.send_signal(signal.SIGINT)
    with reader:
        error = reader.stderr.read()
    assert reader.returncode == -signal.SIGINT, error
    assert error.rstrip().endswith("KeyboardInterrupt"), error
    check_cache(cache, whole=0)
    check_that_the_build_goes_on(server, gate, config, cache)


def begin_reader(url, config, cache):
    """A process that prints the number of each example."""
    code = """
import json, sys
from dataset_client import request_dataset
url, config, cache = sys.argv[1:]
where = {"server_url": url, "cache_dir": cache, "progress": False}
with request_dataset("gated", "1.0", json.loads(config), stream=True, **where) as stream:
    for example in stream.as_numpy_iterator("train"):
        print(example["number"], flush=True)
    stream.dataset()
"""
    command = [sys.executable, "-c", code, url, json.dumps(config), str(cache)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def check_that_the_build_goes_on(server, gate, config, cache):
    """It ends without anybody who waits for it; and what had arrived is not fetched again."""
    (gate / "open").touch()
    dataset = next(iter(server.get("datasets").json()["datasets"]))
    assert wait_until(lambda: server.get(f"datasets/{dataset['dataset_id']}").json()["state"] == "ready", 60)
    gateway = Gateway(int(server.url.rpartition(":")[2]))
    here = {path.name: path.stat().st_ino for path in (cache / "shards").iterdir()}
    with stream_from(gateway.url, config, cache) as stream:
        assert sorted(numbers(stream.as_numpy_iterator("train"))) == EVERY
        whole = stream.dataset(60)
    gateway.close()
    inodes = {shard["sha256"]: (whole.path / shard["file"]).stat().st_ino for shard in whole.manifest["shards"]}
    assert here.items() <= inodes.items()
