"""One request for a dataset, checked before anything is sent."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dataset_client.errors import InvalidRequestError, InvalidSettingError
from dataset_client.protocol import (
    MAX_REQUEST_BYTES,
    NAME_PATTERN,
    VERSION_PATTERN,
    MalformedConfigError,
    canonical_json,
    config_md5,
    hash_dataset_name,
)


@dataclass(frozen=True)
class DatasetRequest:
    """Which dataset, by which version of its handler, made how. ``canonical_config`` is RFC 8785 JSON."""

    dataset_name: str
    handler_version: str
    canonical_config: str

    @property
    def topic_id(self) -> str:
        """The request's identity, which names its topic on the server and its entry in the cache."""
        return hash_dataset_name(self.dataset_name, self.handler_version, self.canonical_config)

    @property
    def config(self) -> dict[str, Any]:
        """The config as it is sent: a fresh copy in JSON's own types."""
        config: dict[str, Any] = json.loads(self.canonical_config)
        return config

    def body(self) -> bytes:
        """The body of the POST."""
        fields = {
            "dataset_name": self.dataset_name,
            "handler_version": self.handler_version,
            "dataset_config": self.config,
            "config_md5": config_md5(self.canonical_config),
        }
        return json.dumps(fields, ensure_ascii=False).encode("utf-8")


def make_request(dataset_name: str, handler_version: str, dataset_config: Mapping[str, Any]) -> DatasetRequest:
    """Check a request; raises `InvalidRequestError` with what is wrong."""
    if not isinstance(dataset_name, str) or not NAME_PATTERN.fullmatch(dataset_name):
        raise InvalidRequestError(
            f"{dataset_name!r} is not a dataset name",
            remedy="Use lower-case letters, digits and underscores, a letter first, 64 at most.",
        )
    if not isinstance(handler_version, str) or not VERSION_PATTERN.fullmatch(handler_version):
        raise InvalidRequestError(
            f"{handler_version!r} is not a handler version",
            remedy="Use a release, tag or commit: letters, digits and . _ + -, 128 at most, no sign first.",
        )
    try:
        request = DatasetRequest(dataset_name, handler_version, canonical_json(dataset_config))
    except MalformedConfigError as error:
        raise InvalidRequestError(str(error), code="config_malformed") from error
    if (size := len(request.body())) > MAX_REQUEST_BYTES:
        raise InvalidRequestError(
            f"the request has {size} bytes; the server takes {MAX_REQUEST_BYTES}", code="config_too_large"
        )
    return request


def check_timeout(timeout: float | None) -> None:
    """Raise `InvalidSettingError` unless ``timeout`` is None or a number of seconds above 0."""
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise InvalidSettingError(
            f"timeout={timeout!r} is not a number of seconds above 0",
            remedy="Leave it out to wait without end.",
        )
