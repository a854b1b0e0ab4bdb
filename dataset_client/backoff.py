"""How long to wait before trying again, and when to stop trying."""

import random
from dataclasses import dataclass

from dataset_client.errors import DatasetClientError

_JITTER = random.SystemRandom()


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
    """Counts the failures in a row of one thing that is being tried."""

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy
        self.failures = 0

    def progressed(self) -> None:
        """What is tried got further: earlier failures no longer count."""
        self.failures = 0

    def delay_after(self, error: DatasetClientError) -> float:
        """Seconds to wait before trying again; raises ``error`` if that is pointless or was tried often
        enough.
        """
        self.failures += 1
        if not error.transient or self.failures >= self.policy.attempts:
            raise error
        return self.next_delay(error)

    def next_delay(self, error: DatasetClientError) -> float:
        """Seconds to wait, whatever the number of failures; raises ``error`` if the server wants a longer wait than
        the policy allows.
        """
        if (error.retry_after or 0.0) > self.policy.max_retry_after_s:
            raise error
        return self.policy.delay(max(self.failures, 1), jitter=_JITTER.random(), retry_after=error.retry_after)
