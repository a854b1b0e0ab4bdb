"""The command as a user runs it: a program with a status, an output and an error output."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

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
    done = command("request", "discs", "v1", "-", "--no-progress", *here, stdin=CONFIG)
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
