"""Bytes of archives and shards: ranges and conditions, over plain HTTP and TLS; deleting, pinning, being evicted."""

import asyncio
import base64
import contextlib
import hashlib
import http.client
import os
import shutil
import sqlite3
import ssl
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
import trustme
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st

from dataset_client import request_dataset
from dataset_server.api import AUDIT, BUILDS
from dataset_server.auth import ANYBODY, CLIENT
from dataset_server.downloads import CACHE, Piece, _is_in_memory, _open, _read_ahead, get_shard, send
from dataset_server.middlewares import faults
from dataset_server.ranges import Wanted, wanted
from dataset_server.store.audit import Audit
from dataset_server.store.offers import Offer
from dataset_server.store.schema import Shard
from tests.support import Server, wait_until

TAG = "ab" * 32


def answer(headers=None, method="GET", size=100):
    return wanted(method, headers or {}, TAG, size)


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-", range(100)),
        ("bytes=0-0", range(1)),
        ("bytes=10-19", range(10, 20)),
        ("bytes=90-1000", range(90, 100)),
        ("bytes=99-", range(99, 100)),
        ("bytes=-1", range(99, 100)),
        ("bytes=-1000", range(100)),
        ("BYTES= 5-6 ", range(5, 7)),
        (f"bytes=10-{10**30}", range(10, 100)),
        ("bytes=00000000000000000000000000000010-11", range(10, 12)),
    ],
)
def test_one_range(header, part):
    assert answer({"Range": header}) == Wanted(206, part)


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0", f"bytes={10**30}-"])
def test_nothing_in_that_range(header):
    assert answer({"Range": header}).status == 416
    assert answer({"Range": "bytes=0-"}, size=0).status == 416


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5-4",
        "bytes=a-b",
        "lines=0-1",
        "bytes=0-1,5-6",
        "bytes=0-0," * 1000 + "1-1",
        "bytes=-1,-1",
        "bytes=\u0661-",
    ],
)
def test_several_ranges_or_none_that_can_be_read_get_the_whole(header):
    assert answer({"Range": header}) == Wanted(200, range(100))


def test_ranges_are_for_get_alone():
    assert answer({"Range": "bytes=0-1"}, method="HEAD") == Wanted(200, range(100))


@pytest.mark.parametrize(
    ("value", "status"),
    [(f'"{TAG}"', 206), (f'W/"{TAG}"', 200), ('"other"', 200), ("Sat, 21 Nov 2026 13:00:00 GMT", 200), ("", 200)],
)
def test_if_range(value, status):
    assert answer({"Range": "bytes=0-1", "If-Range": value}).status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-None-Match": f'"{TAG}"'}, 304),
        ({"If-None-Match": f'"x", W/"{TAG}" , "y"'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": TAG}, 200),
        ({"If-None-Match": '"x"'}, 200),
        ({"If-None-Match": f'"{TAG}"', "Range": "bytes=0-1"}, 304),
        ({"If-Match": f'"{TAG}"'}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": f'W/"{TAG}"'}, 412),
        ({"If-Match": '"x"', "If-None-Match": f'"{TAG}"'}, 412),
    ],
)
def test_conditions(headers, status):
    assert answer(headers).status == status


@given(st.text(alphabet="bytes=0123456789-, ", max_size=40), st.integers(0, 200))
def test_whatever_is_asked_no_byte_beyond_the_file(header, size):
    found = answer({"Range": f"bytes={header}"}, size=size)
    assert found.status in (200, 206, 416)
    assert found.bytes.start >= 0
    assert found.bytes.stop <= size
    assert (found.status == 200) == (found.bytes == range(size) and found.status not in (206, 416))


# -- the bytes, over a plain socket and over TLS


@pytest.mark.parametrize("over_tls", [False, True])
def test_a_piece_of_a_file(tmp_path, over_tls):
    content = bytes(range(256)) * 20_000  # several turns of either way
    path, offset = tmp_path / "file", 1000
    path.write_bytes(content)
    inside = content[offset:-500]
    piece = Piece(tmp_path, "file", offset, len(inside), hashlib.sha256(inside).hexdigest(), "text/x", "name")

    @web.middleware
    async def identified(request, handler):
        request[CLIENT] = ANYBODY
        return await handler(request)

    async def view(request):
        return await send(request, piece)

    async def run():
        app = web.Application(middlewares=[faults, identified])
        app[AUDIT] = Audit(None)
        app.router.add_get("/{id}", view)
        authority, server_tls, client_tls = trustme.CA(), None, True
        if over_tls:
            server_tls, client_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
            authority.issue_cert("127.0.0.1").configure_cert(server_tls)
            authority.configure_trust(client_tls)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_tls)
        await site.start()
        url = f"{'https' if over_tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}/piece"
        try:
            async with ClientSession() as session:  # one connection: an answer must end where it says
                for header, part in (
                    (None, inside),
                    ("bytes=5-", inside[5:]),
                    ("bytes=-3000000", inside[-3_000_000:]),
                    ("bytes=7-7", inside[7:8]),
                ):
                    headers = {"Range": header} if header else {}
                    async with session.get(url, headers=headers, ssl=client_tls) as response:
                        assert await response.read() == part
                        assert response.status == (206 if header else 200)
                async with session.head(url, ssl=client_tls) as response:
                    assert response.headers["Content-Length"] == str(len(inside))
                with path.open("r+b") as file:
                    file.truncate(2000)
                async with session.get(url, ssl=client_tls) as response:
                    assert response.status == 409, "not the beginning of what is cut off"
        finally:
            await runner.cleanup()

    asyncio.run(run())


@pytest.mark.parametrize("trick", ["file", "folder", "build", "pipe", "device", "folder as file", "file as folder"])
def test_what_a_handler_puts_in_the_place_of_a_shard_is_not_sent(tmp_path, trick):
    folder = tmp_path / "work" / "build" / "dataset"
    folder.mkdir(parents=True)
    shard, secret = folder / "shard", tmp_path / "outside" / "dataset" / "shard"
    shard.write_bytes(b"12345")
    secret.parent.mkdir(parents=True)
    secret.write_bytes(b"a key")
    piece = Piece(tmp_path / "work", "build/dataset/shard", 0, 5, TAG, "text/x", "shard")
    with _open(piece, range(5)) as file:
        assert file.read() == b"12345"
    shard.unlink()
    if trick == "file":
        shard.symlink_to(secret)
    elif trick == "pipe":
        os.mkfifo(shard)
    elif trick == "device":
        shard.symlink_to("/dev/zero")
    elif trick == "folder as file":
        shard.mkdir()
    else:
        folder.rmdir()
        if trick == "folder":
            folder.symlink_to(secret.parent)
        elif trick == "file as folder":
            folder.write_bytes(b"12345")
        else:
            folder.parent.rmdir()
            folder.parent.symlink_to(secret.parent.parent)
    with pytest.raises(FileNotFoundError):
        _open(piece, range(5))


async def test_a_shard_that_is_published_while_it_is_looked_for(tmp_path):
    (tmp_path / "archive.zip").write_bytes(b"--shard--")
    shard = Shard("d_1_x.zip", "s0", 0, "train", 1, 5, hashlib.sha256(b"shard").hexdigest(), None)
    looks = [shard, replace(shard, offset=2)]

    @contextlib.asynccontextmanager
    async def offered(*_):
        yield Offer(SimpleNamespace(state="building"), 1, 9, TAG, looks.pop(0))

    @web.middleware
    async def identified(request, handler):
        request[CLIENT] = ANYBODY
        return await handler(request)

    app = web.Application(middlewares=[faults, identified])
    app[AUDIT] = Audit(None)
    app[CACHE] = SimpleNamespace(offered=offered, archive_path=lambda *_: tmp_path / "archive.zip")
    app[BUILDS] = SimpleNamespace(work_folder=lambda _: tmp_path / "gone")
    app.router.add_get("/{id}/{file}", get_shard)
    async with TestClient(TestServer(app)) as client:
        answer = await client.get(f"/tones_1.0_{'0' * 32}.zip/s0")
        assert (answer.status, await answer.read()) == (200, b"shard")


# -- a real server


@pytest.fixture(scope="module")
def own_raw(tmp_path_factory, raw_root):
    root = tmp_path_factory.mktemp("own-raw")
    shutil.copytree(raw_root / "duts", root / "duts")
    return root


@pytest.fixture(scope="module")
def serving(own_raw, environments_dir, plugin_sources, tmp_path_factory):
    """A server that looks at its raw data whenever it is asked, and forgets readers after a second."""
    running = Server(
        own_raw,
        tmp_path_factory.mktemp("serving"),
        environments_dir,
        handlers={"tones": plugin_sources["tones"]},
        settings={"workers": 2, "stale_check_seconds": 0.0, "reader_lease_seconds": 1.0},
    ).start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def ready(serving):
    return serving.make("tones", {"count": 40}, version="1.0")


def fetch(server, ready, **more):
    return server.get(ready["archive"]["url"], **more)


def test_an_archive(serving, ready):
    whole = fetch(serving, ready)
    digest = hashlib.sha256(whole.content)
    assert digest.hexdigest() == ready["archive"]["sha256"] == whole.headers["X-Content-SHA256"]
    assert whole.headers["ETag"] == f'"{digest.hexdigest()}"'
    assert whole.headers["Repr-Digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    assert whole.headers["Content-Disposition"] == f'attachment; filename="{ready["dataset_id"]}"'
    assert "revision=1" in ready["archive"]["url"]
    rest = fetch(serving, ready, headers={"Range": "bytes=1000-", "If-Range": whole.headers["ETag"]})
    assert (rest.status_code, rest.content) == (206, whole.content[1000:])
    assert rest.headers["Content-Range"] == f"bytes 1000-{len(whole.content) - 1}/{len(whole.content)}"
    assert rest.headers["Repr-Digest"] == whole.headers["Repr-Digest"], "of the whole, not of the part"
    again = fetch(serving, ready, headers={"Range": "bytes=1000-", "If-Range": '"another"'})
    assert (again.status_code, again.content) == (200, whole.content)
    same = fetch(serving, ready, headers={"If-None-Match": whole.headers["ETag"]})
    assert (same.status_code, same.content) == (304, b"")
    other = fetch(serving, ready, headers={"If-Match": '"another"'})
    assert (other.status_code, other.json()["code"]) == (412, "precondition_failed")
    beyond = fetch(serving, ready, headers={"Range": f"bytes={len(whole.content)}-"})
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{len(whole.content)}")
    head = requests.head(f"{serving.api}/{ready['archive']['url']}", timeout=60)
    assert (head.headers["Content-Length"], head.content) == (str(len(whole.content)), b"")


def test_a_shard_lies_in_the_archive(serving, ready):
    whole = fetch(serving, ready).content
    for shard in serving.get(f"datasets/{ready['dataset_id']}").json()["shards"]:
        for query in ("", "?revision=1"):
            answer = serving.get(shard["url"] + query)
            assert hashlib.sha256(answer.content).hexdigest() == shard["sha256"]
            assert answer.content in whole
            assert answer.headers["ETag"] == f'"{shard["sha256"]}"'


def test_revisions_that_are_not_there(serving, ready):
    path = f"datasets/{ready['dataset_id']}/archive"
    assert serving.get(f"{path}?revision=2").json()["code"] == "not_found"
    for query in ("revision=0", "revision=x", "revision=1&revision=1", "rev=1"):
        assert serving.get(f"{path}?{query}").json()["code"] == "malformed_request"


def test_a_reader_who_leaves_in_the_middle_disturbs_nobody(serving, ready):
    host, port = serving.url.removeprefix("http://").split(":")
    for _ in range(5):
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        connection.request("GET", f"/api/v1/{ready['archive']['url']}")
        connection.getresponse().read(1)
        connection.close()
    assert fetch(serving, ready).status_code == 200


def test_pinning_and_deleting(serving):
    made = serving.make("tones", {"count": 1}, version="1.0")
    path = f"{serving.api}/datasets/{made['dataset_id']}"
    assert requests.post(f"{path}/pin", timeout=60).json() == {"dataset_id": made["dataset_id"], "pinned": True}
    refused = requests.delete(path, timeout=60)
    assert (refused.status_code, refused.json()["code"]) == (409, "in_use")
    assert requests.post(f"{path}/unpin", timeout=60).json()["pinned"] is False
    assert requests.delete(path, timeout=60).status_code == 204
    assert requests.get(path, timeout=60).status_code == 404
    assert not list((serving.data_dir / "archives").glob(f"{made['dataset_id'].removesuffix('.zip')}*"))
    again = serving.make("tones", {"count": 1}, version="1.0")
    assert again["archive"]["sha256"] == made["archive"]["sha256"]
    noted = serving.get("audit", params={"subject": made["dataset_id"]}).json()["entries"]
    deeds = [(entry["action"], entry["detail"].get("outcome")) for entry in noted if entry["action"] != "download"]
    assert deeds == [("pin", None), ("delete", "in_use"), ("unpin", None), ("delete", None)]


def test_what_was_evicted_is_made_again_for_who_asks(serving, tmp_path):
    made = serving.make("tones", {"count": 33}, version="1.0")
    archive = next((serving.data_dir / "archives").glob(f"{made['dataset_id'].removesuffix('.zip')}.r*.zip"))
    evict(serving, made["dataset_id"], archive)
    gone = fetch(serving, made)
    assert (gone.status_code, gone.json()["code"]) == (410, "evicted")
    assert serving.get(f"datasets/{made['dataset_id']}").json()["state"] == "evicted"
    dataset = request_dataset(
        "tones", "1.0", {"count": 33}, server_url=serving.url, cache_dir=tmp_path / "cache", progress=False
    )
    assert dataset.manifest["dataset_id"] == made["dataset_id"]
    assert fetch(serving, made).headers["X-Content-SHA256"] == made["archive"]["sha256"], "the old address works again"


def evict(server, dataset_id: str, archive: Path) -> None:
    with contextlib.closing(sqlite3.connect(server.data_dir / "server.db", timeout=60)) as database:
        database.execute("UPDATE datasets SET state = 'evicted' WHERE dataset_id = ?", (dataset_id,))
        database.commit()
    archive.unlink()


def test_raw_data_that_changed_makes_a_new_revision_and_the_old_one_is_read_on(serving, own_raw):
    first = serving.make("duts", {"limit": 4})
    assert serving.post("duts", {"limit": 4}).status_code == 200
    photo = next((own_raw / "duts").rglob("*Image/*.jpg"))
    photo.touch()
    assert serving.post("duts", {"limit": 4}).status_code == 200, "touched is not changed"
    (photo.parent / "added.jpg").write_bytes(photo.read_bytes())
    mask = next((own_raw / "duts").rglob(f"*Mask/{photo.stem}.png"))
    (mask.parent / "added.png").write_bytes(mask.read_bytes())
    for other in photo.parent.glob("*.jpg"):
        other.write_bytes(other.read_bytes() + b"\0")
    begun = serving.post("duts", {"limit": 4})
    assert begun.status_code == 202, "it is stale"
    second = serving.events(begun.json()["topic_id"], begun.json()["attempt"])[-1]
    assert second["kind"] == "ready", second
    second = second["data"]
    assert second["dataset_id"] == first["dataset_id"]
    assert "revision=2" in second["archive"]["url"]
    assert second["archive"]["sha256"] != first["archive"]["sha256"]
    for offered in (first, second):
        content = fetch(serving, offered).content
        assert hashlib.sha256(content).hexdigest() == offered["archive"]["sha256"]
    assert serving.post("duts", {"limit": 4}).status_code == 200


def test_what_is_in_memory_is_not_read_ahead(tmp_path, monkeypatch):
    path, advised = tmp_path / "large", []
    path.write_bytes(bytes(1 << 20))
    monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: advised.append(arguments[1:3]))
    with path.open("rb") as file:
        if not _is_in_memory(file.fileno(), 0):
            pytest.skip("this file system does not tell what is in memory")
        _read_ahead(file.fileno(), 0, 1 << 20)
        _read_ahead(file.fileno(), 1 << 20, 0)  # there is nothing more to come
        assert advised == []
        monkeypatch.undo()
        os.fsync(file.fileno())

        def is_forgotten():  # the kernel keeps what it is at yet
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return not _is_in_memory(file.fileno(), (1 << 20) - 1)

        assert wait_until(is_forgotten)
        monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: advised.append(arguments[1:3]))
        _read_ahead(file.fileno(), 0, 1 << 20)
        assert advised == [(0, 1 << 20)]
