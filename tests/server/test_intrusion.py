"""What hostile clients send over HTTP. Each case is refused, and the next good request works.

The server asks for no token: whoever gets this far may do everything. One case is one parameter, so that they count.
"""

import contextlib
import json
import os
import select
import socket
import struct
import threading
import time

import pytest

from tests.server.hostile import (
    BODIES,
    CLOSE,
    CLOSED,
    FRAMES,
    GOOD,
    HANDSHAKES,
    HARMLESS,
    HEADS,
    NAMES,
    ORIGINS,
    PING,
    PLACES,
    POST,
    QUERIES,
    RANGES,
    SLOW,
    TOPIC,
    VERSIONS,
    asking,
    frame,
    request,
    upgrade,
)
from tests.support import Server, wait_until

PATIENCE = 60


class Canary:
    """A listener that nobody should ever come to."""

    def __init__(self):
        self.visits = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.visits += 1
                connection.close()

    def close(self):
        self._listener.close()


@pytest.fixture(scope="module")
def canary():
    canary = Canary()
    yield canary
    canary.close()


@pytest.fixture(scope="module")
def target(raw_root, environments_dir, plugin_sources, canary, tmp_path_factory):
    """A server with short limits; the dataset "remote" comes from a repository at the canary."""
    folder = tmp_path_factory.mktemp("target")
    sources = {**plugin_sources, "remote": f"git+https://127.0.0.1:{canary.port}/repository.git@{{version}}"}
    limits = {"request_timeout": 2.0, "connections_per_address": 50, "workers": 1}
    server = Server(raw_root, folder, environments_dir, handlers=sources, settings=limits)
    server.environment = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}  # a proxy would go there in its place
    server.start()
    yield server
    assert server.stop() == 0
    log = (folder / "test-server.log").read_text()
    unforeseen = log.find("Traceback")
    assert unforeseen < 0, log[max(0, unforeseen - 500) : unforeseen + 3000]


@pytest.fixture(scope="module")
def ready(target):
    """A dataset that can be downloaded: its id, a shard of it, and their sizes."""
    made = target.make("tones", {"seed": 31}, version="1.0")
    assert made["kind"] == "ready", made
    detail = target.get(f"datasets/{made['dataset_id']}").json()
    shard = detail["shards"][0]
    return {
        "id": made["dataset_id"],
        "file": shard["file"],
        "shard": shard["bytes"],
        "archive": made["archive"]["bytes"],
    }


@pytest.fixture(autouse=True)
def unharmed(target):
    """After each case the server is well, and serves."""
    yield
    answer = talk(target, request("GET", "/healthz").replace(b"Connection: close\r\n", b"") + GOOD)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 2, answer


def dial(server, source="127.0.0.1"):
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE, source_address=(source, 0))


def talk(server, sent, source="127.0.0.1"):
    """Everything that the server answers until it closes the connection."""
    with dial(server, source) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
        return hear(connection)


def hear(connection):
    """What comes until the other side closes; `TimeoutError` if it never does."""
    heard = b""
    with contextlib.suppress(ConnectionError):
        while block := connection.recv(1 << 16):
            heard += block
    return heard


def status_of(answer):
    """The status of the first answer; 0 where the connection was closed without one."""
    if not answer:
        return 0
    assert answer.startswith(b"HTTP/"), answer[:100]
    return int(answer.split(b" ", 2)[1])


def body_of(answer):
    return answer.partition(b"\r\n\r\n")[2]


def assert_refused(answer, *statuses):
    status = status_of(answer)
    assert status in statuses if statuses else 400 <= status < 500, answer[:500]
    if status:
        assert b"application/problem+json" in answer, answer[:500]
        assert json.loads(body_of(answer))["status"] == status
    for secret in (b"SQLite format", b"root:", b"Traceback", b"aiohttp", b"Python/"):
        assert secret not in answer


# -- names in paths


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:40])
def test_names_in_paths(target, place, name):
    assert_refused(talk(target, request("GET", place.replace("{}", name))))


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:40])
def test_names_of_shards_of_a_dataset_that_is_there(target, ready, name):
    assert_refused(talk(target, request("GET", f"/api/v1/datasets/{ready['id']}/shards/{name}")), 400, 404)


@pytest.mark.parametrize("raw", [b"\x00", b"\xff\xfe", "é".encode(), b"a b", b"\x7f", b"\x1b[2J", b"a\tb"])
def test_bytes_that_no_path_has(target, raw):
    assert_refused(talk(target, request("GET", b"/api/v1/datasets/" + raw)))


# -- names and versions in bodies: another source, an option, a path


@pytest.mark.parametrize("name", ["remote", "tones"])
@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: repr(version)[:40])
def test_versions_name_no_source(target, canary, tmp_path, name, version):
    before = canary.visits
    version = version.replace("{port}", str(canary.port)).replace("{folder}", str(tmp_path))
    body = json.dumps({"dataset_name": name, "handler_version": version}).encode()
    assert_refused(talk(target, request("POST", "/api/v1/datasets", body=body)), 400)
    assert canary.visits == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc", "Tones", "tones\n", "tones\u0000", "--x", "", "a" * 65, "tönes", "tones/..", "a b", "ｔones"],
)
def test_names_of_datasets(target, name):
    body = json.dumps({"dataset_name": name, "handler_version": "1.0"}).encode()
    assert_refused(talk(target, request("POST", "/api/v1/datasets", body=body)), 400)


# -- bodies


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_bodies(target, body):
    assert_refused(talk(target, request("POST", "/api/v1/datasets", body=body)), 400)


def test_a_body_too_large(target):
    body = asking(b'{"a": "%s"}' % (b"x" * (1 << 20)))
    assert_refused(talk(target, request("POST", "/api/v1/datasets", body=body)), 413, 0)


def test_a_compressed_bomb_is_taken_as_it_is(target):
    bomb = b"\x1f\x8b" + os.urandom(1000)
    for coding in ("gzip", "deflate", "br", "zstd"):
        sent = request("POST", "/api/v1/datasets", f"Content-Encoding: {coding}", body=bomb)
        assert_refused(talk(target, sent), 400)


# -- heads


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_heads(target, head):
    answer = talk(target, head)
    if status_of(answer) != CLOSED:
        assert_refused(answer)
    assert b"\nServer: dataset-server\r\n" in answer or not answer


@pytest.mark.parametrize("header", HARMLESS.values(), ids=HARMLESS.keys())
def test_headers_that_change_nothing(target, header):
    answer = talk(target, request("GET", "/api/v1/handlers", header.encode("latin-1")))
    assert status_of(answer) == 200
    assert b"evil.example" not in answer
    assert b"forged" not in answer


# -- ranges


@pytest.mark.parametrize("wanted", RANGES, ids=lambda wanted: wanted[:40])
@pytest.mark.parametrize("what", ["archive", "shard"])
def test_ranges(target, ready, what, wanted):
    path = f"/api/v1/datasets/{ready['id']}/" + ("archive" if what == "archive" else f"shards/{ready['file']}")
    answer = talk(target, request("GET", path, f"Range: {wanted}"))
    assert status_of(answer) in {200, 206, 400, 416}, answer[:300]
    if status_of(answer) in {200, 206}:
        assert len(body_of(answer)) <= ready[what], "no part twice"
        assert f"Content-Length: {len(body_of(answer))}\r\n".encode() in answer
    else:
        assert b"\nServer: dataset-server\r\n" in answer


# -- time and number


def trickle(server, start, drop):
    """What the server says to a client that sends ``start``, then ``drop`` again and again; and that it closes."""
    deadline = time.monotonic() + PATIENCE
    with dial(server) as connection:
        connection.sendall(start)
        while time.monotonic() < deadline:
            if select.select([connection], [], [], 0.05)[0]:
                return hear(connection)
            with contextlib.suppress(ConnectionError):
                connection.sendall(drop)
    raise TimeoutError("the server waits for ever")


@pytest.fixture(scope="module")
def slow_answers(target):
    """All slow clients at once, for each waits for its limit."""
    answers = {}

    def run(name, start, drop):
        answers[name] = trickle(target, start, drop)

    threads = [threading.Thread(target=run, args=(name, start, drop)) for name, (start, drop, _) in SLOW.items()]
    for thread in threads:
        thread.start()
    assert status_of(talk(target, GOOD)) == 200, "others are served meanwhile"
    for thread in threads:
        thread.join(PATIENCE)
    return answers


@pytest.mark.parametrize("name", SLOW)
def test_slow_clients_are_sent_away(slow_answers, name):
    answer = slow_answers[name]
    assert status_of(answer) in {SLOW[name][2], CLOSED}
    if answer:
        assert json.loads(body_of(answer))["code"] == "request_timeout"


def test_endless_chunks_end(target):
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    answer = trickle(target, POST + b"Transfer-Encoding: chunked\r\n\r\n", chunk * 8)
    assert status_of(answer) in {413, 408, CLOSED}


def test_pipelined_requests(target):
    answer = talk(target, GOOD.replace(b"Connection: close\r\n", b"") * 200 + GOOD)
    assert answer.count(b"HTTP/1.1 200 OK") == 201


def test_pipelined_garbage(target):
    answer = talk(target, GOOD.replace(b"Connection: close\r\n", b"") + b"\x00garbage\r\n\r\n" * 1000)
    assert answer.count(b" 400 Bad Request\r\n") == 1, "and not a word more"


def test_a_flood_of_connections_from_one_address(target):
    source = "127.0.0.66"
    with contextlib.ExitStack() as held:
        flood = [held.enter_context(dial(target, source)) for _ in range(120)]
        assert status_of(talk(target, GOOD)) == 200, "others are served"

        def closed():
            return len([each for each in flood if select.select([each], [], [], 0)[0]])

        assert wait_until(lambda: closed() >= 70, timeout=PATIENCE)
    assert wait_until(lambda: status_of(talk(target, GOOD, source)) == 200)


# -- other sites


@pytest.mark.parametrize("origin", ORIGINS)
def test_pages_of_other_sites(target, origin):
    assert_refused(talk(target, upgrade(f"Origin: {origin}")), 403)
    assert_refused(talk(target, request("POST", "/api/v1/datasets", f"Origin: {origin}", body=b"{}")), 403)
    assert_refused(talk(target, request("DELETE", f"/api/v1/datasets/{TOPIC}", f"Origin: {origin}")), 403)


# -- sockets


@pytest.mark.parametrize("sent", FRAMES.values(), ids=FRAMES.keys())
def test_frames(target, sent):
    with dial(target) as connection:
        connection.sendall(upgrade("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"))
        answer = b""
        while b"subscribed" not in answer:
            answer += connection.recv(1 << 16)
        assert status_of(answer) == 101
        assert b"permessage-deflate" not in answer
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
        hear(connection)  # the server closes it


def test_pings_without_end(target):
    with dial(target) as connection:
        connection.sendall(upgrade())
        with contextlib.suppress(ConnectionError):
            connection.sendall(frame(PING, b"x" * 125) * 20_000 + frame(CLOSE, struct.pack("!H", 1000)))
        hear(connection)


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query[:40])
def test_subscriptions(target, query):
    sent = upgrade().replace(f"topic={TOPIC}".encode(), query.encode())
    assert_refused(talk(target, sent), 400)


@pytest.mark.parametrize("headers", HANDSHAKES.values(), ids=HANDSHAKES.keys())
def test_handshakes(target, headers):
    sent = request("GET", f"/api/v1/notifications?topic={TOPIC}", *(header.encode("latin-1") for header in headers))
    assert_refused(talk(target, sent.replace(b"Connection: close", b"Connection: Upgrade")), 400)


def test_the_canary_sings(target, canary):
    """A version that is one does reach the repository: what the other tests rule out can be seen."""
    before = canary.visits
    answer = target.post("remote", {}, version="main")
    assert answer.status_code < 500 or answer.json()["code"] == "environment_failed", answer.text
    assert wait_until(lambda: canary.visits > before, timeout=PATIENCE), answer.text
