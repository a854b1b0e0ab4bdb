"""Which bytes of a file are there: disjoint half-open spans, in order. Pure."""

import bisect
from collections.abc import Iterable, Iterator


class Spans:
    """A set of byte offsets, kept as spans ``start <= offset < stop``."""

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for start, stop in spans:
            self.add(start, stop)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._stops, strict=True))

    def add(self, start: int, stop: int) -> None:
        """Have these bytes too; nothing if there are none."""
        if start >= stop:
            return
        first = bisect.bisect_left(self._stops, start)  # spans that end before it stay as they are
        last = bisect.bisect_right(self._starts, stop)  # and so do those that start after it
        if first < last:
            start, stop = min(start, self._starts[first]), max(stop, self._stops[last - 1])
        self._starts[first:last], self._stops[first:last] = [start], [stop]

    def remove(self, start: int, stop: int) -> None:
        """Have these bytes no more."""
        kept = [part for a, b in self for part in ((a, min(b, start)), (max(a, stop), b)) if part[0] < part[1]]
        self._starts, self._stops = [a for a, _ in kept], [b for _, b in kept]

    def end_of(self, offset: int) -> int:
        """The end of the span that ``offset`` is in; ``offset`` itself if it is in none."""
        place = bisect.bisect_right(self._starts, offset) - 1
        return max(self._stops[place], offset) if place >= 0 else offset

    def missing(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The spans of ``start`` to ``stop`` that are not here."""
        found = []
        for a, b in self:
            if a > start:
                found.append((start, min(a, stop)))
            start = max(start, b)
            if start >= stop:
                break
        if start < stop:
            found.append((start, stop))
        return [(a, b) for a, b in found if a < b]

    @property
    def total(self) -> int:
        """How many bytes are here."""
        return sum(self._stops) - sum(self._starts)
