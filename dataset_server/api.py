"""The views: each reads its request, makes one call, and answers."""

import asyncio
import contextlib
import functools
import json
import os
import stat
from pathlib import Path
from typing import Any

from aiohttp import web

from dataset_client.protocol import ID_PATTERN, NAME_PATTERN, VERSION_PATTERN, hash_dataset_name

from .auth import CLIENT
from .builds import Builds
from .catalog import Catalog
from .durable import open_below
from .errors import (
    HandlerFaultError,
    MalformedRequestError,
    NotFoundError,
    ServerFault,
    UnknownDatasetError,
)
from .handler_events import loads_foreign
from .hub import Hub
from .metrics import METRICS, OBSERVER
from .models import AuditQuery, Page, parse_query, parse_request
from .notifications import (
    CLOSE_SECONDS,
    HEARTBEAT_SECONDS,
    Sockets,
    follow,
    news_of,
    parse_subscriptions,
    parse_wait,
)
from .readiness import Readiness
from .settings import HandlerSource, Settings
from .sources import declared_version
from .store import Database, Store, archive_data, shard_data
from .store.audit import Audit
from .store.counts import datasets_by_state
from .store.listing import page_of_datasets
from .store.schema import Dataset

SETTINGS = web.AppKey("settings", Settings)
DATABASE = web.AppKey("database", Database)
STORE = web.AppKey("store", Store)
HUB = web.AppKey("hub", Hub)
BUILDS = web.AppKey("builds", Builds)
CATALOG = web.AppKey("catalog", Catalog)
DOCUMENT = web.AppKey("document", str)
AUDIT = web.AppKey("audit", Audit)
SOCKETS = web.AppKey("sockets", Sockets)
READINESS = web.AppKey("readiness", Readiness)

_LARGEST_FEATURES = 1 << 20
#: Bytes of a request that are read at once: sooner than handing them to a thread.
_SMALL_BODY = 1 << 14
#: The same bytes ask for the same: training scripts ask for what they asked for last time.
_parse_small = functools.lru_cache(maxsize=256)(parse_request)


async def post_dataset(request: web.Request) -> web.Response:
    """``POST /datasets``: 200 if it is ready, 202 if it is on its way."""
    body = await request.read()
    wanted = _parse_small(body) if len(body) <= _SMALL_BODY else await asyncio.to_thread(parse_request, body)
    client, audit = request[CLIENT], request.app[AUDIT]
    try:
        answer = await request.app[CATALOG].request(wanted, client)
    except ServerFault as fault:
        topic_id = hash_dataset_name(wanted.dataset_name, wanted.handler_version, wanted.config)
        await audit.note(client.name, "request", topic_id, {"outcome": fault.code})
        raise
    await audit.note(client.name, "request", answer.topic.topic_id)
    return web.json_response(answer.to_json(), status=200 if answer.is_ready else 202)


async def cancel_dataset(request: web.Request) -> web.Response:
    """``POST /datasets/{id}/cancel``: nobody works on it any more, and all who wait for it are told.

    The id is also that of a request's topic, as long as it has no dataset.
    """
    client, catalog, audit = request[CLIENT], request.app[CATALOG], request.app[AUDIT]
    if topic := await catalog.request_to_cancel(id_of(request)):
        async with audit.deed(client.name, "cancel", topic.topic_id):
            answer = await catalog.cancel_request(topic, client)
        return web.json_response(answer.to_json())
    dataset = await dataset_of(request)
    async with audit.deed(client.name, "cancel", dataset.dataset_id):
        await catalog.cancel(dataset, client)
    return web.json_response(_summary(await dataset_of(request)))


async def retry_dataset(request: web.Request) -> web.Response:
    """``POST /datasets/{id}/retry``: 202, a new attempt at what failed or was cancelled is on its way."""
    dataset, client = await dataset_of(request), request[CLIENT]
    async with request.app[AUDIT].deed(client.name, "retry", dataset.dataset_id):
        dataset, topic_ids = await request.app[CATALOG].retry(dataset, client)
    return web.json_response({**_summary(dataset), "topics": topic_ids}, status=202)


async def list_datasets(request: web.Request) -> web.Response:
    """``GET /datasets``: a page of what matches."""
    page = parse_query(Page, request.query).model_dump()
    descending = page.pop("order") == "desc"
    total, found = await page_of_datasets(request.app[DATABASE], descending=descending, **page)
    return web.json_response({"total": total, "datasets": [_summary(dataset) for dataset in found]})


async def get_dataset(request: web.Request) -> web.Response:
    """``GET /datasets/{id}``: its config, state and sizes, and how far its build is."""
    dataset = await dataset_of(request)
    request.app[HUB].note_poll(dataset.dataset_id)
    sealed = await request.app[STORE].sealed_shards(dataset.dataset_id)
    return web.json_response(
        {
            **_summary(dataset),
            **request.app[BUILDS].place(dataset.dataset_id),
            "progress": request.app[BUILDS].progress(dataset.dataset_id),
            "shards": [shard_data(shard) for shard in sealed],
        }
    )


async def get_manifest(request: web.Request) -> web.Response:
    """``GET /datasets/{id}/manifest``: the manifest, or while it is being made, the part that is sealed."""
    dataset = await dataset_of(request)
    manifest = await request.app[STORE].manifest(dataset.dataset_id)
    if manifest is not None:
        return web.Response(text=manifest, content_type="application/json")
    sealed = await request.app[STORE].sealed_shards(dataset.dataset_id)
    shards = [{key: value for key, value in shard_data(shard).items() if key != "url"} for shard in sealed]
    return web.json_response(
        {
            "format": 1,
            "complete": False,
            "dataset_id": dataset.dataset_id,
            "dataset_name": dataset.dataset_name,
            "config": json.loads(dataset.config),
            "state": dataset.state,
            "features": await asyncio.to_thread(_features, request.app[BUILDS].work_folder(dataset.dataset_id)),
            "shards": shards,
        }
    )


def _features(work: Path) -> Any:
    """The ``features.json`` of a build, which most handlers write before their first shard; None if there is none.

    The handler may be at work there, so no link is followed.
    """
    try:
        with os.fdopen(open_below(work.parent, f"{work.name}/dataset/features.json"), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            content = file.read(_LARGEST_FEATURES + 1)
        features = loads_foreign(content, "features that are no JSON")
    except (OSError, HandlerFaultError):
        return None
    return features if isinstance(features, dict) else None


async def list_handlers(request: web.Request) -> web.Response:
    """``GET /handlers``: what can be asked for, and where versions come from."""
    sources = request.app[SETTINGS].sources
    shown = await asyncio.to_thread(lambda: [_handler(name, source) for name, source in sorted(sources.items())])
    return web.json_response({"handlers": shown})


def _handler(name: str, source: HandlerSource) -> dict[str, Any]:
    shown: dict[str, Any] = {"dataset_name": name, "kind": source.kind}
    if source.kind == "path":
        with contextlib.suppress(OSError, ValueError, AttributeError):  # no such file now, no TOML, or not of our form
            shown["version"] = declared_version(source.path)
    return shown


async def get_handler(request: web.Request) -> web.Response:
    """``GET /handlers/{name}/{version}``: options, schema, defaults and documentation."""
    name, version = request.match_info["name"], request.match_info["version"]
    if not NAME_PATTERN.fullmatch(name):
        raise UnknownDatasetError(f"'{name[:100]}' is no dataset name")
    if not VERSION_PATTERN.fullmatch(version):
        raise MalformedRequestError(f"'{version[:200]}' is no version")
    client = request[CLIENT]
    await request.app[AUDIT].note(client.name, "describe", f"{name} {version}")  # which may install it
    return web.json_response(await request.app[CATALOG].describe(name, version, client))


async def notifications(request: web.Request) -> web.StreamResponse:
    """``GET /notifications?topic=…&after=N``: the socket of `dataset_server.notifications`."""
    wanted = parse_subscriptions(list(request.query.items()))
    # Uncompressed: a few bytes could become any number, and nothing is expected from the client.
    socket = web.WebSocketResponse(
        heartbeat=HEARTBEAT_SECONDS, max_msg_size=1 << 12, compress=False, timeout=CLOSE_SECONDS
    )
    metrics = request.app[METRICS]
    with request.app[SOCKETS].hold(socket, request.transport, request[CLIENT]), metrics.open_socket():
        try:
            await socket.prepare(request)
        except ValueError as error:  # aiohttp's, for a key that is not even ASCII
            raise MalformedRequestError(f"the handshake is none: {error}") from error
        await follow(socket, request.app[STORE], request.app[HUB], wanted, metrics.event_sent)
    return socket


async def get_events(request: web.Request) -> web.Response:
    """``GET /events?topic=…&after=N&wait=S``: what such a socket would bring, for who can open none."""
    seconds, query = parse_wait(list(request.query.items()))
    messages = await news_of(request.app[STORE], request.app[HUB], parse_subscriptions(query), seconds)
    return web.json_response({"messages": messages})


async def get_document(request: web.Request) -> web.Response:
    """``GET /openapi.json``: this API in the words of OpenAPI 3.1."""
    return web.Response(text=request.app[DOCUMENT], content_type="application/json")


async def get_audit(request: web.Request) -> web.Response:
    """``GET /audit``: a page of what matches, oldest first."""
    wanted = parse_query(AuditQuery, request.query)
    entries = await request.app[AUDIT].find(**wanted.model_dump())
    return web.json_response({"entries": [{**vars(entry), "detail": json.loads(entry.detail)} for entry in entries]})


async def health(_: web.Request) -> web.Response:
    """``GET /healthz``: the process answers."""
    return web.json_response({"status": "ok"})


async def readiness(request: web.Request) -> web.Response:
    """``GET /readyz``: so does the database, and new requests are taken."""
    request.app[CATALOG].refuse_while_stopping()
    await request.app[READINESS].require()
    return web.json_response({"status": "ok"})


async def metrics(request: web.Request) -> web.Response:
    """``GET /metrics``: what `dataset_server.metrics` counts."""
    app = request.app
    app[METRICS].count_datasets(await datasets_by_state(app[DATABASE]))
    await app[OBSERVER].observe()
    return app[METRICS].render()


async def dataset_of(request: web.Request) -> Dataset:
    """The dataset of the path; raises `NotFoundError`."""
    dataset_id = id_of(request)
    dataset = await request.app[STORE].dataset(dataset_id)
    if dataset is None:
        raise NotFoundError(f"there is no dataset '{dataset_id}'")
    return dataset


def id_of(request: web.Request) -> str:
    """The id in the path; raises `NotFoundError` for what is none."""
    dataset_id = request.match_info["id"]
    if not ID_PATTERN.fullmatch(dataset_id):
        raise NotFoundError(f"there is no dataset '{dataset_id[:300]}'")
    return dataset_id


def _summary(dataset: Dataset) -> dict[str, Any]:
    return {
        "dataset_id": dataset.dataset_id,
        "dataset_name": dataset.dataset_name,
        "resolved_version": dataset.resolved_version,
        "config": json.loads(dataset.config),
        "state": dataset.state,
        "attempt": dataset.attempt,
        "error": json.loads(dataset.error) if dataset.error else None,
        "archive": archive_data(dataset) if dataset.state == "ready" else None,
        "revision": dataset.revision,
        "provenance": dataset.provenance,
        "pinned": dataset.pinned,
        "usage": {"uses": dataset.uses, "last_used_at": dataset.last_used_at},
        "created_at": dataset.created_at,
        "finished_at": dataset.finished_at,
    }
