"""The contract between a dataset and whoever wants it made; a third party may implement it in full.

Most handlers derive from `dataset_handlers.sample_handler.SampleHandler` instead, which asks for less and brings
parallel builds, resume, determinism, quarantine and statistics.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf

#: Version of the command protocol (`dataset_handlers.commands`); a server speaks exactly one.
HANDLER_API = 1


class DatasetHandler(ABC):
    """Turns raw data into TFRecord shards by a config. The options of ``config`` become attributes."""

    def __init__(self, config: dict[str, Any], base_data_path: str) -> None:
        self.config = config
        self.base_data_path = base_data_path
        for name, value in config.items():
            setattr(self, name, value)

    @staticmethod
    @abstractmethod
    def config_options() -> dict[str, Any]:
        """Describe every allowed option: ``{name: {"type", "default", "doc"}}``.

        An option without ``"default"`` is required; one with ``"reader_only": True`` changes no byte of the dataset.
        """

    @abstractmethod
    def raw_data_path(self) -> Path:
        """Return the raw folder this handler reads, below ``base_data_path``."""

    @abstractmethod
    def as_tfrecord(self) -> list[str]:
        """Write the dataset into the working directory; return its shard files in order.

        A file called ``<anything>-<split>.tfrecord<anything>`` belongs to that split, any other to ``train``.
        """

    @abstractmethod
    def tf_records_mapper(self, files: list[str]) -> "tf.data.Dataset":
        """Open shard files as a ``tf.data.Dataset`` of decoded examples (needs TensorFlow)."""
