"""A request from start to finish: ask, wait, download, verify, unpack. The modules it calls know how."""

import asyncio
import contextlib
import shutil
import threading
from pathlib import Path

from dataset_client.answers import Answer, Archive, read_archive
from dataset_client.backoff import Retries
from dataset_client.cache import Cache, CachedDataset, Revision
from dataset_client.concurrency import in_abandonable_thread, in_thread
from dataset_client.download import RevisionReplacedError, download
from dataset_client.errors import DatasetClientError, IntegrityError, ProtocolError, ServerUnreachableError
from dataset_client.http import Http
from dataset_client.parts import claim_part, remove_stale, waiting_bytes
from dataset_client.plan import plan_download
from dataset_client.problems import require_ready
from dataset_client.progress import Reporter
from dataset_client.request import DatasetRequest
from dataset_client.settings import Settings
from dataset_client.unpack import unpack
from dataset_client.wait import follow, watch
from dataset_client.workspace import cache_errors, temporary_directory


async def obtain(request: DatasetRequest, settings: Settings, reporter: Reporter) -> CachedDataset:
    """The dataset that answers ``request`` now, in the cache.

    Raises whatever the error tree has, except `WaitTimeoutError`, `NotCachedError` and what readers raise.
    """
    cache = Cache(settings.cache_dir)
    await asyncio.to_thread(cache.prepare)
    await asyncio.to_thread(remove_stale, cache.downloads)
    known = await asyncio.to_thread(cache.find_for, request)
    with Http(settings) as http:
        try:
            dataset = await _obtain(http, request, cache, reporter, is_known=known is not None)
        except RevisionReplacedError:
            reporter.note("the server has replaced the dataset meanwhile; asking again")
            dataset = await _obtain(http, request, cache, reporter, is_known=True)
        except ServerUnreachableError as error:
            if known is not None:
                error.remedy += f"\nAn earlier answer is in the cache: offline=True (--offline) opens {known.path}."
            raise
    if known is None or known.revision != dataset.revision:
        await asyncio.to_thread(cache.remember, request, dataset.revision)
    return dataset


async def _obtain(
    http: Http, request: DatasetRequest, cache: Cache, reporter: Reporter, *, is_known: bool
) -> CachedDataset:
    """What the server offers now, from the cache or fetched into it."""
    archive = await _published(http, request, reporter, is_known=is_known)
    cached = await asyncio.to_thread(cache.find, Revision.of(archive))
    return cached or await _fetch(http, archive, cache, reporter)


async def _published(http: Http, request: DatasetRequest, reporter: Reporter, *, is_known: bool) -> Archive:
    """Ask, wait if need be, and return the archive.

    The socket is subscribed before the question, so that no event falls between. A request that was
    answered before is likely ready: it is asked first, and costs one POST. That loses nothing, as a later
    subscription replays the attempt.
    """
    policy = http.settings.retry
    if is_known:
        answer = await _ask(http, request, patience_s=policy.first_contact_s)
        if answer.archive is not None:
            return answer.archive
    async with contextlib.aclosing(watch(request.topic_id, http.settings)) as messages:
        await anext(messages)
        while True:
            answer = await _ask(http, request, patience_s=policy.reconnect_s)
            if answer.archive is not None:
                return answer.archive
            event = await follow(messages, attempt=answer.attempt, on_event=reporter.build_event)
            if event is not None:
                return read_archive(require_ready(event).data)
            reporter.note("the server has forgotten this request; asking again")


async def _ask(http: Http, request: DatasetRequest, *, patience_s: float) -> Answer:
    """POST the request until it is answered or refused; asking twice is asking once."""
    retries = Retries(http.settings.retry, patience_s=patience_s)
    while True:
        try:
            return await in_abandonable_thread(http.ask, request)
        except DatasetClientError as error:
            await asyncio.sleep(retries.delay_after(error))


async def _fetch(http: Http, archive: Archive, cache: Cache, reporter: Reporter) -> CachedDataset:
    """Download, verify, unpack and install ``archive``."""
    with cache_errors(cache.root):
        free = shutil.disk_usage(cache.root).free
    resume_from = plan_download(archive, partial_bytes=waiting_bytes(cache.downloads, archive.sha256), free_bytes=free)
    with claim_part(cache.downloads, archive.sha256) as part:
        reporter.download_starts(archive.dataset_id, total=archive.bytes, done=resume_from)
        await download(http, archive, part, reporter.downloaded)
        try:
            return await in_thread(_unpack_and_install, part.path, archive, cache)
        except (IntegrityError, ProtocolError):
            part.restart()  # the archive was published like this: keeping it helps nobody
            raise


def _unpack_and_install(stop: threading.Event, zip_path: Path, archive: Archive, cache: Cache) -> CachedDataset:
    revision = Revision.of(archive)
    with temporary_directory(cache.scratch) as directory:
        manifest, members = unpack(stop, zip_path, directory, dataset_id=archive.dataset_id)
        path = cache.install(directory, revision, members)
    return CachedDataset(revision, path, manifest)
