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
    """``take`` are files that are elsewhere in the cache, and where; ``fetch`` others, with the spans of them that are
    missing: ``missing`` bytes together. The rest is complete, as far as journals say, and kept.
    """

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
    take = {file.file: copies[file.file] for file in wanted if missing[file.file] and file.file in copies}
    fetch = tuple((file, missing[file.file]) for file in wanted if missing[file.file] and file.file not in take)
    return Plan(take, fetch)


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
