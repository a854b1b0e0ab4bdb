"""Leases: one holder at a time among all tasks of all server processes that share a folder; without file locks.

A lease is a file that names its holder (`claim.identity`) and whose modification time beats while it is held. Who wants
it waits until the file goes, the holder's process is gone, or the beat has stopped: then the lease is taken over.

A lease saves work; it fences nothing. A holder that slept too long goes on with what it was at, so what is done under a
lease must come out right when two do it at once.
"""

import asyncio
import contextlib
import json
import logging
import math
import os
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from .claim import identity, may_live

logger = logging.getLogger(__name__)

_BEAT_SECONDS = 5.0
_STALE_SECONDS = 60.0
_POLL_SECONDS = 0.2


@contextlib.asynccontextmanager
async def leased(path: Path, *, stale: float = _STALE_SECONDS, beat: float = _BEAT_SECONDS) -> AsyncIterator[None]:
    """Hold the lease ``path`` while the context lasts; wait for it as long as somebody else does.

    It is renewed every ``beat`` seconds; one that was not for ``stale`` seconds is taken over.
    """
    ours = path.with_name(f".partial-lease-{uuid.uuid4().hex}")
    ours.write_text(json.dumps(identity()))
    inode = ours.stat().st_ino
    try:
        watch = _Watch(stale)
        while not _link(ours, path):
            if watch.is_dead(path):
                logger.warning("taking over the lease %s: its holder is gone", path.name)
                _take_away(path, watch.inode)
            else:
                await asyncio.sleep(_POLL_SECONDS)
        beating = asyncio.create_task(_keep_beating(ours, beat))
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            _take_away(path, inode)
    finally:
        ours.unlink(missing_ok=True)


def is_held(path: Path, expires: float = math.inf) -> bool:
    """Whether a process that may be alive holds the lease ``path``, or wants it where that is its own file.

    Whether a process of another machine lives nobody can tell: ``expires`` seconds after its last beat it counts as
    gone, whoever holds it.
    """
    try:
        return may_live(json.loads(path.read_text())) and _age(path) < expires
    except (ValueError, KeyError, TypeError):
        return _age(path) < _STALE_SECONDS  # being written, or spoilt by a power cut
    except OSError:
        return False


@dataclass
class _Watch:
    """Tells by our own monotonic clock when a beat has stopped: clocks of two machines need not agree."""

    stale: float
    inode: int = -1
    beat: int = -1
    since: float = 0.0

    def is_dead(self, path: Path) -> bool:
        try:
            now = path.stat()
        except FileNotFoundError:
            return False  # given back
        if (now.st_ino, now.st_mtime_ns) != (self.inode, self.beat):
            self.inode, self.beat, self.since = now.st_ino, now.st_mtime_ns, time.monotonic()
        return time.monotonic() - self.since > self.stale or (path.exists() and not is_held(path))


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return _STALE_SECONDS


async def _keep_beating(ours: Path, beat: float) -> None:
    while True:
        await asyncio.sleep(beat)
        with contextlib.suppress(OSError):  # one beat may be missed
            await asyncio.to_thread(os.utime, ours)  # the lease is a second name of this file


def _link(ours: Path, path: Path) -> bool:
    try:
        os.link(ours, path)
    except FileExistsError:
        return False
    return True


def _take_away(path: Path, inode: int) -> None:
    """Remove the lease that is that file, and put back one that somebody else got in its place meanwhile."""
    taken = path.with_name(f".partial-lease-{uuid.uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(taken)
        if taken.stat().st_ino != inode:
            with contextlib.suppress(FileExistsError):
                os.link(taken, path)
    taken.unlink(missing_ok=True)
