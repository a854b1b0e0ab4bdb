"""Which datasets make room for others: the decision alone."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """A dataset in the cache: its ``bytes`` on the disk, when it was ``last_used`` (seconds since the epoch), whether
    a process has it open, and whether a later revision of the same dataset is here too.

    Or something else that takes room (`room.holdings`): a dataset that is being fetched, or was, half of one, or shards
    without theirs. What of that is of no use any more counts as superseded.
    """

    dataset_id: str
    sha256: str
    path: Path
    bytes: int
    last_used: float
    in_use: bool
    superseded: bool


def choose(entries: Iterable[Entry], size: int, *, superseded_only: bool = False) -> list[Entry]:
    """The entries that go so that ``size`` bytes become free, as far as that can be: nothing that is open; first what
    a later revision has taken the place of, then what was not used for longest.
    """
    free = [entry for entry in entries if not entry.in_use and (entry.superseded or not superseded_only)]
    chosen = list[Entry]()
    for entry in sorted(free, key=lambda entry: (not entry.superseded, entry.last_used, entry.path)):
        if size <= 0:
            break
        chosen.append(entry)
        size -= entry.bytes
    return chosen
