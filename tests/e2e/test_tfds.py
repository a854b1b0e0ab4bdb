"""People who never heard of us read our archives with TensorFlow Datasets."""

import warnings
import zipfile

import numpy as np
import pytest
import requests

from dataset_handlers.example_proto import decode_example
from dataset_handlers.tfrecord import read_records

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

SIZES = {"image_size": [60, 80], "input_attributes": ["image", "source_id"], "splits": {"train": 0.6, "test": 0.4}}


@pytest.fixture(scope="module")
def tfds():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_datasets

        return tensorflow_datasets


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("coco", {"categories": ["figure"], **SIZES}),
        ("coco", {"categories": ["figure"]}),
        ("duts", SIZES),
        ("composite", {"categories": ["figure"], **SIZES}),
    ],
)
def test_builder_from_directory_reads_every_example(server, tfds, tmp_path, name, config):
    ready = server.make(name, config)
    archive = tmp_path / "archive.zip"
    archive.write_bytes(requests.get(f"{server.api}/{ready['archive']['url']}", timeout=60).content)
    folder = tmp_path / "unpacked"
    zipfile.ZipFile(archive).extractall(folder)
    manifest = server.get(f"datasets/{ready['dataset_id']}/manifest").json()
    builder = tfds.builder_from_directory(folder)
    assert set(builder.info.splits) == set(manifest["splits"])
    for split, entry in manifest["splits"].items():
        assert builder.info.splits[split].num_examples == entry["examples"]
        ours = [
            decode_example(record)
            for shard in manifest["shards"]
            if shard["split"] == split
            for record in read_records(folder / shard["file"])
        ]
        read = list(tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False)))
        assert len(read) == len(ours) == entry["examples"]
        for example in read:
            assert example["image"].dtype == np.uint8
            assert example["image"].shape[2] == 3
            assert example["image"].shape[:2] == example["mask"].shape[:2]
            assert set(np.unique(example["mask"])) <= {0, 255}
        if "source_id" in config.get("input_attributes", []):
            assert [example["source_id"] for example in read] == [example["source_id"][0] for example in ours]
