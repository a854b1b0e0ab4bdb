"""Bad requests: a stable code that names the fault, and the next good request works."""

import json
import socket

import pytest
import requests

from tests.support import VERSION, wait_until


def test_unknown_dataset(server):
    answer = server.post("nonesuch", {})
    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert answer.json()["code"] == "dataset_unknown"
    assert "coco" in answer.json()["detail"]


def test_unknown_version(server):
    answer = server.post("coco", {}, version="9.9.9")
    assert (answer.status_code, answer.json()["code"]) == (404, "version_unknown")
    assert VERSION in answer.json()["detail"]


@pytest.mark.parametrize(
    ("config", "path", "words"),
    [
        ({"crop_sise": [1, 1]}, "/crop_sise", "did you mean 'crop_size'"),
        ({"seed": "1"}, "/seed", "integer"),
        ({"seed": True}, "/seed", "integer"),
        ({"image_size": [10]}, "/image_size/1", "required"),
        ({"image_size": [64, 64], "crop_size": [65, 64]}, "", "larger than image_size"),
        ({"splits": {"train": 0.5}}, "/splits", "sum to 1"),
    ],
)
def test_config_refused(server, config, path, words):
    assert server.make("coco", {"categories": ["figure"], "limit": 2})["kind"] == "ready"  # installs the handler
    answer = server.post("coco", config)
    assert (answer.status_code, answer.json()["code"]) == (422, "config_refused")
    assert any(fault["path"] == path and words in fault["reason"] for fault in answer.json()["faults"]), answer.json()


def test_several_faults_at_once(server):
    answer = server.post("tones", {"seed": "x", "limit": 0, "nonsense": 1}, version="1.0")
    faults = (
        answer.json().get("faults") or server.make("tones", {"seed": "x", "limit": 0, "nonsense": 1}, "1.0")["faults"]
    )
    assert {fault["path"] for fault in faults} == {"/seed", "/limit", "/nonsense"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"[]", "dictionary"),
        (b"{", "not JSON"),
        (b'{"dataset_name": "coco", "dataset_name": "duts", "handler_version": "1"}', "twice"),
        (b'{"dataset_name": "coco", "handler_version": "1", "dataset_config": {"a": NaN}}', "NaN"),
        (b'{"dataset_name": "coco", "handler_version": "1", "dataset_config": {"a": "\\ud800"}}', "canonical"),
        (b'{"dataset_name": "coco", "handler_version": "1", "dataset_config": {"a": 9007199254740993}}', "canonical"),
        (b'{"dataset_name": "coco", "handler_version": "1", "dataset_config": {"a": 1e999}}', "canonical"),
        (b'{"dataset_name": "coco", "handler_version": "1", "dataset_config": []}', "dataset_config"),
        (b'{"dataset_name": "../etc", "handler_version": "1"}', "dataset_name"),
        (b'{"dataset_name": "coco", "handler_version": "--help"}', "handler_version"),
        (b'{"dataset_name": "coco", "handler_version": "git+https://example.org/x"}', "handler_version"),
        (b'{"dataset_name": "coco", "handler_version": "1", "surprise": 1}', "surprise"),
        (b"\xff\xfe\x00", "not JSON"),
    ],
)
def test_malformed_requests(server, body, words):
    answer = requests.post(f"{server.api}/datasets", data=body, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request"), answer.text
    assert words in answer.json()["detail"]


@pytest.mark.parametrize("depth", [65, 10_000, 200_000])
def test_config_too_deep(server, depth):
    body = (
        '{"dataset_name": "coco", "handler_version": "0.1.0", "dataset_config": {"a": '
        + "[" * depth
        + "]" * depth
        + "}}"
    )
    answer = requests.post(f"{server.api}/datasets", data=body, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
    assert "deeper than 64" in answer.json()["detail"]


def test_config_of_ten_megabytes(server):
    answer = server.post("coco", {"categories": ["x" * 10_000_000]})
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")


def test_another_md5_is_a_misunderstanding(server):
    answer = server.post("coco", {}, config_md5="0" * 32)
    assert (answer.status_code, answer.json()["code"]) == (400, "config_md5_mismatch")


def test_paths_that_are_not_there(server):
    for path in ("nothing", "datasets/..%2F..%2Fserver.db", "datasets/coco_1_0.zip/archive", "datasets/%00/manifest"):
        answer = server.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    assert requests.delete(f"{server.api}/handlers", timeout=10).json()["code"] == "method_not_allowed"


def test_bad_subscriptions(server):
    for query in ("", "topic=x", "topic=../../etc&after=1", f"topic=coco_1_{'0' * 32}.zip&after=-1", "after=1"):
        answer = server.get(f"notifications?{query}")
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request"), query
    topic = f"topic=coco_1_{'0' * 32}.zip"
    plain = server.get(f"notifications?{topic}")
    assert (plain.status_code, plain.json()["code"]) == (400, "malformed_request")


def test_pages_of_other_sites_are_refused(server):
    elsewhere = {"Origin": "https://elsewhere.example"}
    topic = f"topic=coco_1_{'0' * 32}.zip"
    for answer in (
        server.get(f"notifications?{topic}", headers={**elsewhere, "Connection": "Upgrade", "Upgrade": "websocket"}),
        requests.post(
            f"{server.api}/datasets", data=b"{}", headers={**elsewhere, "Content-Type": "text/plain"}, timeout=9
        ),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_large_floats_are_the_numbers_the_client_means(server):
    """1e16 is canonically 10000000000000000: no integer that JSON can carry exactly, but that very float."""
    answer = server.post("tones", {"brighter": 10**16}, version="1.0")
    assert answer.json()["code"] == "config_refused", "understood, and found to be too bright"


def test_a_client_that_leaves(server):
    """A socket closed in the middle of a request, and one closed right after it: the build goes on."""
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps({"dataset_name": "tones", "handler_version": "1.0", "dataset_config": {"seed": 4711}}).encode()
    head = f"POST /api/v1/datasets HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for sent in (head + body[: len(body) // 2], head + body):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(sent)
    assert wait_until(lambda: server.get("datasets?name=tones").json()["total"] > 0)
    assert server.make("tones", {"seed": 4711}, version="1.0")["kind"] == "ready"


def test_the_next_good_request_works(server):
    assert server.make("tones", {"seed": 1}, version="1.0")["kind"] == "ready"
