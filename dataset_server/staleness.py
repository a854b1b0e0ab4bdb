"""Whether raw data is still what a dataset was made of.

Beside each archive lies ``<archive>.sources.jsonl``, one JSON array a line, which says what its handler read::

    [path below the raw root, inode, mtime in ns, size, sha256]

It lists every file that planning and the shards read, and every folder above one of those, its path ending with ``/``:
a folder's sha256 is that of the names in it, since a photo that was added may belong into the dataset. Names that
begin with a dot do not count, nor do files beside the folders of the raw root.

A file whose inode, mtime and size are as they were is taken to hold what it held. Anything else is read again and
compared: what was only touched or copied back is no change. What such a reading finds goes into the ledger, so that no
other dataset of the same files has to read them, and into the list, so that this one has not to again.

The handler's own sha256 is believed for files that were at rest since before the build began, by mtime and ctime (the
clocks of the raw data's disk and of the server's are taken to agree; a time that lies ahead says that a clock was set
back, not that something changes). Of others it is not known which content the stat of now belongs to: they are listed
with inode 0, and the first check reads them. A folder that changed since then is listed without a sha256: which names
its handler saw nobody knows, so the first check finds it changed.

Only what is known to be gone or different is a change. Raw data that cannot be read now, or that is away as a whole –
the folder of the raw dataset is not there, or empty, as a disk's is that is not mounted – is none.

What a handler reads past `read_raw`, or a handler that is not ours reads at all, is not known; nor is a list kept for
archives from before there were any. Such datasets are never stale.
"""

import contextlib
import hashlib
import json
import os
import stat
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .background import StoppedError
from .durable import read_bounded, write_file
from .errors import HandlerFaultError
from .handler_events import loads_foreign
from .room import PLAN_BYTES
from .store.cache import RawFile

_CHUNK = 1 << 20
#: Seconds by which a file must be older than a build to have been at rest: clocks of file systems have ticks.
_TICK = 0.1
#: Seconds by which the clock of the raw data's disk may be ahead of the server's.
_AHEAD = 60.0
_LONGEST_PATH = 1024  # what the ledger holds
_INODES = 1 << 64
#: What says that a file is not there, rather than that nobody knows.
_GONE = (FileNotFoundError, NotADirectoryError)


@dataclass(frozen=True)
class Looked:
    """What a look at the raw files showed: one that is ``gone``, if any, and those to be read to know."""

    gone: str | None
    doubtful: tuple[RawFile, ...] = ()


# -- writing the list


def record(raw_root: Path, work: Path, began: float, target: Path) -> None:
    """Write the list of what the build in ``work`` read, which ``began`` at that time, to ``target``."""
    read = _read_by(work)
    folders = {f"{folder}/" for path in read for folder in _folders_above(path)}
    entries = [_known(raw_root, path, sha256, began) for path, sha256 in read.items()]
    entries += [_known(raw_root, folder, None, began) for folder in folders]
    _write(target, entries)


def began_at(work: Path) -> float:
    """When the build in ``work`` began, by the clock of its disk: when the server wrote its note there.

    Raises `OSError` if there is none.
    """
    return (work / "environment").lstat().st_mtime


def changed_since_begun(raw_root: Path, work: Path) -> str | None:
    """A raw file that the build in ``work`` has read and that may not be any more as it was then, if there is one.

    Who goes on with that build would mix what was read before with what is read after.
    """
    began = began_at(work)
    for path in _read_by(work):
        try:
            found = (raw_root / path).stat()
            if _touched_since(began, found):
                return path
        except _GONE:
            with contextlib.suppress(OSError):
                if not _is_away(raw_root, path):
                    return path
        except OSError:
            continue  # nobody knows now; the build that goes on will meet it
    return None


def _touched_since(began: float, found: os.stat_result) -> bool:
    """Whether a file may have changed since a build began; times that lie ahead are a clock's that was set back."""
    latest = time.time() + _AHEAD
    return any(began - _TICK <= at <= latest for at in (found.st_mtime, found.st_ctime))


def _read_by(work: Path) -> dict[str, str]:
    """The raw files a build read, with their sha256; from what its handler left, which may be anything."""
    pairs: list[Any] = list(_member(_json(work / "plan" / "plan.json"), "raw_files"))
    for path in sorted((work / "sealed").glob("*.json")):
        sealed = _json(path)
        pairs += _member(sealed, "quarantined_files")
        for item in _member(sealed, "lineage"):
            pairs += _member(item, "files")
    return {pair[0]: pair[1] for pair in pairs if _is_pair(pair) and _is_below(pair[0])}


def _json(path: Path) -> Any:
    try:
        return loads_foreign(read_bounded(path, PLAN_BYTES), "what is no JSON")
    except (OSError, HandlerFaultError):
        return None


def _member(value: Any, name: str) -> list[Any]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)


def _is_below(path: str) -> bool:
    """Whether a path that a handler gave leads nowhere but below the raw root."""
    is_text = path.encode(errors="ignore").decode() == path and "\0" not in path
    return is_text and 0 < len(path) < _LONGEST_PATH and not path.startswith("/") and ".." not in path.split("/")


def _folders_above(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _known(raw_root: Path, path: str, sha256: str | None, began: float) -> RawFile:
    """A line of the list; ``sha256`` is the handler's, None for a folder."""
    unknown = RawFile(path, 0, 0, 0, sha256 or "")
    try:
        found = (raw_root / path).stat()
        if _touched_since(began, found):
            return unknown
        sha256 = sha256 or _digest_of_names(raw_root / path)
    except OSError:  # gone already: the first check will find that
        return unknown
    return replace(_as_it_is(path, found), sha256=sha256)


def _as_it_is(path: str, found: os.stat_result) -> RawFile:
    """What tells a file's content apart. Inodes go up to 2**64; no database has numbers above 2**63."""
    inode = found.st_ino if found.st_ino < _INODES // 2 else found.st_ino - _INODES
    return RawFile(path, inode, found.st_mtime_ns, found.st_size, "")


def _write(target: Path, entries: Iterable[RawFile]) -> None:
    lines = (json.dumps(list(vars(entry).values())) for entry in entries)
    content = "".join(f"{line}\n" for line in sorted(lines)).encode()
    write_file(target, content, target.with_name(f".{uuid.uuid4().hex}.partial"))  # the name is long enough as it is


# -- checking it


def look(raw_root: Path, sources: Path) -> Looked:
    """Compare the raw files with their list by one stat each; a list that is not there names none.

    Raises `OSError` for what cannot be looked at now, and what a list that is damaged gives rise to.
    """
    doubtful = []
    root = f"{raw_root}{os.sep}"
    for entry in _entries(sources):
        try:
            now = os.stat(root + entry.path)  # noqa: PTH116 - for 100,000 files, half the time
        except _GONE:
            return Looked(None if _is_away(raw_root, entry.path) else entry.path)
        if (now.st_ino, now.st_mtime_ns, now.st_size) != (entry.inode % _INODES, entry.mtime_ns, entry.size):
            doubtful.append(entry)
    return Looked(None, tuple(doubtful))


def settle(
    raw_root: Path, doubtful: Iterable[RawFile], ledger: Mapping[str, RawFile], stop: threading.Event
) -> tuple[str | None, list[RawFile]]:
    """Find out what doubtful files hold, from the ledger or by reading them, up to the first that changed.

    Returns that one, and what was found to be so now. Raises `StoppedError`, and `OSError` for what cannot be read now.
    """
    found: list[RawFile] = []
    for entry in doubtful:
        try:
            now = _identity(raw_root, entry.path)
            noted = ledger.get(entry.path)
            if noted is not None and replace(noted, sha256="") == now:
                now = noted
            else:
                now = replace(now, sha256=_digest(raw_root / entry.path, stop))
                if replace(now, sha256="") != _identity(raw_root, entry.path):
                    return entry.path, found  # it changes right now
        except _GONE:
            return None if _is_away(raw_root, entry.path) else entry.path, found
        found.append(now)
        if now.sha256 != entry.sha256:
            return entry.path, found
    return None, found


def _is_away(raw_root: Path, path: str) -> bool:
    """Whether the raw dataset that a path belongs to is not here at all; a disk that is not mounted leaves a folder."""
    top = raw_root / path.split("/")[0]
    try:
        return next(top.iterdir(), None) is None
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return False


def note(sources: Path, found: Iterable[RawFile]) -> None:
    """Put what was found unchanged into the list, so that the next look needs no more than a stat."""
    news = {entry.path: entry for entry in found}
    _write(sources, [news.get(entry.path, entry) for entry in _entries(sources)])


def _entries(sources: Path) -> Iterator[RawFile]:
    try:
        with sources.open(encoding="utf-8") as lines:
            for line in lines:
                yield RawFile(*json.loads(line))
    except FileNotFoundError:
        return


def _identity(raw_root: Path, path: str) -> RawFile:
    """What tells a file's content apart; raises `FileNotFoundError` also for what reading never comes to the end of."""
    found = (raw_root / path).stat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise FileNotFoundError(f"{path} is no file any more")
    return _as_it_is(path, found)


def _digest(path: Path, stop: threading.Event) -> str:
    if path.is_dir():
        return _digest_of_names(path)
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            if stop.is_set():
                raise StoppedError
            digest.update(chunk)
    return digest.hexdigest()


def _digest_of_names(folder: Path) -> str:
    names = (f"{entry.name}/" if entry.is_dir() else entry.name for entry in os.scandir(folder) if entry.name[0] != ".")
    return hashlib.sha256("\0".join(sorted(names)).encode(errors="surrogateescape")).hexdigest()
