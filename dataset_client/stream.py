"""A dataset that is read while it is being made: iteration begins with the first sealed shard."""

import contextlib
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_client.dataset import Dataset
from dataset_client.errors import UnknownSplitError, WaitTimeoutError
from dataset_client.readers.features import Feature

if TYPE_CHECKING:
    import numpy as np

    from dataset_client.readers.decoder import Value
    from dataset_client.readers.examples import Transform


@dataclass(frozen=True)
class ArrivedShard:
    """A shard that is here: its file, split, number of examples, and path until the dataset is whole."""

    file: str
    split: str
    examples: int
    path: Path


class Arrivals:
    """What has arrived of a dataset; one thread tells, others wait."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._shards: list[ArrivedShard] = []
        self._features: Mapping[str, Feature] | None = None
        self._dataset: Dataset | None = None
        self._error: BaseException | None = None

    # -- told by who fetches

    def describe(self, features: Mapping[str, Feature]) -> None:
        """What the examples hold is known."""
        with self._changed:
            self._features = features
            self._changed.notify_all()

    def arrived(self, shard: ArrivedShard) -> None:
        """One more shard is here."""
        with self._changed:
            self._shards.append(shard)
            self._changed.notify_all()

    def end(self, outcome: Dataset | BaseException) -> None:
        """All of it is here, or will never be."""
        with self._changed:
            if isinstance(outcome, Dataset):
                self._dataset = outcome
            else:
                self._error = outcome
            self._changed.notify_all()

    # -- asked by who reads

    @property
    def dataset(self) -> Dataset | None:
        """All of it, once it is here."""
        return self._dataset

    def wait_for_all(self, timeout: float | None = None) -> Dataset:
        """Wait until all of it is here; raises what came in between, or `WaitTimeoutError`."""
        with self._changed:
            self._changed.wait_for(lambda: self._dataset or self._error, timeout)
            if self._error:
                raise self._error
            if self._dataset is None:
                raise WaitTimeoutError(f"the dataset is not whole after {timeout} s")
            return self._dataset

    def features(self) -> Mapping[str, Feature]:
        """What the examples hold, once that is known."""
        with self._changed:
            self._changed.wait_for(lambda: self._features or self._dataset or self._error)
            if self._features is None and self._error:
                raise self._error
            return self._features or self.wait_for_all().features

    def shards(self, split: str, is_over: Callable[[], bool]) -> Iterator[ArrivedShard]:
        """The shards of a split as they arrive, each once, until all are here or ``is_over``.

        Raises what came in between, after the shards that had arrived before.
        """
        seen = 0
        while True:
            with self._changed:
                while not (len(self._shards) > seen or self._dataset or self._error or is_over()):
                    self._changed.wait()
                new, dataset, error = self._shards[seen:], self._dataset, self._error
            seen += len(new)
            for shard in new:
                if shard.split == split:
                    yield shard
            if is_over():
                return
            if new:
                continue
            if error:
                raise error
            if dataset:
                if split not in dataset.splits:
                    names = ", ".join(dataset.splits) or "none"
                    raise UnknownSplitError(f"{dataset.dataset_id} has no split {split!r}", remedy=f"It has: {names}.")
                return

    def wake(self) -> None:
        """Have those who wait look again."""
        with self._changed:
            self._changed.notify_all()


class DatasetStream:
    """What `request_dataset` returns with ``stream=True``: readers that begin before the dataset is whole.

    The first iteration over a split, if it begins before the dataset is whole, gives each example exactly once, shard
    by shard in the order in which these arrive, which differs from run to run. Every later one is the ordinary one of
    `Dataset`. If the build fails half-way, iterating raises the error that `request_dataset` would have raised.
    """

    def __init__(self, arrivals: Arrivals, config: Mapping[str, Any], stop: Callable[[], None]) -> None:
        self._arrivals = arrivals
        self._stop = stop
        self.config = dict(config)

    def __enter__(self) -> "DatasetStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop fetching; the build goes on at the server, and what has arrived is kept."""
        self._stop()

    @property
    def features(self) -> Mapping[str, Feature]:
        """What each example holds, by name; waits until that is known. Raises as iterating does."""
        return self._arrivals.features()

    def dataset(self, timeout: float | None = None) -> Dataset:
        """The whole dataset; waits for it, up to ``timeout`` seconds. Raises as `request_dataset` does."""
        return self._arrivals.wait_for_all(timeout)

    def as_numpy_iterator(self, split: str) -> "Iterator[dict[str, Value]]":
        """The examples of ``split``, as `Dataset.as_numpy_iterator` gives them."""
        if whole := self._arrivals.dataset:
            return whole.as_numpy_iterator(split)
        return self._examples(split)

    def batches(
        self,
        split: str,
        *,
        batch_size: int | None = None,
        seed: int = 0,
        shuffle: bool = False,
        drop_last: bool = False,
        transform: "Transform | None" = None,
        workers: int | None = None,
        epoch: int = 0,
    ) -> Iterator[dict[str, Any]]:
        """The batches of one epoch over ``split``, as `Dataset.loader` gives them.

        While the dataset is not whole yet, ``shuffle`` shuffles within each shard.
        """
        from dataset_client.readers.position import require_count

        size = self.config.get("batch_size", 0) if batch_size is None else batch_size
        require_count("batch_size", size, least=1)
        if whole := self._arrivals.dataset:
            loader = whole.loader(
                split,
                batch_size=size,
                shuffle=shuffle,
                seed=seed,
                drop_last=drop_last,
                transform=transform,
                workers=workers,
            )
            loader.set_epoch(epoch)
            return iter(loader)
        return self._batches(split, size, seed if shuffle else None, drop_last, transform, workers, epoch)

    def _examples(self, split: str) -> "Iterator[dict[str, Value]]":
        from dataset_client.readers.numpy_reader import read_examples

        for shard in self._arrivals.shards(split, lambda: False):
            yield from read_examples([self._path_of(shard)], self.features)

    def _batches(
        self,
        split: str,
        size: int,
        seed: int | None,
        drop_last: bool,
        transform: "Transform | None",
        workers: int | None,
        epoch: int,
    ) -> Iterator[dict[str, Any]]:
        import numpy as np

        from dataset_client.readers.decoder import ExampleDecoder
        from dataset_client.readers.examples import Examples, stack
        from dataset_client.readers.index import RecordIndex
        from dataset_client.readers.loader import default_workers
        from dataset_client.readers.parallel import as_they_come

        features, stop = self.features, threading.Event()
        decode = ExampleDecoder(features)

        def batches() -> Iterator[list[tuple[ArrivedShard, Examples, int]]]:
            batch = []
            for shard in self._arrivals.shards(split, stop.is_set):
                records = RecordIndex([(self._path_of(shard), shard.examples)])
                records.open()  # it moves when the dataset is whole
                examples, numbers = Examples(records, decode), np.arange(shard.examples)
                if seed is not None:
                    numbers = _generator(seed, epoch, shard).permutation(numbers)
                for number in numbers.tolist():
                    batch.append((shard, examples, number))
                    if len(batch) == size:
                        yield batch
                        batch = []
            if batch and not drop_last and not stop.is_set():
                yield batch

        def read(batch: list[tuple[ArrivedShard, Examples, int]]) -> dict[str, Any]:
            values: list[Mapping[str, Any]] = [examples.read(number) for _, examples, number in batch]
            if transform is not None:
                drawn = [_generator(seed or 0, epoch, shard, number) for shard, _, number in batch]
                values = [transform(dict(value), rng) for value, rng in zip(values, drawn, strict=True)]
            return {name: stack([value[name] for value in values], features.get(name)) for name in values[0]}

        threads = default_workers() if workers is None else max(workers, 1)
        with contextlib.closing(
            as_they_come(read, batches(), workers=threads, prefetch=2 * threads, stop=stop)
        ) as results:
            try:
                yield from results
            finally:
                stop.set()
                self._arrivals.wake()

    def _path_of(self, shard: ArrivedShard) -> Path:
        """Where a shard is now: it moves when the dataset is whole."""
        whole = self._arrivals.dataset
        return whole.path / shard.file if whole else shard.path


def _generator(seed: int, epoch: int, shard: ArrivedShard, *more: int) -> "np.random.Generator":
    """Random numbers that depend on these alone."""
    import numpy as np

    return np.random.default_rng([seed, epoch, zlib.crc32(shard.file.encode()), *more])
