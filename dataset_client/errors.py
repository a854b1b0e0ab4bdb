"""Everything that can go wrong for a caller, as one tree; each error says what to do about it.

::

    DatasetClientError
    ├── InvalidRequestError        the request is malformed; found here, or by the server (400)
    ├── InvalidSettingError        a server URL, timeout or batch size that cannot be
    ├── ServerUnreachableError     nobody answers                                    (tried again)
    │   └── ServerAwayError        not even the connection comes about               (tried for longer)
    ├── ServerBusyError            429 or 503                                        (tried again)
    ├── ServerError                any other refusal; 5xx                            (5xx is tried again)
    ├── UnauthorizedError          401 or 403
    ├── UnknownDatasetError        the server has no handler of this name
    ├── UnknownVersionError        the handler has no such version
    ├── ConfigRefusedError         the handler refuses the config; `faults` says where and why
    ├── BuildFailedError           the build ended without a dataset; `log` has the handler's last lines
    ├── BuildCancelledError        somebody cancelled the build
    ├── WaitTimeoutError           `timeout` is over; the build goes on
    ├── ProtocolError              whatever answers is not our server, or not of our version
    ├── IntegrityError             bytes are not what they should be
    ├── NotCachedError             it is not here, and we were told not to fetch it
    ├── CacheError                 the cache directory cannot be written, or its disk is full
    ├── UnknownSplitError          the dataset has no such split
    ├── UnsupportedFeatureError    the dataset has a feature that our readers do not decode
    ├── MissingDependencyError     an optional dependency is not installed
    └── SomeFailedError            of several requests some failed; `results` has the datasets and the errors

All can be pickled, so they pass from worker processes unharmed.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

HANDSHAKE_CUT = "handshake_cut"


class DatasetClientError(Exception):
    """The base of all.

    ``message`` is what happened and ``remedy`` what to do about it; ``str()`` shows both. ``code`` is
    stable and for programs. ``transient`` says whether the same call may succeed a little later, and
    ``retry_after`` how many seconds later according to the server.
    """

    default_code: ClassVar[str] = "client_error"
    default_remedy: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        remedy: str | None = None,
        transient: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.remedy = self.default_remedy if remedy is None else remedy
        self.transient = transient
        self.retry_after = retry_after

    def __str__(self) -> str:
        return "\n".join(part for part in (self.message, *self._details(), self.remedy) if part)

    def _details(self) -> Sequence[str]:
        """Lines between the message and the remedy."""
        return ()


class InvalidRequestError(DatasetClientError):
    """The name, the version or the config cannot be a request at all."""

    default_code = "invalid_request"
    default_remedy = "Correct the request; nothing was started."


class InvalidSettingError(DatasetClientError):
    """A server URL, timeout, batch size or the like that cannot be."""

    default_code = "invalid_setting"


class ServerUnreachableError(DatasetClientError):
    """Nobody answers at the server's address, or the connection breaks off."""

    default_code = "server_unreachable"
    default_remedy = "Check that the server runs, and its address (server_url, or DATASET_SERVER_URL)."


class ServerAwayError(ServerUnreachableError):
    """Nobody accepts a connection, or what did hangs up at once: the server is down, or restarts.

    The code is `HANDSHAKE_CUT` where what answered a WebSocket's handshake was no HTTP.
    """


class ServerBusyError(DatasetClientError):
    """The server says 429 or 503, again and again; ``status`` is which."""

    default_code = "server_busy"
    default_remedy = "Ask again later; equal requests share one build, so nothing is lost."
    status: int = 0


class ServerError(DatasetClientError):
    """The server refuses for a reason that has no class of its own; ``status`` is the HTTP status, 0 if
    there is none.
    """

    default_code = "server_error"
    status: int = 0


class UnauthorizedError(DatasetClientError):
    """The token is missing, wrong, or allows less than was asked."""

    default_code = "unauthorized"
    default_remedy = "Pass a valid token (token=…, --token, or DATASET_SERVER_TOKEN)."


class UnknownDatasetError(DatasetClientError):
    """The server knows no handler of this name."""

    default_code = "dataset_unknown"
    default_remedy = "The server lists what it can make at /api/v1/handlers."


class UnknownVersionError(DatasetClientError):
    """The handler has no such version."""

    default_code = "version_unknown"
    default_remedy = "Name a release, tag or commit of the handler; ranges and branches that move are not versions."


class ConfigRefusedError(DatasetClientError):
    """The handler refuses the config; ``faults`` is a list of ``{"path": str, "reason": str}``."""

    default_code = "config_refused"
    default_remedy = "Correct the config; the handler's options are at /api/v1/handlers/<name>/<version>."

    def __init__(self, message: str, *, faults: Sequence[dict[str, str]] = (), code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.faults = list(faults)

    def _details(self) -> Sequence[str]:
        return [f"  {fault['path'] or '/'}: {fault['reason']}" for fault in self.faults]


class BuildFailedError(DatasetClientError):
    """The build ended without a dataset; ``code`` is the server's and ``log`` the handler's last lines."""

    default_code = "build_failed"
    default_remedy = "Asking again starts a new attempt; mend the cause first."

    def __init__(self, message: str, *, code: str | None = None, log: Sequence[str] = ()) -> None:
        super().__init__(message, code=code)
        self.log = tuple(log)

    def _details(self) -> Sequence[str]:
        if not self.log:
            return ()
        return ["The handler's last lines:", *(f"  | {line}" for line in self.log)]

    def __str__(self) -> str:
        return f"[{self.code}] {super().__str__()}"


class BuildCancelledError(DatasetClientError):
    """Somebody cancelled the build at the server."""

    default_code = "build_cancelled"
    default_remedy = "Asking again starts a new attempt."


class WaitTimeoutError(DatasetClientError):
    """``timeout`` seconds went by."""

    default_code = "wait_timeout"
    default_remedy = "The build goes on at the server; asking again picks it up where it is."


class ProtocolError(DatasetClientError):
    """What answers speaks something else than this client."""

    default_code = "protocol_error"
    default_remedy = (
        "Check that server_url is the root of a dataset server, and that client and server are of one version."
    )


class IntegrityError(DatasetClientError):
    """Bytes on the wire or on the disk are not what they should be."""

    default_code = "integrity"
    default_remedy = "Ask again; if it comes back, the disk or a proxy in between damages data."


class NotCachedError(DatasetClientError):
    """The dataset is not in the local cache."""

    default_code = "not_cached"
    default_remedy = "Ask for it once with offline=False (without --offline) where the server can be reached."


class CacheError(DatasetClientError):
    """The cache directory cannot be written, or its disk is full."""

    default_code = "cache"
    default_remedy = "Free some space, or name another directory (cache_dir, --cache-dir, or DATASET_CACHE_DIR)."


class UnknownSplitError(DatasetClientError):
    """The dataset has no such split."""

    default_code = "split_unknown"


class UnsupportedFeatureError(DatasetClientError):
    """The dataset has a feature that these readers do not decode."""

    default_code = "feature_unsupported"
    default_remedy = "tensorflow_datasets.builder_from_directory(dataset.path) opens every kind of feature."


class MissingDependencyError(DatasetClientError):
    """An optional dependency is not installed."""

    default_code = "missing_dependency"


class SomeFailedError(DatasetClientError):
    """Of several requests some failed; the others are done, and in the cache.

    ``results`` has for each request, in their order, its dataset or its error.
    """

    default_code = "some_failed"
    default_remedy = "Asking again fetches what is missing; what succeeded is in the cache."

    def __init__(self, message: str, *, results: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.results = tuple(results)

    @property
    def errors(self) -> tuple[DatasetClientError, ...]:
        """The errors alone."""
        return tuple(result for result in self.results if isinstance(result, DatasetClientError))

    def _details(self) -> Sequence[str]:
        return [f"- {line}" for error in self.errors for line in str(error).splitlines()[:1]]
