"""The examples of a split by their number, and as batches."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from dataset_client.readers.decoder import ExampleDecoder
from dataset_client.readers.features import Feature, ImageFeature, TensorFeature, is_list
from dataset_client.readers.index import RecordIndex
from dataset_client.readers.numpy_reader import decode_record

if TYPE_CHECKING:
    import numpy as np

    from dataset_client.readers.decoder import Value

#: ``transform(example, rng)`` gives the example to use instead.
Transform = Callable[[dict[str, Any], "np.random.Generator"], Mapping[str, Any]]


class Examples(Sequence[dict[str, Any]]):
    """The examples of a split: ``examples[i]`` for -len ≤ i < len, ``examples[i:j:k]`` for some of them, unread yet.

    Values are those of `Dataset.as_numpy_iterator`; pixels may be written to. Threads may share it, processes may
    inherit it, and it can be pickled. Raises `IndexError`, and `IntegrityError` with file and offset where a file is
    damaged or has another number of examples than its manifest says.
    """

    def __init__(self, records: RecordIndex, decode: ExampleDecoder, numbers: range | None = None) -> None:
        self._records, self._decode = records, decode
        self._numbers = range(len(records)) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def features(self) -> Mapping[str, Feature]:
        """What each example holds, by name."""
        return self._decode.features

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> "Examples": ...
    def __getitem__(self, index: int | slice) -> "dict[str, Any] | Examples":
        if isinstance(index, slice):
            return Examples(self._records, self._decode, self._numbers[index])
        return self.read(index)

    def read(self, index: int, out: "Mapping[str, np.ndarray[Any, Any]] | None" = None) -> "dict[str, Value]":
        """One example; images go to the arrays in ``out`` if they fit there (see `images.decode_image`)."""
        try:
            number = self._numbers[index]
        except IndexError:
            raise IndexError(f"example {index} of {len(self)}") from None
        return decode_record(self._decode, *self._records.read(number), out)


@dataclass(frozen=True)
class BatchReader:
    """Reads examples into batches: dicts of arrays whose first dimension is the batch, (B, …).

    Images, scalars and tensors of a fixed shape are stacked; texts, byte strings and lists, whose length differs
    between examples, stay Python lists of B values. So do images of different sizes. ``transform`` is called with each
    example and a generator that is a function of (``seed``, epoch, the example's number), whoever reads it; what it
    returns is stacked in the same way.
    """

    examples: Examples
    seed: int = 0
    transform: Transform | None = None

    def read(self, numbers: "Iterable[int]", epoch: int) -> dict[str, Any]:
        """The batch of the examples ``numbers``; with none of them, what it would be, of length 0."""
        chosen = [int(number) for number in numbers]
        if self.transform is not None:
            # what it makes of an example shows only when it makes it
            batch = self._transformed(chosen or [0], epoch, self.transform)
            return batch if chosen else {name: values[:0] for name, values in batch.items()}
        if not chosen:
            return {name: _nothing(feature) for name, feature in self.examples.features.items()}
        return self._decoded(chosen)

    def _decoded(self, numbers: list[int]) -> dict[str, Any]:
        """Images go straight to their place in the batch, whose shape is the first example's."""
        import numpy as np

        first = self.examples.read(numbers[0])
        features = self.examples.features
        whole = {
            name: np.empty((len(numbers), *first[name].shape), np.uint8)  # type: ignore[union-attr]
            for name, feature in features.items()
            if isinstance(feature, ImageFeature)
        }
        values = [first]
        for place, number in enumerate(numbers[1:], 1):
            values.append(self.examples.read(number, {name: array[place] for name, array in whole.items()}))
        batch = {}
        for name, feature in features.items():
            column = [value[name] for value in values]
            batch[name] = _fill(whole[name], column) if name in whole else stack(column, feature)
        return batch

    def _transformed(self, numbers: list[int], epoch: int, transform: Transform) -> dict[str, Any]:
        import numpy as np

        features = self.examples.features
        values = [
            transform(self.examples.read(number), np.random.default_rng([self.seed, epoch, number]))
            for number in numbers
        ]
        return {name: stack([value[name] for value in values], features.get(name)) for name in values[0]}


def _fill(whole: "np.ndarray[Any, Any]", images: list[Any]) -> Any:
    """``whole`` with all images in their places, or the list of them if they differ in size."""
    if any(image.shape != whole.shape[1:] for image in images):
        return images
    for row, image in zip(whole, images, strict=True):
        if image.base is not whole:  # it was decoded elsewhere
            row[...] = image
    return whole


def stack(column: list[Any], feature: Feature | None) -> Any:
    """Values of one name as an array, or as the list that they are if they have no common shape, or need not have."""
    import numpy as np

    if is_list(feature) or not isinstance(column[0], np.ndarray | np.generic | int | float):
        return column
    if len({np.shape(value) for value in column}) > 1:
        return column
    return np.stack(column)


def _nothing(feature: Feature) -> Any:
    import numpy as np

    if is_list(feature) or not isinstance(feature, ImageFeature | TensorFeature):
        return []
    dtype = feature.dtype if isinstance(feature, TensorFeature) else "uint8"
    return np.empty((0, *(side or 0 for side in feature.shape)), dtype)
