"""A dataset that is here: the handle that callers hold."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_client.errors import IntegrityError, InvalidSettingError, UnknownSplitError
from dataset_client.manifest import (
    FEATURES_FILE,
    Shard,
    content_fault,
    find_faults,
    load_manifest,
    members_of,
    shards_of,
)
from dataset_client.readers.features import Feature, parse_features
from dataset_client.uses import hold

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from dataset_client.readers.examples import Examples, Transform
    from dataset_client.readers.keras_reader import KerasBatches
    from dataset_client.readers.loader import Feed, Loader
    from dataset_client.readers.shuffle import Shuffle
    from dataset_client.readers.torch_reader import TorchBatches, TorchExamples


@dataclass(frozen=True, eq=False)
class Dataset:
    """An unpacked, verified archive.

    ``path`` is its directory, which `tensorflow_datasets.builder_from_directory` opens too. ``manifest`` is
    its ``manifest.json``. ``config`` is what the caller asked for, reader-only options such as
    ``batch_size`` included.
    """

    path: Path
    manifest: dict[str, Any]
    config: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> "Dataset":
        """Open an unpacked archive; raises `IntegrityError` if a file is missing or damaged (see `find_faults`).

        One in a cache is not removed from there while this process has it open.
        """
        hold(path)
        manifest = load_manifest(path)
        if faults := find_faults(path, members_of(path, manifest)):
            raise IntegrityError(f"{path} is damaged: {'; '.join(faults)}", remedy="Ask for the dataset again.")
        return cls(path, manifest, dict(manifest["config"]))

    @property
    def dataset_id(self) -> str:
        """The dataset's identity: name, resolved handler version, md5 of the effective config."""
        return str(self.manifest["dataset_id"])

    @cached_property
    def features(self) -> dict[str, Feature]:
        """What each example holds, by name; raises `UnsupportedFeatureError` for kinds that our readers do
        not decode.
        """
        path = self.path / FEATURES_FILE
        try:
            return parse_features(json.loads(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise IntegrityError(f"{path} cannot be read: {error}") from error

    @property
    def splits(self) -> dict[str, int]:
        """The number of examples in each split."""
        return {name: int(split["examples"]) for name, split in self.manifest["splits"].items()}

    def files(self, split: str) -> list[Path]:
        """The TFRecord files of ``split`` in order; raises `UnknownSplitError`."""
        return [self.path / shard.file for shard in self._shards(split)]

    def verify(self) -> None:
        """Hash every file again, or of an archive unpacked by other means every shard; raises `IntegrityError` for the
        first that is not what it was.
        """
        for member in members_of(self.path, self.manifest):
            if fault := content_fault(self.path, member):
                raise IntegrityError(f"{self.path}: {fault}", remedy=f"Remove {self.path} and ask again.")

    def as_numpy_iterator(
        self, split: str
    ) -> "Iterator[dict[str, np.ndarray[Any, Any] | np.generic | str | bytes | list[str]]]":
        """The examples of ``split`` one by one, in order; needs the extra ``readers``.

        An image is uint8 (H, W, C), a mask uint8 (H, W, 1) of 0 and 255 (unless the config asks for other levels), a
        text str, a list of texts list[str], bytes bytes, a scalar a numpy scalar of its dtype and a tensor an array of
        its dtype and shape. Arrays of pixels are read-only. Raises `UnknownSplitError` and
        `MissingDependencyError` at once, and `IntegrityError` with file and offset where a file is damaged.
        """
        from dataset_client.readers.numpy_reader import read_examples

        return read_examples(self._examples_in(split), self.features)

    def examples(self, split: str, *, check_crc: bool = True) -> "Examples":
        """The examples of ``split`` by their number: ``len(examples)``, ``examples[i]``, ``examples[i:j]``; needs the
        extra ``readers``.

        Values are those of `as_numpy_iterator`. ``check_crc=False`` leaves out the checksum over each record, as may
        who has called `verify`. Raises `UnknownSplitError` and `MissingDependencyError`; and when read `IndexError`,
        and `IntegrityError` with file and offset.
        """
        from dataset_client.readers.decoder import ExampleDecoder
        from dataset_client.readers.examples import Examples
        from dataset_client.readers.index import RecordIndex

        index = RecordIndex(self._examples_in(split), check_crc=check_crc)
        return Examples(index, ExampleDecoder(self.features))

    def loader(
        self,
        split: str,
        *,
        batch_size: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        ranks: int = 1,
        drop_last: bool = False,
        transform: "Transform | None" = None,
        workers: int | None = None,
        prefetch: int | None = None,
        check_crc: bool = True,
    ) -> "Loader":
        """Batches of ``split`` as dicts of numpy arrays (B, …), decoded ahead in threads; needs the extra ``readers``.

        Texts, byte strings and lists, whose length differs between examples, are Python lists of B values; so are
        images, where those of a batch differ in size. ``batch_size`` ≥ 1 is of each rank, and defaults to the
        config's.

        With ``shuffle`` the order of all examples is a function of (``seed``, epoch), else it is that of
        `as_numpy_iterator`. Step t of ``ranks`` ranks consumes the positions [t·ranks·B, (t + 1)·ranks·B) of it, rank
        ``rank`` its share. All ranks do the same number of steps, and each example comes once: what is left for the
        last step is shared evenly, so its batches are smaller, and some are empty if fewer examples than ranks are
        left. ``drop_last`` leaves that step out.

        ``transform(example, rng)`` gives the example to use instead; ``rng`` is a `numpy.random.Generator` that is a
        function of (``seed``, epoch, the example's number). Neither it nor the order depends on ``workers``, the
        number of threads (None: one for each core, 8 at most; 0: decode when asked), or on ``prefetch``, the number of
        batches that lie ready at most (None: twice the workers). See `Loader` for epochs and for going on where a
        training stopped, and `examples` for ``check_crc`` and errors; `InvalidSettingError` is raised for numbers
        that cannot be.
        """
        from dataset_client.readers.loader import Loader

        feed = self._feed(split, batch_size, shuffle, seed, rank, ranks, drop_last, transform, check_crc)
        return Loader(feed, epoch=epoch, workers=workers, prefetch=prefetch)

    def as_torch_dataset(
        self,
        split: str,
        *,
        batch_size: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
        rank: int | None = None,
        ranks: int | None = None,
        drop_last: bool = False,
        transform: "Transform | None" = None,
        channels_first: bool = True,
        workers: int = 0,
        check_crc: bool = True,
    ) -> "TorchBatches":
        """Batches of ``split`` as a torch ``IterableDataset``, for ``DataLoader(…, batch_size=None, num_workers=W)``;
        needs the extra ``torch``.

        All is as in `loader`, but arrays are tensors, images uint8 (B, C, H, W), or (B, H, W, C) without
        ``channels_first``. ``rank`` and ``ranks`` default to those of ``torch.distributed``, where that is
        initialised. Whatever the number of worker processes, batches come in one order. ``workers`` is the number of
        threads where there are no worker processes.
        """
        from dataset_client.readers.optional import require

        require("torch", extra="torch")
        from dataset_client.readers.torch_reader import TorchBatches, rank_and_ranks

        own, all_ranks = rank_and_ranks(rank, ranks)
        feed = self._feed(split, batch_size, shuffle, seed, own, all_ranks, drop_last, transform, check_crc)
        return TorchBatches(feed, channels_first=channels_first, workers=workers)

    def as_torch_map_dataset(
        self, split: str, *, channels_first: bool = True, check_crc: bool = True
    ) -> "TorchExamples":
        """Single examples of ``split`` as a torch map-style ``Dataset``, whose order and batches are the
        ``DataLoader``'s; needs the extra ``torch``.
        """
        from dataset_client.readers.optional import require

        require("torch", extra="torch")
        from dataset_client.readers.torch_reader import TorchExamples

        return TorchExamples(self.examples(split, check_crc=check_crc), channels_first=channels_first)

    def as_keras_dataset(
        self,
        split: str,
        *,
        inputs: str = "image",
        labels: str = "mask",
        batch_size: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        drop_last: bool = False,
        transform: "Transform | None" = None,
        workers: int | None = None,
        check_crc: bool = True,
    ) -> "KerasBatches":
        """Batches (inputs, labels) of ``split`` as a ``keras.utils.PyDataset``, on any backend; needs the extra
        ``training``.

        Images as inputs are float32 in [0, 255], as labels float32 in [0, 1]; all else is as in `loader`. See
        `KerasBatches` for what ``fit`` should be told.
        """
        from dataset_client.readers.optional import require

        require("keras", extra="training")
        from dataset_client.readers.keras_reader import KerasBatches
        from dataset_client.readers.loader import default_workers

        feed = self._feed(split, batch_size, shuffle, seed, rank, ranks, drop_last, transform, check_crc)
        threads = default_workers() if workers is None else workers
        return KerasBatches(feed, inputs=inputs, labels=labels, workers=threads)

    def as_tf_dataset(
        self, split: str, *, batch_size: int | None = None, shuffle: "Shuffle | int | None" = None
    ) -> "tf.data.Dataset":
        """The examples of ``split`` as a ``tf.data.Dataset`` of dicts; needs the extra ``tensorflow``.

        Shapes and dtypes are those of `as_numpy_iterator`, texts are scalar strings, a list of texts is a
        string tensor (N,). ``batch_size`` defaults to the config's ``batch_size``; without either, and with
        0, examples come unbatched. Batching needs images of equal size; lists, such as boxes (N, 4), become
        a ``tf.RaggedTensor`` (B, N, 4), whose ``to_tensor()`` pads them with zeros. ``shuffle`` is a
        `Shuffle`, or the size of the shuffle buffer in examples; None keeps the order.

        Raises `UnknownSplitError`, `MissingDependencyError`, and `InvalidSettingError` for an impossible
        batch size.
        """
        from dataset_client.readers.shuffle import Shuffle
        from dataset_client.readers.tf_reader import make_tf_dataset

        size = self.config.get("batch_size", 0) if batch_size is None else batch_size
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise InvalidSettingError(f"batch_size={size!r} is not a number of examples", remedy="0 means unbatched.")
        order = Shuffle(buffer=shuffle) if isinstance(shuffle, int) else shuffle
        return make_tf_dataset(self.files(split), self.features, batch_size=size, shuffle=order)

    def _feed(
        self,
        split: str,
        batch_size: int | None,
        shuffle: bool,
        seed: int,
        rank: int,
        ranks: int,
        drop_last: bool,
        transform: "Transform | None",
        check_crc: bool,
    ) -> "Feed":
        from dataset_client.readers.loader import Feed
        from dataset_client.readers.position import Source

        source = Source.of(self.dataset_id, self._shards(split), split, shuffle=shuffle, seed=seed)
        size = self.config.get("batch_size", 0) if batch_size is None else batch_size
        examples = self.examples(split, check_crc=check_crc)
        return Feed(examples, source, size, rank, ranks, drop_last, transform)

    def _examples_in(self, split: str) -> list[tuple[Path, int]]:
        """The files of a split, and how many examples each has."""
        return [(self.path / shard.file, shard.examples) for shard in self._shards(split)]

    def _shards(self, split: str) -> list[Shard]:
        if split not in self.splits:
            names = ", ".join(self.splits) or "none"
            raise UnknownSplitError(f"{self.dataset_id} has no split {split!r}", remedy=f"It has: {names}.")
        return [shard for shard in shards_of(self.manifest) if shard.split == split]
