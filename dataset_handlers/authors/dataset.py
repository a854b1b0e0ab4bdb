"""Datasets that were built, read back without TensorFlow or handler: manifest, schema, every example decoded."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import CorruptShardError, RequestError
from ..example_proto import decode_example
from ..files import read_json
from ..tfrecord import read_records

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_FORMATS = {"jpeg": "JPEG", "png": "PNG"}


@dataclass(frozen=True)
class BuiltDataset:
    """A finished dataset: its folder, ``manifest.json``, and the fields of ``features.json`` by name."""

    path: Path
    manifest: dict[str, Any]
    fields: dict[str, Any]

    @property
    def name(self) -> str:
        """The dataset's name."""
        return str(self.manifest["dataset_name"])

    @property
    def splits(self) -> dict[str, int]:
        """Examples by split, in the order of the shards."""
        ordered = dict.fromkeys(shard["split"] for shard in self.manifest["shards"])
        return {split: int(self.manifest["splits"][split]["examples"]) for split in ordered}

    @property
    def classes(self) -> dict[int, str]:
        """Names of the levels of ``mask`` that are classes; none where it is of one subject."""
        return {int(level): str(name) for level, name in self.manifest.get("labels", {}).items()}

    def shards(self, split: str | None = None) -> list[str]:
        """Shard files in order, of one split or of all."""
        return [shard["file"] for shard in self.manifest["shards"] if split in (None, shard["split"])]

    def examples(self, split: str) -> Iterator[dict[str, Any]]:
        """Every example of a split, decoded; raises `CorruptShardError` where one does not fit the schema."""
        for shard in self.shards(split):
            for record in read_records(self.path / shard):
                yield decode_fields(self.fields, decode_example(record))


def open_dataset(path: Path) -> BuiltDataset:
    """Open a dataset's folder, or the work folder of its build; raises `RequestError` if it is neither."""
    for folder in (path, path / "dataset"):
        try:
            manifest = read_json(folder / "manifest.json")
            fields = read_json(folder / "features.json")["featuresDict"]["features"]
            return BuiltDataset(folder, manifest, dict(fields))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RequestError(f"{folder} cannot be read as a dataset: {error}") from error
    if (path / "plan").is_dir():
        raise RequestError(f"the dataset in {path} is not finished; run `dataset-handlers build` again to finish it")
    raise RequestError(
        f"{path} holds no dataset; name the folder given to `build` as --work-dir, or an unpacked archive"
    )


def decode_fields(fields: Mapping[str, Any], example: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """The values of one parsed Example by the fields of ``features.json``.

    Images become (H, W, C) uint8, texts ``str``, scalars numbers, tensors arrays; a kind that is not known here stays
    a list. Raises `CorruptShardError` naming the field and what is wrong with it.
    """
    if example.keys() != fields.keys():
        raise CorruptShardError(f"an example with the fields {sorted(example)} where {sorted(fields)} are declared")
    decoded = {}
    for name, field in fields.items():
        try:
            decoded[name] = _decode(field, example[name])
        except (ValueError, TypeError, OSError, SyntaxError) as error:
            raise CorruptShardError(f"field '{name}': {error}") from error
    return decoded


def _decode(field: Mapping[str, Any], values: Sequence[Any]) -> Any:
    if "image" in field:
        return _image(field["image"], _single(values))
    if "text" in field:
        return _single(values).decode()
    if "tensor" in field:
        return _tensor(field["tensor"], values)
    return list(values)


def _single(values: Sequence[Any]) -> bytes:
    if len(values) != 1 or not isinstance(values[0], bytes):
        raise ValueError(f"{len(values)} values where one byte string is declared")
    return values[0]


def _dimensions(shape: Mapping[str, Any]) -> list[int]:
    return [int(size) for size in shape.get("dimensions", ())]


def _fits(actual: Sequence[int], declared: Sequence[int]) -> bool:
    return len(actual) == len(declared) and all(size in (-1, got) for size, got in zip(declared, actual, strict=True))


def _image(declared: Mapping[str, Any], data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as picture:
        encoding = declared.get("encodingFormat")
        if encoding and picture.format != _FORMATS.get(encoding):
            raise ValueError(f"a {picture.format} picture where {encoding} is declared")
        shape = [picture.height, picture.width, len(picture.getbands())]
        if not _fits(shape, _dimensions(declared["shape"])):
            raise ValueError(f"a picture of shape {shape} where {_dimensions(declared['shape'])} is declared")
        mode = _MODES.get(shape[2], picture.mode)
        pixels = np.asarray(picture if picture.mode == mode else picture.convert(mode))
        return pixels.reshape(shape)


def _tensor(declared: Mapping[str, Any], values: Sequence[Any]) -> Any:
    shape, dtype = _dimensions(declared.get("shape", {})), str(declared["dtype"])
    if dtype == "string":
        if not all(isinstance(value, bytes) for value in values):
            raise ValueError("numbers where byte strings are declared")
        return values[0] if not shape and len(values) == 1 else list(values)
    if declared.get("encoding") == "bytes":
        array = np.frombuffer(_single(values), dtype)
    else:
        wanted = float if np.issubdtype(np.dtype(dtype), np.floating) else int
        if not all(isinstance(value, wanted) for value in values):
            raise ValueError(f"values of another kind where {dtype} is declared")
        array = np.asarray(values, dtype)
    known = int(np.prod([size for size in shape if size != -1]))
    if (-1 in shape and (not known or array.size % known)) or (-1 not in shape and array.size != known):
        raise ValueError(f"{array.size} values where the shape {shape} is declared")
    array = array.reshape(shape)
    return array if shape else array.item()
