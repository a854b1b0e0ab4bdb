"""What takes room in a cache, and how there comes to be some: within a limit, and on the disk."""

import contextlib
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

from dataset_client.backoff import random_jitter
from dataset_client.cache import Cache, installed_at, read_note, revision_of
from dataset_client.claim import STALE_AFTER_S, Work, begun, remove_ended
from dataset_client.concurrency import check_stop
from dataset_client.errors import CacheError
from dataset_client.eviction import Entry, choose
from dataset_client.manifest import recorded_members, sidecar_of
from dataset_client.shards import lone_shards, remove_lone
from dataset_client.uses import forget, is_held, last_used
from dataset_client.workspace import ABANDONED_AFTER_S, cache_errors, file_system_time, move, new_owner_name

#: Seconds, of which each who is refused for another who asks at the same moment waits a part before he asks again.
_PAUSES_S = (0.1, 0.2, 0.4, 0.8)


def holdings(cache: Cache) -> list[Entry]:
    """All that takes room: datasets, damaged ones too, by name; directories without a sidecar; what is being fetched,
    with the bytes that it will have, and what was left in the middle; and the shards that are here without their
    datasets, those that are open and those that are not.
    """
    now = time_of(cache)
    return [*datasets(cache, now), *_orphans(cache, now), *_begun(cache, now), *_lone(cache, now)]


def datasets(cache: Cache, now: float) -> list[Entry]:
    """All datasets, damaged ones too, by name."""
    found = list[tuple[float, Entry]]()
    for path in cache.paths():
        with contextlib.suppress(OSError):
            fields = read_note(sidecar_of(path))
            revision = revision_of(fields)
            if revision is not None:
                used, held = last_used(path), is_held(path, now)
                id_, sha256 = revision.dataset_id, revision.sha256
                entry = Entry(id_, sha256, path, _size_of(path), used, held, superseded=False)
                found.append((installed_at(path, fields), entry))
    latest = dict[str, float]()
    for installed, entry in found:
        latest[entry.dataset_id] = max(installed, latest.get(entry.dataset_id, installed))
    return [replace(entry, superseded=installed < latest[entry.dataset_id]) for installed, entry in found]


def reserve(cache: Cache, work: Work, size: int, missing: int, limit: int | None, stop: threading.Event) -> None:
    """`make_room` for what ``work`` fetches, of whose ``size`` bytes others know from now on.

    Each says first what he will take and asks then, so that never two are let in where one has room. Both may be
    refused: then each takes back what he said, and asks again after a while of his own.
    """
    for pause in (*_PAUSES_S, None):
        work.announce(size - missing, size)
        try:
            make_room(cache, size, missing, limit, own=work.path.parent, stop=stop)
        except CacheError as error:
            work.announce(0, 0)
            others = [entry for entry in _begun(cache, time_of(cache)) if entry.path != work.path.parent]
            if pause is None or error.code != "cache_limit" or not any(entry.in_use for entry in others):
                raise
        else:
            return
        stop.wait(pause * random_jitter())
        check_stop(stop)


def make_room(
    cache: Cache,
    size: int,
    missing: int,
    limit: int | None,
    own: Path | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Have room for a dataset of ``size`` bytes within ``limit``, and for the ``missing`` ones of them on the disk,
    as far as old revisions and shards without datasets give some. What is in the folder ``own`` does not count.

    Raises `CacheError` with the code ``cache_limit`` if what is open, what is being fetched and what is asked for
    exceed the limit, and `StoppedError` once ``stop`` is set.
    """
    stays = set[Path]()
    while True:
        if stop is not None:
            check_stop(stop)
        with cache_errors(cache.root):
            lacking = missing - shutil.disk_usage(cache.root).free
        if limit is None and lacking <= 0:  # nothing need be looked at
            return
        entries = [entry for entry in holdings(cache) if entry.path != own]
        entries = [replace(entry, in_use=entry.in_use or entry.path in stays) for entry in entries]
        over = 0 if limit is None else sum(entry.bytes for entry in entries) + size - limit
        chosen = choose(entries, over)
        if over > sum(entry.bytes for entry in chosen):
            raise CacheError(
                f"{size / 1e9:.2f} GB more do not fit in the cache's limit of {(limit or 0) / 1e9:.2f} GB",
                code="cache_limit",
                remedy="Raise cache_limit (DATASET_CACHE_LIMIT), or end what has other datasets open or fetches them.",
            )
        chosen += choose([entry for entry in entries if entry not in chosen], lacking, superseded_only=True)
        if not chosen:
            return
        stays |= {entry.path for entry in chosen if not is_evicted(cache, entry)}


def evict(cache: Cache, entry: Entry, *, force: bool = False) -> bool:
    """Remove something that takes room, of the shards what nobody has open; False if somebody has it open, or some of
    the rest. It is gone at once, and its files soon after.
    """
    with cache_errors(cache.root):
        cache.scratch.mkdir(parents=True, exist_ok=True)
    if entry.path == cache.shards:
        now = time_of(cache)
        free = [shard.path for shard in lone_shards(cache.shards, now) if not shard.in_use]
        return remove_lone(free, cache.scratch, now)
    if entry.path.parent == cache.downloads:
        remove_ended(entry.path, cache.scratch)
        return not entry.path.exists()
    if not entry.sha256:
        return _remove_orphan(cache, entry.path)
    return _evict_dataset(cache, entry.path, force=force)


def is_evicted(cache: Cache, entry: Entry) -> bool:
    """`evict`; False also for what cannot be removed, another user's for example: others may go in its place."""
    try:
        return evict(cache, entry)
    except CacheError:
        return False


def _evict_dataset(cache: Cache, path: Path, *, force: bool) -> bool:
    sidecar, aside = sidecar_of(path), cache.scratch / new_owner_name()
    with cache_errors(cache.root):
        try:
            move(sidecar, aside)  # from now on nobody finds it, and who has found it before holds it
        except FileNotFoundError:
            return True  # somebody else has removed it
        now = time_of(cache)
        if not force and is_held(path, now):
            move(aside, sidecar)
            return False
        members = []
        with contextlib.suppress(ValueError):
            members = [cache.shards / member.sha256 for member in recorded_members(read_note(aside))]
        trash = cache.scratch / new_owner_name()
        try:
            move(path, trash)
        except FileNotFoundError:  # it was damaged
            pass
        except OSError:  # another user's, for example
            move(aside, sidecar)
            raise
        aside.unlink(missing_ok=True)
    forget(path, now)
    shutil.rmtree(trash, ignore_errors=True)
    remove_lone(members, cache.scratch, now)
    return True


def _remove_orphan(cache: Cache, path: Path) -> bool:
    trash, now = cache.scratch / new_owner_name(), time_of(cache)
    # who evicts one that is open takes its sidecar away for a moment
    if sidecar_of(path).exists() or is_held(path, now):
        return False
    with contextlib.suppress(OSError):
        move(path, trash)
        if is_held(path, now):  # somebody is about to install it, or has just opened it
            move(trash, path)
        else:
            shutil.rmtree(trash, ignore_errors=True)
    return not path.exists()


def time_of(cache: Cache) -> float:
    """What time it is by the clock of the cache's file system; by ours where the cache cannot be written, and nothing
    depends on it.
    """
    try:
        return file_system_time(cache.scratch)
    except OSError:
        return time.time()


def _orphans(cache: Cache, now: float) -> list[Entry]:
    """Directories without a sidecar, which who was killed while he installed or removed one has left: of no use after a
    day, as somebody may be about to write it.
    """
    entries = []
    with contextlib.suppress(OSError):
        for path in sorted(cache.datasets.iterdir()):
            with contextlib.suppress(OSError):
                came = path.stat().st_ctime
                if now - came > ABANDONED_AFTER_S and path.is_dir() and not sidecar_of(path).exists():
                    entries.append(Entry("", "", path, _size_of(path), came, is_held(path, now), superseded=True))
    return entries


def _begun(cache: Cache, now: float) -> list[Entry]:
    """What is being fetched, and what was left in the middle; of no use after a week."""
    return [
        Entry(container.name, "", container, size, heard, in_use, superseded=now - heard > STALE_AFTER_S)
        for container, size, heard, in_use in begun(cache.downloads, now)
    ]


def _lone(cache: Cache, now: float) -> list[Entry]:
    entries, shards = [], lone_shards(cache.shards, now)
    for in_use in (True, False):
        if found := [shard for shard in shards if shard.in_use is in_use]:
            size, came = sum(shard.bytes for shard in found), max(shard.came for shard in found)
            entries.append(Entry("", "", cache.shards, size, came, in_use, superseded=not in_use))
    return entries


def _size_of(directory: Path) -> int:
    """The bytes of a directory's files; 0 if it is gone."""
    try:
        return sum(file.stat().st_size for file in directory.iterdir())
    except OSError:
        return 0
