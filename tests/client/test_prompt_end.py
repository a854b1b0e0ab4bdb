"""`timeout` and Ctrl-C end a call at once, whatever it waits for."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from client_archives import make_bulk
from client_server import stall

from dataset_client import errors, request_dataset
from dataset_client.concurrency import in_thread
from dataset_client.transfer import Pace

CONFIG = {"batch_size": 2, "limit": 7}
#: What a first piece has, and less than the block that is written at once of a later one.
ARRIVED = 1 << 18
AT_ONCE_S = 1.5


@pytest.fixture
def ready(topic):
    topic.is_ready, topic.attempt, topic.archive = True, 1, make_bulk(4 * Pace.block, shards=1)
    return topic


@pytest.fixture
def where(server, tmp_path):
    return {"server_url": server.url, "cache_dir": tmp_path / "cache", "progress": False}


async def hang(*_):
    await asyncio.sleep(30)


def hang_at(server, what):
    match what:
        case "answer":
            server.post_script.append(hang)
        case "head":
            server.archive_script.append(stall(None))
        case "body":
            usual = [lambda *_: None] * 2  # the end of the archive, and a first piece
            server.archive_script.extend([*usual, *[stall(ARRIVED)] * 50])


def check_that_asking_again_goes_on(server, topic, where, what):
    """What was written is not asked for again."""
    kept = written(where["cache_dir"])
    assert (kept > ARRIVED) == (what == "body")
    server.archive_script.clear()
    server.sent = 0
    request_dataset("discs", "v1", CONFIG, **where).verify()
    size = len(topic.archive.data)
    assert size - kept - 4096 < server.sent <= size - kept


@pytest.mark.parametrize("what", ["answer", "head", "body"])
def test_a_timeout(server, ready, where, what):
    hang_at(server, what)
    begin = time.monotonic()
    with pytest.raises(errors.WaitTimeoutError):
        request_dataset("discs", "v1", CONFIG, timeout=1, **where)
    assert time.monotonic() - begin < 1 + AT_ONCE_S
    check_that_asking_again_goes_on(server, ready, where, what)


def test_a_timeout_while_what_is_here_is_hashed(topic, where):
    topic.is_ready, topic.attempt = True, 1
    dataset = request_dataset("discs", "v1", CONFIG, **where)
    shard, sidecar = next(dataset.path.glob("*.tfrecord-*")), dataset.path.with_name(f"{dataset.path.name}.json")
    os.truncate(shard, 1 << 37)  # which takes no room, and a minute
    fields = json.loads(sidecar.read_bytes())
    for member in fields["members"]:
        if member["file"] == shard.name:
            member["bytes"] = 1 << 37
    sidecar.write_text(json.dumps(fields))
    begin = time.monotonic()
    with pytest.raises(errors.WaitTimeoutError):
        request_dataset("discs", "v1", CONFIG, timeout=0.2, **where)
    assert time.monotonic() - begin < 0.2 + AT_ONCE_S


SCRIPT = (
    "import sys; from dataset_client import request_dataset as r;"
    "r('discs', 'v1', {'batch_size': 2, 'limit': 7}, server_url=sys.argv[1], cache_dir=sys.argv[2], progress=False)"
)
NOTEBOOK = f"""
import asyncio
async def cell(): exec({SCRIPT!r})
asyncio.new_event_loop().run_until_complete(cell())
"""


@pytest.mark.parametrize("program", [SCRIPT, NOTEBOOK], ids=["script", "notebook"])
@pytest.mark.parametrize("what", ["answer", "head", "body"])
def test_ctrl_c(server, ready, where, what, program):
    hang_at(server, what)
    command = [sys.executable, "-c", program, where["server_url"], str(where["cache_dir"])]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    match what:
        case "answer":
            server.wait_for_posts(1)
        case "head":
            wait_until(lambda: server.gets)
        case "body":
            wait_until(lambda: written(where["cache_dir"]) > ARRIVED)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=30)[1]
    assert time.monotonic() - begin < AT_ONCE_S
    assert "KeyboardInterrupt: Interrupted. A build that was asked for goes on" in stderr
    check_that_asking_again_goes_on(server, ready, where, what)


def written(cache):
    """How many bytes of a download its journals say are there."""
    journals = [path.read_text() for path in cache.glob("downloads/*/*/journal/*.tfrecord-*")]
    return sum(int(stop) - int(start) for start, stop in map(str.split, "".join(journals).splitlines()))


def wait_until(condition):
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(FileNotFoundError):
            if condition():
                return
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_a_second_cancellation_does_not_leave_the_thread_behind():
    runs, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work(stop):
        runs.set()
        may_end.wait(10)
        ended.set()

    call = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(runs.wait)
    for _ in range(3):
        call.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not call.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert ended.is_set()
