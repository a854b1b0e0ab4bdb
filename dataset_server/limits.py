"""How often is too often: a token bucket per key, in bounded memory.

A bucket holds at most a minute's worth and fills evenly. `take` decides; `Limiter` remembers.
"""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Bucket:
    """``level`` tokens at the time ``at``, in seconds of a clock that never goes back."""

    level: float
    at: float


def take(bucket: Bucket | None, now: float, per_minute: int) -> tuple[Bucket, float]:
    """Take one token at ``now``; returns the bucket after that, and 0, or the seconds until there is one to take.

    No bucket is a full one. Nothing is taken where there is less than a whole token.
    """
    level = float(per_minute)
    if bucket is not None:
        level = min(level, bucket.level + max(0.0, now - bucket.at) * per_minute / 60)
    if level >= 1.0:
        return Bucket(level - 1.0, now), 0.0
    return Bucket(level, now), (1.0 - level) * 60 / per_minute


class Limiter:
    """Buckets by key. Of more than ``size`` keys the one that asked longest ago is forgotten: its bucket is full."""

    def __init__(self, size: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, key: str, per_minute: int) -> float:
        """Take one; 0, or the seconds until that would work."""
        self._buckets[key], wait = take(self._buckets.get(key), self._clock(), per_minute)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._size:
            self._buckets.popitem(last=False)
        return wait

    def wait(self, key: str, per_minute: int) -> float:
        """What `take` would answer, without taking."""
        return take(self._buckets.get(key), self._clock(), per_minute)[1]

    def __len__(self) -> int:
        return len(self._buckets)


def address_key(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 network of an IPv6 one, which one host owns whole."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
