"""Which environments nobody has used for long."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Seen:
    """An environment as found: when it was last used, in seconds since 1970, and whether somebody uses it now."""

    key: str
    last_used: float
    in_use: bool


def unused(seen: Iterable[Seen], now: float, keep_seconds: float) -> list[str]:
    """The keys of those to remove, in order: not in use, and last used more than ``keep_seconds`` before ``now``."""
    return sorted(one.key for one in seen if not one.in_use and now - one.last_used > keep_seconds)
