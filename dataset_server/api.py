"""The views: each reads its request, makes one call, and answers."""

import asyncio
import json
import re
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from dataset_client.protocol import ID_PATTERN, NAME_PATTERN, VERSION_PATTERN

from .builds import Builds
from .catalog import Catalog
from .errors import (
    MalformedRequestError,
    NotFoundError,
    NotReadyError,
    RangeNotSatisfiableError,
    UnknownDatasetError,
)
from .hub import Hub
from .models import Page, in_words, parse_request
from .notifications import HEARTBEAT_SECONDS, follow, parse_subscriptions
from .settings import HandlerSource, Settings
from .sources import declared_version
from .store import Database, Store, archive_data, shard_data
from .store.schema import Dataset, Shard

SETTINGS = web.AppKey("settings", Settings)
DATABASE = web.AppKey("database", Database)
STORE = web.AppKey("store", Store)
HUB = web.AppKey("hub", Hub)
BUILDS = web.AppKey("builds", Builds)
CATALOG = web.AppKey("catalog", Catalog)

_CHUNK = 1 << 18


async def post_dataset(request: web.Request) -> web.Response:
    """``POST /datasets``: 200 if it is ready, 202 if it is on its way."""
    answer = await request.app[CATALOG].request(await asyncio.to_thread(parse_request, await request.read()))
    return web.json_response(answer.to_json(), status=200 if answer.is_ready else 202)


async def list_datasets(request: web.Request) -> web.Response:
    """``GET /datasets?name=&state=&limit=&offset=``, newest first."""
    try:
        page = Page.model_validate(dict(request.query))
    except ValidationError as error:
        raise MalformedRequestError(in_words(error)) from error
    total, found = await request.app[STORE].list_datasets(**page.model_dump())
    return web.json_response({"total": total, "datasets": [_summary(dataset) for dataset in found]})


async def get_dataset(request: web.Request) -> web.Response:
    """``GET /datasets/{id}``: its config, state and sizes, and how far its build is."""
    dataset = await _dataset(request)
    sealed = await request.app[STORE].sealed_shards(dataset.dataset_id)
    return web.json_response(
        {
            **_summary(dataset),
            "progress": request.app[BUILDS].progress(dataset.dataset_id),
            "shards": [shard_data(shard) for shard in sealed],
        }
    )


async def get_manifest(request: web.Request) -> web.Response:
    """``GET /datasets/{id}/manifest``: the manifest, or while it is being made, the part that is sealed."""
    dataset = await _dataset(request)
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
            "shards": shards,
        }
    )


async def get_archive(request: web.Request) -> web.StreamResponse:
    """``GET /datasets/{id}/archive``: the zip, with ``Range`` and conditions."""
    dataset = await _dataset(request)
    path = request.app[BUILDS].archive_path(dataset.dataset_id)
    if dataset.state != "ready" or not path.is_file():
        raise NotReadyError(f"{dataset.dataset_id} is {dataset.state}; ask for it with POST /datasets and wait")
    headers = {
        "Content-Type": "application/zip",
        "Content-Disposition": f'attachment; filename="{dataset.dataset_id}"',
        "X-Content-SHA256": dataset.archive_sha256 or "",
    }
    return web.FileResponse(path, headers=headers)


async def get_shard(request: web.Request) -> web.StreamResponse:
    """``GET /datasets/{id}/shards/{file}``: a sealed shard; once published, straight out of the archive."""
    dataset = await _dataset(request)
    sealed = await request.app[STORE].sealed_shards(dataset.dataset_id)
    shard = next((shard for shard in sealed if shard.file == request.match_info["file"]), None)
    if shard is None:
        raise NotFoundError(f"{dataset.dataset_id} has no sealed shard of that name")
    builds = request.app[BUILDS]
    if shard.offset is None:
        path, offset = builds.work_folder(dataset.dataset_id) / "dataset" / shard.file, 0
    else:
        path, offset = builds.archive_path(dataset.dataset_id), shard.offset
    wanted = _wanted_bytes(request, shard)
    response = web.StreamResponse(status=200 if len(wanted) == shard.bytes else 206)
    response.content_type = "application/octet-stream"
    response.content_length = len(wanted)
    response.headers["Accept-Ranges"] = "bytes"
    response.etag = shard.sha256
    if response.status == 206:
        response.headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{shard.bytes}"
    try:
        file = await asyncio.to_thread(path.open, "rb")
    except FileNotFoundError as error:
        raise NotReadyError("the dataset is being published; ask again in a moment") from error
    with file:
        await response.prepare(request)
        if request.method != "HEAD":
            await asyncio.to_thread(file.seek, offset + wanted.start)
            left = len(wanted)
            while left and (chunk := await asyncio.to_thread(file.read, min(_CHUNK, left))):
                await response.write(chunk)
                left -= len(chunk)
        await response.write_eof()
    return response


def _wanted_bytes(request: web.Request, shard: Shard) -> range:
    """The bytes a request is for (RFC 9110, 14.2): all of them where there is no range that we serve.

    Raises `RangeNotSatisfiableError` for a range outside the shard.
    """
    whole = range(shard.bytes)
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", request.headers.get("Range", ""))
    if (
        match is None
        or match.groups() == ("", "")
        or request.headers.get("If-Range", f'"{shard.sha256}"') != f'"{shard.sha256}"'
    ):
        return whole
    first, last = match.groups()
    if not first:
        wanted = whole[-int(last) :] if int(last) else whole[:0]
    elif last and int(last) < int(first):
        return whole
    else:
        wanted = whole[int(first) : int(last) + 1 if last else None]
    if not wanted:
        raise RangeNotSatisfiableError(f"the shard has {shard.bytes} bytes", shard.bytes)
    return wanted


async def list_handlers(request: web.Request) -> web.Response:
    """``GET /handlers``: what can be asked for, and where versions come from."""
    sources = request.app[SETTINGS].sources
    return web.json_response({"handlers": [_handler(name, source) for name, source in sorted(sources.items())]})


def _handler(name: str, source: HandlerSource) -> dict[str, Any]:
    shown: dict[str, Any] = {"dataset_name": name, "kind": source.kind}
    if source.kind == "path":
        shown["version"] = declared_version(source.path)
    return shown


async def get_handler(request: web.Request) -> web.Response:
    """``GET /handlers/{name}/{version}``: options, schema, defaults and documentation."""
    name, version = request.match_info["name"], request.match_info["version"]
    if not NAME_PATTERN.fullmatch(name):
        raise UnknownDatasetError(f"'{name[:100]}' is no dataset name")
    if not VERSION_PATTERN.fullmatch(version):
        raise MalformedRequestError(f"'{version[:200]}' is no version")
    return web.json_response(await request.app[CATALOG].describe(name, version))


async def notifications(request: web.Request) -> web.StreamResponse:
    """``GET /notifications?topic=…&after=N``: the socket of `dataset_server.notifications`."""
    wanted = parse_subscriptions(list(request.query.items()))
    socket = web.WebSocketResponse(heartbeat=HEARTBEAT_SECONDS, max_msg_size=1 << 12)
    await socket.prepare(request)
    await follow(socket, request.app[STORE], request.app[HUB], wanted)
    return socket


async def health(_: web.Request) -> web.Response:
    """``GET /healthz``: the process answers."""
    return web.json_response({"status": "ok"})


async def readiness(request: web.Request) -> web.Response:
    """``GET /readyz``: so does the database."""
    await request.app[DATABASE].ping()
    return web.json_response({"status": "ok"})


async def _dataset(request: web.Request) -> Dataset:
    dataset_id = request.match_info["id"]
    dataset = await request.app[STORE].dataset(dataset_id) if ID_PATTERN.fullmatch(dataset_id) else None
    if dataset is None:
        raise NotFoundError(f"there is no dataset '{dataset_id[:300]}'")
    return dataset


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
        "created_at": dataset.created_at,
        "finished_at": dataset.finished_at,
    }
