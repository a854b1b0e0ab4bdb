"""A request from start to finish: ask, wait, fetch. The modules it calls know how."""

import asyncio
import contextlib
from collections.abc import Callable

from dataset_client.answers import Answer, Archive, read_archive
from dataset_client.backoff import Retries
from dataset_client.cache import Cache, CachedDataset
from dataset_client.concurrency import in_abandonable_thread, in_thread
from dataset_client.errors import CacheError, DatasetClientError, ServerUnreachableError
from dataset_client.fetching import OnFile, fetch
from dataset_client.following import messages_of
from dataset_client.http import Http
from dataset_client.polling import archive_of
from dataset_client.problems import require_ready
from dataset_client.progress import Reporter
from dataset_client.protocol import Event
from dataset_client.request import DatasetRequest
from dataset_client.settings import Settings
from dataset_client.source import RevisionReplacedError
from dataset_client.transfer import Pace
from dataset_client.wait import Watch, follow


async def obtain(
    request: DatasetRequest,
    settings: Settings,
    reporter: Reporter,
    pace: Pace | None = None,
    watch: Watch | None = None,
    on_file: OnFile | None = None,
    on_event: Callable[[Event], None] = lambda _: None,
) -> CachedDataset:
    """The dataset that answers ``request`` now, in the cache, and in use by this process from now on.

    Its topic is followed by ``watch``, by default over a socket of its own; ``on_event`` hears of what belongs to the
    attempt that answers. ``on_file`` is as of `fetch`.
    Nothing is written where it is there already, so that a cache may be read-only. Raises whatever the error tree has,
    except `WaitTimeoutError`, `NotCachedError` and what readers raise.
    """
    watch = watch or (lambda topic_id: messages_of([topic_id], settings, reporter.note))

    def tell(event: Event) -> None:
        reporter.build_event(event)
        on_event(event)

    cache = Cache(settings.cache_dir)
    known = await in_thread(lambda stop: cache.find_for(request, stop))
    with Http(settings) as http:
        try:
            dataset = await _obtain(http, request, reporter, watch, tell, pace, on_file, is_known=known is not None)
        except RevisionReplacedError:
            reporter.note("the server has replaced the dataset meanwhile; asking again")
            dataset = await _obtain(http, request, reporter, watch, tell, pace, on_file, is_known=True)
        except ServerUnreachableError as error:
            if known is not None:
                error.remedy += f"\nAn earlier answer is in the cache: offline=True (--offline) opens {known.path}."
            raise
    if known is None or known.revision != dataset.revision:
        with contextlib.suppress(CacheError):  # it is a note for offline use alone
            await asyncio.to_thread(cache.remember, request, dataset.revision)
    return dataset


async def pull(dataset_id: str, settings: Settings, reporter: Reporter) -> CachedDataset:
    """The dataset with this id in the cache, and in use by this process, once the server has it; asks for no build.

    Raises what `polling.archive_of` and `fetch` raise.
    """
    with Http(settings) as http:

        async def current() -> CachedDataset:
            archive = await archive_of(http, dataset_id, reporter.build_event)
            return await fetch(settings, archive, Cache(settings.cache_dir), reporter)

        try:
            return await current()
        except RevisionReplacedError:
            reporter.note("the server has replaced the dataset meanwhile; asking again")
            return await current()


async def _obtain(
    http: Http,
    request: DatasetRequest,
    reporter: Reporter,
    watch: Watch,
    tell: Callable[[Event], None],
    pace: Pace | None,
    on_file: OnFile | None,
    *,
    is_known: bool,
) -> CachedDataset:
    """What the server offers now."""
    archive = await _published(http, request, reporter, watch, tell, is_known=is_known)
    return await fetch(http.settings, archive, Cache(http.settings.cache_dir), reporter, pace, on_file)


async def _published(
    http: Http,
    request: DatasetRequest,
    reporter: Reporter,
    watch: Watch,
    tell: Callable[[Event], None],
    *,
    is_known: bool,
) -> Archive:
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
    async with contextlib.aclosing(watch(request.topic_id)) as messages:
        await anext(messages)
        while True:
            answer = await _ask(http, request, patience_s=policy.reconnect_s)
            if answer.archive is not None:
                return answer.archive
            event = await follow(messages, attempt=answer.attempt, on_event=tell)
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
