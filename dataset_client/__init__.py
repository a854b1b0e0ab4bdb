"""Asks a dataset server for a dataset, waits for it, and hands it over verified.

::

    from dataset_client import request_dataset

    dataset = request_dataset("duts", "v1.2.0", {"image_size": [320, 320], "batch_size": 16})
    for batch in dataset.as_tf_dataset("train", shuffle=1000):
        ...
"""

from importlib.metadata import version as _version

from dataset_client.api import open_dataset, request_dataset, request_dataset_async
from dataset_client.dataset import Dataset
from dataset_client.errors import (
    BuildCancelledError,
    BuildFailedError,
    CacheError,
    ConfigRefusedError,
    DatasetClientError,
    IntegrityError,
    InvalidRequestError,
    InvalidSettingError,
    MissingDependencyError,
    NotCachedError,
    ProtocolError,
    ServerAwayError,
    ServerBusyError,
    ServerError,
    ServerUnreachableError,
    UnauthorizedError,
    UnknownDatasetError,
    UnknownSplitError,
    UnknownVersionError,
    UnsupportedFeatureError,
    WaitTimeoutError,
)
from dataset_client.protocol import Event, canonical_json, hash_dataset_name
from dataset_client.readers.shuffle import Shuffle
from dataset_client.wait import wait_for_completion

__version__ = _version("remote-dataset-pipeline")

__all__ = [
    "BuildCancelledError",
    "BuildFailedError",
    "CacheError",
    "ConfigRefusedError",
    "Dataset",
    "DatasetClientError",
    "Event",
    "IntegrityError",
    "InvalidRequestError",
    "InvalidSettingError",
    "MissingDependencyError",
    "NotCachedError",
    "ProtocolError",
    "ServerAwayError",
    "ServerBusyError",
    "ServerError",
    "ServerUnreachableError",
    "Shuffle",
    "UnauthorizedError",
    "UnknownDatasetError",
    "UnknownSplitError",
    "UnknownVersionError",
    "UnsupportedFeatureError",
    "WaitTimeoutError",
    "__version__",
    "canonical_json",
    "hash_dataset_name",
    "open_dataset",
    "request_dataset",
    "request_dataset_async",
    "wait_for_completion",
]
