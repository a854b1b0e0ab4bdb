"""Batches of a dataset while it arrives. Needs the extra ``readers``."""

import contextlib
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataset_client.arrivals import Arrivals, ArrivedShard
from dataset_client.readers.decoder import ExampleDecoder
from dataset_client.readers.examples import Examples, Transform, stack
from dataset_client.readers.index import RecordIndex
from dataset_client.readers.loader import default_workers
from dataset_client.readers.parallel import as_they_come

#: An example: its shard, that shard's examples, and its number among them.
_Place = tuple[ArrivedShard, Examples, int]


@dataclass(frozen=True)
class Cut:
    """How an epoch is cut into batches of ``size``; with ``shuffle`` each shard is shuffled, by seed and epoch."""

    size: int
    seed: int = 0
    shuffle: bool = False
    drop_last: bool = False
    transform: Transform | None = None
    epoch: int = 0

    def random(self, shard: ArrivedShard, *more: int) -> np.random.Generator:
        """Random numbers that depend on seed, epoch, shard and ``more`` alone."""
        return np.random.default_rng([len(more), self.seed, self.epoch, zlib.crc32(shard.file.encode()), *more])


def batches(arrivals: Arrivals, split: str, cut: Cut, workers: int | None) -> Iterator[dict[str, Any]]:
    """The batches of one epoch, decoded in ``workers`` threads while the next shards arrive."""
    features, stop = arrivals.features(), threading.Event()

    def read(batch: list[_Place]) -> dict[str, Any]:
        values: list[Mapping[str, Any]] = [examples.read(number) for _, examples, number in batch]
        if cut.transform is not None:
            drawn = [cut.random(shard, number) for shard, _, number in batch]
            values = [cut.transform(dict(value), rng) for value, rng in zip(values, drawn, strict=True)]
        return {name: stack([value[name] for value in values], features.get(name)) for name in values[0]}

    threads = default_workers() if workers is None else max(workers, 1)
    places = _cut(arrivals, split, cut, ExampleDecoder(features), stop)
    with contextlib.closing(as_they_come(read, places, workers=threads, prefetch=2 * threads, stop=stop)) as results:
        try:
            yield from results
        finally:
            stop.set()
            arrivals.wake()


def _cut(
    arrivals: Arrivals, split: str, cut: Cut, decode: ExampleDecoder, stop: threading.Event
) -> Iterator[list[_Place]]:
    """What is in each batch, as the shards arrive."""
    batch = list[_Place]()
    for shard in arrivals.shards(split, stop.is_set):
        records = RecordIndex([(arrivals.path_of(shard), shard.examples)])
        records.open()  # its name may go before it is read
        examples, numbers = Examples(records, decode), np.arange(shard.examples)
        if cut.shuffle:
            numbers = cut.random(shard).permutation(numbers)
        for number in numbers.tolist():
            batch.append((shard, examples, number))
            if len(batch) == cut.size:
                yield batch
                batch = []
    if batch and not cut.drop_last and not stop.is_set():
        yield batch
