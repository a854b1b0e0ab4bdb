"""How long to wait before trying again, and when to stop trying."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from dataset_client.errors import DatasetClientError, ServerAwayError, ServerBusyError, ServerError

_JITTER = random.SystemRandom()
#: What a proxy answers while the server behind it restarts, and a server that stops itself.
_AWAY = frozenset({502, 503, 504})


@dataclass(frozen=True)
class RetryPolicy:
    """Times are in seconds.

    ``attempts``: how many tries in a row may fail without any progress. Delays double from
    ``first_delay_s`` to at most ``max_delay_s``, and are then drawn from their upper half, so that many
    clients do not come back at once. A ``Retry-After`` beyond ``max_retry_after_s`` is not waited for. A
    server that was never reached in this call is given up after ``first_contact_s``; one that went away,
    for example to restart, after ``reconnect_s``.
    """

    attempts: int = 6
    first_delay_s: float = 0.5
    max_delay_s: float = 30.0
    max_retry_after_s: float = 300.0
    first_contact_s: float = 30.0
    reconnect_s: float = 300.0

    def delay(self, failures: int, *, jitter: float, retry_after: float | None = None) -> float:
        """The wait after ``failures`` ≥ 1 failures in a row; ``jitter`` in [0, 1). Never less than
        ``retry_after``.
        """
        # the exponent is bounded because 2.0**1024 overflows
        longest = min(self.max_delay_s, self.first_delay_s * 2.0 ** min(failures - 1, 32))
        return max(longest * (0.5 + 0.5 * jitter), retry_after or 0.0)


class Retries:
    """Counts the failures in a row of one thing that is being tried.

    With ``patience_s``, a server that is away is tried for so many seconds at least, however often that fails;
    `reached` makes that as many as are spent on a server that has been there in this call.
    """

    def __init__(
        self, policy: RetryPolicy, *, patience_s: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.policy = policy
        self.failures = 0
        self._patience_s = patience_s
        self._clock = clock
        self._since = 0.0

    def progressed(self) -> None:
        """What is tried got further: earlier failures no longer count."""
        self.failures = 0

    def reached(self) -> None:
        """The server is there: should it go away now, it is likely to come back."""
        self._patience_s = self.policy.reconnect_s

    def delay_after(self, error: DatasetClientError) -> float:
        """Seconds to wait before trying again; raises ``error`` if that is pointless, was tried often enough, or if
        the server wants a longer wait than the policy allows.
        """
        now = self._clock()
        if not self.failures:
            self._since = now
        self.failures += 1
        is_waited_for = _is_away(error) and now - self._since < self._patience_s
        if not error.transient or (self.failures >= self.policy.attempts and not is_waited_for):
            raise error
        if (error.retry_after or 0.0) > self.policy.max_retry_after_s:
            raise error
        return self.policy.delay(self.failures, jitter=random_jitter(), retry_after=error.retry_after)


class CommonRetries:
    """When to try again, for all connections together; `Retries` says how long to wait, and when to give up.

    Failures of requests that ran at the same time count as one. No call fails more often than its ``budget``.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._retries = Retries(policy, patience_s=policy.reconnect_s)
        self._failed_at = self._here = -1.0
        self.budget = 0
        self.not_before = 0.0

    def failed(self, error: DatasetClientError, began: float, here: int) -> None:
        """A request that began at ``began`` failed, and by now so many bytes are here; raises ``error`` to give up."""
        self.budget -= 1
        if self.budget < 0:
            raise error
        if began < self._failed_at and not error.retry_after:
            return
        if here != self._here:
            self._retries.progressed()
        delay = self._retries.delay_after(error)
        self._failed_at, self._here = time.monotonic(), here
        self.not_before = max(self.not_before, self._failed_at + delay)


def random_jitter() -> float:
    """A number in [0, 1) that no other client draws."""
    return _JITTER.random()


def _is_away(error: DatasetClientError) -> bool:
    if isinstance(error, ServerBusyError | ServerError):
        return error.status in _AWAY
    return isinstance(error, ServerAwayError)
