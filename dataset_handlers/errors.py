"""What can go wrong in a handler, and the stable code each fault carries over the wire.

::

    HandlerError
    ├── RequestError            request_malformed      the request file says nothing this version understands
    ├── UnknownDatasetError     dataset_unknown        no installed handler has that name
    ├── ConfigRefusedError      config_refused         options that are unknown, of a wrong type, or contradict
    ├── RawDataError            raw_data_unusable      the raw folder is missing or not laid out as published
    ├── EmptySelectionError     empty_selection        nothing, or nothing for a split, is left to write
    ├── TooManyBadSamplesError  too_many_bad_samples   more was quarantined than the config allows
    ├── BadSampleError          (never sent)           one sample cannot be used; it is quarantined
    ├── CorruptShardError       shard_corrupt          bytes of a shard are not what was written
    ├── DiskFullError           disk_full              no space left for shards
    └── WorkerDiedError         worker_died            a worker process ended without a word
"""

import errno
from typing import Any


class HandlerError(Exception):
    """Base of every fault a handler reports; ``code`` is stable, the message says what to do."""

    code = "handler_failed"

    def to_json(self) -> dict[str, Any]:
        """The fault as the ``error`` event carries it."""
        return {"code": self.code, "message": str(self)}


class RequestError(HandlerError):
    """The request file is not one this version can serve."""

    code = "request_malformed"


class UnknownDatasetError(HandlerError):
    """No installed package offers a handler under this name."""

    code = "dataset_unknown"


class ConfigRefusedError(HandlerError):
    """The config cannot be used. ``faults`` lists each one: ``{"path": JSON pointer, "reason": sentence}``."""

    code = "config_refused"

    def __init__(self, faults: list[dict[str, str]]) -> None:
        self.faults = faults
        super().__init__("; ".join(f"{fault['path'] or '/'}: {fault['reason']}" for fault in faults))

    def to_json(self) -> dict[str, Any]:
        """The fault as the ``error`` event carries it."""
        return {**super().to_json(), "faults": self.faults}


class RawDataError(HandlerError):
    """The raw data is not there, or not laid out as its publisher lays it out."""

    code = "raw_data_unusable"


class EmptySelectionError(HandlerError):
    """The config selects no sample, or none for one of the splits."""

    code = "empty_selection"


class TooManyBadSamplesError(HandlerError):
    """The share of samples in quarantine is above ``max_quarantined_share``."""

    code = "too_many_bad_samples"


class BadSampleError(HandlerError):
    """One sample cannot be used; the message is the reason listed in the manifest."""


class CorruptShardError(HandlerError):
    """A TFRecord file or an Example in it is damaged."""

    code = "shard_corrupt"


class DiskFullError(HandlerError):
    """The file system has no space left."""

    code = "disk_full"


class WorkerDiedError(HandlerError):
    """A worker process ended without reporting a result."""

    code = "worker_died"


def is_disk_full(error: BaseException) -> bool:
    """Whether there was no space left on a disk, or in a quota."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def as_fault(error: BaseException, where: str = "") -> HandlerError:
    """What an exception of a handler's code means to who asked: itself if it is a fault, a full disk, or a fault of the
    handler's, whose message says ``where``.
    """
    if isinstance(error, HandlerError):
        return error
    if is_disk_full(error):
        return DiskFullError("no space left on the disk; free some and ask again")
    return HandlerError(f"{where}{type(error).__name__}: {error}")
