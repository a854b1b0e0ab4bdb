"""A request from start to finish against a real server."""

import asyncio
import shutil
from dataclasses import replace

import pytest
from client_archives import make_archive, make_huge_archive
from client_server import problem

from dataset_client import Dataset, errors
from dataset_client.cache import Cache
from dataset_client.manifest import members_of, sidecar_of
from dataset_client.online import obtain


def files_in(path):
    return sorted(file.name for file in path.iterdir())


async def test_a_dataset_is_built_and_arrives_whole(server, topic, settings, request_, reporter, archive):
    dataset = await obtain(request_, settings, reporter)
    assert dataset.revision.sha256 == archive.sha256
    assert "discs-train.tfrecord-00000-of-00003" in files_in(dataset.path)
    assert dataset.path.parent == settings.cache_dir / "datasets"
    assert files_in(settings.cache_dir / "downloads") == []
    assert files_in(settings.cache_dir / "tmp") == []
    assert server.sockets == [0]


async def test_the_second_call_makes_one_request(server, topic, settings, request_, reporter):
    first = await obtain(request_, settings, reporter)
    before = len(server.posts), len(server.gets), len(server.sockets)
    second = await obtain(request_, settings, reporter)
    assert second == first
    assert (len(server.posts), len(server.gets), len(server.sockets)) == (before[0] + 1, before[1], before[2])


async def test_what_is_ready_is_not_waited_for(server, topic, settings, request_, reporter):
    topic.is_ready, topic.attempt = True, 1
    await obtain(request_, settings, reporter)
    assert topic.events == []


async def test_two_requests_with_one_answer_share_one_copy(server, topic, settings, request_, reporter):
    from dataset_client.request import make_request

    other = make_request("discs", "main", {"limit": 7})
    server.topics[other.topic_id] = topic
    first, second = await obtain(request_, settings, reporter), await obtain(other, settings, reporter)
    assert first.path == second.path
    assert len(server.gets) == 1


async def test_a_new_revision_arrives_beside_the_old_one(server, topic, settings, request_, reporter):
    old = await obtain(request_, settings, reporter)
    with next(old.path.glob("*train*")).open("rb") as reader:
        topic.archive = make_archive(seed=100)
        new = await obtain(request_, settings, reporter)
        assert new.revision.dataset_id == old.revision.dataset_id
        assert new.path != old.path
        assert reader.read()
    assert next(old.path.glob("*train*")).stat().st_size


async def test_a_stale_dataset_is_waited_for_again(server, topic, settings, request_, reporter):
    await obtain(request_, settings, reporter)
    topic.is_ready, topic.archive = False, make_archive(seed=100)
    dataset = await obtain(request_, settings, reporter)
    assert dataset.revision.sha256 == topic.archive.sha256
    assert topic.attempt == 2


@pytest.mark.parametrize(
    "damage", ["missing", "short", "manifest", "sidecar", "features.json", "dataset_info.json", "lineage.jsonl"]
)
async def test_a_damaged_copy_is_fetched_again(server, topic, settings, request_, reporter, damage):
    dataset = await obtain(request_, settings, reporter)
    shard = next(dataset.path.glob("*train*"))
    match damage:
        case "missing":
            shard.unlink()
        case "short":
            shard.write_bytes(b"x")
        case "manifest":
            (dataset.path / "manifest.json").write_text("{")
        case "sidecar":
            dataset.path.with_name(f"{dataset.path.name}.json").unlink()
        case "lineage.jsonl":
            (dataset.path / damage).unlink()
        case name:
            whole = (dataset.path / name).read_bytes()
            (dataset.path / name).write_bytes(whole.swapcase())  # of the same length
    again = await obtain(request_, settings, reporter)
    assert again.path == dataset.path
    assert shard.stat().st_size > 1
    Dataset(again.path, again.manifest, {}).verify()
    assert len(server.gets) <= 3  # the end of the archive, twice, and what cannot be mended by itself


async def test_an_event_of_an_earlier_attempt_is_ignored(server, topic, settings, request_, reporter):
    topic.attempt = 1
    server.emit(request_.topic_id, "failed", {"code": "handler_crashed", "message": "old"}, attempt=1)
    dataset = await obtain(request_, settings, reporter)
    assert topic.attempt == 2
    assert dataset.path.is_dir()


async def test_a_failed_build_shows_the_handlers_last_lines(topic, settings, request_, reporter):
    topic.on_ask = [("failed", {"code": "handler_crashed", "message": "it died", "log": ["line 1", "line 2"]})]
    with pytest.raises(errors.BuildFailedError, match="it died") as caught:
        await obtain(request_, settings, reporter)
    assert caught.value.code == "handler_crashed"
    assert caught.value.log == ("line 1", "line 2")
    assert "| line 2" in str(caught.value)


async def test_a_cancelled_build(topic, settings, request_, reporter):
    topic.on_ask = [("cancelled", {"message": "by an admin"})]
    with pytest.raises(errors.BuildCancelledError, match="by an admin"):
        await obtain(request_, settings, reporter)


FAULTS = [{"path": "/crop_size", "reason": "larger than the image"}]


@pytest.mark.parametrize("way", ["answer", "event"])
async def test_a_refused_config_says_where_and_why(server, topic, settings, request_, reporter, way):
    if way == "answer":
        server.post_script.append(lambda *_: problem(422, "config_refused", "no", faults=FAULTS))
    else:
        topic.on_ask = [("failed", {"code": "config_refused", "message": "no", "faults": FAULTS})]
    with pytest.raises(errors.ConfigRefusedError, match=r"/crop_size: larger than the image") as caught:
        await obtain(request_, settings, reporter)
    assert caught.value.faults == FAULTS


@pytest.mark.parametrize(
    ("code", "kind"),
    [("version_unknown", errors.UnknownVersionError), ("dataset_unknown", errors.UnknownDatasetError)],
)
@pytest.mark.parametrize("way", ["answer", "event"])
async def test_unknown_names_and_versions(server, topic, settings, request_, reporter, code, kind, way):
    if way == "answer":
        server.post_script.append(lambda *_: problem(404, code, "no such thing"))
    else:
        topic.on_ask = [("failed", {"code": code, "message": "no such thing"})]
    with pytest.raises(kind, match="no such thing"):
        await obtain(request_, settings, reporter)


async def test_a_server_that_forgot_is_asked_again(server, topic, settings, request_, reporter):
    topic.on_ask = [("state", {"state": "building"})]
    call = asyncio.create_task(obtain(request_, settings, reporter))
    await asyncio.to_thread(server.wait_for_posts, 1)
    await asyncio.to_thread(server.stop)
    topic.events.clear()
    topic.attempt = 0
    topic.on_ask = [("ready", None)]
    await asyncio.to_thread(server.start)
    assert (await call).path.is_dir()
    assert len(server.posts) == 2


@pytest.mark.parametrize("status", [500, 502, 503, 429])
async def test_a_server_that_stumbles_is_asked_again(server, topic, settings, request_, reporter, status):
    server.post_script.extend([lambda *_: problem(status, "oops", headers={"Retry-After": "0"})] * 2)
    await obtain(request_, settings, reporter)
    assert len(server.posts) == 3


async def test_retry_after_is_honoured(server, topic, settings, request_, reporter):
    server.post_script.append(lambda *_: problem(503, "full", headers={"Retry-After": "1"}))
    clock = asyncio.get_running_loop().time
    start = clock()
    await obtain(request_, settings, reporter)
    assert clock() - start >= 1


async def test_a_server_that_stays_busy(server, topic, settings, request_, reporter):
    server.post_script.extend([lambda *_: problem(429, "too_many", "slow down")] * 10)
    with pytest.raises(errors.ServerBusyError, match="slow down"):
        await obtain(request_, settings, reporter)
    assert len(server.posts) == settings.retry.attempts


async def test_a_retry_after_beyond_patience_is_not_waited_for(server, topic, settings, request_, reporter):
    server.post_script.append(lambda *_: problem(503, "full", headers={"Retry-After": "3600"}))
    with pytest.raises(errors.ServerBusyError):
        await obtain(request_, settings, reporter)


async def test_other_refusals_are_server_errors(server, topic, settings, request_, reporter):
    server.post_script.append(lambda *_: problem(409, "no_space", "the server's disk is full"))
    with pytest.raises(errors.ServerError, match="disk is full") as caught:
        await obtain(request_, settings, reporter)
    assert (caught.value.code, caught.value.status) == ("no_space", 409)


async def test_a_server_may_think_longer_about_a_request_than_a_download_may_stand_still(
    server, topic, settings, request_, reporter
):
    async def think(*_):
        await asyncio.sleep(0.5)
        return problem(422, "config_refused", "thought through")

    server.post_script.append(think)
    with pytest.raises(errors.ConfigRefusedError, match="thought through"):
        await obtain(request_, replace(settings, read_timeout_s=0.1), reporter)
    assert len(server.posts) == 1


async def test_files_that_vanish_while_they_are_installed_are_noticed(topic, settings, request_, reporter):
    dataset = await obtain(request_, settings, reporter)
    cache, again = Cache(settings.cache_dir), settings.cache_dir / "tmp" / "again"
    members = members_of(dataset.path, dataset.manifest)
    shutil.copytree(dataset.path, again)
    shutil.rmtree(dataset.path)
    sidecar_of(dataset.path).unlink()
    (again / "lineage.jsonl").unlink()
    with pytest.raises(errors.CacheError, match=r"lineage\.jsonl is missing"):
        cache.install(again, dataset.revision, members)
    assert cache.find(dataset.revision) is None


async def test_a_missing_token(server, topic, settings, request_, reporter):
    server.token = "s3cret"
    with pytest.raises(errors.UnauthorizedError, match="token"):
        await obtain(request_, settings, reporter)


async def test_the_token_is_sent_everywhere(server, topic, settings, request_, reporter):
    server.token = "s3cret"
    settings = replace(settings, token="s3cret")
    assert "s3cret" not in repr(settings)
    assert (await obtain(request_, settings, reporter)).path.is_dir()


async def test_nobody_answers(server, settings, request_, reporter):
    settings = replace(settings, server_url="http://127.0.0.1:9")
    with pytest.raises(errors.ServerUnreachableError, match="DATASET_SERVER_URL"):
        await obtain(request_, settings, reporter)


async def test_a_server_that_goes_away_points_to_the_cache(server, topic, settings, request_, reporter):
    await obtain(request_, settings, reporter)
    with pytest.raises(errors.ServerUnreachableError, match="offline=True"):
        await obtain(request_, replace(settings, server_url="http://127.0.0.1:9"), reporter)


@pytest.mark.parametrize(
    "answer",
    [
        [1],
        {"topic_id": "discs_v1_0", "state": "ready"},
        {"state": "dancing", "attempt": 1},
        {"state": "ready", "attempt": 1},
        {"state": "ready", "attempt": 1, "dataset_id": "../x.zip", "archive": {}},
    ],
)
async def test_answers_that_are_not_ours(server, topic, settings, request_, reporter, answer):
    from aiohttp import web

    if isinstance(answer, dict):
        answer = {"topic_id": request_.topic_id} | answer
    server.post_script.append(lambda *_: web.json_response(answer))
    with pytest.raises(errors.ProtocolError):
        await obtain(request_, settings, reporter)


async def test_a_web_page_is_not_an_answer(server, topic, settings, request_, reporter):
    from aiohttp import web

    server.post_script.append(lambda *_: web.Response(text="<html>Welcome!</html>"))
    with pytest.raises(errors.ProtocolError, match="JSON"):
        await obtain(request_, settings, reporter)


async def test_a_disk_that_is_too_small_is_noticed_before(server, topic, settings, request_, reporter):
    topic.archive = make_huge_archive(1 << 60)
    with pytest.raises(errors.CacheError, match="GB are missing") as caught:
        await obtain(request_, settings, reporter)
    assert caught.value.code == "disk_full"
    assert "gc" in caught.value.remedy
    assert len(server.gets) == 1, "only what the archive holds was looked at"


async def test_a_cache_that_is_no_directory(topic, settings, request_, reporter):
    settings.cache_dir.write_text("a file")
    with pytest.raises(errors.CacheError, match="DATASET_CACHE_DIR"):
        await obtain(request_, settings, reporter)
