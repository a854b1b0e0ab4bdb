"""Shards that are in the cache before their dataset is, by their sha256.

::

    <cache_dir>/shards/<sha256>

A dataset that is installed has a link to each, so that most names here are second ones and take no room. One that is
*lone* has no other: its dataset is not here yet, or not any more, or the file system has no links. Names go after a
day, lone ones as soon as their room is wanted or their dataset is removed; none while a process has it open (uses.py).
"""

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dataset_client.uses import announce, forget, is_held, release
from dataset_client.workspace import move, new_owner_name

OLD_AFTER_S = 24 * 3600.0


@dataclass(frozen=True)
class LoneShard:
    """A shard without another name: its ``bytes``, when it came (by the file system's clock), whether it is open."""

    path: Path
    bytes: int
    came: float
    in_use: bool


def lone_shards(shards: Path, now: float) -> list[LoneShard]:
    """All of them, at the file system's time ``now``."""
    found = list[LoneShard]()
    with contextlib.suppress(OSError):
        for path in sorted(shards.iterdir()):
            with contextlib.suppress(OSError):
                status = path.stat()
                if status.st_nlink == 1:
                    found.append(LoneShard(path, status.st_size, status.st_ctime, is_held(path, now)))
    return found


def keep(path: Path, target: Path, scratch: Path) -> None:
    """Have a verified file of the cache under a name among the shards, too, and open there.

    What has that name already may be damaged, and makes way. Raises `OSError` where the file system has no links.
    """
    temporary = scratch / new_owner_name()
    announce(target)
    try:
        os.link(path, temporary)
        move(temporary, target)
    except BaseException:
        release(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)  # a rename between two names of one file does nothing


def remove_lone(paths: Iterable[Path], scratch: Path, now: float) -> bool:
    """Remove those of these shards that are lone and not open; False if one of them stays that is lone."""
    is_done = True
    for path in paths:
        try:
            if path.stat().st_nlink == 1:
                is_done &= _remove(path, scratch, now)
        except FileNotFoundError:  # somebody else has removed it
            continue
        except OSError:
            is_done = False
    return is_done


def remove_old(shards: Path, scratch: Path, now: float) -> None:
    """Remove what has been here for a day. That is what the time of the last change of the inode says: its contents'
    is that of the file which another name here is given to.
    """
    with contextlib.suppress(OSError):
        for path in list(shards.iterdir()):
            with contextlib.suppress(OSError):
                if now - path.stat().st_ctime > OLD_AFTER_S:
                    _remove(path, scratch, now)


def _remove(path: Path, scratch: Path, now: float) -> bool:
    if is_held(path, now):  # asked before, too: who reads it would not find it for a moment
        return False
    aside = scratch / new_owner_name()
    move(path, aside)  # from now on nobody finds it, and who has found it before has it open
    if is_held(path, now):
        move(aside, path)
        return False
    aside.unlink(missing_ok=True)
    forget(path, now)
    return True
