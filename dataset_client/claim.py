"""Who fetches a dataset into a cache that many processes share, on one machine or several: one, while others wait.

::

    <cache_dir>/downloads/<stem>/work.<owner>/beat          how far the owner is; its time of change says that he lives
    <cache_dir>/downloads/<stem>/work.<owner>/files/        the dataset's files in the making
    <cache_dir>/downloads/<stem>/work.<owner>/journal/      which bytes of them are there (workfile.py)
    <cache_dir>/downloads/<stem>/work.<owner>/tail          the end of the archive (contents.py)

Nothing is locked, as locks lie on network file systems; renames do not. ``<stem>`` appears by the rename of a directory
that holds the first work folder, which fails where there is one already; a work folder that is ``free``, because its
owner gave it up, or whose owner is dead, is claimed by renaming it. Of several such renames one finds its source.

An owner in this place (`workspace`) is dead when its process is; any owner is when he has not been heard for three
minutes by the file system's own clock, which is longer than NFS keeps a file's times in mind. Should he come back, he
finds that his folder is gone, and stops.
"""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dataset_client.concurrency import in_thread
from dataset_client.workspace import cache_errors, describe_owner, file_system_time, is_dead, move, new_owner_name

BEAT_EVERY_S = 5.0
SILENT_AFTER_S = 180.0
STALE_AFTER_S = 7 * 24 * 3600.0
#: Times that a container is looked at whose work folders are renamed meanwhile.
_LOOKS = 3
_FREE = "free-"


class LostError(Exception):
    """Somebody took our work folder for abandoned; never reaches the user."""


@dataclass(frozen=True)
class Holder:
    """Somebody else who fetches the dataset: who, for people, and how many of how many bytes he has."""

    name: str
    done: int
    total: int


class Work:
    """A work folder that is ours, until `give_up`, `discard` or somebody takes it for abandoned."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._progress = (0, 0)
        self._ended = threading.Event()

    @property
    def files(self) -> Path:
        """Where the dataset's files are made."""
        return self.path / "files"

    @property
    def journals(self) -> Path:
        """Where their journals are."""
        return self.path / "journal"

    @property
    def tail(self) -> Path:
        """Where the end of the archive is kept."""
        return self.path / "tail"

    def begin(self, on_loss: Callable[[], None]) -> None:
        """Let others hear that we live, from a thread; ``on_loss`` is called there if they did not hear it."""

        def beat() -> None:
            while not self._ended.wait(BEAT_EVERY_S):
                if not self.is_ours():
                    on_loss()
                    return

        threading.Thread(target=beat, name="dataset-client-beat", daemon=True).start()

    def is_ours(self) -> bool:
        """Whether it still is; says so, and how far we are, to the others."""
        done, total = self._progress
        try:
            # not made anew where it is missing: the folder may just be removed
            descriptor = os.open(self.path / "beat", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return self.path.is_dir()  # a full disk, for example, is no loss
        with contextlib.suppress(OSError):
            os.write(descriptor, json.dumps({"done": done, "total": total}).encode().ljust(64))
            os.utime(descriptor)
        os.close(descriptor)
        return True

    def progress(self, done: int, total: int) -> None:
        """What others hear the next time of how far we are."""
        self._progress = (done, total)

    def announce(self, done: int, total: int) -> None:
        """`progress` that others hear from now on."""
        self.progress(done, total)
        self.is_ours()

    def give_up(self) -> None:
        """Leave it to whoever goes on from here; nothing is left where nothing was fetched."""
        self._ended.set()
        if not any(self.files.glob("*")) and not self.tail.exists():
            self.discard()
            return
        with contextlib.suppress(OSError):
            self.path.rename(self.path.with_name(f"work.{_FREE}{secrets.token_hex(6)}"))

    def discard(self) -> None:
        """Remove what is left of it."""
        self._ended.set()
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()


async def claim(downloads: Path, scratch: Path, stem: str) -> Work | Holder:
    """`try_claim`; who is cancelled meanwhile leaves the claim to others."""
    claimed = list[Work | Holder]()
    try:
        await in_thread(lambda _: claimed.append(try_claim(downloads, scratch, stem)))
    except asyncio.CancelledError:
        for work in claimed:
            if isinstance(work, Work):
                work.give_up()
        raise
    return claimed[0]


def try_claim(downloads: Path, scratch: Path, stem: str) -> Work | Holder:
    """Become the one who fetches ``stem``, or learn who is. Raises `CacheError`."""
    container = downloads / stem
    own = f"work.{new_owner_name()}"
    with cache_errors(container):
        found = _folders(container)
        if not found:
            if _begin(container, scratch, own):
                return Work(container / own)
            found = _folders(container)
        now = file_system_time(scratch)
        for folder in found:
            with contextlib.suppress(FileNotFoundError):  # it was given up, or taken, in this moment
                if not _is_free(folder, now):
                    return _holder(folder)
        for folder in found:
            if _take(folder, container / own):
                return Work(container / own)
    return Holder("another process", 0, 0)  # he was faster


def begun(downloads: Path, now: float) -> list[tuple[Path, int, float, bool]]:
    """Of each dataset that was begun: the folder that its work folders are in, the bytes it takes, or will take as far
    as its owner has said, when that one was heard last, and whether he may live.
    """
    found = []
    with contextlib.suppress(OSError):
        for container in sorted(path for path in downloads.iterdir() if path.is_dir()):
            for _ in range(_LOOKS):
                with contextlib.suppress(OSError):
                    found.append(_look(container, now))
                    break
    return found


def _look(container: Path, now: float) -> tuple[Path, int, float, bool]:
    """One of `begun`; raises `OSError` where a work folder is renamed meanwhile, or the container is gone."""
    folders = _folders(container)
    living = [folder for folder in folders if not _is_free(folder, now)]
    size = max([sum(map(_bytes_in, folders)), *(_holder(folder).total for folder in living)])
    heard = max([container.stat().st_mtime, *map(_heard, folders)])
    return container, size, heard, bool(living)


def remove_ended(container: Path, scratch: Path) -> None:
    """Remove the work folders for a dataset that is complete by now, as far as nobody lives who has one."""
    with contextlib.suppress(OSError):
        if found := _folders(container):
            now = file_system_time(scratch)
            for folder in found:
                if _is_free(folder, now):
                    _remove(folder, scratch)
        elif container.is_dir():
            container.rmdir()


def remove_stale(downloads: Path, scratch: Path) -> int:
    """Remove work that nobody has continued for a week, as its archive has likely been replaced; returns its bytes."""
    removed = 0
    with contextlib.suppress(OSError):
        now = file_system_time(scratch)
        for folder in list(downloads.glob("*/work.*")):
            with contextlib.suppress(OSError):
                if _is_free(folder, now) and now - _heard(folder) > STALE_AFTER_S:
                    removed += _remove(folder, scratch)
        for part in list(downloads.glob("*.part")):  # of earlier versions
            with contextlib.suppress(OSError):
                if now - part.stat().st_mtime > STALE_AFTER_S:
                    removed += part.stat().st_size
                    part.unlink()
    return removed


def _remove(folder: Path, scratch: Path) -> int:
    trash = scratch / new_owner_name()
    move(folder, trash)
    size = _bytes_in(trash)
    shutil.rmtree(trash, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()
    return size


def _bytes_in(folder: Path) -> int:
    """What has arrived there. What has another name too counts in full: that name may be one among the shards, where
    it does not count (shards.py).
    """
    found = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            found += 0 if path.is_dir() else status.st_blocks * 512
    return found


def _folders(container: Path) -> list[Path]:
    try:
        return sorted(path for path in container.iterdir() if path.name.startswith("work."))
    except FileNotFoundError:
        return []


def _begin(container: Path, scratch: Path, own: str) -> bool:
    """Make the container with our work folder in it; False if there is one with somebody's."""
    nest = scratch / new_owner_name()
    (nest / own / "files").mkdir(parents=True)
    (nest / own / "journal").mkdir()
    (nest / own / "beat").touch()
    try:
        move(nest, container)
    except OSError:
        shutil.rmtree(nest, ignore_errors=True)
        if not container.is_dir():
            raise
    return (container / own).is_dir()


def _take(folder: Path, own: Path) -> bool:
    with contextlib.suppress(OSError):
        os.utime(folder / "beat")  # before it has our name, or it would look as silent as it was
    with contextlib.suppress(OSError):
        folder.rename(own)
    if not own.is_dir():  # over NFS a rename that was done can be answered as if it was not
        return False
    (own / "files").mkdir(exist_ok=True)  # which its owner has moved to their place, if he ended after that
    return True


def _is_free(folder: Path, now: float) -> bool:
    owner = folder.name.removeprefix("work.")
    return owner.startswith(_FREE) or is_dead(owner) or now - _heard(folder) > SILENT_AFTER_S


def _heard(folder: Path) -> float:
    """When its owner was heard last."""
    try:
        return (folder / "beat").stat().st_mtime
    except FileNotFoundError:
        return folder.stat().st_mtime


def _holder(folder: Path) -> Holder:
    done = total = 0
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        fields = json.loads((folder / "beat").read_bytes())
        done, total = int(fields["done"]), int(fields["total"])
    return Holder(describe_owner(folder.name.removeprefix("work.")), done, total)
