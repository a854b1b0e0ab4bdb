"""Downloads over a network and from a server that misbehave."""

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import trustme
from aiohttp import web
from client_archives import make_archive
from client_server import DatasetServer, answer_with, bare, cut, cut_in_headers, everything, problem, stall, wrong_bytes

from dataset_client import errors
from dataset_client.download import continues_at
from dataset_client.http import Http
from dataset_client.online import obtain
from dataset_client.parts import claim_part, waiting_bytes


@pytest.fixture
def ready(topic):
    topic.is_ready, topic.attempt = True, 1
    return topic


async def test_a_cut_body_is_resumed_where_it_ended(server, ready, settings, request_, reporter):
    server.archive_script.extend([cut(1000), cut(500)])
    assert (await obtain(request_, settings, reporter)).path.is_dir()
    assert server.gets == [None, "bytes=1000-", "bytes=1500-"]


_HEADERS = b"X-Any: 1\r\nContent-Length: 9\r\nX-Content-SHA256: abcdef"


@pytest.mark.parametrize("sent", [_HEADERS[:count] for count in (0, 4, 10, 26, 27, 47, len(_HEADERS))])
async def test_an_answer_that_ends_in_its_headers_is_asked_for_again(server, topic, settings, request_, reporter, sent):
    topic.is_ready, topic.attempt = True, 1
    server.post_script.append(cut_in_headers(200, sent))
    server.archive_script.extend([cut(1000), cut_in_headers(206, sent)])
    assert (await obtain(request_, settings, reporter)).path.is_dir()
    assert server.gets == [None, "bytes=1000-", "bytes=1000-"]


@pytest.mark.parametrize("coding", ["chunked", "Chunked"])
async def test_a_refusal_in_chunks_is_whole(server, settings, request_, reporter, coding):
    server.post_script.append(bare(f"HTTP/1.1 403 No\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n".encode()))
    with pytest.raises(errors.UnauthorizedError):
        await obtain(request_, settings, reporter)
    assert len(server.posts) == 1


async def test_many_cuts_are_survived_as_long_as_each_gets_further(server, ready, settings, request_, reporter):
    server.archive_script.extend([cut(100)] * (3 * settings.retry.attempts))
    assert (await obtain(request_, settings, reporter)).path.is_dir()


async def test_cuts_without_progress_end(server, ready, settings, request_, reporter):
    server.archive_script.extend([cut(100), *[cut(0)] * 50])
    with pytest.raises(errors.ServerUnreachableError, match="100 of"):
        await obtain(request_, settings, reporter)
    assert len(server.gets) == settings.retry.attempts


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_server_that_restarts_is_waited_for(server, ready, settings, request_, reporter, status):
    away = [answer_with(status, body="")] * (2 * settings.retry.attempts)
    server.archive_script.extend([cut(2000), *away])
    assert (await obtain(request_, settings, reporter)).path.is_dir()
    assert server.gets[-1] == "bytes=2000-"


async def test_what_arrived_before_a_failure_is_used_by_the_next_call(server, ready, settings, request_, reporter):
    server.archive_script.extend([cut(2000), *[cut(0)] * 50])
    with pytest.raises(errors.ServerUnreachableError):
        await obtain(request_, settings, reporter)
    server.archive_script.clear()
    assert waiting_bytes(settings.cache_dir / "downloads", ready.archive.sha256) == 2000
    await obtain(request_, settings, reporter)
    assert server.gets[-1] == "bytes=2000-"
    assert list((settings.cache_dir / "downloads").iterdir()) == []


async def test_a_server_that_ignores_range_is_started_over(server, ready, settings, request_, reporter):
    server.archive_script.extend([cut(1000), everything])
    assert (await obtain(request_, settings, reporter)).path.is_dir()
    assert server.gets == [None, "bytes=1000-"]


async def test_416_starts_over(server, ready, settings, request_, reporter):
    server.archive_script.extend([cut(1000), answer_with(416)])
    assert (await obtain(request_, settings, reporter)).path.is_dir()
    assert server.gets == [None, "bytes=1000-", None]


async def test_a_server_that_cuts_and_refuses_ranges_for_ever_is_given_up(server, ready, settings, request_, reporter):
    server.archive_script.extend([cut(1000), answer_with(416)] * 100)
    with pytest.raises(errors.ServerUnreachableError):
        await obtain(request_, settings, reporter)


async def test_wrong_bytes_are_fetched_once_more(server, ready, settings, request_, reporter):
    server.archive_script.append(wrong_bytes)
    assert (await obtain(request_, settings, reporter)).path.is_dir()
    assert server.gets == [None, None]


async def test_bytes_that_stay_wrong_are_an_error_and_not_kept(server, ready, settings, request_, reporter):
    server.archive_script.extend([wrong_bytes] * 3)
    with pytest.raises(errors.IntegrityError, match="sha256"):
        await obtain(request_, settings, reporter)
    assert len(server.gets) == 2
    assert list((settings.cache_dir / "downloads").iterdir()) == []
    assert list((settings.cache_dir / "datasets").iterdir()) == []


@pytest.mark.parametrize("body", ["too short", "x" * 200_000])
async def test_a_complete_body_of_another_length(server, ready, settings, request_, reporter, body):
    server.archive_script.extend([answer_with(200, body=body)] * 50)
    with pytest.raises((errors.IntegrityError, errors.ServerUnreachableError)):
        await obtain(request_, settings, reporter)


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_a_server_that_stumbles(server, ready, settings, request_, reporter, status):
    server.archive_script.extend([answer_with(status, {"Retry-After": "0"})] * 3)
    assert (await obtain(request_, settings, reporter)).path.is_dir()


async def test_an_archive_that_is_gone(server, ready, settings, request_, reporter):
    server.archive_script.append(lambda *_: problem(404, "dataset_unknown", "evicted"))
    with pytest.raises(errors.UnknownDatasetError, match="evicted"):
        await obtain(request_, settings, reporter)


async def test_an_absolute_url_works_and_a_foreign_one_sees_no_token(server, ready, settings, request_, reporter):
    foreign = DatasetServer()
    foreign.start()
    seen = []

    def answer(*_):
        archive = ready.archive.as_json()
        archive["url"] = f"{foreign.url}/api/v1/{archive['url']}"
        more = {"topic_id": request_.topic_id, "dataset_id": ready.archive.dataset_id, "state": "ready"}
        return web.json_response({**more, "attempt": 1, "archive": archive})

    try:
        foreign.topics["any"] = ready
        foreign.archive_script.append(lambda request, _: seen.append(request.headers.get("Authorization")))
        server.token = "s3cret"
        server.post_script.append(answer)
        assert (await obtain(request_, replace(settings, token="s3cret"), reporter)).path.is_dir()
    finally:
        foreign.close()
    assert seen == [None]
    assert server.gets == []


async def test_cancelling_a_download_keeps_what_arrived(server, ready, settings, request_, reporter):
    arrived = threading.Event()
    reporter.downloaded = lambda size: size == 1000 and arrived.set()
    server.archive_script.append(stall(1000))
    call = asyncio.create_task(obtain(request_, settings, reporter))
    await asyncio.to_thread(arrived.wait)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    (part,) = (settings.cache_dir / "downloads").iterdir()
    assert part.name == f"{ready.archive.sha256}.part"
    assert part.read_bytes() == ready.archive.data[:1000]
    await obtain(request_, settings, reporter)
    assert server.gets == [None, "bytes=1000-"]


@pytest.mark.parametrize("when", ["before its head", "before its body"])
async def test_a_revision_that_replaces_the_one_being_downloaded_is_fetched(
    server, ready, settings, request_, reporter, when
):
    def replace_it(request, data):
        ready.archive = make_archive(seed=100)
        return answer_with(200, {"X-Content-SHA256": ready.archive.sha256})(request, data)

    server.archive_script.extend([cut(1000), replace_it] if when == "before its body" else [replace_it])
    dataset = await obtain(request_, settings, reporter)
    assert dataset.revision.sha256 == ready.archive.sha256
    assert len(server.posts) == 2
    assert server.gets[-1] is None
    assert list((settings.cache_dir / "downloads").iterdir()) == []


async def test_revisions_replaced_for_ever_are_an_error(server, ready, settings, request_, reporter):
    server.archive_script.extend([answer_with(200, {"X-Content-SHA256": "0" * 64})] * 9)
    with pytest.raises(errors.IntegrityError, match="replaced"):
        await obtain(request_, settings, reporter)
    assert len(server.gets) == 2


@pytest.mark.parametrize(("status", "code"), [(410, "evicted"), (409, "not_ready"), (404, "not_found")])
async def test_what_was_given_up_in_the_middle_is_asked_for_again(
    server, ready, settings, request_, reporter, status, code
):
    server.archive_script.extend([cut(1000), lambda *_: problem(status, code)])
    dataset = await obtain(request_, settings, reporter)
    assert dataset.revision.sha256 == ready.archive.sha256
    assert len(server.posts) == 2
    assert server.gets == [None, "bytes=1000-", "bytes=1000-"], "made again, it has the same bytes"


def test_an_old_part_is_claimed_once(tmp_path):
    sha256 = "ab" * 32
    (tmp_path / f"{sha256}.part").write_bytes(b"some")
    os.utime(tmp_path / f"{sha256}.part", (time.time() - 2 * 24 * 3600,) * 2)
    with claim_part(tmp_path, sha256) as first, claim_part(tmp_path, sha256) as second:
        first.take_over(threading.Event())
        second.take_over(threading.Event())
        assert (first.size, second.size) == (4, 0)
        assert first.path.exists()
        assert second.path.exists()


def test_a_part_has_one_owner_at_a_time(tmp_path):
    sha256 = "ab" * 32

    def interrupted():
        with claim_part(tmp_path, sha256) as part:
            part.write(b"some")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert waiting_bytes(tmp_path, sha256) == 4
    with claim_part(tmp_path, sha256) as first:
        first.take_over(threading.Event())
        assert first.size == 4
        assert waiting_bytes(tmp_path, sha256) == 0  # nobody may resume from it now
        with claim_part(tmp_path, sha256) as second:
            second.take_over(threading.Event())
            assert second.size == 0
            assert second.path != first.path
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def dead_owner():
    """The temporary name of a process that has ended."""
    program = "from dataset_client.workspace import new_owner_name as n; print(n())"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip()


async def test_the_part_of_a_killed_process_is_continued(server, ready, settings, request_, reporter, dead_owner):
    downloads = settings.cache_dir / "downloads"
    downloads.mkdir(parents=True)
    (downloads / f"{ready.archive.sha256}.{dead_owner}.part").write_bytes(ready.archive.data[:1234])
    assert (await obtain(request_, settings, reporter)).path.is_dir()
    assert server.gets == ["bytes=1234-"]
    assert list(downloads.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "content_range", "continues"),
    [
        (206, "bytes 10-99/100", True),
        (206, "bytes 10-99/*", True),
        (206, "bytes 0-99/100", False),
        (206, "bytes 10-98/99", False),
        (206, None, False),
        (200, None, False),
        (416, "bytes */100", False),
    ],
)
def test_what_continues_at_10_of_100(status, content_range, continues):
    assert continues_at(status, content_range, 10, 100) is continues


def test_a_certificate_that_does_not_hold_is_not_waited_for(settings, request_):
    """A server that restarts is waited for over minutes; its certificate does not get better meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

        def serve():
            with contextlib.suppress(OSError), context.wrap_socket(listening.accept()[0], server_side=True) as tls:
                tls.recv(1)

        threading.Thread(target=serve, daemon=True).start()
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        with Http(replace(settings, server_url=url)) as http, pytest.raises(errors.ServerUnreachableError) as refused:
            http.ask(request_)
    assert "certificate" in str(refused.value)
    assert not isinstance(refused.value, errors.ServerAwayError)
