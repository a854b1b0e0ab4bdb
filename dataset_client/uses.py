"""Which datasets of a cache are open, and when each was used last: small files, by which eviction goes.

::

    <cache_dir>/uses/<stem>/last       its time of change is when the dataset was handed out last
    <cache_dir>/uses/<stem>/<owner>    that process has it open; gone when the process ends

A mark counts for as long as its owner may live (`workspace`): an owner touches his marks every ten minutes, and one of
which nothing was heard for a day is taken for dead. In a cache that cannot be written there are no marks, and nobody
who could evict anything.
"""

import atexit
import contextlib
import os
import threading
from pathlib import Path

from dataset_client.manifest import sidecar_of
from dataset_client.workspace import is_dead, new_owner_name

_TOUCH_EVERY_S = 600.0
_SILENT_AFTER_S = 24 * 3600.0
_LAST = "last"

_lock = threading.Lock()
_held: dict[Path, Path] = {}  # the marks of this process, by dataset
_pid = 0  # the process whose marks these are: a fork has none of its own


def hold(dataset: Path) -> None:
    """Note that this process has the ``dataset`` at that path open, and used it now. Nothing for one in no cache."""
    if not _is_in_cache(dataset):
        return
    folder = _folder(dataset)
    with _lock, contextlib.suppress(OSError):
        _begin()
        mark = _held.get(dataset)
        folder.mkdir(parents=True, exist_ok=True)
        if mark is None or not mark.exists():
            mark = _held[dataset] = folder / new_owner_name()
            mark.touch()
            for other in list(folder.iterdir()):
                if is_dead(other.name):  # who was killed could not remove his
                    other.unlink(missing_ok=True)
        (folder / _LAST).touch()


def release(dataset: Path) -> None:
    """Note that this process has it open no more."""
    with _lock, contextlib.suppress(OSError):
        if _pid == os.getpid() and (mark := _held.pop(dataset, None)):
            mark.unlink()


def is_held(dataset: Path, now: float) -> bool:
    """Whether any process has it open; ``now`` is the file system's time."""
    with contextlib.suppress(OSError):
        for mark in _folder(dataset).iterdir():
            with contextlib.suppress(OSError):
                if mark.name == _LAST or is_dead(mark.name):
                    continue
                if now - mark.stat().st_mtime < _SILENT_AFTER_S:
                    return True
    return False


def last_used(dataset: Path) -> float:
    """When it was used last, by the file system's clock; when it was installed, if it never was. Raises `OSError`."""
    try:
        return (_folder(dataset) / _LAST).stat().st_mtime
    except OSError:
        return sidecar_of(dataset).stat().st_mtime


def forget(dataset: Path) -> None:
    """Remove what was noted of a dataset that is gone."""
    with contextlib.suppress(OSError):
        for mark in list(_folder(dataset).iterdir()):
            mark.unlink(missing_ok=True)
        _folder(dataset).rmdir()


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
    atexit.register(_release_all)
    threading.Thread(target=_touch_all, name="dataset-client-marks", daemon=True).start()


def _touch_all() -> None:
    while not threading.Event().wait(_TOUCH_EVERY_S):
        with _lock:
            for mark in _held.values():
                with contextlib.suppress(OSError):
                    os.utime(mark)


def _release_all() -> None:
    for dataset in list(_held):
        release(dataset)
