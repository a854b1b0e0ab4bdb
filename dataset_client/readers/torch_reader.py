"""Examples for PyTorch: batches for a ``DataLoader`` with any number of worker processes, and single examples.

This module needs torch; `Dataset.as_torch_dataset` and `Dataset.as_torch_map_dataset` import it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torch.utils.data import Dataset as MapDataset

from dataset_client.readers.examples import Examples
from dataset_client.readers.features import Feature, is_picture
from dataset_client.readers.loader import Feed
from dataset_client.readers.position import Position, require_count


def rank_and_ranks(rank: int | None, ranks: int | None) -> tuple[int, int]:
    """As told; what is not told is as ``torch.distributed`` says, if it is initialised, else 0 of 1."""
    told = torch.distributed.is_available() and torch.distributed.is_initialized()
    if rank is None:
        rank = torch.distributed.get_rank() if told else 0
    if ranks is None:
        ranks = torch.distributed.get_world_size() if told else 1
    return rank, ranks


class TorchBatches(IterableDataset[dict[str, Any]]):  # type: ignore[misc]  # torch is not looked into
    """The batches of one rank: ``batches.loader(num_workers=W)``, or ``DataLoader(batches, batch_size=None,
    num_workers=W)``.

    Worker process w has the steps w, w + W, w + 2·W … of the rank; the ``DataLoader`` asks its workers in turn, so it
    gives all steps in order, whatever W is. Without worker processes, ``workers`` threads decode ahead.
    """

    def __init__(self, feed: Feed, *, channels_first: bool, workers: int) -> None:
        super().__init__()
        self._feed, self._channels_first = feed, channels_first
        self._workers = require_count("workers", workers, least=0)
        # Shared, as worker processes may live on from epoch to epoch.
        self._position = torch.zeros(2, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        """The number of batches of this rank in the epoch, or in the rest of it after `load_state_dict`."""
        return self.steps_from(self.position)

    def steps_from(self, position: Position) -> int:
        """The number of batches of this rank from there to the end of the epoch."""
        return len(self._feed.schedule(position))

    def loader(self, **options: Any) -> "TorchLoader":
        """A ``DataLoader`` that counts what it hands out; ``options`` are those of ``DataLoader``, without batches."""
        return TorchLoader(self, **options)

    @property
    def epoch(self) -> int:
        """The epoch that is read next."""
        return self.position.epoch

    @property
    def position(self) -> Position:
        """Where the next reading begins, in any process."""
        epoch, consumed = self._position.tolist()
        return Position(epoch, consumed)

    def go_to(self, position: Position) -> None:
        """Have all processes begin there, as far as they have not begun."""
        self._position[0], self._position[1] = position.epoch, position.consumed

    def set_epoch(self, epoch: int) -> None:
        """Read ``epoch`` next; from its beginning, unless it is the one that a loaded state is in.

        Call it before each epoch, also where workers persist: without it, all have the order of the first, save with
        a `TorchLoader`, which is told itself.
        """
        if require_count("epoch", epoch, least=0) != self.epoch:
            self.go_to(Position(epoch))

    def state_dict(self, steps: int) -> dict[str, Any]:
        """The state after ``steps`` batches came out of the ``DataLoader`` in this epoch, or since `load_state_dict`.

        They are counted by the caller, as this object cannot know what lies ready in the queues of worker processes.
        """
        start, schedule = self.position, self._feed.schedule(self.position)
        done = min(require_count("steps", steps, least=0), len(schedule))
        consumed = schedule.consumed_after(done - 1) if done else start.consumed
        return self.state_at(Position(start.epoch, consumed))

    def state_at(self, position: Position) -> dict[str, Any]:
        """The state that says so."""
        return self._feed.state_at(position)

    def position_in(self, state: Mapping[str, Any]) -> Position:
        """The position that a state tells. Raises as `load_state_dict` does."""
        return self._feed.position_in(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Read the rest of the epoch that ``state`` is in; it may come from another number of ranks or workers.

        Raises `InvalidSettingError` with code ``state_mismatch`` for a state of another dataset, split, seed or order.
        """
        self.go_to(self.position_in(state))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        first, each, threads = (0, 1, self._workers) if worker is None else (worker.id, worker.num_workers, 0)
        schedule = self._feed.schedule(self.position)
        steps = range(first, len(schedule), each)
        features = self._feed.examples.features
        for batch in self._feed.batches(schedule, steps, workers=threads, prefetch=2 * threads):
            yield to_tensors(batch, features, channels_first=self._channels_first, batched=True)


class TorchLoader(DataLoader[dict[str, Any]]):  # type: ignore[misc]  # torch is not looked into
    """A ``DataLoader`` of `TorchBatches` that knows where it stands: `state_dict` needs no count of steps.

    Each iteration is one epoch, and the next iteration the next epoch. One that is left early is begun again by the
    next, after `load_state_dict` where the loaded state is. A place that is chosen during an iteration is where the
    next one begins, and what `state_dict` says from then on: the iteration goes on, and counts no more.
    """

    def __init__(self, batches: TorchBatches, **options: Any) -> None:
        super().__init__(batches, batch_size=None, **options)
        self._batches, self._given = batches, 0
        self._under_way: object = None  # stands for the iteration that counts
        self._chosen: Position | None = None  # during it, of whose worker processes some may yet begin

    def __len__(self) -> int:
        """The number of batches that the next iteration gives."""
        return self._batches.steps_from(self._chosen or self._batches.position)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        start = self._chosen or self._batches.position
        self._go_to(start)
        this = self._under_way = object()
        for batch in super().__iter__():
            self._given += self._under_way is this
            yield batch
        if self._under_way is this:
            told = self._batches.position  # to them, not to us
            self._go_to(self._chosen or (Position(start.epoch + 1) if told == start else told))

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration reads."""
        return (self._chosen or self._batches.position).epoch

    def set_epoch(self, epoch: int) -> None:
        """Read ``epoch`` next; from its beginning, unless it is the one that a loaded state is in. Nothing changes if
        it is the one that is read.
        """
        if require_count("epoch", epoch, least=0) != self.epoch:
            self._choose(Position(epoch))

    def state_dict(self) -> dict[str, Any]:
        """What was handed out so far, over all ranks, as plain JSON; batches read ahead do not count."""
        return self._batches.state_at(self._chosen) if self._chosen else self._batches.state_dict(self._given)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after what the state says: see `TorchBatches.load_state_dict`."""
        self._choose(self._batches.position_in(state))

    def _choose(self, position: Position) -> None:
        if self._under_way is None:
            self._go_to(position)
        else:
            self._chosen = position

    def _go_to(self, position: Position) -> None:
        self._batches.go_to(position)
        self._under_way, self._chosen, self._given = None, None, 0


class TorchExamples(MapDataset[dict[str, Any]]):  # type: ignore[misc]  # torch is not looked into
    """The examples of a split by their number, for a ``DataLoader`` with a sampler of torch's."""

    def __init__(self, examples: Examples, *, channels_first: bool) -> None:
        self._examples, self._channels_first = examples, channels_first

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example, features = self._examples[index], self._examples.features
        return to_tensors(example, features, channels_first=self._channels_first, batched=False)


def to_tensors(
    values: Mapping[str, Any], features: Mapping[str, Feature], *, channels_first: bool, batched: bool
) -> dict[str, Any]:
    """Arrays as tensors, texts and the like as they are; ``batched`` if the first axis of an array is the batch's.

    With ``channels_first`` pictures (H, W, C) become (C, H, W) without a copy: memory keeps torch's ``channels_last``
    layout, which its convolutions like best. What a transform has made of a picture that has no channels, such as class
    numbers (H, W), stays as it is.
    """
    return {
        name: _convert(value, channels_first and is_picture(features.get(name)), 4 if batched else 3)
        for name, value in values.items()
    }


def _convert(value: Any, channels_first: bool, axes: int) -> Any:
    """``axes`` are those of an array of pictures."""
    if isinstance(value, list):  # of a batch whose pictures differ in size
        return [_convert(item, channels_first, 3) for item in value]
    if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind not in "biufc":
        return value
    if isinstance(value, np.generic):
        return torch.tensor(value.item(), dtype=torch.from_numpy(np.empty(0, value.dtype)).dtype)
    tensor = torch.from_numpy(np.require(value, requirements=["C", "W"]))  # torch knows no negative strides
    return tensor.movedim(-1, -3) if channels_first and tensor.ndim == axes else tensor
