"""Which failures of a build are tried again, how often, and when.

===========================================  =========================================================
class                                        tried again
===========================================  =========================================================
network, installation that may work later    up to the limit (``retryable`` of `EnvironmentFailedError`)
the server's own fault: a locked database    up to the limit
disk full                                    four times as often: it waits for space
worker or handler killed, out of memory,     once: a crowded machine may have been the reason; a
timeouts, a shard that reads back otherwise  deterministic fault only repeats itself
everything else, such as a handler's fault   never: the same comes out again
===========================================  =========================================================
"""

from typing import Final

#: Seconds between two tries at most.
LONGEST: Final = 300.0

_LATER: Final = frozenset({"internal_error"})
_WAITS: Final = frozenset({"disk_full"})
_WAITS_TIMES: Final = 4
_ONCE: Final = frozenset({"worker_died", "handler_exited", "handler_out_of_memory", "handler_timeout", "shard_corrupt"})

#: After these the next try goes on where this one stopped; after others it starts afresh, since the fault may lie in
#: what was made so far.
RESUMABLE: Final = frozenset(
    {
        "cancelled",
        "disk_full",
        "environment_failed",
        "handler_exited",
        "handler_out_of_memory",
        "handler_timeout",
        "internal_error",
        "worker_died",
    }
)


def retry_after(code: str, retryable: bool, tries: int, *, limit: int, first: float) -> float | None:
    """Seconds until a build that failed with ``code`` is tried again; None if it is not.

    ``retryable`` is the fault's own word on that, ``tries`` how many failures of this attempt were tried again before,
    ``limit`` the setting ``retry_limit``. The wait doubles from ``first`` seconds up to `LONGEST`.
    """
    if tries >= _times(code, retryable, limit):
        return None
    return float(min(LONGEST, first * 2 ** min(tries, 30)))


def _times(code: str, retryable: bool, limit: int) -> int:
    if code in _WAITS:
        return limit * _WAITS_TIMES
    if retryable or code in _LATER:
        return limit
    return min(1, limit) if code in _ONCE else 0
