"""A server that is stopped or killed: no process stays behind, and the next one goes on where it was."""

import signal

from tests.support import processes_mentioning, wait_until

SLOW = {"fault": "slow", "count": 96, "examples_per_shard": 12}


def sealed(server, dataset_id: str) -> list[dict]:
    return server.get(f"datasets/{dataset_id}").json()["shards"]


def start_and_stop_midway(make_server, plugin_sources, how: int):
    """Build until two shards are sealed, stop the server, start another on the same folder."""
    first = make_server("interrupted", handlers=plugin_sources, settings={"workers": 2})
    assert first.make("faulty", {"count": 1}, version="1.0")["kind"] == "ready"  # installs the handler
    answer = first.post("faulty", SLOW, version="1.0").json()
    assert wait_until(lambda: len(sealed(first, answer["dataset_id"])) >= 2)
    kept = sealed(first, answer["dataset_id"])
    first.stop(how)
    assert wait_until(lambda: not processes_mentioning(str(first.data_dir))), "processes outlived the server"
    second = make_server("interrupted", handlers=plugin_sources, settings={"workers": 2})
    return second, answer, kept


def undisturbed(make_server, plugin_sources) -> str:
    server = make_server("undisturbed", handlers=plugin_sources, settings={"workers": 1})
    return server.make("faulty", SLOW, version="1.0")["archive"]["sha256"]


def test_killed_in_the_middle_of_a_build(make_server, plugin_sources):
    second, answer, kept = start_and_stop_midway(make_server, plugin_sources, signal.SIGKILL)
    folder = second.data_dir / "work" / answer["dataset_id"].removesuffix(".zip") / "dataset"
    before = {
        shard["file"]: (folder / shard["file"]).stat().st_ino for shard in kept if (folder / shard["file"]).exists()
    }
    events = second.events(answer["topic_id"])
    assert events[-1]["kind"] == "ready"
    files = [event["data"]["file"] for event in events if event["kind"] == "shard"]
    assert len(files) == len(set(files)) == 8, "no shard is announced twice"
    assert len(before) == len(kept)
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
    (server.data_dir / "archives" / first["dataset_id"]).unlink()
    assert server.get(f"datasets/{first['dataset_id']}/archive").json()["code"] == "not_ready"
    assert server.make("tones", {}, version="1.0")["archive"]["sha256"] == first["archive"]["sha256"]
