"""What was seen of a topic, so that each event is passed on once, however often the socket breaks. Pure.

After a reconnection the server replays what came after a number. Alone that would not do: a server that lost its data
counts from 1 again, and its numbers then say nothing. So the replay is asked for from one event earlier on, the
*anchor*: the last one seen that no replay leaves out (only ``progress`` is left out once it is outdated). If the replay
begins with that very event, the history goes on; if not, it is another one, and everything of it is new.
"""

from dataset_client.protocol import EVENT_KINDS, Event

SUBSCRIBED = "subscribed"


class HistoryLostError(Exception):
    """The server tells another history than before; never reaches the user."""


class History:
    """What was seen of one topic."""

    def __init__(self) -> None:
        self._anchor: Event | None = None
        self._last = 0
        self._awaits_anchor = False

    @property
    def after(self) -> int:
        """The number after which a replay is needed."""
        return self._anchor.number - 1 if self._anchor else 0

    def is_new(self, message: Event) -> bool:
        """Take in the next message, and say whether it is to be passed on; ``subscribed`` always is.

        Raises `HistoryLostError` once it is plain that what was seen is no part of this history: then everything has
        to be replayed to a new `History`.
        """
        if message.kind == SUBSCRIBED:
            if message.number < self._last:
                raise HistoryLostError
            self._awaits_anchor = self._anchor is not None
            return True
        if self._awaits_anchor:
            self._awaits_anchor = False
            if message != self._anchor:
                raise HistoryLostError
            return False
        if message.kind not in EVENT_KINDS:  # a newer server may have more
            return False
        newest = self._last
        if is_lasting(message):
            # one that a replay brings where only progress was before tells of another history: it is new
            newest = self._anchor.number if self._anchor else 0
        if message.number <= newest:
            return False
        self._last = max(self._last, message.number)
        if is_lasting(message):
            self._anchor = message
        return True


def is_lasting(message: Event) -> bool:
    """Whether a message may be an anchor: all that we know may, but for ``progress``."""
    return message.kind in EVENT_KINDS and message.kind != "progress"
