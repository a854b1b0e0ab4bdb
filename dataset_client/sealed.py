"""Shards of a dataset that is being made: each is fetched as soon as it is sealed, and kept by its sha256 (shards.py).

Of several processes that want one, one fetches it (`claim`).
"""

import asyncio
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_client.backoff import random_jitter
from dataset_client.cache import Cache
from dataset_client.claim import Holder, LostError, Work, claim
from dataset_client.concurrency import StoppedError, in_thread
from dataset_client.contents import Wanted
from dataset_client.errors import CacheError, ProtocolError
from dataset_client.manifest import SAFE_NAME, Member, content_fault
from dataset_client.plan import cut, require_space
from dataset_client.room import reserve
from dataset_client.settings import Settings
from dataset_client.shards import keep as keep_as
from dataset_client.source import Source
from dataset_client.transfer import Pace, Transfer
from dataset_client.uses import announce, release
from dataset_client.workfile import WorkFile
from dataset_client.workspace import cache_errors, fsync_directory, move

_POLL_S = 0.5


@dataclass(frozen=True)
class SealedShard:
    """What a ``shard`` event says: where ``bytes`` bytes with this ``sha256`` (hex) are, which hold ``examples``."""

    file: str
    split: str
    examples: int
    bytes: int
    sha256: str
    url: str

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "SealedShard":
        """Read the data of the event; raises `ProtocolError`. The strictness is for safety too: names become paths."""
        try:
            shard = cls(**{name: data[name] for name in cls.__dataclass_fields__})
        except KeyError as error:
            raise ProtocolError(f"the server tells of a shard without {error}") from error
        numbers = (shard.examples, shard.bytes)
        is_sound = all(type(number) is int and number >= 0 for number in numbers)
        is_sound &= all(isinstance(text, str) for text in (shard.file, shard.split, shard.sha256, shard.url))
        if not is_sound or not SAFE_NAME.fullmatch(shard.file) or len(shard.sha256) != 64 or not shard.sha256.isalnum():
            raise ProtocolError(f"the server tells of a shard that is none: {str(data)[:200]}")
        return shard


async def fetch_shard(settings: Settings, cache: Cache, shard: SealedShard, pace: Pace) -> Path:
    """A sealed shard in the cache, fetched into it if need be, and open by this process from now on.

    Raises `IntegrityError`, `RevisionReplacedError` where it is not there any more, `CacheError`, or what ended the
    last attempt.
    """
    target = cache.shards / shard.sha256
    # first: who removes one looks for those who have it open after he has taken it away; in no thread, as who is
    # cancelled while that writes could not take it back
    announce(target)
    try:
        return await _have(settings, cache, shard, pace)
    except BaseException:
        release(target)
        raise


async def _have(settings: Settings, cache: Cache, shard: SealedShard, pace: Pace) -> Path:
    target = cache.shards / shard.sha256
    while True:
        if await in_thread(_is_whole, target, shard):
            return target
        claimed = await claim(cache.downloads, cache.scratch, f"shard-{shard.sha256}")
        if isinstance(claimed, Holder):
            await asyncio.sleep(_POLL_S * (0.1 + 0.9 * random_jitter()))
            continue
        try:
            await _fetch(settings, cache, claimed, shard, pace)
        except LostError:
            continue
        except BaseException as error:
            if isinstance(error, CacheError) and not claimed.path.is_dir():
                continue  # somebody took the folder for abandoned, and goes on with it
            claimed.give_up()
            raise
        claimed.discard()
        return target


def keep(cache: Cache, path: Path, sha256: str) -> Path:
    """Have a verified file of the cache among the shards, too: under the name that is returned it stays, wherever its
    dataset goes. Raises `OSError` where the file system has no links.
    """
    target = cache.shards / sha256
    keep_as(path, target, cache.scratch)
    return target


async def _fetch(settings: Settings, cache: Cache, work: Work, shard: SealedShard, pace: Pace) -> None:
    target = cache.shards / shard.sha256
    wanted = Wanted(shard.file, shard.bytes, shard.sha256, crc32=0, at=0)
    file = WorkFile(wanted, work.files / shard.file, work.journals / shard.file)
    source = Source(shard.url, shard.bytes, shard.sha256)
    transfer = Transfer(settings, source, {shard.file: file}, pace, lambda here: work.progress(here, shard.bytes))
    work.begin(on_loss=lambda: transfer.fail(LostError()))

    def run(stop: threading.Event) -> None:
        if _is_whole(stop, target, shard):  # another process had it, and was done in this moment
            return
        with cache_errors(target):
            # it is wrong, and would take room; nobody else fetches it now, and where an archive brings the right one in
            # this moment, its reader waits for the dataset
            target.unlink(missing_ok=True)
        missing = sum(end - start for start, end in file.missing())
        reserve(cache, work, shard.bytes, missing, settings.cache_limit, stop)
        with cache_errors(work.path):
            free = shutil.disk_usage(work.path).free
        require_space(shard.file, missing=missing, free=free)
        transfer.run(cut([(wanted, file.missing())], pace.piece))
        with cache_errors(target):
            move(work.files / shard.file, target)
            fsync_directory(target.parent)

    await in_thread(run, interrupt=lambda: transfer.fail(StoppedError()))


def _is_whole(stop: threading.Event, path: Path, shard: SealedShard) -> bool:
    """Whether a shard is there, and right."""
    return path.exists() and content_fault(path.parent, Member(path.name, shard.bytes, shard.sha256), stop) is None
