"""What comes in over HTTP, checked: a config arrives as text from a stranger."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from dataset_client.protocol import (
    MAX_CONFIG_DEPTH,
    NAME_PATTERN,
    STATES,
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


@dataclass(frozen=True)
class RequestedDataset:
    """A request that was checked; ``config`` is canonical JSON."""

    dataset_name: str
    handler_version: str
    config: str


class Page(BaseModel):
    """The query of ``GET /datasets``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name | None = None
    state: Annotated[str, StringConstraints(pattern=rf"^({'|'.join(STATES)})$")] | None = None
    limit: int = Field(100, ge=1, le=1000)
    offset: int = Field(0, ge=0, le=2**53)


def _refuse_doubled(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedRequestError("the JSON names a key twice; which of the two is meant?")
    return members


def _refuse_constant(name: str) -> Any:
    raise MalformedRequestError(f"{name} is not JSON")


def _integer(text: str) -> int | float:
    """An integer; one that only a float can be, such as 10000000000000000 for 1e16, is that float."""
    value = int(text)
    return float(value) if abs(value) >= 2**53 and len(text) < 310 and int(float(value)) == value else value


def parse_request(body: bytes) -> RequestedDataset:
    """Read a request; raises `MalformedRequestError` or `ConfigMd5MismatchError`, saying what is wrong."""
    try:
        content = json.loads(
            body, object_pairs_hook=_refuse_doubled, parse_constant=_refuse_constant, parse_int=_integer
        )
    except RecursionError as error:
        raise MalformedRequestError(f"the config is nested deeper than {MAX_CONFIG_DEPTH} levels") from error
    except ValueError as error:
        raise MalformedRequestError(f"the body is not JSON: {error}") from error
    try:
        request = DatasetRequest.model_validate(content)
        canonical = canonical_json(request.dataset_config)
    except ValidationError as error:
        raise MalformedRequestError(in_words(error)) from error
    except MalformedConfigError as error:
        raise MalformedRequestError(str(error)) from error
    if request.config_md5 is not None and request.config_md5 != config_md5(canonical):
        raise ConfigMd5MismatchError(
            f"config_md5 is {request.config_md5}, the canonical JSON (RFC 8785) of this config has "
            f"{config_md5(canonical)}; write the config as RFC 8785 says, or leave config_md5 out"
        )
    return RequestedDataset(request.dataset_name, request.handler_version, canonical)


def in_words(error: ValidationError) -> str:
    """All faults of a validation in one line."""
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'the request'}: {item['msg']}"
        for item in error.errors(include_url=False)
    )
