"""The views of archives and shards: their bytes, and what is done to a dataset as a whole.

Both are a piece of a file: a shard that is published lies in its archive, at an offset. The kernel copies the bytes
from the page cache to the socket (``sendfile``), except under TLS; no file is ever in the server's memory.
"""

import asyncio
import base64
import contextlib
import errno
import os
import stat
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import IO

from aiohttp import web

from .api import AUDIT, BUILDS, dataset_of, id_of
from .auth import CLIENT
from .cache import Cache
from .durable import open_below
from .errors import (
    EvictedError,
    NotFoundError,
    NotReadyError,
    PreconditionFailedError,
    RangeNotSatisfiableError,
    ServerFault,
)
from .logs import SENT_BYTES
from .models import Deletion, RevisionQuery, parse_query
from .ranges import wanted
from .store.offers import Offer

CACHE = web.AppKey("cache", Cache)

#: Bytes given to the kernel at a time: where a reader is as fast as the copying, others have their turn between two of
#: these (nginx has ``sendfile_max_chunk`` for that).
_TURN = 16 << 20
_TLS_CHUNK = 1 << 18
#: Bytes from one place to the next that is looked at to see whether the disk is needed.
_LOOK_EVERY = 1 << 20
#: Seconds in which a reader must take one turn's bytes; one who does not has gone, and holds the archive in vain.
_PATIENCE = 600.0


@dataclass(frozen=True)
class Piece:
    """``size`` bytes of a file from ``offset`` on, what they are, and their sha256 in hex.

    The file is ``path`` below ``folder``. What is below there a handler may have made.
    """

    folder: Path
    path: str
    offset: int
    size: int
    sha256: str
    content_type: str
    name: str


async def get_archive(request: web.Request) -> web.StreamResponse:
    """``GET /datasets/{id}/archive?revision=N``: the zip, with ``Range`` and conditions; the current one by default."""
    revision = parse_query(RevisionQuery, request.query).revision
    dataset_id = id_of(request)
    async with request.app[CACHE].offered(dataset_id, revision) as found:
        if found is None or found.bytes is None or found.sha256 is None:
            raise _missing(dataset_id, found)
        path = request.app[CACHE].archive_path(dataset_id, found.revision)
        return await send(
            request, Piece(path.parent, path.name, 0, found.bytes, found.sha256, "application/zip", dataset_id)
        )


async def get_shard(request: web.Request) -> web.StreamResponse:
    """``GET /datasets/{id}/shards/{file}?revision=N``: a sealed shard; once published, straight out of the archive."""
    try:
        return await _send_shard(request)
    except NotReadyError:
        # Published since it was looked for, and its build's folder removed: now it is in the archive.
        return await _send_shard(request)


async def _send_shard(request: web.Request) -> web.StreamResponse:
    revision, file = parse_query(RevisionQuery, request.query).revision, request.match_info["file"]
    dataset_id = id_of(request)
    async with request.app[CACHE].offered(dataset_id, revision, file) as found:
        if found is None or found.shard is None:
            if found and (found.sha256 is not None or (revision is None and found.dataset.state != "evicted")):
                raise NotFoundError(f"{dataset_id} has no sealed shard of that name")
            raise _missing(dataset_id, found)
        shard, offset = found.shard, found.shard.offset
        if offset is None:
            work = request.app[BUILDS].work_folder(dataset_id)
            folder, path, offset = work.parent, f"{work.name}/dataset/{shard.file}", 0
        else:
            archive = request.app[CACHE].archive_path(dataset_id, found.revision)
            folder, path = archive.parent, archive.name
        kind = "application/octet-stream"
        return await send(request, Piece(folder, path, offset, shard.bytes, shard.sha256, kind, shard.file))


async def delete_dataset(request: web.Request) -> web.Response:
    """``DELETE /datasets/{id}?force=true``: 204; it and its archives are gone."""
    force = parse_query(Deletion, request.query).force
    dataset = await dataset_of(request)
    async with request.app[AUDIT].deed(request[CLIENT].name, "delete", dataset.dataset_id, {"force": force}):
        await request.app[CACHE].delete(dataset.dataset_id, force=force)
        request.app[BUILDS].discard(dataset.dataset_id)
    return web.Response(status=204)


async def pin_dataset(request: web.Request) -> web.Response:
    """``POST /datasets/{id}/pin``: its archive stays, whatever room others need."""
    return await _set_pinned(request, pinned=True)


async def unpin_dataset(request: web.Request) -> web.Response:
    """``POST /datasets/{id}/unpin``: its archive may make room for others."""
    return await _set_pinned(request, pinned=False)


async def _set_pinned(request: web.Request, *, pinned: bool) -> web.Response:
    dataset = await dataset_of(request)
    async with request.app[AUDIT].deed(request[CLIENT].name, "pin" if pinned else "unpin", dataset.dataset_id):
        await request.app[CACHE].set_pinned(dataset.dataset_id, pinned=pinned)
    return web.json_response({"dataset_id": dataset.dataset_id, "pinned": pinned})


def _missing(dataset_id: str, found: Offer | None) -> ServerFault:
    """What it means that there is no archive of a revision."""
    if found is None:
        return NotFoundError(f"there is no dataset '{dataset_id}'")
    state, revision, latest = found.dataset.state, found.revision, found.dataset.revision
    if revision > max(latest, 1):
        return NotFoundError(f"{dataset_id} has no revision {revision}; {latest} is its latest")
    if state == "evicted" or revision < latest:
        return EvictedError(f"revision {revision} of {dataset_id} is gone; ask for it again with POST /datasets")
    return NotReadyError(f"{dataset_id} is {state}; ask for it with POST /datasets and wait")


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
        file = await asyncio.to_thread(_open, piece, answer.bytes)
    except FileNotFoundError as error:
        raise NotReadyError(f"{piece.name} is not there; ask for it with POST /datasets") from error
    with file:
        response = web.StreamResponse(status=answer.status, headers=_headers(piece))
        response.content_length = len(answer.bytes)
        if answer.status == 206:
            response.headers["Content-Range"] = f"bytes {answer.bytes[0]}-{answer.bytes[-1]}/{piece.size}"
        if request.method != "HEAD":
            await request.app[AUDIT].note(request[CLIENT].name, "download", request.match_info["id"])
        await response.prepare(request)
        if request.method != "HEAD":
            response[SENT_BYTES] = await _copy(request, response, file, piece.offset, answer.bytes)
        await response.write_eof()
    return response


def _open(piece: Piece, part: range) -> IO[bytes]:
    """Open a file that has all of the piece, of which ``part`` is to be read.

    Raises `FileNotFoundError` also for one that is cut off, and for what is no plain file, or lies behind a link: what
    a handler puts in the place of a shard leads nowhere.
    """
    try:
        descriptor = open_below(piece.folder, piece.path)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            raise FileNotFoundError(piece.path) from error
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_size < piece.offset + piece.size:
        os.close(descriptor)
        raise FileNotFoundError(piece.path)
    _read_ahead(descriptor, piece.offset + part.start, min(_TURN, len(part)))
    return FileIO(descriptor)


def _read_ahead(descriptor: int, position: int, size: int) -> None:
    """Have the disk fetch what is read soon, unless all places that are looked at are in memory already: to give the
    hint for pages that are there takes as long as to send some of them.
    """
    places = [*range(position, position + size, _LOOK_EVERY), position + size - 1]
    with contextlib.suppress(AttributeError, OSError):  # where the system does not know of such hints
        if not size or all(_is_in_memory(descriptor, place) for place in places):
            return
        os.posix_fadvise(descriptor, position, size, os.POSIX_FADV_WILLNEED)


def _is_in_memory(descriptor: int, position: int) -> bool:
    """Whether a byte can be read without the disk."""
    try:
        return os.preadv(descriptor, [bytearray(1)], position, os.RWF_NOWAIT) == 1
    except OSError:  # EAGAIN, or a file system that does not know
        return False


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
                    _read_ahead(descriptor, position + count, min(turn, end - position - count))
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
