"""A server that is stopped or killed: no process stays behind, and the next one goes on where it was."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.support import PLUGINS, ROOT, Server, git, processes_mentioning, wait_until

SLOW = {"fault": "slow", "count": 96, "examples_per_shard": 12}


def sealed(server, dataset_id: str) -> list[dict]:
    return server.get(f"datasets/{dataset_id}").json()["shards"]


def inodes(server, answer: dict, shards: list[dict]) -> dict[str, int]:
    folder = server.data_dir / "work" / answer["dataset_id"].removesuffix(".zip") / "dataset"
    return {shard["file"]: (folder / shard["file"]).stat().st_ino for shard in shards}


def start_and_stop_midway(make_server, plugin_sources, how: int):
    """Build until two shards are sealed, stop the server, start another on the same folder."""
    first = make_server("interrupted", handlers=plugin_sources, settings={"workers": 2})
    assert first.make("faulty", {"count": 1}, version="1.0")["kind"] == "ready"  # installs the handler
    answer = first.post("faulty", SLOW, version="1.0").json()
    assert wait_until(lambda: len(sealed(first, answer["dataset_id"])) >= 2)
    kept = sealed(first, answer["dataset_id"])
    for file, inode in inodes(first, answer, kept).items():
        next(shard for shard in kept if shard["file"] == file)["inode"] = inode
    first.stop(how)
    assert wait_until(lambda: not processes_mentioning(str(first.data_dir))), "processes outlived the server"
    second = make_server("interrupted", handlers=plugin_sources, settings={"workers": 2})
    return second, answer, kept


def undisturbed(make_server, plugin_sources) -> str:
    server = make_server("undisturbed", handlers=plugin_sources, settings={"workers": 1})
    return server.make("faulty", SLOW, version="1.0")["archive"]["sha256"]


def test_killed_in_the_middle_of_a_build(make_server, plugin_sources):
    second, answer, kept = start_and_stop_midway(make_server, plugin_sources, signal.SIGKILL)
    assert wait_until(lambda: len(sealed(second, answer["dataset_id"])) > len(kept))
    assert inodes(second, answer, kept) == {shard["file"]: shard["inode"] for shard in kept}, "made again"
    events = second.events(answer["topic_id"])
    assert events[-1]["kind"] == "ready"
    files = [event["data"]["file"] for event in events if event["kind"] == "shard"]
    assert len(files) == len(set(files)) == 8, "no shard is announced twice"
    assert events[-1]["data"]["archive"]["sha256"] == undisturbed(make_server, plugin_sources)


def test_terminated_in_the_middle_of_a_build(make_server, plugin_sources):
    second, answer, _ = start_and_stop_midway(make_server, plugin_sources, signal.SIGTERM)
    events = second.events(answer["topic_id"])
    assert [event["kind"] for event in events if event["kind"] in ("ready", "failed")] == ["ready"]


def test_killed_while_it_installs(make_server, plugin_sources, tmp_path):
    options = {"handlers": plugin_sources, "environments_dir": tmp_path / "own-environments"}
    first = make_server("installing", **options)
    answer = first.post("tones", {}, version="1.0").json()
    assert answer["dataset_id"] is None
    assert wait_until(lambda: list((tmp_path / "own-environments").glob(".partial-*")))
    first.stop(signal.SIGKILL)
    second = make_server("installing", **options)
    assert second.events(answer["topic_id"])[-1]["kind"] == "ready"
    assert not list((tmp_path / "own-environments").glob(".partial-*"))


def test_an_archive_that_was_lost_is_made_again(make_server, plugin_sources):
    server = make_server(handlers=plugin_sources)
    first = server.make("tones", {}, version="1.0")
    (archive,) = (server.data_dir / "archives").glob("*.zip")
    archive.unlink()
    assert server.get(f"datasets/{first['dataset_id']}/archive").json()["code"] == "not_ready"
    assert server.make("tones", {}, version="1.0")["archive"]["sha256"] == first["archive"]["sha256"]


def test_one_server_per_data_folder(make_server, plugin_sources, tmp_path):
    first = make_server("claimed", handlers=plugin_sources)
    command = [sys.executable, "-m", "dataset_server", "serve", "--raw-root", str(first.raw_root), "--port", "0"]
    second = subprocess.run(
        [*command, "--data-dir", str(first.data_dir)], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert second.returncode == 1
    assert f"served by process {first.process.pid}" in second.stderr
    assert first.make("tones", {}, version="1.0")["kind"] == "ready"
    first.stop(signal.SIGKILL)
    assert make_server("claimed", handlers=plugin_sources).get("datasets").json()["total"] == 1


def test_relative_folders(raw_root, environments_dir, tmp_path):
    """Handlers run in other folders than the server; what it was given must mean the same there."""
    (tmp_path / "raw").symlink_to(raw_root)
    server = Server(Path("raw"), tmp_path / "data", environments_dir, folder=tmp_path, shown_data_dir="data").start()
    assert server.make("duts", {"limit": 4})["kind"] == "ready"
    assert server.stop() == 0


def test_a_build_goes_on_when_its_repository_is_gone(make_server, tmp_path):
    repository = tmp_path / "repository"
    shutil.copytree(PLUGINS / "faulty", repository)
    git("init", "--quiet", "--initial-branch", "main", cwd=repository)
    git("add", "-A", cwd=repository)
    git("commit", "--quiet", "-m", "one", cwd=repository)
    git("tag", "v1", cwd=repository)
    sources = {"faulty": f"git+file://{repository}@{{version}}"}
    first = make_server("git", handlers=sources, settings={"workers": 2})
    assert first.make("faulty", {"count": 1}, version="v1")["kind"] == "ready"
    answer = first.post("faulty", SLOW, version="v1").json()
    assert wait_until(lambda: len(sealed(first, answer["dataset_id"])) >= 1)
    first.stop(signal.SIGKILL)
    repository.rename(tmp_path / "elsewhere")
    second = make_server("git", handlers=sources, settings={"workers": 2})
    assert second.events(answer["topic_id"])[-1]["kind"] == "ready"


def test_an_environment_whose_interpreter_is_gone_is_made_anew(make_server, plugin_sources, tmp_path):
    environments = tmp_path / "own-environments"
    server = make_server(handlers=plugin_sources, environments_dir=environments)
    assert server.make("tones", {}, version="1.0")["kind"] == "ready"
    (interpreter,) = environments.glob("*/bin/python")
    interpreter.unlink()
    assert server.make("tones", {"seed": 2}, version="1.0")["kind"] == "ready"


def test_a_server_with_a_token(raw_root, environments_dir, tmp_path):
    token = "a token of the test"
    server = Server(raw_root, tmp_path / "data", environments_dir, environment={"DATASET_SERVER_TOKEN": token}).start()
    url = f"{server.api}/datasets"
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {token}"}):
        refused = requests.get(url, headers=headers, timeout=10)
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    assert requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=10).status_code == 200
    assert requests.get(f"{server.url}/healthz", timeout=10).status_code == 200
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--config", "/nowhere/settings.toml"], "there is no file"),
        (["--raw-root", "/nowhere"], "raw_root"),
        (["--host", "0.0.0.0"], "token"),
        (["--port", "99999"], "port"),
    ],
)
def test_wrong_settings_stop_the_start(raw_root, tmp_path, options, words):
    command = [sys.executable, "-m", "dataset_server", "serve", "--raw-root", str(raw_root)]
    run = subprocess.run(
        [*command, "--data-dir", str(tmp_path), *options], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert run.returncode == 2
    assert words in run.stderr
    assert "Traceback" not in run.stderr
