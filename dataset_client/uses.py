"""Which datasets of a cache are open, and when each was used last: small files, by which eviction goes.

::

    <cache_dir>/uses/<stem>/last       its time of change is when the dataset was handed out last
    <cache_dir>/uses/<stem>/<owner>    that process has it open; gone when the process ends

Likewise ``<sha256>`` in the place of ``<stem>`` for a shard that is read before its dataset is installed (shards.py).

A mark counts for as long as its owner may live (`workspace`): an owner touches his marks every ten minutes, and one of
which nothing was heard for a day is taken for dead. In a cache that cannot be written there are no marks, and nobody
who could evict anything.
"""

import atexit
import contextlib
import os
import threading
from collections import Counter
from pathlib import Path

from dataset_client.manifest import sidecar_of
from dataset_client.workspace import is_dead, new_owner_name

_TOUCH_EVERY_S = 600.0
_SILENT_AFTER_S = 24 * 3600.0
_LAST = "last"

_lock = threading.Lock()
_held: dict[Path, Path] = {}  # the marks of this process, by dataset
_holders = Counter[Path]()  # how many of this process have it open
_pid = 0  # the process whose marks these are: a fork has none of its own


def hold(dataset: Path) -> bool:
    """Note that this process has the ``dataset`` at that path open once more, and used it now, until as many times
    `release`. Nothing for one in no cache, which is False then.
    """
    is_in_cache = _is_in_cache(dataset)
    if is_in_cache:
        announce(dataset)
    return is_in_cache


def announce(path: Path) -> None:
    """`hold` for what is in a cache for sure, or will be there in a moment."""
    folder = _folder(path)
    with _lock, contextlib.suppress(OSError):
        _begin()
        _holders[path] += 1
        mark = _held.get(path)
        if mark is None or not mark.exists():
            mark = _held[path] = folder / new_owner_name()
            _touch(mark)
            for other in list(folder.iterdir()):
                if is_dead(other.name):  # who was killed could not remove his
                    other.unlink(missing_ok=True)
        _touch(folder / _LAST)


def release(dataset: Path) -> None:
    """Note that one of those in this process who have it open has not any more."""
    with _lock, contextlib.suppress(OSError):
        if _pid != os.getpid():
            return
        _holders[dataset] -= 1
        if _holders[dataset] <= 0:
            del _holders[dataset]
            _remove_mark(dataset)


def _remove_mark(dataset: Path) -> None:
    if mark := _held.pop(dataset, None):
        mark.unlink(missing_ok=True)
        if not dataset.exists():  # it never came, or was removed by force
            (mark.parent / _LAST).unlink(missing_ok=True)
            mark.parent.rmdir()


def is_held(dataset: Path, now: float) -> bool:
    """Whether any process has it open; ``now`` is the file system's time."""
    with contextlib.suppress(OSError):
        return any(_counts(mark, now) for mark in list(_folder(dataset).iterdir()))
    return False


def last_used(dataset: Path) -> float:
    """When it was used last, by the file system's clock; when it was installed, if it never was. Raises `OSError`."""
    try:
        return (_folder(dataset) / _LAST).stat().st_mtime
    except OSError:
        return sidecar_of(dataset).stat().st_mtime


def forget(dataset: Path, now: float) -> None:
    """Remove what was noted of a dataset that is gone, as of ``now``; who has it open still, or fetches it again
    already, keeps his mark.
    """
    with contextlib.suppress(OSError):
        for mark in list(_folder(dataset).iterdir()):
            if not _counts(mark, now):
                mark.unlink(missing_ok=True)
        _folder(dataset).rmdir()


def forget_absent(root: Path, now: float) -> None:
    """`forget` what is not in the cache in ``root`` and nobody is about to put there: who was killed before it came has
    left his mark.
    """
    with contextlib.suppress(OSError):
        for folder in list((root / "uses").iterdir()):
            dataset, shard = root / "datasets" / folder.name, root / "shards" / folder.name
            is_there = dataset.exists() or sidecar_of(dataset).exists() or shard.exists()
            if not is_there and not is_held(dataset, now):
                forget(dataset, now)


def _counts(mark: Path, now: float) -> bool:
    """Whether a file says that somebody has the dataset open."""
    if mark.name == _LAST or is_dead(mark.name):
        return False
    try:
        return now - mark.stat().st_mtime < _SILENT_AFTER_S
    except OSError:
        return False


def _touch(mark: Path) -> None:
    """Make it, or renew its time; its folder may be removed by who forgets the dataset in this moment."""
    for _ in range(3):
        mark.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            mark.touch()
            return


def _is_in_cache(dataset: Path) -> bool:
    """Whether it is there; who evicts takes its sidecar away for a moment, to see whether anybody has it open."""
    is_of_a_cache = dataset.parent.name == "datasets" and (dataset.parent.parent / "downloads").is_dir()
    return sidecar_of(dataset).exists() or (is_of_a_cache and dataset.is_dir())


def _folder(dataset: Path) -> Path:
    return dataset.parent.parent / "uses" / dataset.name


def _begin() -> None:
    """Once in each process: have the marks touched now and then, and removed in the end."""
    global _pid
    if _pid == os.getpid():
        return
    _pid = os.getpid()
    _held.clear()
    _holders.clear()
    atexit.register(_release_all)
    threading.Thread(target=_touch_all, name="dataset-client-marks", daemon=True).start()


def _touch_all() -> None:
    while not threading.Event().wait(_TOUCH_EVERY_S):
        with _lock:
            for mark in _held.values():
                with contextlib.suppress(OSError):
                    os.utime(mark)


def _release_all() -> None:
    with _lock:
        for dataset in list(_held) if _pid == os.getpid() else ():
            with contextlib.suppress(OSError):
                _remove_mark(dataset)
