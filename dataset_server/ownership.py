"""Who builds a dataset: one server run at a time, named by its *owner id*, and fenced by a number.

Each claim of a dataset raises its ``fence``, and every write of a build names the fence it was claimed with: a server
that was paused and comes back finds that its writes change nothing. The owner renews its leases a few times within
their duration. Nobody compares clocks: that a lease lapsed is decided by seeing it unchanged for its whole duration on
one's own monotonic clock, so that a clock that is set takes no lease away and keeps none alive.
"""

import time
import uuid
from dataclasses import dataclass

from .claim import identity, may_live
from .store.schema import Dataset

_HOST_LENGTH = 30
_BOOT_LENGTH = 8


def new_owner() -> str:
    """The id of a server run, at most 64 characters: which process it is, and of which machine."""
    ours = identity()
    boot = str(ours["boot"])[:_BOOT_LENGTH]
    return f"{ours['pid']}.{ours['started']}.{boot}.{uuid.uuid4().hex[:6]}@{str(ours['host'])[:_HOST_LENGTH]}"


def owner_may_live(owner: str) -> bool:
    """Whether the process behind an owner id may still run; true for another machine's, since who can tell."""
    ours = identity()
    try:
        process, host = owner.split("@", 1)
        pid, started, boot, _ = process.split(".")
        if host != str(ours["host"])[:_HOST_LENGTH]:
            return True
        if boot != str(ours["boot"])[:_BOOT_LENGTH]:
            return False
        return may_live({"host": ours["host"], "boot": ours["boot"], "pid": int(pid), "started": started})
    except ValueError:
        return False


@dataclass(frozen=True)
class Seen:
    """A lease as it was when it was last seen to change, and when that was, on the monotonic clock."""

    beat: tuple[int, float | None]
    at: float


class Abandoned:
    """Tells which leases nobody holds any more."""

    def __init__(self, owner: str, seconds: float) -> None:
        self._owner = owner
        self._seconds = seconds
        self._seen: dict[str, Seen] = {}

    def may_claim(self, dataset: Dataset) -> bool:
        """Whether the lease of an active dataset is free: given back, its process gone, or not renewed in time.

        One of our own is free: the caller asks only for what it does not build.
        """
        if dataset.lease_owner in (None, self._owner) or not owner_may_live(dataset.lease_owner):
            return True
        seen = Seen((dataset.fence, dataset.lease_until), time.monotonic())
        before = self._seen.setdefault(dataset.dataset_id, seen)
        if before.beat != seen.beat:
            self._seen[dataset.dataset_id] = seen
            return False
        return seen.at - before.at > self._seconds

    def keep(self, dataset_ids: set[str]) -> None:
        """Forget all but these."""
        self._seen = {name: seen for name, seen in self._seen.items() if name in dataset_ids}
