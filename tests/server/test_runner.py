"""What a handler process said counts, even if it has gone before it was all taken in."""

import asyncio
import sys
from pathlib import Path

import pytest

from dataset_server import runner
from dataset_server.errors import HandlerFaultError
from dataset_server.runner import run_command
from tests.support import processes_mentioning


def interpreter(folder, body: str):
    """A program in the place of a handler's interpreter; it gets the same arguments."""
    program = folder / "python"
    program.write_text(f"#!{sys.executable}\nimport json, os, subprocess, sys\n{body}\n")
    program.chmod(0o755)
    return program


TALK = """
for done in range(40):
    print(json.dumps({"event": "progress", "done": done, "total": 40}))
"""
LAST = """print(json.dumps({"event": "finished", "files": []}), flush=True)\n"""


async def test_a_slow_listener_hears_a_handler_that_has_gone_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_LEAVING_SECONDS", 0.1)
    heard = []

    async def take_in_slowly(event):
        await asyncio.sleep(0.02)
        heard.append(event.done)

    program = interpreter(tmp_path, TALK + LAST)
    last = await run_command(program, "build", {}, tmp_path / "work", timeout=30, on_event=take_in_slowly)
    assert last.event == "finished"
    assert heard == list(range(40))


async def test_who_is_cancelled_twice_leaves_nothing(tmp_path):
    program = interpreter(tmp_path, TALK + "import time; sys.stdout.flush(); time.sleep(600)")
    heard = asyncio.Event()

    async def take_in(_):
        heard.set()

    work = tmp_path / "work"
    running = asyncio.create_task(run_command(program, "build", {}, work, timeout=60, on_event=take_in))
    await heard.wait()
    for _ in range(5):
        running.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not processes_mentioning(str(work))
    assert [path.name for path in work.iterdir()] == ["build.log"]


async def test_a_child_that_holds_the_pipe_holds_nothing_up(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_LEAVING_SECONDS", 0.1)
    child = 'subprocess.Popen(["sleep", "20"], start_new_session=True)'
    program = interpreter(tmp_path, TALK + child)
    heard = []

    async def take_in(event):
        heard.append(event.done)

    with pytest.raises(HandlerFaultError) as refused:
        async with asyncio.timeout(10):
            await run_command(program, "build", {}, tmp_path / "work", timeout=30, on_event=take_in)
    assert refused.value.code == "handler_exited"
    assert heard == list(range(40))


async def test_what_lies_in_the_place_of_the_request_is_no_fault_of_who_is_cancelled(tmp_path):
    """Else the build would end as a failure, or be tried again by a server that stops."""
    replace = "os.unlink(sys.argv[-1]); os.mkdir(sys.argv[-1])"
    program = interpreter(tmp_path, replace + TALK + "import time; sys.stdout.flush(); time.sleep(600)")
    heard = asyncio.Event()

    async def take_in(_):
        heard.set()

    running = asyncio.create_task(run_command(program, "build", {}, tmp_path / "work", timeout=60, on_event=take_in))
    await heard.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_who_is_killed_in_the_middle_of_a_line_is_judged_by_that(tmp_path):
    program = interpreter(tmp_path, """os.write(1, b'{"event": "prog'); os.kill(os.getpid(), 9)""")
    with pytest.raises(HandlerFaultError, match="SIGKILL") as refused:
        await run_command(program, "build", {}, tmp_path / "work", timeout=60)
    assert refused.value.code == "handler_exited"


async def test_a_log_on_a_full_disk_is_read_to_its_end():
    stream = asyncio.StreamReader()
    stream.feed_data(b"said")
    stream.feed_eof()
    log = runner._Log(Path("/dev/full"))
    await log.collect(stream)
    assert log.tail == "said"


def test_what_is_looked_at_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_MOST_FILES", 5)
    (tmp_path / "dataset" / "in").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "dataset" / "in" / str(number)).touch()
    (tmp_path / "sealed").mkdir()
    (tmp_path / "sealed" / "dataset").touch()
    runner.refuse_links(tmp_path)
    (tmp_path / "sealed" / "one more").touch()
    with pytest.raises(HandlerFaultError, match="more than 5 files"):
        runner.refuse_links(tmp_path)
