"""What fetching a dataset takes: what an archive holds × what is on the disk → keep, take, fetch. Pure.

A *piece* is a span of the archive that one request asks for. Small files that lie side by side share one; a large file
is cut into several.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dataset_client.contents import Wanted
from dataset_client.errors import CacheError

#: Bytes between two files that are rather fetched in vain than left out: as many as a zip's header may have.
_GAP = 305
#: Bytes that are worth a request, whatever the network.
_LEAST = 1 << 18
#: Seconds that a request should take: at the end of a transfer, where connections should not wait for each other long,
#: and before.
_SHORT_S, _LONG_S = 0.25, 2.0


@dataclass(frozen=True)
class Target:
    """Where ``size`` bytes of a piece go: those at ``at`` of the archive to ``offset`` of ``file``."""

    at: int
    size: int
    file: str
    offset: int


@dataclass(frozen=True)
class Piece:
    """The bytes ``start`` to ``stop`` of the archive, and where they go; what is between targets goes nowhere."""

    start: int
    stop: int
    targets: tuple[Target, ...]

    def head(self, position: int) -> "Piece":
        """What of it comes before the archive's byte ``position``, which is in it."""
        targets = tuple(
            replace(target, size=min(target.size, position - target.at))
            for target in self.targets
            if target.at < position
        )
        return Piece(self.start, position, targets)

    def rest(self, position: int) -> "Piece | None":
        """What is left of it once the archive's bytes up to ``position`` have come."""
        targets = tuple(
            target
            if target.at >= position
            else replace(
                target,
                at=position,
                size=target.at + target.size - position,
                offset=target.offset + position - target.at,
            )
            for target in self.targets
            if target.at + target.size > position
        )
        return Piece(targets[0].at, self.stop, targets) if targets else None


_Spans = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Plan:
    """``keep`` are files that are complete, as far as their journals say, and are to be verified; ``take`` files that
    are elsewhere in the cache, and where; ``fetch`` the rest, with the spans of them that are missing: ``missing``
    bytes together.
    """

    keep: tuple[str, ...]
    take: Mapping[str, Path]
    fetch: tuple[tuple[Wanted, _Spans], ...]

    @property
    def missing(self) -> int:
        """How many bytes are to come from the archive."""
        return sum(stop - start for _, spans in self.fetch for start, stop in spans)

    def pieces(self, *, known_from: int, piece_bytes: int) -> tuple[list[Piece], list[Piece]]:
        """The pieces of the archive's end, which is here from byte ``known_from`` on, and those to be asked for."""
        known, asked = list[tuple[Wanted, _Spans]](), list[tuple[Wanted, _Spans]]()
        for file, spans in self.fetch:
            border = known_from - file.at
            known.append((file, [(max(start, border), stop) for start, stop in spans if stop > border]))
            asked.append((file, [(start, min(stop, border)) for start, stop in spans if start < border]))
        return cut(known, piece_bytes), cut(asked, piece_bytes)


def make_plan(wanted: Sequence[Wanted], missing: Mapping[str, _Spans], copies: Mapping[str, Path]) -> Plan:
    """Decide for each file: by ``missing`` spans, as the work folder has it, and ``copies`` of it by file name."""
    keep = tuple(file.file for file in wanted if not missing[file.file])
    take = {file.file: copies[file.file] for file in wanted if missing[file.file] and file.file in copies}
    fetch = tuple((file, missing[file.file]) for file in wanted if missing[file.file] and file.file not in take)
    return Plan(keep, take, fetch)


def cut(files: Iterable[tuple[Wanted, _Spans]], piece_bytes: int) -> list[Piece]:
    """The pieces, of ``piece_bytes`` at the most, that hold the given spans of the files, which are in the archive's
    order.
    """
    pieces = list[Piece]()
    for file, spans in files:
        for start, stop in spans:
            for offset in range(start, stop, piece_bytes):
                target = Target(file.at + offset, min(piece_bytes, stop - offset), file.file, offset)
                last = pieces[-1] if pieces else None
                end = target.at + target.size
                if last and 0 <= target.at - last.stop <= _GAP and end - last.start <= piece_bytes:
                    pieces[-1] = Piece(last.start, end, (*last.targets, target))
                else:
                    pieces.append(Piece(target.at, end, (target,)))
    return pieces


def portion(rate: float, left: int, connections: int) -> int:
    """How many bytes a connection should ask for next that has brought ``rate`` bytes a second, 0 if it is a new one,
    when ``left`` bytes are to come by so many ``connections``.

    That takes seconds at the most: where connections are slow, as on a line that loses packets, large pieces would
    leave the last ones of a transfer to few of them.
    """
    if not rate:
        return _LEAST
    seconds = min(max(left / (rate * connections) / 2, _SHORT_S), _LONG_S)
    return max(1, round(rate * seconds / _LEAST)) * _LEAST


def require_space(dataset_id: str, *, missing: int, free: int) -> None:
    """Raise `CacheError` with the code ``disk_full`` if ``missing`` bytes do not fit on the disk."""
    if missing > free:
        raise CacheError(
            f"{dataset_id} needs {missing / 1e9:.2f} GB more, and the cache has {free / 1e9:.2f} GB free: "
            f"{(missing - free) / 1e9:.2f} GB are missing",
            code="disk_full",
            remedy="Free some space (dataset-client gc, dataset-client rm), or name another directory (cache_dir, "
            "--cache-dir, or DATASET_CACHE_DIR). What was fetched is kept, and asking again goes on from there.",
        )


@dataclass
class Tempo:
    """How many connections to use at a time: more as long as that is faster, fewer when the server or the network
    does not bear them. New connections need a while until they are as fast as they can be, which is not measured.
    """

    limit: int
    connections: int = 2
    _rate: float = 0.0
    _before: int = 0
    _hold: int = 1

    def __post_init__(self) -> None:
        self.connections = min(self.connections, self.limit)

    def measured(self, rate: float) -> None:
        """A while went by at ``rate`` bytes a second with all connections in use."""
        if self._hold:
            self._hold -= 1
        elif self._before and rate < 1.15 * self._rate:  # the last step up was in vain
            self.connections, self._before, self._hold = self._before, 0, 10
        else:
            self._rate, self._before = rate, self.connections
            self.connections = min(2 * self.connections, self.limit)
            self._hold = 1
            if self.connections == self._before:
                self._before, self._hold = 0, 10

    def broke(self) -> None:
        """A connection broke, or was refused."""
        self._fall_to(self.connections - 1)

    def refused(self) -> None:
        """The server wants less of us."""
        self._fall_to(self.connections // 2)

    def _fall_to(self, connections: int) -> None:
        self.connections, self._before, self._hold = max(1, connections), 0, 4
