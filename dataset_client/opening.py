"""Open a dataset that is here, without any network."""

import os
import threading
from pathlib import Path

from dataset_client.cache import Cache, installed_at
from dataset_client.dataset import Dataset
from dataset_client.errors import NotCachedError
from dataset_client.manifest import MANIFEST_FILE
from dataset_client.request import DatasetRequest
from dataset_client.settings import resolve_cache_dir


def open_dataset(dataset: str | os.PathLike[str], *, cache_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Open a dataset that is here: the path of an unpacked archive, a cached dataset's id, or the beginning
    of one.

    Of several revisions of a dataset it is the one that came last. Its `config` is the effective one of the
    manifest, which holds no reader-only options. Raises `NotCachedError` if there is none or if datasets with
    different ids begin so, and `IntegrityError` if its files are incomplete.
    """
    if (Path(dataset) / MANIFEST_FILE).is_file():  # any other directory may have the name of a dataset by chance
        path = Path(dataset)
    else:
        found = find_cached(dataset, Cache(resolve_cache_dir(cache_dir)))
        path = max(found, key=installed_at)
    return Dataset.open(path)


def find_cached(dataset: str | os.PathLike[str], cache: Cache) -> list[Path]:
    """The revisions in ``cache`` of the dataset with this path, name or id, or whose id begins so.

    Raises `NotCachedError` if there is none, or if datasets with different ids begin so.
    """
    given = Path(dataset).absolute()
    if given.parent == cache.datasets and given in cache.paths():
        return [given]
    prefix = str(dataset).removesuffix(".zip")
    if not prefix:
        raise NotCachedError("no dataset has an empty name", remedy="Name one by its id, or by the beginning of it.")
    found = [path for path in cache.paths() if path.name.startswith(prefix)]
    if not found:
        raise NotCachedError(
            f"no dataset in {cache.root} begins with {prefix!r}, and no directory of this name holds a {MANIFEST_FILE}"
        )
    if len({path.name.rpartition("-")[0] for path in found}) > 1:  # the rest of the name is the revision
        names = "\n".join(f"  {path}" for path in found)
        problem = f"{prefix!r} is the beginning of several datasets:\n{names}"
        raise NotCachedError(problem, remedy="Name one by its path.")
    return found


def open_offline(stop: threading.Event, request: DatasetRequest, cache: Cache) -> Dataset:
    """What answered ``request`` the last time, in use by this process from now on.

    Raises `NotCachedError`, and `StoppedError` once ``stop`` is set.
    """
    cached = cache.take_for(request, stop)
    if cached is None:
        raise NotCachedError(f"no complete answer to {request.topic_id} is in {cache.root}")
    return Dataset(cached.path, cached.manifest, request.config)
