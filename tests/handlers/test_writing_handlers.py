"""The tutorial for authors, followed to the letter: its commands and its edit, with a real server."""

import json
import os
import re
import signal
import subprocess

import pytest
from PIL import Image

from tests.handlers.author_support import make_interpreter
from tests.handlers.support import REPOSITORY

PAGE = (REPOSITORY / "docs" / "writing_handlers.md").read_text()
STEPS = re.findall(r"```(sh|diff)\n(.*?)```", PAGE, re.DOTALL)
SERVED_AT = "http://127.0.0.1:8710"


@pytest.fixture
def reader(tmp_path, environments_dir):
    """Someone with a shell: ``do(step)`` is one block of commands or one edit of the page."""
    interpreter = make_interpreter(tmp_path / "venv")
    interpreter.add_program("dataset-handlers", "dataset_handlers.__main__:main")
    interpreter.add_program("dataset-client", "dataset_client.cli:main")
    interpreter.add_program("dataset-server", "dataset_server.__main__:main")
    interpreter.add_program("pip", "pip._internal.cli.main:main")
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DATASET_")},
        "PATH": f"{interpreter.bin}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "DATASET_CACHE_DIR": str(tmp_path / "cache"),
        # What the page need not say: who commits, a free port, environments that all tests share, and that what is
        # needed to install a package is here already.
        "GIT_AUTHOR_NAME": "A Reader", "GIT_AUTHOR_EMAIL": "reader@example.org",
        "GIT_COMMITTER_NAME": "A Reader", "GIT_COMMITTER_EMAIL": "reader@example.org",
        "DATASET_SERVER_PORT": "0",
        "DATASET_SERVER_ENVIRONMENTS_DIR": str(environments_dir),
        "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }  # fmt: skip
    made = Reader(home, environment)
    yield made
    made.leave()


class Reader:
    def __init__(self, home, environment):
        self.home, self.environment = home, environment
        self.server, self.url = None, SERVED_AT

    def do(self, kind, text):
        if kind == "diff":
            return self.run("git apply --verbose --directory flowers -", text)
        if text.startswith("dataset-server serve"):
            return self.start(text)
        return self.run(text.replace(SERVED_AT, self.url))

    def run(self, commands, given=None):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            input=given, capture_output=True, text=True, cwd=self.home, env=self.environment,
        )  # fmt: skip
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, command):
        self.server = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            cwd=self.home, env=self.environment,
        )  # fmt: skip
        line = self.server.stdout.readline()
        assert "listens on" in line, line
        self.url = line.split()[-1]
        return line

    def leave(self):
        if self.server is not None:
            self.server.send_signal(signal.SIGTERM)
            assert self.server.wait(20) == 0
            self.server.stdout.close()


def test_the_tutorial_works_as_it_is_written(reader):
    told = "\n".join(reader.do(kind, text) for kind, text in STEPS)
    assert "grey = 0.0" in told
    assert "21 ok\n" in told
    assert "24 examples in 2 shards" in told
    assert "train: 75.0% of all examples" in told
    for picture in ("before.png", "after.png", "served.png"):
        with Image.open(reader.home / picture) as drawn:
            assert min(drawn.size) > 150
    # The whole way round, the bytes are those that the author saw.
    (served,) = (path for path in (reader.home.parent / "cache").rglob("manifest.json"))
    ours = json.loads((reader.home / "out" / "dataset" / "manifest.json").read_text())
    theirs = json.loads(served.read_text())
    assert {shard["sha256"] for shard in theirs["shards"]} == {shard["sha256"] for shard in ours["shards"]}


def test_every_command_of_the_page_is_run():
    assert len(re.findall(r"^```\w", PAGE, re.MULTILINE)) == len(STEPS), "no block in another language"
    assert sum(text.startswith("dataset-server") for _, text in STEPS) == 1
    assert len(PAGE.splitlines()) < 160
