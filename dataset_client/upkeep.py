"""Looking after a cache: what is in it and how large that is, whether it is right, and what goes to make room."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dataset_client.cache import Cache, read_note, revision_of
from dataset_client.claim import remove_stale
from dataset_client.errors import CacheError, NotCachedError
from dataset_client.eviction import Entry, choose
from dataset_client.manifest import content_fault, find_faults, recorded_members, sidecar_of
from dataset_client.uses import forget, is_held, last_used
from dataset_client.workspace import ABANDONED_AFTER_S, cache_errors, file_system_time, move, new_owner_name


def usage(cache: Cache) -> list[Entry]:
    """All datasets, damaged ones too, by name."""
    now = _time(cache)
    found = list[tuple[float, Entry]]()
    for path in cache.paths():
        with contextlib.suppress(OSError):
            revision = revision_of(read_note(sidecar_of(path)))
            if revision is not None:
                entry = Entry(
                    revision.dataset_id,
                    revision.sha256,
                    path,
                    _size_of(path),
                    last_used(path),
                    is_held(path, now),
                    superseded=False,
                )
                found.append((sidecar_of(path).stat().st_mtime, entry))
    latest = dict[str, float]()
    for installed, entry in found:
        latest[entry.dataset_id] = max(installed, latest.get(entry.dataset_id, installed))
    return [replace(entry, superseded=installed < latest[entry.dataset_id]) for installed, entry in found]


def verify(cache: Cache, which: Path | str | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Hash every file of one dataset, given by its path or that path's name, or of all, again; yields each with what is
    wrong with it.

    Raises `NotCachedError` if there is no such dataset.
    """
    paths = [path for path in cache.paths() if which is None or path.name == Path(which).name]
    if which is not None and not paths:
        raise NotCachedError(f"no dataset in {cache.root} has the name {Path(which).name}")
    for path in paths:
        try:
            members = recorded_members(read_note(sidecar_of(path)))
        except ValueError as error:
            yield path, [str(error)]
            continue
        faults = [fault for member in members if (fault := content_fault(path, member))]
        yield path, faults or find_faults(path, members)


def remove(cache: Cache, which: Path | str, *, force: bool = False) -> int:
    """Remove a dataset, given by its path or that path's name, and return how many bytes it had.

    Raises `NotCachedError`, and `CacheError` with the code ``in_use`` if a process has it open, unless ``force``.
    """
    name = Path(which).name
    entry = next((entry for entry in usage(cache) if entry.path.name == name), None)
    if entry is None:
        raise NotCachedError(f"no dataset in {cache.root} has the name {name}", remedy="dataset-client ls lists all.")
    if not _evict(cache, entry, force=force):
        raise CacheError(
            f"{name} is open in another process",
            code="in_use",
            remedy="Remove it when that has ended, or with force=True (--force).",
        )
    return entry.bytes


def collect(cache: Cache, limit: int | None = None, *, dry_run: bool = False) -> list[Entry]:
    """Remove what is of no use any more – revisions that a later one has taken the place of, and what interrupted
    runs have left – and then, what was not used for longest, until the rest has ``limit`` bytes at the most.

    Nothing goes that a process has open. Returns the datasets that went, or with ``dry_run`` would go.
    """
    entries = usage(cache)
    old = choose(entries, sum(entry.bytes for entry in entries), superseded_only=True)
    rest = [entry for entry in entries if entry not in old]
    over = 0 if limit is None else sum(entry.bytes for entry in rest) - limit
    chosen = [*old, *choose(rest, over)]
    if dry_run:
        return chosen
    cache.prepare()
    remove_stale(cache.downloads, cache.scratch)
    _remove_orphans(cache)
    return [entry for entry in chosen if _evict(cache, entry)]


def make_room(cache: Cache, size: int, missing: int, limit: int | None) -> None:
    """Have room for a dataset of ``size`` bytes within ``limit``, and for the ``missing`` ones of them on the disk,
    as far as old revisions give some.

    Raises `CacheError` with the code ``cache_limit`` if what is open and what is asked for exceed the limit.
    """
    entries = usage(cache)
    used = sum(entry.bytes for entry in entries)
    with cache_errors(cache.root):
        lacking = missing - shutil.disk_usage(cache.root).free
    over = 0 if limit is None else used + size - limit
    chosen = choose(entries, over)
    if over > sum(entry.bytes for entry in chosen):
        raise CacheError(
            f"{size / 1e9:.2f} GB more do not fit in the cache's limit of {(limit or 0) / 1e9:.2f} GB",
            code="cache_limit",
            remedy="Raise cache_limit (DATASET_CACHE_LIMIT), or end what has other datasets open.",
        )
    chosen += choose([entry for entry in entries if entry not in chosen], lacking, superseded_only=True)
    for entry in chosen:
        _evict(cache, entry)


def _evict(cache: Cache, entry: Entry, *, force: bool = False) -> bool:
    """Remove a dataset; False if somebody has it open. It is gone at once, and its files soon after."""
    sidecar, aside = sidecar_of(entry.path), cache.scratch / new_owner_name()
    with cache_errors(cache.root):
        cache.scratch.mkdir(parents=True, exist_ok=True)
        try:
            move(sidecar, aside)  # from now on nobody finds it, and who has found it before holds it
        except FileNotFoundError:
            return False
        if not force and is_held(entry.path, _time(cache)):
            move(aside, sidecar)
            return False
        trash = cache.scratch / new_owner_name()
        with contextlib.suppress(FileNotFoundError):
            move(entry.path, trash)
        aside.unlink()
    forget(entry.path)
    shutil.rmtree(trash, ignore_errors=True)
    return True


def _remove_orphans(cache: Cache) -> None:
    """Remove directories without a sidecar, which who was killed while he installed or removed one has left; after a
    day, as somebody may be about to write it.
    """
    now, known = _time(cache), {path.name for path in cache.paths()}
    for path in list(cache.datasets.iterdir()):
        with contextlib.suppress(OSError):
            is_installed = path.name in known or sidecar_of(path).exists()
            is_old = now - path.stat().st_ctime > ABANDONED_AFTER_S
            # who evicts one that is open takes its sidecar away for a moment
            if path.is_dir() and not is_installed and is_old and not is_held(path, now):
                trash = cache.scratch / new_owner_name()
                move(path, trash)
                shutil.rmtree(trash, ignore_errors=True)


def _time(cache: Cache) -> float:
    try:
        return file_system_time(cache.scratch)
    except OSError:
        return time.time()  # of a cache that cannot be written, where nothing depends on it


def _size_of(directory: Path) -> int:
    """The bytes of a directory's files; 0 if it is gone."""
    try:
        return sum(file.stat().st_size for file in directory.iterdir())
    except OSError:
        return 0
