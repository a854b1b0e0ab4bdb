"""What comes in over HTTP, checked: a config arrives as text from a stranger."""

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from dataset_client.protocol import (
    MAX_CONFIG_DEPTH,
    NAME_PATTERN,
    VERSION_PATTERN,
    MalformedConfigError,
    canonical_json,
    config_md5,
)

from .errors import ConfigMd5MismatchError, MalformedRequestError

Name = Annotated[str, StringConstraints(pattern=rf"^{NAME_PATTERN.pattern}$")]
Version = Annotated[str, StringConstraints(pattern=rf"^{VERSION_PATTERN.pattern}$")]


class DatasetRequest(BaseModel):
    """The body of ``POST /datasets``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    dataset_name: Name
    handler_version: Version
    dataset_config: dict[str, Any] = Field(default_factory=dict)
    config_md5: str | None = Field(None, description="md5 of the canonical config, to find out early if we disagree.")

    @property
    def canonical(self) -> str:
        """The config as canonical JSON."""
        return canonical_json(self.dataset_config)


class Page(BaseModel):
    """The query of ``GET /datasets``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name | None = None
    state: str | None = None
    limit: int = Field(100, ge=1, le=1000)
    offset: int = Field(0, ge=0, le=2**53)


def _refuse_doubled(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedRequestError("the JSON names a key twice; which of the two is meant?")
    return members


def _refuse_constant(name: str) -> Any:
    raise MalformedRequestError(f"{name} is not JSON")


def parse_request(body: bytes) -> DatasetRequest:
    """Read a request; raises `MalformedRequestError` or `ConfigMd5MismatchError`, saying what is wrong."""
    try:
        content = json.loads(body, object_pairs_hook=_refuse_doubled, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise MalformedRequestError(f"the config is nested deeper than {MAX_CONFIG_DEPTH} levels") from error
    except ValueError as error:
        raise MalformedRequestError(f"the body is not JSON: {error}") from error
    try:
        request = DatasetRequest.model_validate(content)
        canonical = request.canonical
    except ValidationError as error:
        raise MalformedRequestError(in_words(error)) from error
    except MalformedConfigError as error:
        raise MalformedRequestError(str(error)) from error
    if request.config_md5 is not None and request.config_md5 != config_md5(canonical):
        raise ConfigMd5MismatchError(
            f"config_md5 is {request.config_md5}, the canonical JSON (RFC 8785) of this config has "
            f"{config_md5(canonical)}; write the config as RFC 8785 says, or leave config_md5 out"
        )
    return request


def in_words(error: ValidationError) -> str:
    """All faults of a validation in one line."""
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'the request'}: {item['msg']}"
        for item in error.errors(include_url=False)
    )
