"""Archives as a server publishes them, written without TensorFlow: real JPEGs, real 1-bit PNGs, real
records.
"""

import contextlib
import functools
import hashlib
import io
import json
import random
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np
from PIL import Image

from dataset_client.protocol import canonical_json, hash_dataset_name
from dataset_server.stored_zip import StoredZip

FEATURES = {
    "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
    "featuresDict": {
        "features": {
            "image": {
                "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
                "image": {
                    "shape": {"dimensions": ["-1", "-1", "3"]},
                    "dtype": "uint8",
                    "encodingFormat": "jpeg",
                },
            },
            "mask": {
                "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
                "image": {
                    "shape": {"dimensions": ["-1", "-1", "1"]},
                    "dtype": "uint8",
                    "encodingFormat": "png",
                },
            },
            "key": {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}},
            "area": {
                "pythonClassName": "tensorflow_datasets.core.features.scalar.Scalar",
                "tensor": {"shape": {}, "dtype": "int64", "encoding": "none"},
            },
            "box": {
                "pythonClassName": "tensorflow_datasets.core.features.tensor_feature.Tensor",
                "tensor": {"shape": {"dimensions": ["4"]}, "dtype": "float32", "encoding": "none"},
            },
        }
    },
}


@dataclass(frozen=True)
class TestArchive:
    """A zip in memory."""

    __test__ = False

    dataset_id: str
    data: bytes

    @functools.cached_property
    def sha256(self):
        return hashlib.sha256(self.data).hexdigest()

    def as_json(self):
        url, manifest = f"datasets/{self.dataset_id}/archive", "0" * 64
        with contextlib.suppress(zipfile.BadZipFile, KeyError), zipfile.ZipFile(io.BytesIO(self.data)) as opened:
            manifest = hashlib.sha256(opened.read("manifest.json")).hexdigest()
        return {"url": url, "bytes": len(self.data), "sha256": self.sha256, "manifest_sha256": manifest}


# --- examples -----------------------------------------------------------------------------------------------


def photo(index, size=(48, 64)):
    """A JPEG with gradients and edges, as bytes."""
    rng = np.random.default_rng([7, index])
    y, x = np.mgrid[: size[0], : size[1]]
    pixels = np.stack([x * 3 + index, y * 4, (x + y) * 2], axis=-1) + rng.integers(0, 40, (*size, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "jpeg", quality=90)
    return file.getvalue()


def mask_pixels(index, size=(48, 64)):
    y, x = np.mgrid[: size[0], : size[1]]
    return ((x - 32) ** 2 + (y - 24) ** 2 < (10 + index) ** 2).astype(np.uint8) * 255


def mask(index, bits=1):
    """A PNG of a disc with 1 or 8 bits per pixel, as bytes."""
    image = Image.fromarray(mask_pixels(index))
    file = io.BytesIO()
    (image.convert("1") if bits == 1 else image).save(file, "png")
    return file.getvalue()


def example(index):
    return {
        "image": [photo(index)],
        "mask": [mask(index, bits=1 + 7 * (index % 2))],
        "key": [f"photo-{index}-ü".encode()],
        "area": [index * 1000 - 1],
        "box": [0.25 * index, 0.5, -1.5, 3.0],
    }


# --- wire formats -------------------------------------------------------------------------------------------


def varint(number):
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def chunk(field, data):
    return varint(field << 3 | 2) + varint(len(data)) + data


def encode_feature(values, packed=True):
    if not values or isinstance(values[0], bytes):
        return chunk(1, b"".join(chunk(1, value) for value in values))
    if isinstance(values[0], float):
        if packed:
            return chunk(2, chunk(1, struct.pack(f"<{len(values)}f", *values)))
        return chunk(2, b"".join(varint(1 << 3 | 5) + struct.pack("<f", value) for value in values))
    if packed:
        return chunk(3, chunk(1, b"".join(varint(value) for value in values)))
    return chunk(3, b"".join(varint(1 << 3) + varint(value) for value in values))


def encode_example(features, packed=True):
    entries = (
        chunk(1, chunk(1, name.encode()) + chunk(2, encode_feature(values, packed)))
        for name, values in features.items()
    )
    return chunk(1, b"".join(entries))


def masked_crc(data):
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(data):
    length = struct.pack("<Q", len(data))
    return length + masked_crc(length) + data + masked_crc(data)


# --- archives -----------------------------------------------------------------------------------------------


def member(name, data):
    """What a manifest says of a file."""
    return {"file": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def make_files(
    name="discs", version="v1", config=None, splits=None, shard_size=2, seed=0, resolved="0123abc", lists_files=True
):
    """The files of an archive by name, and its dataset id."""
    splits = {"train": 5, "val": 2} if splits is None else splits
    config = {"limit": 7} if config is None else config
    dataset_id = hash_dataset_name(name, resolved, canonical_json(config))
    files, shards, info, index = {}, [], [], seed
    for split, count in splits.items():
        number = -(-count // shard_size)
        lengths = [min(shard_size, count - shard * shard_size) for shard in range(number)]
        total = 0
        for shard, length in enumerate(lengths):
            file = f"{name}-{split}.tfrecord-{shard:05d}-of-{number:05d}"
            data = b"".join(record(encode_example(example(index + offset))) for offset in range(length))
            index += length
            total += len(data)
            files[file] = data
            digest = hashlib.sha256(data).hexdigest()
            shards.append({"file": file, "split": split, "examples": length, "bytes": len(data), "sha256": digest})
        info.append(
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "shardLengths": [str(length) for length in lengths],
                "numBytes": str(total),
            }
        )
    manifest = {
        "format": 1,
        "dataset_id": dataset_id,
        "dataset_name": name,
        "handler": {"version": version, "resolved": resolved},
        "config": config,
        "splits": {split: {"examples": n, "shards": -(-n // shard_size)} for split, n in splits.items()},
        "shards": shards,
        "statistics": {"foreground": 0.25},
        "quarantine": [{"key": "broken.jpg", "reason": "cannot be decoded"}],
        "provenance": {"sha256": "00"},
    }
    dataset_info = {
        "moduleName": "handlers.discs", "name": name, "version": "1.0.0", "fileFormat": "tfrecord", "splits": info,
    }  # fmt: skip
    files["lineage.jsonl"] = b'{"key": "a"}\n'
    files["features.json"] = json.dumps(FEATURES).encode()
    files["dataset_info.json"] = json.dumps(dataset_info).encode()
    if lists_files:
        manifest["files"] = [member(name, data) for name, data in files.items() if ".tfrecord" not in name]
    files["manifest.json"] = json.dumps(manifest).encode()
    return dataset_id, files


def zip_files(members):
    """A stored zip of (name, data) pairs; a name may also be a ready `ZipInfo`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def make_archive(**options):
    dataset_id, files = make_files(**options)
    return TestArchive(dataset_id, zip_files(files.items()))


def make_bulk(size, shards):
    """An archive of ``size`` bytes of noise in so many shards, in records of 16 KiB."""
    dataset_id, files = make_files(splits={"train": shards}, shard_size=1, lists_files=False)
    manifest, draw = json.loads(files["manifest.json"]), random.Random(size)
    for shard in manifest["shards"]:
        data = b"".join(record(draw.randbytes(16384)) for _ in range(size // shards // 16400))
        files[shard["file"]] = data
        shard |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    files["manifest.json"] = json.dumps(manifest).encode()
    return TestArchive(dataset_id, zip_files(files.items()))


@dataclass(frozen=True)
class Sparse:
    """Zeros, of which only the last bytes are others: ``end``."""

    size: int
    end: bytes

    def __len__(self):
        return self.size

    def __getitem__(self, part):
        start = self.size - len(self.end)
        assert part.stop - part.start <= 1 << 20, "nobody reads all of it"
        return bytes(max(0, start - part.start)) + self.end[max(0, part.start - start) : part.stop - start]


class HugeArchive(TestArchive):
    """An archive of which nobody has but the end."""

    @functools.cached_property
    def sha256(self):
        return "ab" * 32

    def as_json(self):
        with zipfile.ZipFile(io.BytesIO(self.data.end)) as opened:
            manifest = hashlib.sha256(opened.read("manifest.json")).hexdigest()
        return {
            "url": f"datasets/{self.dataset_id}/archive",
            "bytes": len(self.data),
            "sha256": self.sha256,
            "manifest_sha256": manifest,
        }


def make_huge_archive(size):
    """An archive whose first shard has ``size`` bytes."""
    dataset_id, files = make_files()
    manifest = json.loads(files["manifest.json"])
    first = manifest["shards"][0]
    first["bytes"] = size
    files["manifest.json"] = json.dumps(manifest).encode()
    written = bytearray()
    made = StoredZip(written.extend)
    made.begin(first["file"], size, 0)
    written.clear()
    made.size += size
    for name, data in files.items():
        if name != first["file"]:
            made.begin(name, len(data), zlib.crc32(data))
            made.add(data)
    made.finish()
    return HugeArchive(dataset_id, Sparse(made.size, bytes(written)))


def unpack_to(directory: Path, **options):
    """An unpacked archive in ``directory``."""
    _, files = make_files(**options)
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return directory
