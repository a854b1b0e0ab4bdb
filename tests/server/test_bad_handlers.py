"""Bad selections, raw data and handlers: each fails with its code and leaves nothing behind; the next one works."""

import json
import re
from pathlib import Path

import pytest

from tests.support import processes_mentioning, wait_until


@pytest.fixture(autouse=True)
def _next_good_request_works(server):
    """After each test the server makes a dataset that was never made before."""
    yield
    _next_good_request_works.seed = getattr(_next_good_request_works, "seed", 0) + 1
    result = server.make("tones", {"seed": _next_good_request_works.seed}, version="1.0")
    assert result["kind"] == "ready", result


@pytest.fixture
def folders(server):
    """Build folders that are there before the test."""
    return set((server.data_dir / "work").iterdir())


def no_work_is_left(server, folders) -> bool:
    return wait_until(lambda: set((server.data_dir / "work").iterdir()) <= folders)


def test_empty_selection(server, folders):
    result = server.make("tones", {"count": 0}, version="1.0")
    assert (result["kind"], result["code"]) == ("failed", "empty_selection")
    assert no_work_is_left(server, folders)


def test_unknown_category_is_refused_with_those_there_are(server):
    result = server.make("coco", {"categories": ["unicorn"]})
    assert (result["kind"], result["code"]) == ("failed", "config_refused")
    assert "figure" in result["message"]


def test_split_without_a_sample(server):
    result = server.make("tones", {"count": 3, "splits": {"train": 0.95, "validation": 0.05}}, version="1.0")
    assert result["code"] == "empty_selection"
    assert "validation" in result["message"]


def test_missing_raw_folder(server):
    result = server.make("coco", {"raw_folder": "not-here"})
    assert (result["kind"], result["code"]) == ("failed", "raw_data_unusable")
    assert "not-here" in result["message"]
    assert str(server.raw_root) not in json.dumps(result)


# Handlers


def test_a_version_that_cannot_be_installed(server):
    result = server.make("uninstallable", {}, version="1.0")
    assert (result["kind"], result["code"]) == ("failed", "environment_failed")
    assert "a-package-that-nobody-ever-published-4711" in result["log"]
    assert not list(server.environments_dir.glob(".partial-*"))


@pytest.mark.parametrize(
    ("name", "version", "code"),
    [
        ("garbage", "0.0.1", "environment_failed"),
        ("old_api", "0.0.1", "handler_api_mismatch"),
        ("broken_import", "1.0", "environment_failed"),
    ],
)
def test_packages_that_are_no_handlers(server, name, version, code):
    result = server.make(name, {}, version=version)
    assert (result["kind"], result["code"]) == ("failed", code), result
    assert result["message"]


@pytest.mark.parametrize(
    "lie",
    [
        "path",
        "absolute",
        "no fields",
        "wrong types",
        "not announced",
        "garbage",
        "huge line",
        "silence",
        "wrong answer",
        "no shard",
        "size",
        "no number",
        "manifest",
        "no manifest",
    ],
)
def test_handlers_that_say_what_is_not_so(server, folders, lie):
    result = server.make("liar", {"lie": lie}, version="0.0.1")
    expected = "handler_exited" if lie == "silence" else "handler_protocol"
    assert (result["kind"], result["code"]) == ("failed", expected), result
    listed = server.get("datasets?name=liar&limit=1").json()["datasets"][0]
    assert server.get(f"datasets/{listed['dataset_id']}").json()["shards"] == []
    stolen = server.get(f"datasets/{listed['dataset_id']}/shards/..%2F..%2F..%2Fserver.db")
    assert (stolen.status_code, stolen.json()["code"]) == (404, "not_found")


def test_a_handler_that_is_gone_while_its_child_holds_the_line(server):
    """Told by its own end, not by a time limit that would run out later: that would be handler_timeout."""
    result = server.make("faulty", {"fault": "orphan", "where": "samples"}, version="1.0")
    assert (result["code"], "status 3" in result["message"]) == ("handler_exited", True), result


@pytest.mark.parametrize("fault", ["fork", "escape"])
@pytest.mark.parametrize("where", ["samples", "examples"])
def test_children_that_are_left_behind_end_with_the_build(server, fault, where):
    result = server.make("faulty", {"fault": fault, "where": where}, version="1.0")
    assert result["code"] == "handler_failed"
    (pid,) = re.findall(r"left child (\d+) behind", result["message"])
    assert wait_until(lambda: _gone(int(pid))), f"{pid} lives on"


@pytest.mark.parametrize("where", ["samples", "examples"])
@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("raise", "handler_failed", "the handler's own mistake"),
        (
            "exit",
            {"samples": "handler_failed", "examples": "worker_died"},
            {"samples": "SystemExit", "examples": "status 3"},
        ),
        ("segfault", {"samples": "handler_exited", "examples": "worker_died"}, "SIGSEGV"),
        ("hang", "handler_timeout", {"samples": "8 s, the server's plan_timeout", "examples": "stall_timeout"}),
    ],
)
def test_handlers_that_fail(server, fault, where, code, words):
    result = server.make("faulty", {"fault": fault, "where": where}, version="1.0")
    assert (result["kind"], result["code"]) == ("failed", code if isinstance(code, str) else code[where]), result
    assert (words if isinstance(words, str) else words[where]) in result["message"]
    assert wait_until(lambda: not processes_mentioning(str(server.data_dir / "work")))


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_a_handler_that_talks_too_much_does_no_harm(server):
    result = server.make("faulty", {"fault": "loud"}, version="1.0")
    assert result["kind"] == "ready"


def test_examples_that_do_not_fit_their_schema(server, folders):
    result = server.make("faulty", {"fault": "wrong_shape"}, version="1.0")
    assert (result["kind"], result["code"]) == ("failed", "handler_failed")
    assert "shape" in result["message"]
    assert no_work_is_left(server, folders)


def test_unusable_samples_are_listed_or_too_many(server):
    config = {"fault": "bad", "count": 70}
    result = server.make("faulty", config, version="1.0")
    assert result["code"] == "too_many_bad_samples"
    assert "bad by design" in result["message"]
    ready = server.make("faulty", {**config, "max_quarantined_share": 0.2}, version="1.0")
    manifest = server.get(f"datasets/{ready['dataset_id']}/manifest").json()
    assert [entry["key"] for entry in sorted(manifest["quarantine"], key=lambda entry: entry["key"])] == [
        f"{number:05}" for number in range(70) if number % 7 == 3
    ]
    assert manifest["splits"]["train"]["examples"] == 60


def test_a_failed_request_can_be_made_again(server):
    config = {"fault": "raise", "seed": 99}
    first, second = server.post("faulty", config, "1.0").json(), None
    events = server.events(first["topic_id"], first["attempt"])
    second = server.post("faulty", config, "1.0").json()
    assert second["attempt"] == first["attempt"] + 1
    events = server.events(first["topic_id"], second["attempt"])
    ends = [event for event in events if event["kind"] == "failed"]
    assert [event["attempt"] for event in ends][-2:] == [first["attempt"], second["attempt"]]
    assert [event["number"] for event in events] == sorted({event["number"] for event in events})
