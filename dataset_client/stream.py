"""A dataset that is read while it is being made: iteration begins with the first sealed shard."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_client.arrivals import Arrivals
from dataset_client.dataset import Dataset
from dataset_client.errors import InvalidSettingError
from dataset_client.readers.features import Feature

if TYPE_CHECKING:
    import tensorflow as tf

    from dataset_client.readers.decoder import Value
    from dataset_client.readers.examples import Transform
    from dataset_client.readers.shuffle import Shuffle
    from dataset_client.stream_torch import TorchStream


class DatasetStream:
    """What `request_dataset` returns with ``stream=True``: readers that begin before the dataset is whole.

    The first iteration over a split, if it begins before the dataset is whole, gives each example exactly once, shard
    by shard in the order in which these arrive, which differs from run to run. Every later one is the ordinary one of
    `Dataset`. If the build fails half-way, iterating gives what had arrived and raises the error that `request_dataset`
    would have raised; of batches the whole ones are given.
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
        """Stop fetching, and wait until that has stopped; the build goes on at the server, and what has arrived is
        kept. Whoever still waits for examples gets a `BuildCancelledError` that says so.
        """
        self._stop()

    @property
    def features(self) -> Mapping[str, Feature]:
        """What each example holds, by name; waits until that is known. Raises as iterating does."""
        return self._arrivals.features()

    @property
    def whole(self) -> Dataset | None:
        """The whole dataset, if it is here by now."""
        return self._arrivals.dataset

    def dataset(self, timeout: float | None = None) -> Dataset:
        """The whole dataset; waits for it, up to ``timeout`` seconds. Raises as `request_dataset` does."""
        return self._arrivals.wait_for_all(timeout)

    def as_numpy_iterator(self, split: str) -> "Iterator[dict[str, Value]]":
        """The examples of ``split``, as `Dataset.as_numpy_iterator` gives them."""
        if whole := self.whole:
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
        size = self._batch_size(batch_size, least=1)
        if whole := self.whole:
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
        from dataset_client.stream_batches import Cut, batches

        cut = Cut(size, seed, shuffle, drop_last, transform, epoch)
        return batches(self._arrivals, split, cut, workers)

    def as_torch_dataset(
        self,
        split: str,
        *,
        batch_size: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        transform: "Transform | None" = None,
        channels_first: bool = True,
        workers: int = 0,
    ) -> "TorchStream":
        """Batches of ``split`` as a torch ``IterableDataset``, for ``DataLoader(…, batch_size=None)``; needs the extra
        ``torch``.

        Tensors are those of `Dataset.as_torch_dataset`. An iteration that begins before the dataset is whole does so in
        the process that asked for it, without worker processes, and is of one rank.
        """
        from dataset_client.readers.optional import require

        require("torch", extra="torch")
        from dataset_client.stream_torch import TorchStream

        size = self._batch_size(batch_size, least=1)
        options = {"batch_size": size, "shuffle": shuffle, "seed": seed, "drop_last": drop_last, "transform": transform}
        return TorchStream(self, split, options, channels_first=channels_first, workers=workers)

    def keras_batches(
        self,
        split: str,
        *,
        inputs: str = "image",
        labels: str = "mask",
        batch_size: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        transform: "Transform | None" = None,
        workers: int | None = None,
    ) -> Iterator[tuple[Any, Any]]:
        """Batches (inputs, labels) of the first epoch, for ``fit(…, epochs=1, shuffle=False)`` on any backend.

        Values are those of `Dataset.as_keras_dataset`, which is for the epochs after it: a `keras.utils.PyDataset` has
        to know how many batches there will be.
        """
        size = self._batch_size(batch_size, least=1)
        batches = self.batches(
            split,
            batch_size=size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            transform=transform,
            workers=workers,
        )
        return self._pairs(batches, inputs, labels, transformed=transform is not None)

    def _pairs(
        self, batches: Iterator[dict[str, Any]], inputs: str, labels: str, *, transformed: bool
    ) -> Iterator[tuple[Any, Any]]:
        from dataset_client.readers.pairs import Pairs

        pairs = Pairs(self.features, inputs, labels, transformed=transformed)
        yield from map(pairs.of, batches)

    def as_tf_dataset(
        self, split: str, *, batch_size: int | None = None, shuffle: "Shuffle | int | None" = None
    ) -> "tf.data.Dataset":
        """The examples of ``split`` as a ``tf.data.Dataset`` of dicts, as `Dataset.as_tf_dataset` gives them; needs the
        extra ``tensorflow``. Waits until `features` are known.

        An iteration that begins before the dataset is whole shuffles in the buffer alone; every later one is that of
        `Dataset.as_tf_dataset`. What goes wrong while it is streamed is raised as an error of TensorFlow's; `dataset`
        raises it as it is.
        """
        from dataset_client.readers.shuffle import Shuffle
        from dataset_client.stream_tf import make_tf_stream

        order = Shuffle(buffer=shuffle) if isinstance(shuffle, int) else shuffle
        size = self._batch_size(batch_size, least=0)
        if whole := self.whole:
            return whole.as_tf_dataset(split, batch_size=size, shuffle=order)
        return make_tf_stream(
            lambda: self._arriving(split), lambda: self._files(split), self.features, batch_size=size, shuffle=order
        )

    def _batch_size(self, given: int | None, *, least: int) -> int:
        """What was given, else the config's; raises `InvalidSettingError`."""
        size = self.config.get("batch_size", 0) if given is None else given
        if isinstance(size, bool) or not isinstance(size, int) or size < least:
            raise InvalidSettingError(
                f"batch_size={size!r} is not a number of examples", remedy=f"It is at least {least}."
            )
        return size

    def _examples(self, split: str) -> "Iterator[dict[str, Value]]":
        from dataset_client.readers.numpy_reader import read_examples

        for shard in self._arrivals.shards(split):
            yield from read_examples([(self._arrivals.path_of(shard), shard.examples)], self.features)

    def _arriving(self, split: str) -> Iterator[Path]:
        """The files of a split as they arrive."""
        return map(self._arrivals.path_of, self._arrivals.shards(split))

    def _files(self, split: str) -> list[Path] | None:
        """The files of a split in their order, once all are here."""
        whole = self.whole
        return whole.files(split) if whole else None
