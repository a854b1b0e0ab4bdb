"""Batches for Keras on any backend. This module needs keras; `Dataset.as_keras_dataset` imports it.

Keras' own worker threads are not used: they read on into the next epoch before it is given its order, and lose the
batch that Keras looks at to build a model. Ours begin when batches are asked for one after the other.
"""

import threading
from collections.abc import Generator, Mapping
from typing import Any

import keras

from dataset_client.readers.loader import Batch, Feed
from dataset_client.readers.pairs import Pairs
from dataset_client.readers.position import Position, require_count


class KerasBatches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """One epoch: ``self[i]`` is batch i as (inputs, labels).

    What becomes of pictures says `Pairs`; all else is as `Dataset.loader` gives it. Hand it to ``fit`` with
    ``shuffle=False``, as Keras' own shuffling draws on a global generator, and with ``callbacks=[self.epochs()]``,
    which gives each epoch its order; and without ``steps_per_epoch``, with which Keras goes on in the next epoch at
    the batch where it stopped in this one.
    """

    def __init__(self, feed: Feed, *, inputs: str, labels: str, workers: int) -> None:
        super().__init__()
        self._threads = require_count("workers", workers, least=0)
        self._lock = threading.Lock()  # Keras asks from one thread, but from which one it does not say
        self._ahead: Generator[Batch, None, None] | None = None
        self._next = 0
        features = feed.examples.features
        self._feed, self._pairs = feed, Pairs(features, inputs, labels, transformed=feed.transform is not None)
        self._set(Position())

    def __len__(self) -> int:
        """The number of batches of this rank in the epoch, or in the rest of it after `load_state_dict`."""
        return len(self._schedule)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        with self._lock:
            batch = self._read(index)
        return self._pairs.of(batch)

    def _read(self, index: int) -> Batch:
        """Batch ``index``; from the second on that comes after the one before, the next ones are read ahead."""
        follows = index == self._next
        self._next = index + 1
        if not follows:
            self._stop()
        elif self._ahead is None and index > 0:
            steps = range(index, len(self))
            self._ahead = self._feed.batches(self._schedule, steps, workers=self._threads, prefetch=2 * self._threads)
        if self._ahead is None:
            return self._feed.read(self._schedule, index)
        try:
            batch = next(self._ahead)
        except Exception:
            self._stop()  # it has ended with its error
            raise
        if index + 1 == len(self):
            self._stop()  # Keras keeps us, and our threads would wait for the next epoch
        return batch

    def _stop(self) -> None:
        if self._ahead is not None:
            self._ahead.close()
        self._ahead = None

    def epochs(self) -> Any:
        """A callback for ``fit`` that gives each epoch its own order: epoch n of the training is epoch n here."""
        return keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: self.set_epoch(epoch))  # noqa: ARG005 - Keras names them

    def set_epoch(self, epoch: int) -> None:
        """Read ``epoch`` next; from its beginning, unless it is the one that a loaded state is in."""
        wanted = require_count("epoch", epoch, least=0)
        if wanted != self._position.epoch:
            self._set(Position(wanted))

    def state_dict(self, steps: int) -> dict[str, Any]:
        """The state after ``steps`` batches of this epoch, or of its rest since `load_state_dict`."""
        done = min(require_count("steps", steps, least=0), len(self))
        consumed = self._schedule.consumed_after(done - 1) if done else self._position.consumed
        return self._feed.state_at(Position(self._position.epoch, consumed))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Read the rest of the epoch that ``state`` is in.

        ``fit`` asks only once for the number of batches, so end that epoch with a ``fit`` of its own:
        ``initial_epoch=e, epochs=e + 1``.

        Raises `InvalidSettingError` with code ``state_mismatch`` for a state of another dataset, split, seed or order.
        """
        self._set(self._feed.position_in(state))

    def _set(self, position: Position) -> None:
        with self._lock:
            self._stop()
            self._next = 0
            self._position, self._schedule = position, self._feed.schedule(position)
