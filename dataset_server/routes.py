"""Which path leads to which view, what it takes to get there, and what may come back.

The table registers the views, tells the middleware which role each needs, and is what the OpenAPI document describes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel

from dataset_client.protocol import API_PREFIX

from . import answers, api, downloads, errors, models
from .middlewares import expected

#: The roles in rising order; each may do what those before it may.
RoleName = Literal["read", "request", "admin"]
Fault = type[errors.ServerFault]


@dataclass(frozen=True)
class Route:
    """One call of the API.

    ``role`` is what a client needs; None lets everybody in. ``responses`` are the successes by status: a model for
    JSON, or a media type. ``faults`` are those of its own; `openapi` adds what every call may answer.
    """

    method: str
    path: str
    view: Handler
    role: RoleName | None
    summary: str
    responses: Mapping[int, type[BaseModel] | str]
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    faults: tuple[Fault, ...] = field(default=())

    def register(self) -> web.RouteDef:
        """The route as aiohttp takes it; what can be got can be asked for its head too."""
        options = {"allow_head": 101 not in self.responses} if self.method == "GET" else {}
        return web.RouteDef(self.method, self.path, self.view, {**options, "expect_handler": expected})


_DATASETS = f"{API_PREFIX}/datasets"
_DATASET = f"{_DATASETS}/{{id}}"

_NOT_FETCHED: tuple[Fault, ...] = (
    errors.NotFoundError,
    errors.NotReadyError,
    errors.EvictedError,
    errors.PreconditionFailedError,
    errors.RangeNotSatisfiableError,
)

TABLE: tuple[Route, ...] = (
    Route(
        "POST",
        _DATASETS,
        api.post_dataset,
        "request",
        "Ask for a dataset: 200 if it is ready, 202 if it is on its way.",
        {200: answers.DatasetAnswer, 202: answers.DatasetAnswer},
        body=models.DatasetRequest,
        faults=(
            errors.ConfigMd5MismatchError,
            errors.UnknownDatasetError,
            errors.UnknownVersionError,
            errors.ConfigRefusedError,
            errors.EnvironmentFailedError,
            errors.HandlerFaultError,
            errors.UnavailableError,
        ),
    ),
    Route(
        "GET",
        _DATASETS,
        api.list_datasets,
        "read",
        "List datasets: filter, sort, page.",
        {200: answers.DatasetPage},
        query=models.Page,
    ),
    Route(
        "GET",
        _DATASET,
        api.get_dataset,
        "read",
        "One dataset: its config, state and sizes, and how far its build is.",
        {200: answers.DatasetDetail},
        faults=(errors.NotFoundError,),
    ),
    Route(
        "POST",
        f"{_DATASET}/cancel",
        api.cancel_dataset,
        "request",
        "End the making of a dataset, or by its topic's id a request that has none yet, for all who wait for it; where "
        "others do, this needs the role 'admin'.",
        {200: answers.CancelAnswer},
        faults=(errors.NotFoundError, errors.WrongStateError),
    ),
    Route(
        "POST",
        f"{_DATASET}/retry",
        api.retry_dataset,
        "request",
        "Make a dataset that failed or was cancelled once more, going on where that can be.",
        {202: answers.RetryAnswer},
        faults=(
            errors.NotFoundError,
            errors.UnknownVersionError,
            errors.EnvironmentFailedError,
            errors.WrongStateError,
            errors.UnavailableError,
        ),
    ),
    Route(
        "GET",
        f"{_DATASET}/archive",
        downloads.get_archive,
        "read",
        "The archive.",
        {200: "application/zip", 206: "application/zip"},
        query=models.RevisionQuery,
        faults=_NOT_FETCHED,
    ),
    Route(
        "GET",
        f"{_DATASET}/manifest",
        api.get_manifest,
        "read",
        "The manifest, or while the dataset is being made, the part that is sealed.",
        {200: answers.ManifestAnswer},
        faults=(errors.NotFoundError,),
    ),
    Route(
        "GET",
        f"{_DATASET}/shards/{{file}}",
        downloads.get_shard,
        "read",
        "One sealed shard.",
        {200: "application/octet-stream", 206: "application/octet-stream"},
        query=models.RevisionQuery,
        faults=_NOT_FETCHED,
    ),
    Route(
        "DELETE",
        _DATASET,
        downloads.delete_dataset,
        "admin",
        "Remove a dataset and its archives.",
        {204: "nothing"},
        query=models.Deletion,
        faults=(errors.NotFoundError, errors.InUseError),
    ),
    Route(
        "POST",
        f"{_DATASET}/pin",
        downloads.pin_dataset,
        "admin",
        "Keep a dataset's archive, whatever room others need.",
        {200: answers.Pin},
        faults=(errors.NotFoundError,),
    ),
    Route(
        "POST",
        f"{_DATASET}/unpin",
        downloads.unpin_dataset,
        "admin",
        "Let a dataset's archive make room for others.",
        {200: answers.Pin},
        faults=(errors.NotFoundError,),
    ),
    Route(
        "GET",
        f"{API_PREFIX}/handlers",
        api.list_handlers,
        "read",
        "What can be asked for.",
        {200: answers.HandlerList},
    ),
    Route(
        "GET",
        f"{API_PREFIX}/handlers/{{name}}/{{version}}",
        api.get_handler,
        "request",  # it may install the version
        "A handler's options, schema, defaults and documentation; installs the version if need be.",
        {200: answers.HandlerDescription},
        faults=(
            errors.UnknownDatasetError,
            errors.UnknownVersionError,
            errors.EnvironmentFailedError,
            errors.HandlerFaultError,
            errors.UnavailableError,
        ),
    ),
    Route(
        "GET",
        f"{API_PREFIX}/notifications",
        api.notifications,
        "read",
        "The notification socket: replays the events of topics, then follows them.",
        {101: "websocket"},
    ),
    Route(
        "GET",
        f"{API_PREFIX}/events",
        api.get_events,
        "read",
        "What the notification socket would bring, for who can open none; waits up to 50 s for the first event.",
        {200: answers.Messages},
    ),
    Route(
        "GET",
        f"{API_PREFIX}/openapi.json",
        api.get_document,
        "read",
        "This API in the words of OpenAPI 3.1.",
        {200: "application/json"},
    ),
    Route(
        "GET",
        f"{API_PREFIX}/audit",
        api.get_audit,
        "admin",
        "Who asked for what, oldest first; requests appear within a second or two.",
        {200: answers.AuditPage},
        query=models.AuditQuery,
    ),
    Route("GET", "/healthz", api.health, None, "The process answers.", {200: answers.Health}),
    Route(
        "GET",
        "/readyz",
        api.readiness,
        None,
        "So does the database, and new requests are taken.",
        {200: answers.Health},
        faults=(errors.UnavailableError,),
    ),
    Route("GET", "/metrics", api.metrics, "read", "What the server counts, for Prometheus.", {200: "text/plain"}),
)

ROUTES = tuple(route.register() for route in TABLE)

_ROLES = {(route.method, route.path): route.role for route in TABLE}
#: Open to everybody, also to be told which methods there are.
_PUBLIC = {route.path for route in TABLE if route.role is None}


def needed_role(request: web.Request) -> RoleName | None:
    """The role a request needs; None if everybody may. What leads nowhere needs ``read``, to learn even that."""
    if request.path in _PUBLIC:
        return None
    resource = request.match_info.route.resource
    method = "GET" if request.method == "HEAD" else request.method
    return _ROLES.get((method, resource.canonical), "read") if resource else "read"
