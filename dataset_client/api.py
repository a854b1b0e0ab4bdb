"""What callers call: ask for a dataset, or open one that is here."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataset_client.cache import Cache
from dataset_client.concurrency import run_sync
from dataset_client.dataset import Dataset
from dataset_client.errors import NotCachedError
from dataset_client.manifest import MANIFEST_FILE, sidecar_of
from dataset_client.progress import make_reporter
from dataset_client.request import DatasetRequest, check_timeout, make_request
from dataset_client.settings import resolve_cache_dir, resolve_settings
from dataset_client.wait import bounded


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
) -> Dataset:
    """Ask the server for a dataset, wait until it is built, download and verify it, and return it.

    Equal requests share one build on the server and one copy in the cache; the second call costs one small
    POST.

    ``dataset_name`` and ``handler_version`` say which handler makes it; ``dataset_config`` holds its
    options, in the types of JSON. ``server_url``, ``token`` and ``cache_dir`` default to the environment's
    (see `settings`). ``timeout`` bounds the whole call, in seconds; None waits without end. ``offline``
    takes what answered an equal request before, without any network. Works in a script and in a notebook,
    where the notebook's loop stands still meanwhile; in async code use `request_dataset_async`.

    Raises a `DatasetClientError`: the tree in `errors` says which and when. Ctrl-C ends the waiting, not
    the build.
    """
    try:
        return run_sync(
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
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "Interrupted. A build that was asked for goes on at the server; asking again picks it up."
        ) from None


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
    if offline:
        return _open_offline(request, Cache(settings.cache_dir))
    from dataset_client.online import (
        obtain,
    )  # requests and websockets cost 0.3 s, which offline use need not pay

    reporter = make_reporter(progress)
    try:
        async with bounded(timeout, request.topic_id):
            cached = await obtain(request, settings, reporter)
    finally:
        reporter.close()
    return Dataset(cached.path, cached.manifest, request.config)


def open_dataset(dataset: str | os.PathLike[str], *, cache_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Open a dataset that is here: the path of an unpacked archive, a cached dataset's id, or the beginning
    of one.

    Of several revisions of a dataset it is the one that came last. Its `config` is the effective one of the
    manifest, which holds no reader-only options. Raises `NotCachedError` if there is none or if datasets with
    different ids begin so, and `IntegrityError` if its files are incomplete.
    """
    if (Path(dataset) / MANIFEST_FILE).is_file():  # any other directory may have the name of a dataset by chance
        return Dataset.open(Path(dataset))
    prefix = str(dataset).removesuffix(".zip")
    cache = Cache(resolve_cache_dir(cache_dir))
    found = [path for path in cache.paths() if path.name.startswith(prefix)]
    if not found:
        raise NotCachedError(
            f"no dataset in {cache.root} begins with {prefix!r}, and no directory of this name holds a {MANIFEST_FILE}"
        )
    if len({path.name.rpartition("-")[0] for path in found}) == 1:  # the rest of the name is the revision
        return Dataset.open(max(found, key=lambda path: sidecar_of(path).stat().st_mtime_ns))
    names = "\n".join(f"  {path}" for path in found)
    raise NotCachedError(f"{prefix!r} is the beginning of several datasets:\n{names}", remedy="Name one by its path.")


def _open_offline(request: DatasetRequest, cache: Cache) -> Dataset:
    cached = cache.find_for(request)
    if cached is None:
        raise NotCachedError(f"no complete answer to {request.topic_id} is in {cache.root}")
    return Dataset(cached.path, cached.manifest, request.config)
