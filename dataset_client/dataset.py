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

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from dataset_client.readers.shuffle import Shuffle


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
        """Open an unpacked archive; raises `IntegrityError` if a file is missing or damaged (see `find_faults`)."""
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

        return read_examples(self.files(split), self.features)

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

    def _shards(self, split: str) -> list[Shard]:
        if split not in self.splits:
            names = ", ".join(self.splits) or "none"
            raise UnknownSplitError(f"{self.dataset_id} has no split {split!r}", remedy=f"It has: {names}.")
        return [shard for shard in shards_of(self.manifest) if shard.split == split]
