"""Builds through the very commands a server runs: the same bytes however they come about."""

import itertools
import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dataset_handlers.shards import WorkFolder
from tests.handlers.support import (
    command_line,
    contents,
    examples_of,
    plan_and_build,
    plan_in_process,
    run_command,
    write_request,
)

SMALL = {"image_size": [64, 96], "variations_per_sample": 3, "rotation": [-20, 20], "flip_horizontal": 0.5}
CONFIGS = {
    "coco": {**SMALL, "categories": ["figure"], "crop_size": [48, 48], "random_crop_centered": True},
    "duts": {**SMALL, "exposure": [-1, 1], "splits": {"train": 0.8, "validation": 0.2}},
    "composite": {**SMALL, "subjects": "duts", "feather": 1.5},
}


def poll(condition, seconds=60):
    """Wait until ``condition()`` holds."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def children(pid):
    """Processes that ``pid`` has started and that live."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    state, parent = file.read().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(parent) == pid and state != "Z":
                found.append(int(entry))
    return found


def lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


#: Both libraries are told that the processor can do less than it can.
POORER = {
    "OPENCV_CPU_DISABLE": "AVX,AVX2,FMA3,FP16,SSE4.1,SSE4.2",
    "OPENCV_IPP": "disabled",
    "OPENBLAS_CORETYPE": "Prescott",
    "JSIMD_FORCENONE": "1",
}
WAYS = {"one": (1, {}), "two": (2, {}), "four": (4, {}), "poorer processor": (2, POORER)}


@pytest.fixture(scope="module")
def made(raw_root, tmp_path_factory):
    """Each dataset, made in each way: its outcome and files. Several at a time, for most of it is starting Python."""

    files = {}
    for dataset, way in itertools.product(CONFIGS, WAYS):
        folder = tmp_path_factory.mktemp(dataset)
        ask = {"dataset": dataset, "config": CONFIGS[dataset], "raw_root": raw_root, "work_dir": folder}
        files[dataset, way] = write_request(folder / "request.json", **ask, workers=WAYS[way][0])
        assert plan_in_process(files[dataset, way]).status == 0

    def make(pair):
        outcome = run_command("build", files[pair], environment=WAYS[pair[1]][1])
        assert outcome.status == 0, outcome.log
        return outcome, contents(files[pair].parent)

    with ThreadPoolExecutor(3) as pool:
        return dict(zip(files, pool.map(make, files), strict=True))


@pytest.fixture(scope="module")
def reference(made):
    """Each dataset as one worker makes it."""
    return {dataset: made[dataset, "one"][1] for dataset in CONFIGS}


@pytest.mark.parametrize("dataset", CONFIGS)
@pytest.mark.parametrize("way", list(WAYS)[1:])
def test_neither_workers_nor_processor_decide_a_byte(made, reference, dataset, way):
    outcome, files = made[dataset, way]
    assert outcome.last["event"] == "finished"
    assert outcome.last["quarantined"] == 0
    assert files == reference[dataset]
    assert set(outcome.last["files"]) == set(files)
    assert len([name for name in files if "tfrecord" in name]) >= 4


def test_shards_may_be_made_in_parts_and_the_last_part_finishes(reference, raw_root, tmp_path):
    ask = {"dataset": "coco", "config": CONFIGS["coco"], "raw_root": raw_root, "work_dir": tmp_path, "workers": 2}
    count = plan_in_process(write_request(tmp_path / "request.json", **ask)).last["shards"]
    first = run_command("build", write_request(tmp_path / "request.json", **ask, shards=list(range(1, count))))
    assert first.status == 0
    assert not first.of("finished")
    assert {event["number"] for event in first.of("shard")} == set(range(1, count))
    assert not (tmp_path / "dataset" / "manifest.json").exists()
    last = run_command("build", write_request(tmp_path / "request.json", **ask, shards=[0]))
    assert last.last["event"] == "finished"
    assert contents(tmp_path) == reference["coco"]
    wrong = run_command("build", write_request(tmp_path / "request.json", **ask, shards=[0, 99]))
    assert (wrong.status, wrong.last["code"]) == (1, "request_malformed")
    assert "[99]" in wrong.last["message"]


def test_events_are_complete_and_progress_never_falls(made, reference):
    outcome, _ = made["duts", "two"]
    shards = outcome.of("shard")
    assert sorted(event["number"] for event in shards) == list(range(len(shards)))
    for event in shards:
        assert event["bytes"] == len(reference["duts"][event["file"]])
    done = [event["done"] for event in outcome.of("progress")]
    assert done == sorted(done)
    assert done[0] == 0
    assert outcome.of("progress")[-1] == {"event": "progress", "done": 26, "total": 26}


SLOW = {"count": 48, "examples_per_shard": 3, "pause": 0.01}


def start(file, python, **options):
    return subprocess.Popen(
        command_line("build", file, python), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        start_new_session=True, cwd=file.parent, **options,
    )  # fmt: skip


def read_until(process, kind, count=1):
    while count:
        line = process.stdout.readline()
        assert line, "the build ended"
        count -= json.loads(line)["event"] == kind


@pytest.fixture
def slow(plugin_python, raw_root, tmp_path):
    """A planned dataset of slow samples."""
    file = write_request(
        tmp_path / "request.json", dataset="slow", config=SLOW, raw_root=raw_root, work_dir=tmp_path, workers=2
    )
    assert plan_in_process(file).status == 0
    return file


def test_killed_in_the_middle_and_run_again(slow, plugin_python, raw_root, tmp_path):
    process = start(slow, plugin_python)
    read_until(process, "shard", 4)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    sealed = {path.name.removesuffix(".json") for path in (tmp_path / "sealed").glob("slow-*.json")}
    assert 4 <= len(sealed) < 16
    stats = {name: (tmp_path / "dataset" / name).stat() for name in sealed}
    (tmp_path / "dataset" / ".left.1.partial").write_bytes(b"half")
    again = run_command("build", slow, plugin_python)
    assert again.last["event"] == "finished"
    for name, before in stats.items():
        after = (tmp_path / "dataset" / name).stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not list((tmp_path / "dataset").glob(".*"))
    assert len(again.of("shard")) == 16
    assert again.of("progress")[0]["done"] == 3 * len(sealed)
    fresh = tmp_path / "fresh"
    assert plan_and_build(fresh, plugin_python, dataset="slow", config=SLOW, raw_root=raw_root, workers=1).status == 0
    assert contents(fresh) == contents(tmp_path)


def test_a_sealed_shard_that_was_damaged_since_is_made_again(slow, plugin_python, tmp_path):
    assert run_command("build", slow, plugin_python).status == 0
    whole = contents(tmp_path)
    names = sorted(name for name in whole if "tfrecord" in name)
    (tmp_path / "dataset" / names[0]).write_bytes(whole[names[0]][:-1])
    (tmp_path / "dataset" / names[1]).unlink()
    (tmp_path / "sealed" / f"{names[2]}.json").write_text("{")
    untouched = (tmp_path / "dataset" / names[3]).stat().st_ino
    assert run_command("build", slow, plugin_python).status == 0
    assert contents(tmp_path) == whole
    assert (tmp_path / "dataset" / names[3]).stat().st_ino == untouched


def test_a_killed_worker_is_named_with_its_shard(plugin_python, raw_root, tmp_path):
    config = {"count": 32, "examples_per_shard": 4, "special": 5}
    outcome = plan_and_build(tmp_path, plugin_python, dataset="deadly", config=config, raw_root=raw_root, workers=2)
    assert (outcome.status, outcome.last["code"]) == (1, "worker_died")
    assert "SIGKILL" in outcome.last["message"]
    doomed = next(
        name for name in range(8)
        if '"0005"' in (tmp_path / "plan" / f"shard-{name:05}.json").read_text()
    )  # fmt: skip
    assert f"deadly-train.tfrecord-{doomed:05}-of-00008" in outcome.last["message"]


def test_a_worker_killed_from_outside_ends_the_build_and_leaves_nobody(slow, plugin_python):
    process = start(slow, plugin_python)
    read_until(process, "shard")
    workers = poll(lambda: children(process.pid))
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    *_, last = process.stdout.readlines()
    assert process.wait() == 1
    process.stdout.close()
    assert json.loads(last)["code"] == "worker_died"
    assert not any(map(lives, workers))


@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_coordinator(slow, plugin_python, with_signal):
    process = start(slow, plugin_python)
    read_until(process, "shard")
    workers = poll(lambda: children(process.pid))
    os.kill(process.pid, with_signal)
    assert process.wait() == (-signal.SIGKILL if with_signal == signal.SIGKILL else 130)
    process.stdout.close()
    poll(lambda: not any(map(lives, workers)))


def test_whoever_stops_listening_ends_the_build(slow, plugin_python):
    process = start(slow, plugin_python)
    read_until(process, "shard")
    workers = poll(lambda: children(process.pid))
    process.stdout.close()
    assert process.wait() == 130
    poll(lambda: not any(map(lives, workers)))


def test_a_build_ends_with_whoever_it_is_to_die_with(slow, plugin_python, tmp_path):
    # A parent in between starts the build and is killed: the build must follow it.
    ask = {**json.loads(slow.read_text()), "config": SLOW}
    between = (
        "import json, os, subprocess, sys; ask = json.load(open(sys.argv[1])); ask['die_with_parent'] = os.getpid();"
        "open(sys.argv[1], 'w').write(json.dumps(ask));"
        "print(subprocess.Popen(sys.argv[2:], stdout=subprocess.DEVNULL).pid, flush=True); input()"
    )
    file = write_request(tmp_path / "other.json", **ask)
    parent = subprocess.Popen(
        [str(plugin_python), "-c", between, str(file), *command_line("build", file, plugin_python)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    build = int(parent.stdout.readline())
    poll(lambda: children(build))
    workers = children(build)
    parent.kill()
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()
    poll(lambda: not lives(build) and not any(map(lives, workers)))


def test_variations_have_randomness_of_their_own(plugin_python, raw_root, tmp_path):
    outcome = plan_and_build(
        tmp_path, plugin_python, dataset="number", config={"count": 4, "variations_per_sample": 3}, raw_root=raw_root
    )
    assert outcome.status == 0
    work = WorkFolder(tmp_path)
    shards = [type("Shard", (), {"file": path.name}) for path in sorted(work.dataset.glob("*tfrecord*"))]
    draws = [example["draw"] for example in examples_of(tmp_path, shards)]
    assert len(draws) == len(set(draws)) == 12
