"""The command as a user runs it: a program with a status, an output and an error output."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dataset_client.cli import main

CONFIG = '{"limit": 7, "batch_size": 2}'


@pytest.fixture
def command(server, tmp_path):
    def run(*arguments, stdin=""):
        return subprocess.run(
            [sys.executable, "-m", "dataset_client.cli", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.fixture
def here(server, tmp_path):
    return ["--server", server.url, "--cache-dir", str(tmp_path / "cache")]


def test_request_ls_and_show(topic, command, here, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(CONFIG)
    done = command("request", "discs", "v1", str(config), *here)
    assert done.returncode == 0, done.stderr
    path = done.stdout.removesuffix("\n")
    assert Path(path).parent == tmp_path / "cache" / "datasets"
    assert "dataset-client: building" in done.stderr
    assert len(done.stderr.splitlines()) <= 6

    listed = command("ls", "--json", *here[2:])
    (row,) = json.loads(listed.stdout)
    assert (row["dataset_id"], row["examples"], row["path"]) == (topic.archive.dataset_id, 7, path)
    assert topic.archive.dataset_id in command("ls", *here[2:]).stdout

    shown = command("show", "discs", *here[2:]).stdout
    for part in ("train", "5 examples in 3 shards", "foreground", "broken.jpg", topic.archive.dataset_id):
        assert part in shown
    assert json.loads(command("show", path, "--json").stdout)["format"] == 1


def test_a_config_from_stdin_silently(topic, command, here):
    done = command("request", "discs", "v1", "-", "--quiet", *here, stdin=CONFIG)
    assert (done.returncode, done.stderr) == (0, "")
    offline = command("request", "discs", "v1", "-", "--offline", *here, stdin=CONFIG)
    assert offline.stdout == done.stdout


@pytest.mark.parametrize(
    ("arguments", "stdin", "expected"),
    [
        (["request", "coco", "v1", "-"], "{}", "no handler makes 'coco'"),
        (["request", "discs", "v1", "-", "--offline"], "{}", "without --offline"),
        (["request", "discs", "v1", "-"], "[]", "not a JSON object"),
        (["request", "discs", "v1", "-"], "{", "cannot be read"),
        (["request", "discs", "v1", "/no/such.json"], "", "cannot be read"),
        (["request", "Discs", "v1", "-"], "{}", "lower-case"),
    ],
)
def test_errors_say_what_to_do_without_a_traceback(command, here, arguments, stdin, expected):
    done = command(*arguments, *here, stdin=stdin)
    assert (done.returncode, done.stdout) == (1, "")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_usage(command):
    assert command("request", "discs").returncode == 2
    assert command("frobnicate").returncode == 2
    assert "examples:" in command("--help").stdout


def test_ls_of_nothing(command, here):
    assert command("ls", *here[2:]).stdout == "The cache is empty.\n"
    assert command("show", "coco", *here[2:]).returncode == 1


def test_ctrl_c_ends_the_waiting_and_says_that_the_build_goes_on(server, topic, here):
    topic.on_ask = [("state", {"state": "building"})]
    process = subprocess.Popen(
        [sys.executable, "-m", "dataset_client.cli", "request", "discs", "v1", "-", *here],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdin.write(CONFIG)
    process.stdin.close()
    process.stdin = None
    server.wait_for_posts(1)
    assert process.stderr.readline() == "dataset-client: building\n"
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (130, "")
    assert "goes on at the server" in stderr
    assert "Traceback" not in stderr


@pytest.fixture
def run(capsys, monkeypatch):
    """The command in this process, which is faster."""

    def run(*arguments, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status = main(arguments)
        return subprocess.CompletedProcess(arguments, status, *capsys.readouterr())

    return run


@pytest.fixture
def cached(topic, command, here):
    """A dataset in the cache, and the options that lead there."""
    done = command("request", "discs", "v1", "-", "--json", "-q", *here, stdin=CONFIG)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), here[2:]


def test_a_dataset_as_json(cached, topic):
    dataset, _ = cached
    assert dataset["dataset_id"] == topic.archive.dataset_id
    assert dataset["splits"] == {"train": 5, "val": 2}
    assert dataset["config"] == json.loads(CONFIG)


def test_verify_finds_what_is_damaged(cached, run):
    dataset, cache = cached
    for names in ([], ["discs"], [dataset["path"]], [dataset["dataset_id"]]):
        done = run("verify", *names, *cache)
        assert (done.returncode, done.stdout.split()) == (0, ["ok", dataset["path"]])
    shard = next(Path(dataset["path"]).glob("*val*"))
    data = bytearray(shard.read_bytes())
    data[20] ^= 1
    shard.write_bytes(data)
    done = run("verify", *cache)
    assert done.returncode == 1
    assert shard.name in done.stdout
    (entry,) = json.loads(run("verify", "--json", "discs", *cache).stdout)
    assert shard.name in entry["faults"][0]
    assert run("verify", "coco", *cache).returncode == 1


def test_du_gc_and_rm(cached, command, run, topic, here):
    dataset, cache = cached
    (entry,) = json.loads(run("du", "--json", *cache).stdout)
    assert entry["path"] == dataset["path"]
    assert entry["bytes"] >= len(topic.archive.data) // 2
    assert run("du", *cache).stdout.splitlines()[-1].endswith("in all")

    assert "Removed 0 datasets" in run("gc", *cache).stdout
    would = run("gc", "--limit", "1kB", "--dry-run", *cache).stdout
    assert "Would remove 1 datasets" in would
    assert Path(dataset["path"]).is_dir()
    (gone,) = json.loads(run("gc", "--limit", "1kB", "--json", *cache).stdout)
    assert gone["dataset_id"] == dataset["dataset_id"]
    assert not Path(dataset["path"]).exists()
    assert run("du", *cache).stdout == "The cache is empty.\n"
    assert run("gc", "--limit", "much", *cache).returncode == 1

    command("request", "discs", "v1", "-", "-q", *here, stdin=CONFIG)  # in this process it would be open
    done = run("rm", "discs", *cache)
    assert done.returncode == 0
    assert Path(dataset["path"]).name in done.stdout
    assert run("rm", "discs", *cache).returncode == 1


def test_a_line_for_each_event(topic, server, run, here, request_):
    topic.attempt = 1
    for kind, data in (
        ("state", {"state": "queued", "position": 2}),
        ("progress", {"done": 3, "total": 7, "eta": 4.2}),
        ("shard", {"file": "a", "examples": 2, "bytes": 10}),
        ("failed", {"code": "handler_crashed", "message": "it died", "log": "one\ntwo"}),
    ):
        server.emit(request_.topic_id, kind, data)
    done = run("watch", request_.topic_id, *here[:2])
    assert done.stdout.splitlines() == [
        "queued, number 2 in the queue",
        "3 of 7 samples, 4 s to go",
        "sealed a: 2 examples, 10 B",
        "failed: it died",
        "  | one",
        "  | two",
    ]
    assert done.returncode == 1
    server.ready(request_.topic_id)
    done = run("watch", "--json", "--request", "discs", "v1", "-", *here[:2], stdin=CONFIG)
    assert [json.loads(line)["kind"] for line in done.stdout.splitlines()] == ["state", "progress", "shard", "failed"]


def test_time_that_is_over_has_a_status_of_its_own(topic, run, here):
    topic.on_ask = [("state", {"state": "building"})]
    done = run("request", "discs", "v1", "-", "--timeout", "0.2", *here, stdin=CONFIG)
    assert done.returncode == 3
    assert "asking again picks it up" in done.stderr


def test_what_is_read_no_further_is_no_traceback(cached, command):
    run = subprocess.run(
        f"{sys.executable} -m dataset_client.cli show discs --json --cache-dir {cached[1][1]} | head -c 1",
        shell=True, capture_output=True, text=True,
    )  # fmt: skip
    assert (run.stdout, run.stderr) == ("{", "")


@pytest.mark.parametrize(
    "name", ["request", "pull", "watch", "ls", "show", "verify", "rm", "gc", "du", "completion"]
)  # fmt: skip
def test_each_command_has_help(capsys, name):
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    assert "usage: dataset-client " + name in capsys.readouterr().out


def test_completion_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    assert main(["completion", "bash"]) == 1
    assert "remote-dataset-pipeline[completion]" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell, capsys):
    pytest.importorskip("argcomplete")
    assert main(["completion", shell]) == 0
    assert "dataset-client" in capsys.readouterr().out


def test_ids_in_the_cache_are_completed(cached, tmp_path):
    pytest.importorskip("argcomplete")
    dataset, cache = cached
    line = f"dataset-client show --cache-dir {cache[1]} di"
    environment = {
        **os.environ, "_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "out"),
        "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SHELL": "bash", "_ARGCOMPLETE_COMP_WORDBREAKS": " ",
        "COMP_LINE": line, "COMP_POINT": str(len(line)),
    }  # fmt: skip
    subprocess.run([sys.executable, "-m", "dataset_client.cli"], env=environment, timeout=60)
    assert (tmp_path / "out").read_text().strip() == dataset["dataset_id"]
