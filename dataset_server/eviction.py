"""What goes when room is needed: a pure decision over what is there.

The worth of an archive is that of GreedyDual-Size-Frequency (L. Cherkasova, *Improving WWW Proxies Performance with
Greedy-Dual-Size-Frequency Caching Policy*, HPL-98-69R1, 1998): ``uses * cost / bytes``, where cost is what it takes to
get it back, here the seconds of its build. There, what was not used for long loses against a clock that rises with
each eviction; here its worth halves every `HALF_LIFE`, so that nothing but the database is to be kept between two
runs of the server.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from .room import in_words

#: Seconds without use after which an archive is worth half.
HALF_LIFE = 14 * 24 * 3600.0


@dataclass(frozen=True)
class Candidate:
    """An archive on disk. ``revision`` is that of the archive; a superseded one costs nothing to lose.

    ``bytes`` ≥ 0; ``build_seconds`` ≥ 0 is what making it again costs; ``last_used_at`` is in seconds since the epoch.
    ``held`` is whether somebody reads it now.
    """

    dataset_id: str
    revision: int
    bytes: int
    build_seconds: float
    uses: int
    last_used_at: float
    pinned: bool = False
    held: bool = False


def worth(candidate: Candidate, now: float) -> float:
    """The logarithm of what a byte of it is worth: comparable over any time; minus infinity for what costs nothing."""
    value = max(1, candidate.uses) * candidate.build_seconds / max(1, candidate.bytes)
    idle = max(0.0, now - candidate.last_used_at)  # a clock that was set back makes nothing old
    return (math.log2(value) if value > 0 else -math.inf) - idle / HALF_LIFE


def may_go(candidate: Candidate, now: float, lease: float) -> bool:
    """Whether an archive may be evicted: not pinned, not being read, and not used within ``lease`` seconds."""
    return not candidate.pinned and not candidate.held and now - candidate.last_used_at >= lease


def choose(candidates: Iterable[Candidate], bytes_needed: int, now: float, lease: float) -> list[Candidate]:
    """The least worthy archives whose bytes are ``bytes_needed`` or more; nothing if all that may go is not enough.

    None of those chosen could stay: what turns out to be needless is left out again, the worthiest first.
    """
    chosen: list[Candidate] = []
    freed = 0
    allowed = [candidate for candidate in candidates if candidate.bytes > 0 and may_go(candidate, now, lease)]
    for candidate in sorted(allowed, key=lambda item: (worth(item, now), item.dataset_id, item.revision)):
        if freed >= bytes_needed:
            break
        chosen.append(candidate)
        freed += candidate.bytes
    if freed < bytes_needed:
        return []
    for candidate in chosen[::-1]:
        if freed - candidate.bytes >= bytes_needed:
            chosen.remove(candidate)
            freed -= candidate.bytes
    return chosen


def reasons_to_stay(candidates: Iterable[Candidate], now: float, lease: float) -> str:
    """Why archives do not make room, in words and bytes."""
    pinned = held = left = 0
    for candidate in candidates:
        if candidate.pinned:
            pinned += candidate.bytes
        elif may_go(candidate, now, lease):
            left += candidate.bytes
        else:
            held += candidate.bytes
    return (
        f"of the archives {in_words(pinned)} are pinned, {in_words(held)} were in use within {lease:g} s, "
        f"and {in_words(left)} could go, which is not enough"
    )
