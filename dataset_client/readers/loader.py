"""Batches of numpy arrays in a global order, decoded ahead in threads, resumable to the example.

libjpeg-turbo and zlib decode without Python's lock, so threads share the work of a process well; nothing is copied
between processes.
"""

import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from dataset_client.errors import InvalidSettingError
from dataset_client.readers.examples import BatchReader, Examples, Transform
from dataset_client.readers.order import Order, Schedule
from dataset_client.readers.parallel import in_order
from dataset_client.readers.position import Position, Source, from_state, require_count, to_state

Batch = dict[str, Any]
_MAX_WORKERS = 8


@dataclass(frozen=True)
class Feed:
    """What is read in which order, and how it is cut into batches: what all our readers of batches share.

    Raises `InvalidSettingError` for a batch size below 1 and for a rank outside [0, ranks).
    """

    examples: Examples
    source: Source
    batch_size: int
    rank: int = 0
    ranks: int = 1
    drop_last: bool = False
    transform: Transform | None = None

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("ranks", 1), ("rank", 0)):
            # numpy's integers may be given, but are no JSON in a state
            object.__setattr__(self, name, require_count(name, getattr(self, name), least=least))
        if self.rank >= self.ranks:
            raise InvalidSettingError(f"rank={self.rank} is none of {self.ranks} ranks", remedy="The first is 0.")

    def schedule(self, position: Position) -> Schedule:
        """The steps of an epoch from ``position`` on."""
        seed = self.source.seed if self.source.shuffle else None
        return Schedule(
            Order(len(self.examples), seed, position.epoch),
            batch_size=self.batch_size,
            rank=self.rank,
            ranks=self.ranks,
            drop_last=self.drop_last,
            consumed=position.consumed,
        )

    def read(self, schedule: Schedule, step: int) -> Batch:
        """This rank's batch of a step."""
        reader = BatchReader(self.examples, self.source.seed, self.transform)
        return reader.read(schedule.examples(step), schedule.order.epoch)

    def batches(self, schedule: Schedule, steps: range, *, workers: int, prefetch: int) -> Generator[Batch, None, None]:
        """The batches of some steps, in order (see `in_order`)."""
        return in_order(lambda step: self.read(schedule, step), steps, workers=workers, prefetch=prefetch)

    def state_at(self, position: Position) -> dict[str, Any]:
        """The state that says so."""
        return to_state(self.source, position)

    def position_in(self, state: Mapping[str, Any]) -> Position:
        """The position that a state tells; raises `InvalidSettingError` if it is of another source."""
        return from_state(state, self.source, len(self.examples))


class Loader:
    """Iterates over the batches of one rank: see `Dataset.loader`.

    Each iteration is one epoch, and the next iteration is the next epoch. One that is left early is begun again by
    the next, where it began: after `load_state_dict` with the rest of the epoch that the state was taken in.

    A place that is chosen during an iteration is where the next one begins, and what `state_dict` says from then on:
    the iteration goes on, and counts no more.
    """

    def __init__(self, feed: Feed, *, epoch: int = 0, workers: int | None = None, prefetch: int | None = None) -> None:
        self._feed = feed
        self._workers = default_workers() if workers is None else require_count("workers", workers, least=0)
        self._prefetch = 2 * self._workers if prefetch is None else require_count("prefetch", prefetch, least=0)
        self._start = Position(require_count("epoch", epoch, least=0))  # of the next iteration
        self._now = self._start  # of the one under way

    def __len__(self) -> int:
        """The number of batches that the next iteration gives."""
        return len(self._feed.schedule(self._start))

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration reads."""
        return self._start.epoch

    def set_epoch(self, epoch: int) -> None:
        """Read ``epoch`` next; from its beginning, unless it is the one that a loaded state is in. Nothing changes if
        it is the one that is read.
        """
        wanted = require_count("epoch", epoch, least=0)
        if wanted != self._start.epoch:
            self._start = self._now = Position(wanted)

    def state_dict(self) -> dict[str, Any]:
        """What was handed out so far, over all ranks, as plain JSON; batches read ahead do not count.

        The same on each rank if they have done the same number of steps.
        """
        return self._feed.state_at(self._now)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after what the state says, with the next iteration; the state may come from another number of ranks,
        workers, or another batch size.

        Raises `InvalidSettingError` with code ``state_mismatch`` for a state of another dataset, split, seed or order.
        """
        self._start = self._now = self._feed.position_in(state)

    def __iter__(self) -> Iterator[Batch]:
        start = self._start = self._now = replace(self._start)  # from here on the one whose iteration counts
        return self._iterate(start, self._feed.schedule(start))

    def _iterate(self, start: Position, schedule: Schedule) -> Iterator[Batch]:
        steps, epoch = range(len(schedule)), schedule.order.epoch
        with closing(self._feed.batches(schedule, steps, workers=self._workers, prefetch=self._prefetch)) as batches:
            for step in steps:
                batch = next(batches)
                if self._start is start:
                    self._now = Position(epoch, schedule.consumed_after(step))
                yield batch
                del batch  # not held while the next one is waited for
        if self._start is start:
            self._start = self._now = Position(epoch + 1)


def default_workers() -> int:
    """A thread for each core that this process may use, 8 at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MAX_WORKERS)
