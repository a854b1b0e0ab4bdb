"""Looking after a cache: what is in it and how large that is, whether it is right, and what goes to make room."""

from collections.abc import Iterator
from pathlib import Path

from dataset_client.cache import Cache, read_note
from dataset_client.claim import remove_stale
from dataset_client.errors import CacheError, NotCachedError
from dataset_client.eviction import Entry, choose
from dataset_client.manifest import content_fault, find_faults, recorded_members, sidecar_of
from dataset_client.room import datasets, evict, holdings, is_evicted, time_of
from dataset_client.shards import remove_old
from dataset_client.uses import forget_absent


def usage(cache: Cache) -> list[Entry]:
    """All that takes room, as `room.holdings`."""
    return holdings(cache)


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
    """Remove a dataset, given by its path or that path's name, and return how many bytes it had. One that somebody else
    removes meanwhile is removed.

    Raises `NotCachedError`, and `CacheError` with the code ``in_use`` if a process has it open, unless ``force``.
    """
    name = Path(which).name
    entry = next((entry for entry in datasets(cache, time_of(cache)) if entry.path.name == name), None)
    if entry is None:
        raise NotCachedError(f"no dataset in {cache.root} has the name {name}", remedy="dataset-client ls lists all.")
    if not evict(cache, entry, force=force):
        raise CacheError(
            f"{name} is open in another process",
            code="in_use",
            remedy="Remove it when that has ended, or with force=True (--force).",
        )
    return entry.bytes


def collect(cache: Cache, limit: int | None = None, *, dry_run: bool = False) -> list[Entry]:
    """Remove what is of no use any more – revisions that a later one has taken the place of, shards without their
    datasets, downloads that nobody went on with for a week, and halves of datasets that were left a day ago – and then,
    what was not used for longest, until the rest has ``limit`` bytes at the most.

    Nothing goes that a process has open or is fetching. Returns what of `usage` went, or with ``dry_run`` would go.
    """
    entries = holdings(cache)
    total = sum(entry.bytes for entry in entries)
    old = choose(entries, total + 1, superseded_only=True)  # all of them, those without bytes too
    rest = [entry for entry in entries if entry not in old]
    over = 0 if limit is None else sum(entry.bytes for entry in rest) - limit
    chosen = [*old, *choose(rest, over)]
    if dry_run:
        return chosen
    cache.prepare()
    remove_stale(cache.downloads, cache.scratch)
    remove_old(cache.shards, cache.scratch, time_of(cache))
    forget_absent(cache.root, time_of(cache))
    return [entry for entry in chosen if is_evicted(cache, entry)]
