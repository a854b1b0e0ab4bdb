"""What has arrived of a dataset that is being streamed: told by who fetches, waited for by who reads."""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dataset_client.dataset import Dataset
from dataset_client.errors import UnknownSplitError, WaitTimeoutError
from dataset_client.readers.features import Feature


@dataclass(frozen=True)
class ArrivedShard:
    """A shard that is here: its file, split, number of examples, and a path that it keeps for a day."""

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

    def shards(self, split: str, is_over: Callable[[], bool] = lambda: False) -> Iterator[ArrivedShard]:
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

    def path_of(self, shard: ArrivedShard) -> Path:
        """Where a shard is now. Raises as `wait_for_all` does."""
        whole = self._dataset
        if whole is None and not shard.path.exists():  # it lost that name; the dataset will have it
            whole = self.wait_for_all()
        return whole.path / shard.file if whole else shard.path

    def wake(self) -> None:
        """Have those who wait look again."""
        with self._changed:
            self._changed.notify_all()
