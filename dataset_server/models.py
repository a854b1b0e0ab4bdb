"""What comes in over HTTP, checked: a config arrives as text from a stranger. `answers` has what goes out."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from multidict import MultiMapping
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from dataset_client.protocol import (
    ID_PATTERN,
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
DatasetId = Annotated[str, StringConstraints(pattern=rf"^{ID_PATTERN.pattern}$")]
State = Literal[
    "resolving",
    "installing",
    "queued",
    "planning",
    "building",
    "publishing",
    "ready",
    "failed",
    "cancelled",
    "evicted",
]


def _whole(value: object) -> object:
    """5.0 as 5: JSON tells no integers from other numbers (RFC 8259, 6)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class DatasetRequest(BaseModel):
    """The body of ``POST /datasets``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    dataset_name: Name
    handler_version: Version
    dataset_config: dict[str, Any] = Field(
        default_factory=dict, description="The handler's options; those left out have their defaults."
    )
    config_md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] | None = Field(
        None, description="md5 of the config's canonical JSON (RFC 8785), to find out early if we disagree."
    )
    priority: Annotated[int, BeforeValidator(_whole)] = Field(
        0, ge=-10, le=10, description="Builds with a higher one go first; above 0 needs the role 'admin'."
    )


@dataclass(frozen=True)
class RequestedDataset:
    """A request that was checked; ``config`` is canonical JSON. ``priority`` is no part of what is asked for."""

    dataset_name: str
    handler_version: str
    config: str
    priority: int = 0


class Page(BaseModel):
    """The query of ``GET /datasets``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name | None = Field(None, description="Datasets of this name alone.")
    state: State | None = Field(None, description="Datasets in this state alone.")
    version: Version | None = Field(None, description="Datasets of this resolved handler version alone.")
    pinned: bool | None = Field(None, description="Datasets that are pinned, or that are not, alone.")
    sort: Literal["created_at", "last_used_at", "bytes"] = Field("created_at", description="What to sort by.")
    order: Literal["asc", "desc"] = Field("desc", description="Whether the smallest or the largest come first.")
    limit: int = Field(100, ge=1, le=1000, description="Datasets on the page.")
    offset: int = Field(0, ge=0, le=2**53, description="Datasets to skip.")


class RevisionQuery(BaseModel):
    """The query of an archive or a shard."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    revision: int | None = Field(
        None, ge=1, le=2**31 - 1, description="Which of the published archives; the current one by default."
    )


class Deletion(BaseModel):
    """The query of ``DELETE /datasets/{id}``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    force: bool = Field(False, description="Also where it is pinned, or being downloaded.")


class AuditQuery(BaseModel):
    """The query of ``GET /audit``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    client: str | None = Field(None, max_length=64, description="Deeds of this client alone.")
    action: str | None = Field(None, max_length=32, description="Deeds of this sort alone, such as 'request'.")
    subject: str | None = Field(None, max_length=255, description="What was done to this topic, dataset or token.")
    after: int = Field(0, ge=0, le=2**53, description="Entries with a higher number alone.")
    limit: int = Field(100, ge=1, le=1000, description="Entries on the page.")


Query = TypeVar("Query", bound=BaseModel)


def parse_query(model: type[Query], query: MultiMapping[str]) -> Query:
    """Read a query; raises `MalformedRequestError` for what is unknown, wrong, or said twice."""
    if len(query) != len(set(query)):
        raise MalformedRequestError("the query names a parameter twice; which of the two is meant?")
    try:
        return model.model_validate(dict(query))
    except ValidationError as error:
        raise MalformedRequestError(in_words(error)) from error


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
            body.decode(), object_pairs_hook=_refuse_doubled, parse_constant=_refuse_constant, parse_int=_integer
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
    return RequestedDataset(request.dataset_name, request.handler_version, canonical, request.priority)


def in_words(error: ValidationError) -> str:
    """All faults of a validation in one line."""
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'the request'}: {item['msg']}"
        for item in error.errors(include_url=False)
    )
