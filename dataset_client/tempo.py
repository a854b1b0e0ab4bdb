"""How many connections a transfer uses at a time, and how much each asks for at once. Pure."""

from collections.abc import Collection
from dataclasses import dataclass

from dataset_client.line import RoundTrip

#: Bytes that are worth a request, whatever the network; a new connection begins with so many.
_LEAST = 1 << 18
#: How much more than its last time a connection may ask for: as TCP, it has yet to find out what the network bears.
_GROWTH = 8
#: Seconds that a request should take: at the end of a transfer, where connections should not wait for each other long;
#: while it is tried how many there should be, so that new ones need not take over from others, which costs these
#: their connection; and after that, where some are far slower than others, as on a line that loses packets.
_SHORT_S, _TRIAL_S, _LONG_S = 0.25, 1.0, 8.0
#: What answers within so many seconds is near: there a processor is the limit rather than the line, and two have more.
_NEAR_S = 0.02
#: Windows until more connections are tried again: after they were in vain for the first time, where the line seems
#: full, and after an error.
_PAUSE, _PAUSE_IF_FULL, _PAUSE_AFTER_ERROR = 10, 40, 4
#: A line seems full where bytes take longer than the shortest round trip by more than this share of it.
_QUEUE = 0.2


def is_full(trips: Collection[RoundTrip]) -> bool:
    """Whether the line seems full that connections with these round trips share: more of them would wait in the same
    queue, and make it overflow. What is near is not asked for that.
    """
    least = min((trip.least for trip in trips), default=0.0)
    return least > _NEAR_S and min(trip.now for trip in trips) > (1 + _QUEUE) * least


def first_connections(answer_s: float | None) -> int:
    """How many connections to begin with to what has answered within so many seconds, None if that is not known."""
    return 1 if answer_s is None or answer_s > _NEAR_S else 2


def portion(before: int, rate: float, left: int, connections: int, *, is_settled: bool) -> int:
    """How many bytes a connection should ask for next that has just brought ``before`` bytes at ``rate`` bytes a
    second, 0 if it is a new one, when ``left`` bytes are to come by so many ``connections``, of which it
    ``is_settled`` that more are of no use for now. A new one that is alone asks for all.

    Few long requests: after each one a connection is idle for a round trip, and then sends all at once what it had
    slowly found out to be bearable, which is often more than the queues on the way hold.
    """
    if not before:
        return left if connections == 1 else _LEAST
    share = left / connections / (1 if connections == 1 else 2)
    size = min(max(share, rate * _SHORT_S), rate * (_LONG_S if is_settled else _TRIAL_S), before * _GROWTH)
    return max(1, round(size / _LEAST)) * _LEAST


@dataclass
class Tempo:
    """How many connections to use at a time: more as long as that is faster, fewer when the server or the network
    does not bear them. New connections need a while until they are as fast as they can be, which is not measured.

    More that were in vain have cost something: they are tried again after a while, which doubles each time. So does
    the while for which a line that seems full is left as it is; a sender that pauses looks the same.
    """

    limit: int
    connections: int = 1
    _rate: float = 0.0
    _before: int = 0
    _hold: int = 1
    _pause: int = _PAUSE
    _pause_if_full: int = _PAUSE_IF_FULL
    _was_full: bool = False

    @property
    def is_settled(self) -> bool:
        """Whether no other number is being tried, or about to be."""
        return self._hold > 1

    def measured(self, rate: float, *, is_full: bool = False) -> None:
        """A while went by at ``rate`` bytes a second, more than none, with all connections in use; whether the line
        `is_full`.
        """
        if self._hold:
            self._hold -= 1
        elif self._before and rate < 1.15 * self._rate:  # the last step up was in vain
            self.connections, self._before, self._hold = self._before, 0, self._pause
            self._pause *= 2
        elif is_full and not self._was_full:
            self._was_full, self._before, self._hold = True, 0, self._pause_if_full
            self._pause_if_full *= 2
        else:
            self._was_full = False
            self._rate, self._before = rate, self.connections
            self.connections = min(2 * self.connections, self.limit)
            self._hold = 1
            if self.connections == self._before:
                self._before, self._hold = 0, self._pause

    def bears_only(self, connections: int) -> None:
        """More than so many, at least one, are not to be had."""
        self.limit = max(1, connections)
        self.connections, self._before = min(self.connections, self.limit), 0

    def broke(self) -> None:
        """A connection broke, or was refused."""
        self._fall_to(self.connections - 1)

    def refused(self) -> None:
        """The server wants less of us."""
        self._fall_to(self.connections // 2)

    def _fall_to(self, connections: int) -> None:
        self.connections, self._before, self._hold = max(1, connections), 0, _PAUSE_AFTER_ERROR
