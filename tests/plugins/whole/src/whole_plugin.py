"""The whole contract, implemented without `SampleHandler`."""

from pathlib import Path
from typing import Any

from dataset_handlers import DatasetHandler
from dataset_handlers.example_proto import encode_example
from dataset_handlers.tfrecord import frame


class Handler(DatasetHandler):
    """Writes two shards of numbers by itself."""

    @staticmethod
    def config_options() -> dict[str, Any]:
        """How many numbers."""
        return {"count": {"type": "integer", "default": 5, "doc": "Numbers in each shard."}}

    def raw_data_path(self) -> Path:
        """The raw root itself."""
        return Path(self.base_data_path)

    def as_tfrecord(self) -> list[str]:
        """One shard for training, one for testing."""
        files = []
        for split in ("train", "test"):
            file = Path(f"numbers-{split}.tfrecord")
            records = [frame(encode_example({"number": [n], "name": [str(n).encode()]})) for n in range(self.count)]
            file.write_bytes(b"".join(records))
            files.append(str(file))
        return files

    def tf_records_mapper(self, files: list[str]) -> Any:
        """Open the shards with TensorFlow."""
        import tensorflow as tf

        return tf.data.TFRecordDataset(files)
