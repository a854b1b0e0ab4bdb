"""Examples as numpy arrays, one by one and in order: CRC-checked records, decoded. Needs the extra ``readers``."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_client.errors import IntegrityError
from dataset_client.readers.decoder import ExampleDecoder
from dataset_client.readers.features import Feature, ImageFeature
from dataset_client.readers.tfrecord import crc32c_function, read_records

if TYPE_CHECKING:
    from dataset_client.readers.decoder import Value


def read_examples(files: Sequence[Path], features: Mapping[str, Feature]) -> "Iterator[dict[str, Value]]":
    """The examples of ``files`` in order; `Dataset.as_numpy_iterator` says what they hold and what is
    raised.
    """
    decode = ExampleDecoder(features)
    crc32c_function()
    return _examples(files, decode)


def _examples(files: Sequence[Path], decode: ExampleDecoder) -> "Iterator[dict[str, Value]]":
    images = [name for name, feature in decode.features.items() if isinstance(feature, ImageFeature)]
    for path in files:
        for record in read_records(path):
            example: dict[str, Any] = decode_record(decode, path, record.offset, record.data)
            for name in images:
                example[name].flags.writeable = False
            yield example


def decode_record(
    decode: ExampleDecoder, path: Path, offset: int, data: bytes, out: "Mapping[str, Any] | None" = None
) -> "dict[str, Value]":
    """Decode one record; raises `IntegrityError` that names it by file and offset."""
    try:
        return decode(data, out)
    except (ValueError, OverflowError) as error:
        raise IntegrityError(
            f"{path}, offset {offset}: the example cannot be decoded: {error}",
            remedy="If dataset.verify() finds nothing, the handler wrote it so; "
            f"else remove {path.parent} and ask again.",
        ) from error
