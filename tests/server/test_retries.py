"""What is tried again by itself, what when asked, and what is stopped when asked."""

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from dataset_server.retries import LONGEST, retry_after
from tests.server.tiny_packages import write_source
from tests.support import Server, processes_mentioning, wait_until

FOR_EVER = "import time; time.sleep(3600)"
SLOW = {"fault": "slow", "count": 200, "examples_per_shard": 10}


# The decision


def waits(code: str, *, retryable: bool = False, limit: int = 3, first: float = 5.0) -> list[float]:
    """All waits until it is given up."""
    found: list[float] = []
    while (wait := retry_after(code, retryable, len(found), limit=limit, first=first)) is not None:
        found.append(wait)
    return found


@pytest.mark.parametrize(
    ("code", "retryable", "expected"),
    [
        ("environment_failed", True, [5, 10, 20]),
        ("environment_failed", False, []),
        ("internal_error", False, [5, 10, 20]),
        ("worker_died", False, [5]),
        ("handler_out_of_memory", False, [5]),
        ("handler_timeout", False, [5]),
        ("handler_failed", False, []),
        ("handler_cpu_exceeded", False, []),
        ("config_refused", False, []),
        ("disk_full", False, [5, 10, 20, 40, 80, 160, *[300] * 6]),
    ],
)
def test_each_class_has_its_retries(code, retryable, expected):
    assert waits(code, retryable=retryable) == expected


@given(st.sampled_from(["disk_full", "internal_error", "worker_died", "other"]), st.booleans(), st.floats(0.01, 1e4))
def test_waits_never_shrink_nor_grow_beyond_the_longest(code, retryable, first):
    found = waits(code, retryable=retryable, limit=20, first=first)
    assert found == sorted(found)
    assert all(wait <= LONGEST for wait in found)
    assert waits(code, retryable=retryable, limit=0, first=first) == []


# A server that does as decided


@pytest.fixture(scope="module")
def patient(raw_root, environments_dir, plugin_sources, tmp_path_factory):
    """A server that tries again after a moment."""
    running = Server(
        raw_root,
        tmp_path_factory.mktemp("patient"),
        environments_dir,
        handlers={**plugin_sources, "tiny": str(write_source(tmp_path_factory.mktemp("tiny"), before=FOR_EVER))},
        settings={"retry_seconds": 0.05, "workers": 2},
    ).start()
    assert running.make("faulty", {"count": 1}, version="1.0")["kind"] == "ready"  # installs the handler
    yield running
    assert running.stop() == 0


def ask(server, config: dict) -> tuple[dict, list[dict]]:
    answer = server.post("faulty", config, version="1.0").json()
    return answer, server.events(answer["topic_id"], answer["attempt"])


def retried(events: list[dict]) -> list[tuple[str, int]]:
    return [(event["data"]["reason"], event["data"]["try"]) for event in events if "retry_at" in event["data"]]


def act(server, dataset_id: str, action: str) -> requests.Response:
    return requests.post(f"{server.api}/datasets/{dataset_id}/{action}", timeout=120)


def test_a_worker_that_is_killed_once_costs_one_more_try(patient):
    config = {"count": 40, "examples_per_shard": 10}
    _, events = ask(patient, {**config, "fault": "killed", "times": 1})
    assert retried(events) == [("worker_died", 2)]
    assert [event["kind"] for event in events if event["kind"] in ("ready", "failed")] == ["ready"]
    files = [event["data"]["file"] for event in events if event["kind"] == "shard"]
    assert len(files) == len(set(files)), "a shard was made twice"


def test_what_keeps_failing_is_given_up(patient):
    _, events = ask(patient, {"fault": "killed"})
    assert retried(events) == [("worker_died", 2)]
    assert (events[-1]["kind"], events[-1]["data"]["code"]) == ("failed", "worker_died")


def test_a_handlers_own_fault_is_not_tried_again(patient):
    _, events = ask(patient, {"fault": "raise"})
    assert retried(events) == []
    assert events[-1]["data"]["code"] == "handler_failed"


def test_retry_when_asked(patient):
    answer, events = ask(patient, {"fault": "raise", "count": 41})
    again = act(patient, answer["dataset_id"], "retry")
    assert again.status_code == 202
    assert again.json()["attempt"] == 2
    assert again.json()["state"] in ("queued", "planning")
    assert wait_until(lambda: patient.get(f"datasets/{answer['dataset_id']}").json()["state"] == "failed", 60)
    assert patient.events(answer["topic_id"], after=0)[-1]["number"] == events[-1]["number"], "nobody asked for that"


def test_what_is_ready_or_unknown_is_neither_retried_nor_cancelled(patient):
    ready = patient.make("faulty", {"count": 2}, version="1.0")
    unknown = "faulty_1.0_" + 32 * "0" + ".zip"
    for action in ("retry", "cancel"):
        refused = act(patient, ready["dataset_id"], action)
        assert (refused.status_code, refused.json()["code"]) == (409, "wrong_state")
        assert act(patient, unknown, action).json()["code"] == "not_found"


def test_cancel_ends_processes_and_frees_the_slot(patient):
    answer = patient.post("faulty", SLOW, version="1.0").json()
    dataset = f"datasets/{answer['dataset_id']}"
    waiting = patient.post("faulty", {**SLOW, "seed": 2}, version="1.0").json()
    assert wait_until(lambda: len(patient.get(dataset).json()["shards"]) >= 1, 60)
    place = patient.get(f"datasets/{waiting['dataset_id']}").json()
    assert (place["state"], place["position"], place["ahead"]) == ("queued", 1, 1)
    assert act(patient, waiting["dataset_id"], "cancel").json()["state"] == "cancelled"
    cancelled = act(patient, answer["dataset_id"], "cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert act(patient, answer["dataset_id"], "cancel").status_code == 200, "once more is no fault"
    last = patient.events(answer["topic_id"])[-1]
    assert (last["kind"], last["data"]["by"]) == ("cancelled", "")
    work = patient.data_dir / "work" / answer["dataset_id"].removesuffix(".zip")
    assert wait_until(lambda: not processes_mentioning(str(work)))
    assert patient.make("faulty", {"count": 3}, version="1.0")["kind"] == "ready"
    # What was sealed is used by the next attempt.
    sealed = {path.name: path.stat().st_ino for path in (work / "dataset").glob("faulty-*.tfrecord-*")}
    assert sealed
    assert act(patient, answer["dataset_id"], "retry").status_code == 202
    assert wait_until(lambda: len(patient.get(dataset).json()["shards"]) > len(sealed), 60)
    kept = {path.name: path.stat().st_ino for path in (work / "dataset").glob("faulty-*.tfrecord-*")}
    assert {name: kept[name] for name in sealed} == sealed
    assert act(patient, answer["dataset_id"], "cancel").status_code == 200


def test_a_request_that_has_no_dataset_yet_is_cancelled_by_its_topic(patient):
    """The last of this file: the installation goes on until the server stops."""
    asked = patient.post("tiny", {}, version="1.0").json()
    assert (asked["dataset_id"], asked["state"]) == (None, "resolving")
    for _ in range(2):
        cancelled = act(patient, asked["topic_id"], "cancel")
        assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    last = patient.events(asked["topic_id"])[-1]
    assert (last["kind"], last["data"]["code"]) == ("cancelled", "cancelled")
    again = patient.post("tiny", {}, version="1.0").json()
    assert again["attempt"] == 2
    assert act(patient, asked["topic_id"], "cancel").status_code == 200
