"""What the server counts is what happened, and labels stay few."""

import asyncio
import json
import math
import shutil
import threading
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from dataset_server.metrics import Metrics, Observer
from tests.support import Server, connect, wait_until


def values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Each sample by its name, less the prefix, and its labels."""
    return {
        (sample.name.removeprefix("dataset_server_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def rendered(metrics: Metrics) -> dict:
    return values(metrics.render().body.decode())


def of(server: Server) -> dict:
    answer = requests.get(f"{server.url}/metrics", timeout=60)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return values(answer.text)


def test_everything_starts_at_zero():
    """What has not happened yet is there all the same, so that a rate can be taken of the first time."""
    found = rendered(Metrics.create())
    for outcome in ("ready", "failed", "cancelled"):
        assert found["builds_total", (("outcome", outcome),)] == 0
    for name in ("evictions_total", "scrub_findings_total", "build_retries_total", "events_sent_total", "sockets"):
        assert found[name, ()] == 0
    assert found["requests_failed_total", (("code", "environment_failed"),)] == 0


def test_two_servers_in_a_process_count_apart():
    first, second = Metrics.create(), Metrics.create()
    first.evicted(10)
    assert rendered(first)["evicted_bytes_total", ()] == 10
    assert rendered(second)["evicted_bytes_total", ()] == 0


def test_builds_are_counted_by_how_they_end_and_timed_when_ready():
    metrics = Metrics.create()
    metrics.build_ended("ready", 5.0)
    metrics.build_ended("failed", 7.0)
    metrics.build_ended("cancelled", 9.0)
    metrics.build_retried()
    metrics.scrub_found()
    found = rendered(metrics)
    assert [found["builds_total", (("outcome", name),)] for name in ("ready", "failed", "cancelled")] == [1, 1, 1]
    assert (found["build_seconds_count", ()], found["build_seconds_sum", ()]) == (1, 5.0)
    assert (found["build_retries_total", ()], found["scrub_findings_total", ()]) == (1, 1)


def test_a_code_that_a_handler_made_up_is_no_label():
    metrics = Metrics.create()
    for code in ("made_up_1", "made_up_2", "handler_timeout"):
        metrics.request_failed(code)
    counted = {labels: value for (name, labels), value in rendered(metrics).items() if name == "requests_failed_total"}
    assert {labels: value for labels, value in counted.items() if value} == {
        (("code", "other"),): 2,
        (("code", "handler_timeout"),): 1,
    }


def test_a_method_somebody_made_up_is_no_label():
    metrics = Metrics.create()
    for number in range(100):
        metrics.answered(f"METHOD{number}", "-", 405, 10, 0.1)
    found = {key: value for key, value in rendered(metrics).items() if key[0] == "requests_total"}
    assert found == {("requests_total", (("method", "other"), ("route", "-"), ("status", "405"))): 100}


def test_a_socket_s_life_is_no_request_s_time():
    metrics = Metrics.create()
    metrics.answered("GET", "/api/v1/notifications", 101, 10, 3600.0)
    found = rendered(metrics)
    assert found["requests_total", (("method", "GET"), ("route", "/api/v1/notifications"), ("status", "101"))] == 1
    assert not any(name.startswith("request_seconds") for name, _ in found)


def test_states_that_nothing_is_in_any_more_go_back_to_zero(tmp_path: Path):
    metrics = Metrics.create()
    for name in ("0123456789abcdef" * 2, ".partial-1", "mirror-1.git"):
        (tmp_path / name / "bin").mkdir(parents=True)
    (tmp_path / ".partial-1" / "bin" / "python").touch()
    metrics.count_environments(tmp_path)
    metrics.measure_disk("data", tmp_path)
    metrics.count_datasets({"building": 2, "ready": 1})
    assert rendered(metrics)["datasets", (("state", "building"),)] == 2
    metrics.count_datasets({"ready": 3})
    found = rendered(metrics)
    assert found["datasets", (("state", "building"),)] == 0
    assert found["datasets", (("state", "ready"),)] == 3
    assert found["environments", ()] == 1, "neither those that are being made, nor mirrors; but broken ones"
    assert 0 < found["disk_free_bytes", (("folder", "data"),)] <= found["disk_bytes", (("folder", "data"),)]


async def test_a_folder_that_is_away_hides_nothing_else(tmp_path: Path):
    metrics = Metrics.create()
    await Observer(metrics, tmp_path, {"raw": tmp_path / "away", "data": tmp_path}).observe()
    found = rendered(metrics)
    assert math.isnan(found["disk_free_bytes", (("folder", "raw"),)])
    assert found["disk_free_bytes", (("folder", "data"),)] > 0


async def test_a_disk_that_does_not_answer_holds_one_thread_and_no_answer(tmp_path: Path, monkeypatch):
    """As a network disk whose server has gone."""
    monkeypatch.setattr("dataset_server.metrics._LOOK_SECONDS", 0.05)
    asked, alive, measure = [], threading.Event(), shutil.disk_usage

    def disk_usage(path):
        asked.append(path)
        if path.name == "raw":
            alive.wait(120)
        return measure(tmp_path)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    metrics = Metrics.create()
    observer = Observer(metrics, tmp_path, {"raw": tmp_path / "raw", "data": tmp_path})

    def free(folder):
        return rendered(metrics)["disk_free_bytes", (("folder", folder),)]

    try:
        for _ in range(3):
            await observer.observe()
            assert math.isnan(free("raw"))
        async with asyncio.timeout(60):
            while not free("data") > 0:
                await observer.observe()
        assert asked.count(tmp_path / "raw") == 1
    finally:
        alive.set()
    async with asyncio.timeout(60):
        while not free("raw") > 0:
            await observer.observe()


@pytest.fixture(scope="module")
def ready(server) -> dict:
    made = server.make("tones", {"count": 5}, version="1.0")
    assert made["kind"] == "ready", made
    return made


def test_a_build_and_its_events_are_counted(server, ready):
    found = of(server)
    assert found["builds_total", (("outcome", "ready"),)] == 1
    assert found["build_seconds_count", ()] == 1
    assert found["datasets", (("state", "ready"),)] == 1
    assert found["events_sent_total", ()] >= 1
    assert found["environments", ()] >= 1


def test_requests_are_counted_by_route_and_never_by_path(server, ready):
    dataset = (("method", "GET"), ("route", "/api/v1/datasets/{id}"), ("status", "200"))
    before = of(server).get(("requests_total", dataset), 0)
    for _ in range(3):
        server.get(f"datasets/{ready['dataset_id']}")
    for number in range(20):
        requests.get(f"{server.url}/made-up-{number}", timeout=60)
    assert wait_until(lambda: of(server).get(("requests_total", dataset), 0) == before + 3)
    found = of(server)
    assert found["requests_total", (("method", "GET"), ("route", "-"), ("status", "404"))] == 20
    assert not [labels for _, labels in found if any("made-up" in value for _, value in labels)]


def test_bytes_of_downloads_are_counted(server, ready):
    route = (("route", "/api/v1/datasets/{id}/archive"),)
    before = of(server).get(("response_bytes_total", route), 0)
    archive = server.get(ready["archive"]["url"])
    assert len(archive.content) == ready["archive"]["bytes"]
    assert wait_until(lambda: of(server).get(("response_bytes_total", route), 0) - before >= len(archive.content))


def test_open_sockets_are_counted_while_they_are(server, ready):
    found = server.get("datasets").json()["datasets"]
    assert found
    answer = server.post("tones", {"count": 5}, "1.0").json()
    url = f"{server.api.replace('http', 'ws', 1)}/notifications?topic={answer['topic_id'].replace('+', '%2B')}"
    with connect(url) as one, connect(url) as two:
        assert json.loads(one.recv(timeout=60))["kind"] == json.loads(two.recv(timeout=60))["kind"] == "subscribed"
        assert of(server)["sockets", ()] == 2
    assert wait_until(lambda: of(server)["sockets", ()] == 0)
