"""How much room there is, and how much a build will take: decisions and estimates, all in bytes.

A build takes its archive's size twice while it lasts, since sealed shards stay until the archive they are copied into
is published. Sharing blocks between the two (reflinks) would need a file system that can, and shards that start at its
block borders, which would make other archives than today's.
"""

import contextlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .durable import read_bounded
from .errors import HandlerFaultError
from .handler_events import loads_foreign

#: Bytes a handler's plan may have.
PLAN_BYTES = 256 << 20
_MOST = 2**53  # samples of a shard


@dataclass(frozen=True)
class Space:
    """The room there is for a build, in bytes: ``free`` on the disk, of which ``keep_free`` stays so and ``promised``
    will be written by other builds; ``written`` of what it needs is there already. ``used`` by archives and set aside
    for other builds, of ``quota`` where there is one.
    """

    free: int
    keep_free: int
    promised: int
    used: int
    quota: int | None
    written: int = 0

    def lacking(self, needed: int) -> int:
        """How many bytes must go before there is room for a build that needs so many; 0 or less if none."""
        lacking = max(0, needed - self.written) + self.promised + self.keep_free - self.free
        if self.quota is not None:  # of which what builds have written is a part, unlike of what is free
            lacking = max(lacking, needed + self.used - self.quota)
        return lacking

    def in_words(self) -> str:
        """What there is."""
        disk = (
            f"{in_words(self.free)} free on the disk, of which {in_words(self.keep_free)} stay free and "
            f"{in_words(self.promised)} are for other builds"
        )
        return (
            disk if self.quota is None else f"{in_words(self.used)} of a quota of {in_words(self.quota)} used; {disk}"
        )


@dataclass(frozen=True)
class Experience:
    """What datasets of a handler turned out to be, on average, in bytes: of an example, and of an archive; None where
    there were none.
    """

    example_bytes: float | None
    archive_bytes: float | None


#: Bytes a dataset is taken for of which nothing is known.
FLOOR = 8 << 20


def expected_bytes(experience: Experience, examples: int | None) -> int:
    """How large a dataset's archive will be: from its ``examples`` where these are planned, else as others were."""
    if examples is not None and experience.example_bytes is not None:
        return math.ceil(examples * experience.example_bytes)
    return math.ceil(experience.archive_bytes) if experience.archive_bytes is not None else FLOOR


def to_reserve(archive_bytes: int) -> int:
    """The room a build takes at its fullest: sealed shards and the archive they are copied into exist at once."""
    return 2 * archive_bytes


def planned_samples(work: Path) -> dict[str, int]:
    """Samples of each shard of the plan in a build's folder; empty where the handler does not say."""
    try:
        plan = loads_foreign(read_bounded(work / "plan" / "plan.json", PLAN_BYTES), "a plan that is no JSON")
        planned = {str(shard["file"]): int(shard["samples"]) for shard in plan["shards"]}
    except (OSError, HandlerFaultError, ValueError, KeyError, TypeError, OverflowError):
        return {}
    return planned if all(0 <= samples <= _MOST for samples in planned.values()) else {}


def extrapolated(planned: Mapping[str, int], sealed: Mapping[str, int]) -> int | None:
    """How large an archive will be, from its ``planned`` samples and the ``sealed`` bytes of some shards, if any."""
    samples = sum(planned.get(file, 0) for file in sealed)
    return math.ceil(sum(sealed.values()) * sum(planned.values()) / samples) if samples else None


def bytes_in(folder: Path) -> int:
    """Bytes of the files right in a folder that others may be writing to; 0 if there is none."""
    found = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False):
                    found += entry.stat(follow_symlinks=False).st_size
    return found


def bytes_to_keep_free(setting: int | None, disk_bytes: int) -> int:
    """``disk_reserve`` in force: a fiftieth of the disk by default, at most 2 GB."""
    return min(2_000_000_000, disk_bytes // 50) if setting is None else setting


def in_words(size: float) -> str:
    """Bytes for people: ``1.5 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.4g} TB"
