"""One cache, many processes: who fetches, who waits, what is in use, and what is left of those that died."""

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from client_archives import make_archive
from client_cache import put
from client_server import Topic, stall

from dataset_client import Dataset, room, upkeep
from dataset_client import claim as claims
from dataset_client.cache import Cache
from dataset_client.claim import SILENT_AFTER_S, Holder, Work, remove_stale, try_claim
from dataset_client.contents import Wanted
from dataset_client.online import obtain
from dataset_client.request import make_request
from dataset_client.transfer import Pace
from dataset_client.uses import announce, hold, is_held, release
from dataset_client.workfile import WorkFile
from dataset_client.workspace import file_system_time, new_owner_name
from tests.proofs import client as kills

PACE = Pace(tail=4096, piece=8192, block=1024, connections=2, begin=2)
#: Asks for datasets one after another, and prints where they are; then waits for a line.
PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from dataset_client.backoff import RetryPolicy
from dataset_client.contents import Wanted
from dataset_client.online import obtain
from dataset_client.progress import LineReporter
from dataset_client.request import make_request
from dataset_client.settings import Settings
from dataset_client.transfer import Pace

url, cache, names = sys.argv[1], Path(sys.argv[2]), sys.argv[3].split(",")
pace = Pace(tail=4096, piece=8192, block=1024, connections=2, begin=2)
settings = Settings(server_url=url, cache_dir=cache, retry=RetryPolicy(first_delay_s=0.01))
for name in names:
    request = make_request(name, "v1", {"limit": 7})
    print(asyncio.run(obtain(request, settings, LineReporter(sys.stderr), pace)).path, flush=True)
sys.stdin.readline()
"""


def start(server, cache, *names):
    command = [sys.executable, "-c", PROGRAM, server.url, str(cache), ",".join(names)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    """The lines that a program printed, and those of its progress."""
    out, err = process.communicate("\n", timeout=60)
    assert process.returncode == 0, err
    return out.split(), err


@pytest.fixture
def datasets(server):
    """Three datasets, ready on the server."""
    found = {}
    for seed, name in enumerate(("discs", "rings", "stars")):
        archive = make_archive(name=name, seed=seed, splits={"train": 24})
        topic = Topic(archive=archive, is_ready=True, attempt=1)
        server.topics[make_request(name, "v1", {"limit": 7}).topic_id] = topic
        found[name] = topic
    return found


def test_eight_processes_ask_for_three_datasets_and_each_is_fetched_once(server, datasets, tmp_path):
    names = [*datasets]
    started = [start(server, tmp_path / "cache", *(names[n % 3 :] + names[: n % 3])) for n in range(8)]
    ended = [finish(process) for process in started]
    assert len({tuple(sorted(paths)) for paths, _ in ended}) == 1
    for path in ended[0][0]:
        Dataset.open(Path(path)).verify()
    assert server.sent <= sum(len(topic.archive.data) for topic in datasets.values())
    assert "is downloading it; waiting" in "".join(err for _, err in ended)
    assert list((tmp_path / "cache" / "downloads").iterdir()) == []
    assert list((tmp_path / "cache" / "tmp").iterdir()) == []


async def test_who_waits_goes_on_where_a_killed_process_was(server, datasets, settings, reporter):
    server.archive_script.extend([lambda *_: None] * 3 + [stall(1024)] * 2)
    killed = start(server, settings.cache_dir, "discs")
    while len(server.gets) < 5:
        await asyncio.sleep(0.01)
    notes = []
    reporter.note = notes.append
    call = asyncio.create_task(obtain(make_request("discs", "v1", {"limit": 7}), settings, reporter, PACE))
    while not notes:
        await asyncio.sleep(0.01)
    killed.kill()
    killed.communicate()
    dataset = await call
    Dataset.open(dataset.path).verify()
    assert f"process {killed.pid} on" in notes[0]
    assert server.sent < len(datasets["discs"].archive.data) + 2 * 2 * 8192


# --- claims


@pytest.fixture
def cache(tmp_path):
    cache = Cache(tmp_path / "cache")
    cache.prepare()
    return cache


def claim(cache):
    return try_claim(cache.downloads, cache.scratch, "stem")


def owned_by(work, owner, age):
    """Have a work folder be another's, who was heard so many seconds ago."""
    other = work.path.with_name(f"work.{owner}")
    work.path.rename(other)
    then = time.time() - age
    os.utime(other / "beat", (then, then))
    return other


def dead_owner():
    program = "from dataset_client.workspace import new_owner_name as n; print(n())"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_one_of_two_claims(cache):
    first, second = claim(cache), claim(cache)
    assert isinstance(first, Work)
    assert isinstance(second, Holder)
    assert f"process {os.getpid()} on" in second.name
    (first.files / "a").write_text("some")
    first.progress(3, 10)
    assert first.is_ours()
    assert (claim(cache).done, claim(cache).total) == (3, 10)
    first.give_up()
    third = claim(cache)
    assert (third.files / "a").read_text() == "some"
    third.discard()
    assert list(cache.downloads.iterdir()) == list(cache.scratch.iterdir()) == []


def test_a_claim_that_is_given_up_while_another_is_looked_at(cache, monkeypatch):
    work = claim(cache)

    def give_up(scratch):
        work.discard()
        return file_system_time(scratch)

    monkeypatch.setattr(claims, "file_system_time", give_up)
    assert isinstance(claim(cache), Holder), "who it was is not known any more"
    monkeypatch.undo()
    assert isinstance(claim(cache), Work)


def test_an_empty_container_is_nobodys(cache):
    (cache.downloads / "stem").mkdir()
    assert isinstance(claim(cache), Work)


@pytest.mark.parametrize(
    ("owner", "age", "is_free"),
    [("dead", 0, True), ("elsewhere", 10, False), ("elsewhere", SILENT_AFTER_S + 60, True),
     ("alive", SILENT_AFTER_S + 60, True), ("alive", 10, False)],
)  # fmt: skip
def test_whose_work_is_claimed(cache, owner, age, is_free):
    names = {"dead": dead_owner, "alive": new_owner_name, "elsewhere": lambda: f"there-1-{'0' * 12}"}
    work = claim(cache)
    other = owned_by(work, names[owner](), age)
    claimed = claim(cache)
    assert isinstance(claimed, Work) is is_free
    assert other.exists() is not is_free
    if is_free:
        assert isinstance(claim(cache), Holder), "it is known at once that its new owner lives"
        assert not work.is_ours()


def test_work_that_nobody_continues_is_removed_after_a_week(cache):
    for name, days in (("old", 8), ("new", 6)):
        work = try_claim(cache.downloads, cache.scratch, name)
        (work.files / "a").write_text("some")
        owned_by(work, "free-0", days * 24 * 3600)
    remove_stale(cache.downloads, cache.scratch)
    assert [path.name for path in cache.downloads.iterdir()] == ["new"]


# --- what is there


@pytest.fixture
async def cached(topic, settings, request_, reporter):
    topic.is_ready, topic.attempt = True, 1
    found = await obtain(request_, settings, reporter)
    release(found.path)
    return found


async def test_earlier_revisions_lend_what_has_not_changed(server, topic, settings, request_, reporter):
    topic.is_ready, topic.attempt = True, 1
    topic.archive = make_archive(splits={"train": 24, "val": 2})
    old = await obtain(request_, settings, reporter, PACE)
    topic.archive = make_archive(splits={"train": 24, "val": 4})
    server.sent = 0
    new = await obtain(request_, settings, reporter, PACE)
    Dataset.open(new.path).verify()
    assert server.sent < len(topic.archive.data) // 2
    shard = "discs-train.tfrecord-00000-of-00012"
    assert (new.path / shard).samefile(old.path / shard)


async def test_a_damaged_shard_is_mended_with_what_is_damaged_alone(server, topic, settings, request_, reporter):
    topic.is_ready, topic.attempt = True, 1
    topic.archive = make_archive(splits={"train": 24}, shard_size=8)
    old = await obtain(request_, settings, reporter, PACE)
    path = next(old.path.glob("*-00000-of*"))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)  # of the same size, but of another time
    server.sent = 0
    with path.open("rb") as reader:
        new = await obtain(request_, settings, reporter, PACE)
        Dataset.open(new.path).verify()
        assert reader.read() == damaged, "what somebody reads does not change under his hands"
    assert 0 < server.sent < 4096 + len(damaged) // 4


def sidecar(dataset):
    return json.loads(dataset.path.with_name(f"{dataset.path.name}.json").read_bytes())


async def test_a_copied_cache_is_hashed_once(cached, settings, tmp_path):
    copy = Cache(tmp_path / "copy")
    shutil.copytree(settings.cache_dir, copy.root)
    assert copy.find(cached.revision) is not None
    noted = {member["file"]: member["inode"] for member in sidecar(copy.find(cached.revision))["members"]}
    assert noted == {path.name: path.stat().st_ino for path in (copy.datasets / cached.path.name).iterdir()}
    damaged = next((copy.datasets / cached.path.name).glob("*train*"))
    data = damaged.read_bytes()
    damaged.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert copy.find(cached.revision) is None
    assert [faults != [] for _, faults in upkeep.verify(copy)] == [True]
    assert [faults for _, faults in upkeep.verify(Cache(settings.cache_dir))] == [[]]


# --- what dead processes have left


async def test_who_opens_a_dataset_tidies_up_after_who_installed_it(cached, settings, request_, reporter):
    cache = Cache(settings.cache_dir)
    works = [owned_by(try_claim(cache.downloads, cache.scratch, cached.revision.stem), dead_owner(), 0)]
    works.append(works[0].with_name("work.free-0"))
    shutil.copytree(*works)
    (cache.scratch / dead_owner()).write_text("half")
    mark = cache.root / "uses" / cached.path.name / dead_owner()
    mark.touch()
    assert cache.take(cached.revision) is not None
    assert list(cache.downloads.iterdir()) == list(cache.scratch.iterdir()) == []
    assert not mark.exists()
    release(cached.path)


async def test_a_dataset_that_comes_while_it_is_looked_for_is_in_use(cached, settings, monkeypatch):
    cache, find = Cache(settings.cache_dir), Cache.find
    notes = [cached.path.with_name(f"{cached.path.name}.json"), cached.path]
    away = [(path, path.rename(cache.scratch / path.name)) for path in notes]

    def and_it_is_there(self, *arguments):
        while away:
            path, elsewhere = away.pop()
            elsewhere.rename(path)
        return find(self, *arguments)

    monkeypatch.setattr(Cache, "find", and_it_is_there)
    assert cache.take(cached.revision) is not None
    assert is_held(cached.path, time.time())
    release(cached.path)


def test_what_two_in_one_process_have_open_stays_until_both_are_done(cache):
    path = put(cache, "a", 100, 1000.0)
    for _ in range(2):
        hold(path)
    for is_open in (True, False):
        release(path)
        assert is_held(path, time.time()) is is_open


def test_marks_for_what_never_came_are_removed(cache):
    absent, begun = cache.shards / ("a" * 64), cache.shards / ("b" * 64)
    dead = cache.root / "uses" / absent.name / dead_owner()
    dead.parent.mkdir(parents=True)
    dead.touch()
    announce(begun)
    upkeep.collect(cache)
    assert [path.name for path in (cache.root / "uses").iterdir()] == [begun.name]
    release(begun)


async def test_who_lives_is_not_tidied_up_after(cached, settings):
    cache = Cache(settings.cache_dir)
    work = try_claim(cache.downloads, cache.scratch, cached.revision.stem)
    (cache.scratch / new_owner_name()).write_text("half")
    assert cache.take(cached.revision) is not None
    assert work.is_ours()
    assert len(list(cache.scratch.iterdir())) == 1
    release(cached.path)


def test_directories_that_nothing_vouches_for_go_after_a_day(cache, monkeypatch):
    kept, orphan = put(cache, "a", 100, 1000.0), put(cache, "b", 100, 1000.0)
    orphan.with_name(f"{orphan.name}.json").unlink()
    assert upkeep.collect(cache) == []
    assert orphan.is_dir(), "somebody may be about to install it"
    monkeypatch.setattr(room, "ABANDONED_AFTER_S", -1.0)
    for options in ({"dry_run": True}, {}):
        assert [entry.path for entry in upkeep.collect(cache, **options)] == [orphan]
    assert kept.is_dir()
    assert not orphan.exists()
    assert list(cache.scratch.iterdir()) == []


def test_what_is_open_stays_though_who_evicts_has_its_sidecar(cache, monkeypatch):
    path = put(cache, "a", 100, 1000.0)
    sidecar = path.with_name(f"{path.name}.json")
    aside = sidecar.rename(cache.scratch / "aside")
    hold(path)
    assert is_held(path, time.time())
    monkeypatch.setattr(room, "ABANDONED_AFTER_S", -1.0)
    upkeep.collect(cache)
    assert path.is_dir()
    aside.rename(sidecar)
    release(path)


def test_a_file_that_was_lent_is_here_for_whoever_goes_on(tmp_path):
    lender = tmp_path / "lender"
    lender.write_bytes(b"0123456789")
    wanted = Wanted("a", 10, hashlib.sha256(b"0123456789").hexdigest(), crc32=0, at=0)
    WorkFile(wanted, tmp_path / "a", tmp_path / "journal").take(lender)
    lender.unlink()
    again = WorkFile(wanted, tmp_path / "a", tmp_path / "journal")
    assert again.missing() == []
    assert again.resume()
    assert again.verify()


def test_nothing_is_written_through_a_name_of_anothers_file(tmp_path):
    lender = tmp_path / "lender"
    lender.write_bytes(b"0123456789")
    (tmp_path / "a").hardlink_to(lender)  # and then the process was killed
    wanted = Wanted("a", 10, hashlib.sha256(b"abcdefghij").hexdigest(), crc32=0, at=0)
    file = WorkFile(wanted, tmp_path / "a", tmp_path / "journal")
    assert file.missing() == [(0, 10)]
    assert file.write(0, memoryview(b"abcdefghij"))
    assert file.verify()
    assert lender.read_bytes() == b"0123456789"


def test_a_process_that_ends_has_nothing_open(cache):
    path = put(cache, "a", 100, 1000.0)
    program = "import sys; from pathlib import Path; from dataset_client.uses import hold; hold(Path(sys.argv[1])); "
    program += "print(flush=True); sys.stdin.readline()"
    for how in ("ends", "is killed"):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        process.stdout.readline()
        assert is_held(path, time.time())
        if how == "is killed":
            process.send_signal(signal.SIGKILL)
        process.communicate(b"\n")
        assert not is_held(path, time.time())


@pytest.mark.parametrize("phase", ["claiming", "reading the end", "downloading", "verifying", "installing"])
def test_a_client_that_is_killed_is_gone_on_with(phase, tmp_path):
    """More of it: ``python -m tests.proofs client``."""
    kills.run(kills.server_of_tests, phase, 0.5, tmp_path)
