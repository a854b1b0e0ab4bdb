"""What callers call: ask for datasets, or fetch one by its id."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from dataset_client.cache import Cache
from dataset_client.concurrency import in_thread, run_sync
from dataset_client.dataset import Dataset
from dataset_client.errors import DatasetClientError, InvalidRequestError, InvalidSettingError, SomeFailedError
from dataset_client.opening import open_offline
from dataset_client.progress import Reporter, make_reporter, short_labels
from dataset_client.protocol import ID_PATTERN
from dataset_client.request import DatasetRequest, check_timeout, make_request
from dataset_client.settings import Settings, resolve_settings
from dataset_client.wait import Watch, bounded, sharing

if TYPE_CHECKING:
    from dataset_client.stream import DatasetStream

T = TypeVar("T")


@overload
def request_dataset(
    dataset_name: str,
    handler_version: str,
    dataset_config: Mapping[str, Any],
    *,
    server_url: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
    timeout: float | None = None,
    progress: bool = True,
    offline: bool = False,
    stream: Literal[False] = False,
) -> Dataset: ...
@overload
def request_dataset(
    dataset_name: str,
    handler_version: str,
    dataset_config: Mapping[str, Any],
    *,
    server_url: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
    progress: bool = True,
    stream: Literal[True],
) -> "DatasetStream": ...
def request_dataset(
    dataset_name: str,
    handler_version: str,
    dataset_config: Mapping[str, Any],
    *,
    server_url: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
    timeout: float | None = None,
    progress: bool = True,
    offline: bool = False,
    stream: bool = False,
) -> "Dataset | DatasetStream":
    """Ask the server for a dataset, wait until it is built, download and verify it, and return it.

    Equal requests share one build on the server and one copy in the cache; the second call costs one small
    POST.

    ``dataset_name`` and ``handler_version`` say which handler makes it; ``dataset_config`` holds its
    options, in the types of JSON. ``server_url``, ``token`` and ``cache_dir`` default to the environment's, then to
    the settings file's (see `settings`). ``timeout`` bounds the whole call, in seconds; None waits without end.
    ``offline`` takes what answered an equal request before, without any network. Works in a script and in a notebook,
    where the notebook's loop stands still meanwhile; in async code use `request_dataset_async`.

    With ``stream`` the call returns at once: the readers of what it returns begin with the first shard that is sealed,
    and go on through the build (see `DatasetStream`); they raise what this would have raised. ``timeout`` and
    ``offline`` do not go with it.

    Raises a `DatasetClientError`: the tree in `errors` says which and when. Ctrl-C ends the waiting, not
    the build.
    """
    if stream:
        if timeout is not None or offline:
            raise InvalidSettingError(
                "a stream has no timeout, and is not offline", remedy="Give dataset() of the stream a timeout instead."
            )
        request = make_request(dataset_name, handler_version, dataset_config)
        settings = resolve_settings(server_url=server_url, cache_dir=cache_dir, token=token)
        from dataset_client.streaming import start

        return start(request, settings, make_reporter(progress))
    return _run(
        lambda: request_dataset_async(
            dataset_name,
            handler_version,
            dataset_config,
            server_url=server_url,
            cache_dir=cache_dir,
            token=token,
            timeout=timeout,
            progress=progress,
            offline=offline,
        )
    )


async def request_dataset_async(
    dataset_name: str,
    handler_version: str,
    dataset_config: Mapping[str, Any],
    *,
    server_url: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
    timeout: float | None = None,
    progress: bool = True,
    offline: bool = False,
) -> Dataset:
    """`request_dataset` for async code: the loop stays free. Cancelling it leaves the build running."""
    request = make_request(dataset_name, handler_version, dataset_config)
    check_timeout(timeout)
    settings = resolve_settings(server_url=server_url, cache_dir=cache_dir, token=token)
    reporter = make_reporter(progress)
    async with sharing([request.topic_id], settings, reporter.note) as watch:
        return await _obtain(request, settings, reporter, watch, timeout=timeout, offline=offline)


def request_datasets(
    requests: Iterable[DatasetRequest | tuple[str, str, Mapping[str, Any]]],
    *,
    server_url: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
    timeout: float | None = None,
    progress: bool = True,
    offline: bool = False,
) -> list[Dataset]:
    """`request_dataset` for several at once: all are asked for, one socket hears of all, and each is fetched when it
    is ready.

    A request is a tuple of name, version and config, or what `make_request` returns; the datasets come in the order of
    the requests. All are checked before the first is sent. One that fails does not stop the others: in the end
    `SomeFailedError` is raised, whose ``results`` has for each request its dataset or its error.
    """
    wanted = list(requests)
    return _run(
        lambda: request_datasets_async(
            wanted,
            server_url=server_url,
            cache_dir=cache_dir,
            token=token,
            timeout=timeout,
            progress=progress,
            offline=offline,
        )
    )


async def request_datasets_async(
    requests: Iterable[DatasetRequest | tuple[str, str, Mapping[str, Any]]],
    *,
    server_url: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
    timeout: float | None = None,
    progress: bool = True,
    offline: bool = False,
) -> list[Dataset]:
    """`request_datasets` for async code: the loop stays free. Cancelling it leaves the builds running."""
    wanted = [request if isinstance(request, DatasetRequest) else make_request(*request) for request in requests]
    check_timeout(timeout)
    settings = resolve_settings(server_url=server_url, cache_dir=cache_dir, token=token)
    unique = {request.topic_id: request for request in wanted}  # equal ones are asked for once
    labels = short_labels(unique)
    calls = {}
    note = make_reporter(progress).note
    async with sharing(unique, settings, note) as watch, asyncio.TaskGroup() as group:
        for row, (topic_id, request) in enumerate(unique.items()):
            reporter = make_reporter(progress, label=labels[topic_id], row=row)
            call = _obtain(request, settings, reporter, watch, timeout=timeout, offline=offline, share=len(unique))
            calls[topic_id] = group.create_task(_outcome(call))
    results = [calls[request.topic_id].result() for request in wanted]
    datasets = [result for result in results if isinstance(result, Dataset)]
    if len(datasets) < len(results):
        raise SomeFailedError(f"{len(results) - len(datasets)} of {len(results)} requests failed", results=results)
    return datasets


def pull_dataset(
    dataset_id: str,
    *,
    server_url: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | None = None,
    timeout: float | None = None,
    progress: bool = True,
) -> Dataset:
    """Fetch a dataset that the server has, by its id; one that is being made is waited for.

    Asks for no build, and needs no more rights than to read. Its ``config`` is the effective one. Raises
    `InvalidRequestError` for what is no dataset id, `ServerError` (404) for one that the server does not know, and what
    `request_dataset` raises.
    """
    return _run(
        lambda: _pull(
            dataset_id, server_url=server_url, cache_dir=cache_dir, token=token, timeout=timeout, progress=progress
        )
    )


async def _pull(
    dataset_id: str,
    *,
    server_url: str | None,
    cache_dir: str | os.PathLike[str] | None,
    token: str | None,
    timeout: float | None,
    progress: bool,
) -> Dataset:
    if not ID_PATTERN.fullmatch(dataset_id):
        raise InvalidRequestError(f"{dataset_id!r} is no dataset id", remedy="It reads <name>_<version>_<md5>.zip.")
    settings = resolve_settings(server_url=server_url, cache_dir=cache_dir, token=token)
    from dataset_client.online import pull

    reporter = make_reporter(progress)
    try:
        async with bounded(timeout, dataset_id):
            cached = await pull(dataset_id, settings, reporter)
    finally:
        reporter.close()
    return Dataset(cached.path, cached.manifest, dict(cached.manifest["config"]))


async def _obtain(
    request: DatasetRequest,
    settings: Settings,
    reporter: Reporter,
    watch: Watch,
    *,
    timeout: float | None,
    offline: bool,
    share: int = 1,
) -> Dataset:
    """One dataset, from the network or from the cache alone; ``share`` of them are got at the same time."""
    if offline:
        async with bounded(timeout, request.topic_id):
            return await in_thread(open_offline, request, Cache(settings.cache_dir))
    from dataset_client.online import obtain  # requests and websockets cost 0.3 s, which offline use need not pay
    from dataset_client.transfer import Pace

    pace = Pace(connections=max(2, Pace.connections // share))
    try:
        async with bounded(timeout, request.topic_id):
            cached = await obtain(request, settings, reporter, pace, watch)
    finally:
        reporter.close()
    return Dataset(cached.path, cached.manifest, request.config)


async def _outcome(call: Coroutine[Any, Any, Dataset]) -> Dataset | DatasetClientError:
    """The dataset or the error, which is not raised here."""
    try:
        return await call
    except DatasetClientError as error:
        return error


def _run(make_coroutine: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run it to its end; Ctrl-C says what becomes of the build."""
    try:
        return run_sync(make_coroutine)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "Interrupted. A build that was asked for goes on at the server; asking again picks it up."
        ) from None
