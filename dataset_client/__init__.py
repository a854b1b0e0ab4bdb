"""Asks a dataset server for a dataset, waits for it, and hands it over verified.

::

    from dataset_client import request_dataset

    dataset = request_dataset("duts", "v1.2.0", {"image_size": [320, 320], "batch_size": 16})
    for batch in dataset.as_tf_dataset("train", shuffle=1000):
        ...
"""

from dataset_client.api import (
    pull_dataset,
    request_dataset,
    request_dataset_async,
    request_datasets,
    request_datasets_async,
)
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
    SomeFailedError,
    UnauthorizedError,
    UnknownDatasetError,
    UnknownSplitError,
    UnknownVersionError,
    UnsupportedFeatureError,
    WaitTimeoutError,
)
from dataset_client.opening import open_dataset
from dataset_client.protocol import Event, canonical_json, hash_dataset_name
from dataset_client.readers.shuffle import Shuffle
from dataset_client.request import DatasetRequest, make_request
from dataset_client.stream import DatasetStream
from dataset_client.watching import wait_for_completion, watch


def __getattr__(name: str) -> str:
    """``__version__``, which takes longer to find out than all else here."""
    if name != "__version__":
        raise AttributeError(f"module 'dataset_client' has no attribute {name!r}")
    from importlib.metadata import version

    return version("remote-dataset-pipeline")


__all__ = [
    "BuildCancelledError",
    "BuildFailedError",
    "CacheError",
    "ConfigRefusedError",
    "Dataset",
    "DatasetClientError",
    "DatasetRequest",
    "DatasetStream",
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
    "SomeFailedError",
    "UnauthorizedError",
    "UnknownDatasetError",
    "UnknownSplitError",
    "UnknownVersionError",
    "UnsupportedFeatureError",
    "WaitTimeoutError",
    "__version__",
    "canonical_json",
    "hash_dataset_name",
    "make_request",
    "open_dataset",
    "pull_dataset",
    "request_dataset",
    "request_dataset_async",
    "request_datasets",
    "request_datasets_async",
    "wait_for_completion",
    "watch",
]
