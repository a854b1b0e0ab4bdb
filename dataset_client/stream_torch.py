"""Batches for PyTorch while a dataset is being made. This module needs torch; `DatasetStream.as_torch_dataset` imports
it.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch.utils.data import IterableDataset, get_worker_info

from dataset_client.errors import InvalidSettingError
from dataset_client.readers.position import require_count
from dataset_client.readers.torch_reader import TorchBatches, rank_and_ranks, to_tensors

if TYPE_CHECKING:
    from dataset_client.dataset import Dataset
    from dataset_client.stream import DatasetStream


class TorchStream(IterableDataset[dict[str, Any]]):  # type: ignore[misc]  # torch is not looked into
    """One epoch's batches, for ``DataLoader(batches, batch_size=None)``: streamed if the dataset is not whole when the
    iteration begins, else those of `Dataset.as_torch_dataset`.
    """

    def __init__(
        self, stream: "DatasetStream", split: str, options: Mapping[str, Any], *, channels_first: bool, workers: int
    ) -> None:
        super().__init__()
        self._stream, self._split, self._options = stream, split, dict(options)
        self._channels_first = channels_first
        self._workers = require_count("workers", workers, least=0)
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Read ``epoch`` next: with ``shuffle`` it has an order of its own."""
        self._epoch = require_count("epoch", epoch, least=0)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if whole := self._stream.whole:
            return iter(self._ordinary(whole))
        if get_worker_info() is not None:
            raise _no_workers()
        if rank_and_ranks(None, None)[1] > 1:
            raise InvalidSettingError(
                "a dataset that is not whole yet is not shared among ranks",
                remedy="Wait for it on every rank: stream.dataset().as_torch_dataset(…).",
            )
        return self._streamed()

    def __reduce__(self) -> tuple[object, ...]:
        """What a worker process gets that is not forked."""
        if whole := self._stream.whole:
            return _itself, (self._ordinary(whole),)
        raise _no_workers()

    def _ordinary(self, whole: "Dataset") -> TorchBatches:
        batches = whole.as_torch_dataset(
            self._split, **self._options, channels_first=self._channels_first, workers=self._workers
        )
        batches.set_epoch(self._epoch)
        return batches

    def _streamed(self) -> Iterator[dict[str, Any]]:
        batches = self._stream.batches(self._split, **self._options, workers=self._workers, epoch=self._epoch)
        features = self._stream.features
        for batch in batches:
            yield to_tensors(batch, features, channels_first=self._channels_first, batched=True)


def _itself(batches: TorchBatches) -> TorchBatches:
    return batches


def _no_workers() -> InvalidSettingError:
    return InvalidSettingError(
        "a dataset that is not whole yet cannot be read by worker processes",
        remedy="Give num_workers=0 to the DataLoader of the first epoch; threads decode (workers=…).",
    )
