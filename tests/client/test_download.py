"""Downloads over a network and from a server that misbehave."""

import asyncio
import contextlib
import io
import socket
import ssl
import sys
import threading
import time
import zipfile
from dataclasses import replace

import pytest
import trustme
from aiohttp import web
from client_archives import make_archive, make_bulk, make_files, record
from client_server import (
    DatasetServer,
    answer_with,
    bare,
    cut,
    cut_in_headers,
    everything,
    flipped,
    paced,
    part_of,
    problem,
    stall,
    wrong_at,
)

from dataset_client import Dataset, errors, fetching, transfer
from dataset_client.concurrency import StoppedError
from dataset_client.contents import Wanted
from dataset_client.http import Body, Http
from dataset_client.online import obtain
from dataset_client.source import NoRangesError, RevisionReplacedError, Source, check_answer
from dataset_client.transfer import Pace, Transfer
from dataset_client.workfile import WorkFile

#: One connection, so that what happens comes in order.
PACE = Pace(tail=4096, piece=8192, block=1024, connections=1)


@pytest.fixture(scope="session")
def large():
    """An archive of several pieces."""
    return make_archive(splits={"train": 24, "val": 6}, shard_size=6)


@pytest.fixture
def ready(topic, large):
    topic.archive, topic.is_ready, topic.attempt = large, True, 1
    return topic


@pytest.fixture
def get(request_, settings, reporter):
    """Get the dataset, and see that it is right."""

    async def get(pace=PACE, settings=settings):
        cached = await obtain(request_, settings, reporter, pace)
        Dataset(cached.path, cached.manifest, {}).verify()
        return cached

    return get


def body_of(archive, range_):
    """The bytes of an archive that a Range header is for."""
    first, last = map(int, range_.removeprefix("bytes=").split("-"))
    return archive.data[first : last + 1]


def asked(server):
    return [tuple(map(int, range_.removeprefix("bytes=").split("-"))) for range_ in server.gets if range_]


def pieces_of(archive, name):
    """Where a member's bytes are."""
    _, files = make_files(splits={"train": 24, "val": 6}, shard_size=6)
    return archive.data.index(files[name]), len(files[name])


FIRST = "discs-train.tfrecord-00000-of-00004"


async def test_a_cut_body_is_resumed_where_it_ended(server, ready, get):
    server.archive_script.extend([usual, cut(2048), cut(1024)])
    await get()
    tail, first, second, third = asked(server)[:4]
    assert tail == (len(ready.archive.data) - 4096, len(ready.archive.data) - 1)
    assert (second[0], third[0]) == (first[0] + 2048, first[0] + 3072)
    assert first[1] == second[1] == third[1]


def usual(*_):
    """What the server answers by itself."""


_HEADERS = b"X-Any: 1\r\nContent-Length: 9\r\nX-Content-SHA256: abcdef"


@pytest.mark.parametrize("sent", [_HEADERS[:count] for count in (0, 4, 10, 26, 27, 47, len(_HEADERS))])
async def test_an_answer_that_ends_in_its_headers_is_asked_for_again(server, ready, get, sent):
    server.post_script.append(cut_in_headers(200, sent))
    server.archive_script.extend([cut_in_headers(206, sent), usual, cut(1024), cut_in_headers(206, sent)])
    await get()
    assert server.gets[0] == server.gets[1]
    assert server.gets[3] == server.gets[4]


@pytest.mark.parametrize("coding", ["chunked", "Chunked"])
async def test_a_refusal_in_chunks_is_whole(server, settings, request_, reporter, coding):
    server.post_script.append(bare(f"HTTP/1.1 403 No\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n".encode()))
    with pytest.raises(errors.UnauthorizedError):
        await obtain(request_, settings, reporter)
    assert len(server.posts) == 1


async def test_many_cuts_are_survived_as_long_as_each_gets_further(server, ready, settings, get):
    server.archive_script.extend([usual, *[cut(1024)] * (3 * settings.retry.attempts)])
    await get()


async def test_cuts_without_progress_end(server, ready, settings, get):
    server.archive_script.extend([usual, cut(1024), *[cut(0)] * 50])
    with pytest.raises(errors.ServerUnreachableError, match="middle"):
        await get()
    assert len(server.gets) == 1 + settings.retry.attempts


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_server_that_restarts_is_waited_for(server, ready, settings, get, status):
    away = [answer_with(status, body="")] * (2 * settings.retry.attempts)
    server.archive_script.extend([*away, usual, cut(2048), *away])
    await get()


async def test_what_arrived_before_a_failure_is_used_by_the_next_call(server, ready, get, settings):
    server.archive_script.extend([usual, usual, cut(2048), *[cut(0)] * 50])
    with pytest.raises(errors.ServerUnreachableError):
        await get()
    server.archive_script.clear()
    before, server.sent = server.gets.copy(), 0
    await get()
    assert server.gets[len(before)] == before[-1], "it goes on where it was, and knows what is in the archive"
    assert server.sent < len(ready.archive.data) - 4096 - 8192 - 2048 + 100
    assert list((settings.cache_dir / "downloads").iterdir()) == []


async def test_a_server_that_ignores_range_gives_all_at_once(server, ready, get):
    server.archive_script.extend([everything, everything])
    await get()
    assert server.gets[1:] == [None]


async def test_a_server_without_ranges_needs_room_for_two(server, ready, settings, get):
    server.archive_script.append(everything)
    with pytest.raises(errors.CacheError) as caught:
        await get(settings=replace(settings, cache_limit=len(ready.archive.data) * 3 // 2))
    assert caught.value.code == "cache_limit"
    assert server.gets[1:] == []


async def test_what_is_here_is_copied_in_blocks(server, ready, get, monkeypatch):
    """So that who is cancelled does not wait for all of it."""
    monkeypatch.setattr(fetching, "_BLOCK", 1000, raising=False)
    copied, store = [], Transfer.store
    monkeypatch.setattr(Transfer, "store", lambda *given: copied.append(len(given[-1])) or store(*given))
    server.archive_script.extend([everything, everything])
    await get(Pace())
    assert max(copied) == 1000


def test_the_more_is_missing_the_more_often_is_asked_again(settings, tmp_path):
    size = 1 << 40
    file = WorkFile(Wanted("a", size, "0" * 64, crc32=0, at=0), tmp_path / "a", tmp_path / "journal")
    transfer = Transfer(settings, Source("u", size, "0" * 64), {"a": file}, Pace(), lambda _: None)
    transfer.fail(StoppedError())
    with pytest.raises(StoppedError):
        transfer.run([])
    assert transfer._tries.budget == 64 + 4 * (size >> 26)


async def test_a_server_without_ranges_that_cuts_is_started_over(server, ready, get):
    server.archive_script.extend([everything, cut(1000), cut(500), everything])
    await get()
    assert server.gets[1:] == [None] * 3


async def test_a_server_without_ranges_whose_bytes_are_wrong(server, ready, get):
    wrong = wrong_at(100)
    server.archive_script.extend([everything, wrong, everything, everything])
    await get()
    server.archive_script.clear()


async def test_a_server_without_ranges_that_replaces_what_it_has(server, ready, settings, get):
    def replace_it(request, data):
        ready.archive = make_archive(seed=100)
        return everything(request, data)

    server.archive_script.extend([usual, replace_it])
    cached = await get()
    assert cached.revision.sha256 == ready.archive.sha256
    assert list((settings.cache_dir / "downloads").iterdir()) == [], "of what is nowhere any more nothing is kept"


async def test_416_is_a_server_without_ranges(server, ready, get):
    server.archive_script.extend([usual, cut(1000), answer_with(416)])
    await get()
    assert server.gets[-1] is None


async def test_a_server_that_cuts_and_refuses_ranges_for_ever_is_given_up(server, ready, get):
    server.archive_script.extend([answer_with(416), *[cut(1000)] * 100])
    with pytest.raises(errors.ServerUnreachableError):
        await get()


async def test_of_a_damaged_record_only_that_record_is_fetched_again(server, ready, get):
    at, size = pieces_of(ready.archive, FIRST)
    server.archive_script.extend([usual, wrong_at(at + size // 2)])
    await get()
    assert len(ready.archive.data) < server.sent < len(ready.archive.data) + size // 4


async def test_a_record_that_is_damaged_twice_is_fetched_a_third_time(server, ready, get):
    at, size = pieces_of(ready.archive, FIRST)
    damage = wrong_at(at + size // 2)
    server.archive_script.extend([usual, damage, damage])
    await get(replace(PACE, piece=1 << 20))
    (twice,) = {span for span in asked(server) if asked(server).count(span) == 2}
    assert twice[1] - twice[0] < size // 4
    assert server.sent < len(ready.archive.data) + size // 2


async def test_damaged_lengths_hide_what_comes_after_until_they_are_mended(server, ready, get):
    at, size = pieces_of(ready.archive, FIRST)
    server.archive_script.extend([usual, wrong_at(at, at + size // 2)])
    await get()
    assert len(ready.archive.data) < server.sent < len(ready.archive.data) + size // 3
    assert (at, at + 11) in asked(server)


async def test_other_files_are_fetched_again_as_a_whole(server, ready, get):
    at, _ = pieces_of(ready.archive, "features.json")
    pace = replace(PACE, tail=64)
    server.archive_script.extend([lambda request, data: wrong_at(at + 5)(request, data)] * 20)
    with pytest.raises(errors.IntegrityError, match=r"features\.json"):
        await get(pace)
    server.archive_script.clear()
    await get(pace)


async def test_a_wrong_end_is_fetched_once_more(server, ready, get):
    server.archive_script.append(flipped(0.9))
    await get()
    assert server.gets[0] == server.gets[1]


@pytest.mark.parametrize("place", [0.5, 0.999])
async def test_an_end_that_stays_wrong_is_an_error_and_not_kept(server, ready, settings, get, place):
    server.archive_script.extend([flipped(place)] * 30)
    with pytest.raises(errors.IntegrityError):
        await get()
    assert len(server.gets) == 2
    assert list((settings.cache_dir / "downloads").iterdir()) == []
    assert list((settings.cache_dir / "datasets").iterdir()) == []


async def test_bytes_that_stay_wrong_are_an_error_and_the_right_ones_are_kept(server, ready, settings, get):
    at, size = pieces_of(ready.archive, FIRST)
    server.archive_script.extend([wrong_at(at + size // 2)] * 100)
    with pytest.raises(errors.IntegrityError, match=f"{FIRST} with sha256"):
        await get()
    assert list((settings.cache_dir / "datasets").iterdir()) == []
    server.archive_script.clear()
    server.sent = 0
    await get()
    assert server.sent < len(ready.archive.data), "what was right is not fetched again"


async def test_a_shard_whose_own_checksums_hold_is_fetched_whole_and_refused(server, ready, get):
    _, files = make_files(splits={"train": 24, "val": 6}, shard_size=6)
    whole, name = files[FIRST], FIRST
    length = int.from_bytes(whole[:8], "little")
    other = record(bytes(length)) + whole[length + 16 :]
    at, _ = pieces_of(ready.archive, name)
    data = ready.archive.data[:at] + other + ready.archive.data[at + len(other) :]
    server.archive_script.extend([lambda request, _: part_of(request, data)] * 100)
    with pytest.raises(errors.IntegrityError, match=name):
        await get()
    fetched = sum(last - first + 1 for first, last in asked(server) if first < at + len(whole))
    assert fetched < 3 * len(whole)


@pytest.mark.parametrize("body", ["too short", "x" * 200_000])
async def test_a_complete_body_of_another_length(server, ready, get, body):
    server.archive_script.extend([answer_with(200, body=body)] * 50)
    with pytest.raises((errors.IntegrityError, errors.ServerUnreachableError)):
        await get()


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_a_server_that_stumbles(server, ready, get, status):
    server.archive_script.extend([usual, *[answer_with(status, {"Retry-After": "0"})] * 3])
    await get()


async def test_a_server_that_wants_fewer_connections(server, ready, get):
    present, refused = 0, 0

    async def two_at_a_time(*_):
        nonlocal present, refused
        if present == 2:
            refused += 1
            return answer_with(429, {"Retry-After": "0"})()
        present += 1
        await asyncio.sleep(0.03)
        present -= 1
        return None

    server.archive_script.extend([usual, *[two_at_a_time] * 200])
    await get(replace(PACE, piece=2048, connections=8, begin=8))
    assert len(server.gets) > 20
    assert 0 < refused <= 8, "each refused once, for there are fewer from then on"


async def test_retry_after_is_honoured_by_all_connections(server, ready, get):
    clock = asyncio.get_running_loop().time
    refused = 0.0
    later = []

    def refuse(*_):
        nonlocal refused
        refused = clock()
        return answer_with(503, {"Retry-After": "1"})()

    async def slow(*_):
        await asyncio.sleep(0.3)

    server.archive_script.extend([usual, slow, slow, slow, refuse, *[lambda *_: later.append(clock())] * 200])
    await get(replace(PACE, piece=2048, connections=4, begin=4))
    assert refused
    assert len(later) > 3
    assert min(later) - refused >= 1


async def test_an_archive_that_is_gone(server, ready, get):
    server.archive_script.append(lambda *_: problem(404, "dataset_unknown", "evicted"))
    with pytest.raises(errors.UnknownDatasetError, match="evicted"):
        await get()


async def test_an_absolute_url_works_and_a_foreign_one_sees_no_token(server, ready, settings, request_, get):
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
        foreign.archive_script.extend([lambda request, _: seen.append(request.headers.get("Authorization"))] * 99)
        server.token = "s3cret"
        server.post_script.append(answer)
        assert (await get(settings=replace(settings, token="s3cret"))).path.is_dir()
    finally:
        foreign.close()
    assert seen == [None] * len(foreign.gets)
    assert seen
    assert server.gets == []


@pytest.mark.parametrize("when", ["before its head", "in its body"])
async def test_cancelling_a_download_keeps_what_arrived(server, ready, settings, get, when):
    server.archive_script.extend([usual, usual, stall(1024 if when == "in its body" else None)])
    call = asyncio.create_task(get())
    while len(server.gets) < 3:
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    (folder,) = (settings.cache_dir / "downloads").iterdir()
    (work,) = folder.iterdir()
    assert work.name.startswith("work.free-")
    await get()
    assert asked(server)[3][0] > asked(server)[1][1]
    assert list((settings.cache_dir / "downloads").iterdir()) == []


@pytest.mark.parametrize("when", ["its end", "a piece"])
async def test_a_revision_that_replaces_the_one_being_downloaded_is_fetched(server, ready, settings, get, when):
    new = make_archive(seed=100, splits={"train": 24, "val": 6}, shard_size=6)

    def replace_it(request, data):
        ready.archive = new
        return part_of(request, new.data, {"ETag": f'"{new.sha256}"', "X-Content-SHA256": new.sha256})

    server.archive_script.extend([usual, cut(1000), replace_it] if when == "a piece" else [replace_it])
    dataset = await get()
    assert dataset.revision.sha256 == new.sha256
    assert len(server.posts) == 2
    assert list((settings.cache_dir / "downloads").iterdir()) == []


async def test_a_static_server_that_replaces_the_file_is_noticed_by_its_tag(server, ready, settings, get):
    new = make_archive(seed=100, splits={"train": 24, "val": 6}, shard_size=6)

    def tagged(archive, tag):
        return lambda request, _: part_of(request, archive.data, {"ETag": tag})

    def replace_it(request, data):
        ready.archive = new
        return tagged(new, '"other"')(request, data)

    server.archive_script.extend([tagged(ready.archive, '"one"'), replace_it])
    assert (await get()).revision.sha256 == new.sha256


async def test_revisions_replaced_for_ever_are_an_error(server, ready, get):
    server.archive_script.extend([answer_with(200, {"X-Content-SHA256": "0" * 64})] * 9)
    with pytest.raises(errors.IntegrityError, match="replaced"):
        await get()
    assert len(server.gets) == 2


@pytest.mark.parametrize(("status", "code"), [(410, "evicted"), (409, "not_ready"), (404, "not_found")])
async def test_what_was_given_up_in_the_middle_is_asked_for_again(server, ready, get, status, code):
    server.archive_script.extend([usual, usual, lambda *_: problem(status, code)])
    dataset = await get()
    assert dataset.revision.sha256 == ready.archive.sha256
    assert len(server.posts) == 2
    assert server.gets[2] == server.gets[3], "made again, it has the same bytes"


SOURCE = Source("u", 100, "ab" * 32)


@pytest.mark.parametrize(
    ("status", "content_range", "more", "raised"),
    [
        (206, "bytes 10-99/100", {}, None),
        (206, "bytes 10-40/*", {"X-Content-SHA256": "ab" * 32}, None),
        (206, "bytes 0-99/100", {}, errors.ServerUnreachableError),
        (206, "bytes 10-98/99", {}, errors.ServerUnreachableError),
        (206, None, {}, errors.ServerUnreachableError),
        (200, None, {}, NoRangesError),
        (416, "bytes */100", {}, NoRangesError),
        (412, None, {}, RevisionReplacedError),
        (206, "bytes 10-99/100", {"X-Content-SHA256": "cd" * 32}, RevisionReplacedError),
        (206, "bytes 10-99/100", {"ETag": '"new"'}, RevisionReplacedError),
        (200, None, {"ETag": '"new"'}, RevisionReplacedError),
    ],
)
def test_what_an_answer_to_a_question_for_the_bytes_from_10_on_means(status, content_range, more, raised):
    headers = {**({"Content-Range": content_range} if content_range else {}), **more}
    with pytest.raises(raised) if raised else contextlib.nullcontext():
        check_answer(replace(SOURCE, tag='"old"'), status, headers, 10)


@pytest.mark.parametrize(("tag", "kept"), [('"a"', '"a"'), ('W/"a"', None), ("", None)])
def test_only_strong_tags_are_asked_with_again(tag, kept):
    assert check_answer(SOURCE, 206, {"Content-Range": "bytes 10-99/100", "ETag": tag}, 10) == kept


async def test_one_fault_in_a_hundred_costs_less_than_two_in_a_hundred(server, ready, get):
    """Flipped bytes, cut bodies and refusals: at most 2 % extra bytes, and no wrong one."""
    archive = ready.archive = make_bulk(16 << 20, 8)
    faults = [flipped(0.3, 0x40), cut(20_000), answer_with(500), flipped(0.8), cut(50_000), answer_with(503)]
    answers = [usual] * 1000
    for index, fault in enumerate(faults * 2):
        answers[20 + 25 * index] = fault
    server.archive_script.extend(answers)
    await get(Pace(piece=1 << 16, block=1 << 14, connections=4, begin=4))
    asked_for = len(server.gets)
    assert asked_for > 25 * len(faults), "all faults have happened"
    extra = server.sent - len(archive.data)
    print(f"{len(faults * 2)} faults in {asked_for} requests: {extra} of {len(archive.data)} bytes more")
    assert extra < 0.02 * len(archive.data)


RATE = 400_000


@pytest.fixture
def quick(monkeypatch):
    """Transfers that soon look whether more connections help, and read little at once."""
    for name, value in {"_WINDOW_S": 0.1, "_FIRST_READ": 4096}.items():
        monkeypatch.setattr(transfer, name, value)


async def test_who_comes_later_takes_half_of_what_one_has_asked_for(server, ready, get, quick):
    archive = ready.archive = make_bulk(2 << 20, 1)
    server.archive_script.extend([usual, *[paced(RATE)] * 100])
    began = time.monotonic()
    await get(Pace(begin=1))
    took = time.monotonic() - began
    _, first, second, *_ = asked(server)
    assert first[1] - first[0] > 0.9 * len(archive.data), "who is alone asks for all"
    assert second[0] > 0.4 * len(archive.data), "and goes on while somebody else begins in the middle"
    assert took < 0.8 * len(archive.data) / RATE
    assert server.sent < 1.05 * len(archive.data), "the first one stopped where the second one had begun"


async def test_what_is_taken_over_begins_with_a_file(server, ready, get, quick):
    archive = ready.archive = make_bulk(2 << 20, 5)
    server.archive_script.extend([usual, *[paced(RATE)] * 100])
    await get(Pace(begin=1))
    with zipfile.ZipFile(io.BytesIO(archive.data)) as opened:
        headers = [info.header_offset for info in opened.infolist()]
    assert any(0 < asked(server)[2][0] - header < 305 for header in headers), "right behind a file's header"


@pytest.mark.parametrize(
    "breaks",
    [
        [paced(RATE, 600_000)],
        [paced(RATE, 600_000, then_stalls=True)],
        [paced(RATE), paced(RATE, 100_000)],
        [paced(RATE), paced(RATE, 100_000, then_stalls=True)],
        [paced(RATE), paced(RATE), *[paced(RATE, 30_000)] * 8],
    ],
    ids=["whose end was taken", "and stalls", "who took it", "who took it, and stalls", "everybody"],
)
async def test_where_one_breaks_no_byte_is_lost_or_comes_twice(server, ready, get, quick, settings, breaks):
    archive = ready.archive = make_bulk(2 << 20, 3)
    server.archive_script.extend([usual, *breaks, *[paced(2 * RATE)] * 200])
    await get(Pace(begin=1), replace(settings, read_timeout_s=1.0))
    assert 0.95 * len(archive.data) < server.sent < 1.1 * len(archive.data)


async def test_a_server_that_says_nothing_is_not_asked_by_more(server, ready, get, quick, settings):
    ready.archive = make_bulk(2 << 20, 3)
    server.archive_script.extend([usual, *[stall(None)] * 3])
    await get(Pace(begin=1), replace(settings, read_timeout_s=0.6))
    first = asked(server)[1]
    assert [part[1] for part in asked(server)[1:4]] == [first[1]] * 3, "nobody took anything over"


async def test_it_is_known_how_long_bytes_take(server, ready, get, monkeypatch):
    trips, real = [], Body.round_trip
    monkeypatch.setattr(Body, "round_trip", lambda body: trips.append(real(body)) or trips[-1])
    monkeypatch.setattr(transfer, "_WINDOW_S", 0.1)
    ready.archive = make_bulk(1 << 20, 1)
    server.archive_script.extend([usual, *[paced(RATE)] * 20])
    await get(Pace(begin=1))
    assert trips
    assert sys.platform != "linux" or any(trip is not None for trip in trips)


async def test_where_there_are_no_more_threads_one_fetches_all(server, ready, get, quick, monkeypatch):
    archive = ready.archive = make_bulk(2 << 20, 1)
    server.archive_script.extend([usual, *[paced(RATE)] * 20])
    start = threading.Thread.start

    def refused(thread):
        if thread.name == "dataset-client-transfer" and len(asked(server)) > 1:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refused)
    await get(Pace(begin=1))
    assert len(server.gets) <= 5, "at most once was the end of its request taken from the one there is"
    assert server.sent < 1.05 * len(archive.data)


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
