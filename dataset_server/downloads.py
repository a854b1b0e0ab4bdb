"""The views of archives and shards: their bytes, and what is done to a dataset as a whole.

Both are a piece of a file: a shard that is published lies in its archive, at an offset. The kernel copies the bytes
from the page cache to the socket (``sendfile``), except under TLS; no file is ever in the server's memory.
"""

import asyncio
import base64
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from aiohttp import web

from .api import AUDIT, BUILDS, STORE, dataset_of
from .auth import CLIENT
from .cache import Cache
from .errors import EvictedError, NotFoundError, NotReadyError, PreconditionFailedError, RangeNotSatisfiableError
from .logs import SENT_BYTES
from .models import Deletion, RevisionQuery, parse_query
from .ranges import wanted
from .store.schema import Dataset, Shard

CACHE = web.AppKey("cache", Cache)

#: Bytes given to the kernel at a time: where a reader is as fast as the copying, others have their turn between two of
#: these (nginx has ``sendfile_max_chunk`` for that).
_TURN = 8 << 20
_TLS_CHUNK = 1 << 18
#: Seconds in which a reader must take one turn's bytes; one who does not has gone, and holds the archive in vain.
_PATIENCE = 300.0


@dataclass(frozen=True)
class Piece:
    """``size`` bytes of a file from ``offset`` on, what they are, and their sha256 in hex."""

    path: Path
    offset: int
    size: int
    sha256: str
    content_type: str
    name: str


async def get_archive(request: web.Request) -> web.StreamResponse:
    """``GET /datasets/{id}/archive?revision=N``: the zip, with ``Range`` and conditions; the current one by default."""
    dataset = await dataset_of(request)
    revision = parse_query(RevisionQuery, request.query).revision or dataset.revision
    async with request.app[CACHE].using(dataset.dataset_id, revision):
        dataset = await dataset_of(request)  # as it is now that it cannot go
        size, sha256, _ = await _published(request, dataset, revision)
        path = request.app[CACHE].archive_path(dataset.dataset_id, revision)
        return await send(request, Piece(path, 0, size, sha256, "application/zip", dataset.dataset_id))


async def get_shard(request: web.Request) -> web.StreamResponse:
    """``GET /datasets/{id}/shards/{file}?revision=N``: a sealed shard; once published, straight out of the archive."""
    dataset = await dataset_of(request)
    asked = parse_query(RevisionQuery, request.query).revision
    revision = asked or dataset.revision
    async with request.app[CACHE].using(dataset.dataset_id, revision):
        dataset = await dataset_of(request)
        if asked is None and dataset.state != "evicted":
            sealed: tuple[Shard, ...] = tuple(await request.app[STORE].sealed_shards(dataset.dataset_id))
        else:
            _, _, sealed = await _published(request, dataset, revision)
        shard = next((shard for shard in sealed if shard.file == request.match_info["file"]), None)
        if shard is None:
            raise NotFoundError(f"{dataset.dataset_id} has no sealed shard of that name")
        if shard.offset is None:
            path, offset = request.app[BUILDS].work_folder(dataset.dataset_id) / "dataset" / shard.file, 0
        else:
            path, offset = request.app[CACHE].archive_path(dataset.dataset_id, revision), shard.offset
        kind = "application/octet-stream"
        return await send(request, Piece(path, offset, shard.bytes, shard.sha256, kind, shard.file))


async def delete_dataset(request: web.Request) -> web.Response:
    """``DELETE /datasets/{id}?force=true``: 204; it and its archives are gone."""
    force = parse_query(Deletion, request.query).force
    dataset = await dataset_of(request)
    await request.app[CACHE].delete(dataset.dataset_id, force=force)
    await request.app[AUDIT].note(request[CLIENT].name, "delete", dataset.dataset_id, {"force": force})
    return web.Response(status=204)


async def pin_dataset(request: web.Request) -> web.Response:
    """``POST /datasets/{id}/pin``: its archive stays, whatever room others need."""
    return await _set_pinned(request, pinned=True)


async def unpin_dataset(request: web.Request) -> web.Response:
    """``POST /datasets/{id}/unpin``: its archive may make room for others."""
    return await _set_pinned(request, pinned=False)


async def _set_pinned(request: web.Request, *, pinned: bool) -> web.Response:
    dataset = await dataset_of(request)
    await request.app[CACHE].set_pinned(dataset.dataset_id, pinned=pinned)
    await request.app[AUDIT].note(request[CLIENT].name, "pin" if pinned else "unpin", dataset.dataset_id)
    return web.json_response({"dataset_id": dataset.dataset_id, "pinned": pinned})


async def _published(request: web.Request, dataset: Dataset, revision: int) -> tuple[int, str, tuple[Shard, ...]]:
    """Size, sha256 and shards of an archive that is there; raises what its absence means."""
    if dataset.state == "ready" and dataset.revision == revision:
        sealed = await request.app[STORE].sealed_shards(dataset.dataset_id)
        return dataset.archive_bytes or 0, dataset.archive_sha256 or "", tuple(sealed)
    if earlier := await request.app[CACHE].revision(dataset.dataset_id, revision):
        return earlier.bytes, earlier.sha256, earlier.shards
    if revision > max(dataset.revision, 1):
        raise NotFoundError(f"{dataset.dataset_id} has no revision {revision}; {dataset.revision} is its latest")
    if dataset.state == "evicted" or revision < dataset.revision:
        raise EvictedError(f"revision {revision} of {dataset.dataset_id} is gone; ask for it again with POST /datasets")
    raise NotReadyError(f"{dataset.dataset_id} is {dataset.state}; ask for it with POST /datasets and wait")


async def send(request: web.Request, piece: Piece) -> web.StreamResponse:
    """Answer with what is asked for of a piece (`ranges`)."""
    answer = wanted(request.method, request.headers, piece.sha256, piece.size)
    if answer.status == 304:
        return web.Response(status=304, headers={"ETag": f'"{piece.sha256}"'})
    if answer.status == 412:
        raise PreconditionFailedError(f"the sha256 of {piece.name} is {piece.sha256} now; fetch it from its start")
    if answer.status == 416:
        raise RangeNotSatisfiableError(f"{piece.name} has {piece.size} bytes", piece.size)
    try:
        file = await asyncio.to_thread(_open, piece)
    except FileNotFoundError as error:
        raise NotReadyError(f"{piece.name} is not there; ask for it with POST /datasets") from error
    with file:
        response = web.StreamResponse(status=answer.status, headers=_headers(piece))
        response.content_length = len(answer.bytes)
        if answer.status == 206:
            response.headers["Content-Range"] = f"bytes {answer.bytes[0]}-{answer.bytes[-1]}/{piece.size}"
        await response.prepare(request)
        if request.method != "HEAD":
            response[SENT_BYTES] = await _copy(request, response, file, piece.offset, answer.bytes)
        await response.write_eof()
    return response


def _open(piece: Piece) -> IO[bytes]:
    """Open a file that has all of the piece; raises `FileNotFoundError` for one that is cut off, too."""
    file = piece.path.open("rb", buffering=0)
    if os.fstat(file.fileno()).st_size < piece.offset + piece.size:
        file.close()
        raise FileNotFoundError(piece.path)
    return file


def _headers(piece: Piece) -> dict[str, str]:
    """What is said of a piece: RFC 9110 (entity tag), RFC 9530 (digest of the whole), RFC 6266 (its file name)."""
    digest = base64.b64encode(bytes.fromhex(piece.sha256)).decode()
    return {
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'attachment; filename="{piece.name}"',
        "Content-Type": piece.content_type,
        "ETag": f'"{piece.sha256}"',
        "Repr-Digest": f"sha-256=:{digest}:",
        "X-Content-SHA256": piece.sha256,
    }


async def _copy(request: web.Request, response: web.StreamResponse, file: IO[bytes], offset: int, part: range) -> int:
    """Send the bytes ``part``, counted from ``offset``; returns how many they were."""
    loop, transport = asyncio.get_running_loop(), request.transport
    native = transport is not None and transport.get_extra_info("sslcontext") is None
    position, end, turn = offset + part.start, offset + part.stop, _TURN if native else _TLS_CHUNK
    descriptor = file.fileno()
    try:
        while position < end:
            count = min(turn, end - position)
            async with asyncio.timeout(_PATIENCE):
                if native:
                    # The disk works ahead while the socket drains: sendfile blocks on what is not in memory.
                    os.posix_fadvise(descriptor, position + count, turn, os.POSIX_FADV_WILLNEED)
                    sent = await loop.sendfile(transport, file, position, count)  # type: ignore[arg-type]
                else:
                    chunk = await asyncio.to_thread(os.pread, descriptor, count, position)
                    await response.write(chunk)
                    sent = len(chunk)
            if not sent:
                raise ConnectionResetError("the file ended early")
            position += sent
    except (TimeoutError, RuntimeError) as error:  # a reader that sleeps, or a transport that closes
        if transport is not None:
            transport.abort()
        raise ConnectionResetError("the reader has gone") from error
    return len(part)
