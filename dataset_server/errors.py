"""What the server answers when it cannot do what was asked. Each class is one stable wire code.

::

    ServerFault (code, HTTP status)
    ├── MalformedRequestError   malformed_request     400
    ├── ConfigMd5MismatchError  config_md5_mismatch   400
    ├── UnauthorizedError       unauthorized          401
    ├── ForbiddenError          forbidden             403
    ├── UnknownDatasetError     dataset_unknown       404
    ├── UnknownVersionError     version_unknown       404
    ├── NotFoundError           not_found             404
    ├── MethodNotAllowedError   method_not_allowed    405
    ├── RequestTimeoutError     request_timeout       408
    ├── NotReadyError           not_ready             409
    ├── WrongStateError         wrong_state           409
    ├── InUseError              in_use                409
    ├── EvictedError            evicted               410
    ├── PreconditionFailedError  precondition_failed  412
    ├── RequestTooLargeError    request_too_large     413
    ├── RangeNotSatisfiableError  range_not_satisfiable  416
    ├── ConfigRefusedError      config_refused        422
    ├── TooManyRequestsError    too_many_requests     429  (or queue_full)
    ├── EnvironmentFailedError  environment_failed    502
    ├── UnavailableError        unavailable           503  (or stopping)
    ├── DiskFullError           disk_full             507
    └── HandlerFaultError       (code of the handler) 502

Beyond the handler's own codes (`dataset_handlers.errors`), `HandlerFaultError` knows: ``handler_exited``,
``handler_protocol``, ``handler_api_mismatch``, ``handler_timeout``, and for the limits on handlers
``handler_out_of_memory``, ``handler_cpu_exceeded``, ``handler_processes_exceeded``, ``handler_output_exceeded`` and
``handler_file_too_large``. Anything unforeseen is ``internal_error``, 500.
"""

from typing import Any


class ServerFault(Exception):  # noqa: N818 - a fault is reported, not only raised
    """Base of all faults; becomes ``application/problem+json`` (RFC 9457) or a ``failed`` event."""

    code = "internal_error"
    status = 500
    title = "The server failed"
    #: Every code of a class that has several.
    codes: tuple[str, ...] = ()
    #: Seconds after which the same may work, where that is known; sent as the header ``Retry-After``.
    retry_after: float | None = None

    def extra(self) -> dict[str, Any]:
        """Further members of the problem document or event."""
        return {}

    def to_event(self) -> dict[str, Any]:
        """The ``failed`` event's data."""
        return {"code": self.code, "message": str(self), **self.extra()}

    def to_problem(self) -> dict[str, Any]:
        """The problem document."""
        return {
            "type": f"urn:dataset-server:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": str(self),
            "code": self.code,
            **self.extra(),
        }


class MalformedRequestError(ServerFault):
    """The request is not one of this API."""

    code, status, title = "malformed_request", 400, "The request is malformed"


class ConfigMd5MismatchError(ServerFault):
    """Client and server write the config differently."""

    code, status, title = "config_md5_mismatch", 400, "The config's md5 differs"


class UnauthorizedError(ServerFault):
    """No token, or not one of ours."""

    code, status, title = "unauthorized", 401, "A bearer token is needed"


class ForbiddenError(ServerFault):
    """The request comes from where it may not, or from whom it may not."""

    code, status, title = "forbidden", 403, "Not allowed"


class UnknownDatasetError(ServerFault):
    """The server's configuration names no such dataset."""

    code, status, title = "dataset_unknown", 404, "No such dataset"


class UnknownVersionError(ServerFault):
    """The dataset's handler has no such version."""

    code, status, title = "version_unknown", 404, "No such handler version"


class NotFoundError(ServerFault):
    """Nothing is there."""

    code, status, title = "not_found", 404, "Not found"


class MethodNotAllowedError(ServerFault):
    """The path exists, for other methods."""

    code, status, title = "method_not_allowed", 405, "Not with this method"


class RequestTimeoutError(ServerFault):
    """The request did not arrive in time."""

    code, status, title = "request_timeout", 408, "The request took too long to arrive"


class NotReadyError(ServerFault):
    """It exists, but is not made yet."""

    code, status, title = "not_ready", 409, "Not ready yet"


class InUseError(ServerFault):
    """What is to be removed is needed: being made, being read, or pinned."""

    code, status, title = "in_use", 409, "It is in use"


class EvictedError(ServerFault):
    """It was published, and given up to make room, for a newer revision, or because it had rotted."""

    code, status, title = "evicted", 410, "Not here any more"


class PreconditionFailedError(ServerFault):
    """What is there is not what the request is about (``If-Match``)."""

    code, status, title = "precondition_failed", 412, "It is another one now"


class WrongStateError(ServerFault):
    """What was asked for cannot be done to a dataset in its present state."""

    code, status, title = "wrong_state", 409, "Not in this state"


class RequestTooLargeError(ServerFault):
    """The body is larger than a request may be."""

    code, status, title = "request_too_large", 413, "The request is too large"


class RangeNotSatisfiableError(ServerFault):
    """The range lies outside the file of ``size`` bytes."""

    code, status, title = "range_not_satisfiable", 416, "Nothing in that range"

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


class ConfigRefusedError(ServerFault):
    """The handler refuses the config; ``faults`` lists each ``{"path", "reason"}``."""

    code, status, title = "config_refused", 422, "The handler refuses the config"

    def __init__(self, message: str, faults: list[dict[str, str]]) -> None:
        super().__init__(message)
        self.faults = faults

    def extra(self) -> dict[str, Any]:
        """The single faults."""
        return {"faults": self.faults}


class TooManyRequestsError(ServerFault):
    """The client asks too often, or for too much at a time (``queue_full``); ``retry_after`` is in seconds."""

    status, title = 429, "Too many requests"
    codes = ("too_many_requests", "queue_full")

    def __init__(self, message: str, code: str = "too_many_requests", *, retry_after: float) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after


class EnvironmentFailedError(ServerFault):
    """The handler version could not be installed; ``log`` holds the installer's last lines.

    ``retryable`` says whether the same may work later without anybody changing the handler or its requirements: where
    the network or the disk was the reason.
    """

    code, status, title = "environment_failed", 502, "The handler could not be installed"

    def __init__(self, message: str, log: str = "", *, retryable: bool = False) -> None:
        super().__init__(message)
        self.log = log
        self.retryable = retryable

    def extra(self) -> dict[str, Any]:
        """The installer's last lines."""
        return {"log": self.log}


class UnavailableError(ServerFault):
    """The server cannot do this now, for example because it stops (``stopping``); ``retry_after`` is in seconds."""

    status, title = 503, "Not now"
    codes = ("unavailable", "stopping")

    def __init__(self, message: str, code: str = "unavailable", *, retry_after: float) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after


class DiskFullError(ServerFault):
    """There is no room for what is asked, and nothing that may go would make enough."""

    code, status, title = "disk_full", 507, "The disk is full"


class HandlerFaultError(ServerFault):
    """The handler failed; ``code`` says how, ``log`` holds its last lines."""

    status, title = 502, "The handler failed"
    codes = (
        "handler_exited",
        "handler_protocol",
        "handler_api_mismatch",
        "handler_timeout",
        "handler_out_of_memory",
        "handler_cpu_exceeded",
        "handler_processes_exceeded",
        "handler_output_exceeded",
        "handler_file_too_large",
    )

    def __init__(self, code: str, message: str, log: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.log = log

    def extra(self) -> dict[str, Any]:
        """The handler's last lines."""
        return {"log": self.log}
