"""Examples as numpy arrays, one by one and in order: CRC-checked records, decoded. Needs the extra ``readers``."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_client.errors import IntegrityError
from dataset_client.readers.decoder import ExampleDecoder
from dataset_client.readers.features import Feature, is_picture
from dataset_client.readers.tfrecord import damage, read_records

if TYPE_CHECKING:
    from dataset_client.readers.decoder import Value


def read_examples(shards: Sequence[tuple[Path, int]], features: Mapping[str, Feature]) -> "Iterator[dict[str, Value]]":
    """The examples of ``shards`` in order, each of which has so many; `Dataset.as_numpy_iterator` says what they hold
    and what is raised.
    """
    return _examples(shards, ExampleDecoder(features))


def _examples(shards: Sequence[tuple[Path, int]], decode: ExampleDecoder) -> "Iterator[dict[str, Value]]":
    pictures = [name for name, feature in decode.features.items() if is_picture(feature)]
    for path, count in shards:
        found = 0
        for record in read_records(path):
            found += 1
            example: dict[str, Any] = decode_record(decode, path, record.offset, record.data)
            for name in pictures:
                example[name].flags.writeable = False
            yield example
        if found != count:
            raise damage(path, path.stat().st_size, f"ends after {found} records; its manifest says {count}")


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
