"""Downloading an archive: resumed, retried, hashed while it is written."""

import asyncio
import re
import threading
from collections.abc import Callable

from dataset_client.answers import Archive
from dataset_client.backoff import Retries
from dataset_client.concurrency import check_stop, in_abandonable_thread, in_thread
from dataset_client.errors import DatasetClientError, IntegrityError, ServerError, ServerUnreachableError
from dataset_client.http import Body, Http
from dataset_client.parts import Part

_ACCEPTED = frozenset({200, 206, 416})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class RevisionReplacedError(IntegrityError):
    """The server has published another revision since it offered this one, or has given it up: ask again. Callers
    see it only if that goes on.
    """


#: Deleted, not there now, and gone: what was given up or lost is made again for who asks for it again.
_GIVEN_UP = frozenset({404, 409, 410})


async def download(http: Http, archive: Archive, part: Part, on_size: Callable[[int], None]) -> None:
    """Fill ``part`` with exactly the bytes of ``archive``.

    Interruptions are resumed as often as each attempt gets further, and a limited number of times
    otherwise; a server that goes away is waited for as `RetryPolicy` says. Wrong bytes are fetched once more
    from zero. Raises `IntegrityError` if they are wrong again, `RevisionReplacedError`, or what ended the
    last attempt. ``on_size`` hears the part's size, from a thread.
    """
    await in_thread(part.take_over)
    policy = http.settings.retry
    retries, furthest, mismatches = Retries(policy, patience_s=policy.reconnect_s), part.size, 0
    while True:
        try:
            await _continue(http, archive, part, on_size)
        except DatasetClientError as error:
            if part.size > furthest:  # compared with the maximum, so that starting over is no progress
                furthest = part.size
                retries.progressed()
            await asyncio.sleep(retries.delay_after(error))
            continue
        if part.size == archive.bytes and part.sha256 == archive.sha256:
            part.flush()
            return
        mismatches += 1
        if mismatches > 1:
            problem = f"{part.size} bytes with sha256 {part.sha256}"
            part.restart()  # nobody shall resume from this
            raise IntegrityError(
                f"{archive.url} gives {problem}; announced were {archive.bytes} bytes with {archive.sha256}"
            )
        part.restart()


async def _continue(http: Http, archive: Archive, part: Part, on_size: Callable[[int], None]) -> None:
    """Load what is missing, once. Returns with more or other bytes than announced only if they are wrong."""
    while part.size < archive.bytes:
        # abandonable until the body comes: no file is written before
        with await in_abandonable_thread(_get, http, archive, part.size) as body:
            published = body.headers.get("X-Content-SHA256") or archive.sha256
            if published != archive.sha256:
                part.restart()  # nobody will find the rest of it
                raise RevisionReplacedError(f"{archive.url} has been replaced by a new revision, {published}")
            if not continues_at(body.status, body.headers.get("Content-Range"), part.size, archive.bytes):
                was_resumed = part.size > 0
                part.restart()
                if body.status != 200:
                    if was_resumed:
                        continue  # without a Range this time
                    raise IntegrityError(f"{archive.url} answers {body.status} to a request for everything")
            await in_thread(_fill, part, body, archive.bytes, on_size, interrupt=body.interrupt)
        if part.size < archive.bytes:
            raise ServerUnreachableError(
                f"{archive.url} ended after {part.size} of {archive.bytes} bytes", transient=True
            )


def _get(http: Http, archive: Archive, offset: int) -> Body:
    """GET the archive from ``offset`` on; what was downloaded so far is kept for when it has been made again."""
    try:
        return http.get(archive.url, offset, _ACCEPTED)
    except ServerError as error:
        if error.status not in _GIVEN_UP:
            raise
        raise RevisionReplacedError(f"{archive.url} is not there any more: {error.message}") from error


def _fill(stop: threading.Event, part: Part, body: Body, total: int, on_size: Callable[[int], None]) -> None:
    """Append to ``part`` whatever arrives, as it arrives, until it has ``total`` bytes or more."""
    while part.size < total and (block := body.read()):
        check_stop(stop)  # before writing: an interrupted read returns anything
        part.write(block)
        on_size(part.size)


def continues_at(status: int, content_range: str | None, offset: int, total: int) -> bool:
    """Whether an answer's body continues a file of ``total`` bytes at ``offset``, rather than starting it
    over (200) or at all.
    """
    if status == 200:
        return offset == 0
    match = _CONTENT_RANGE.fullmatch(content_range or "")
    return status == 206 and match is not None and int(match[1]) == offset and match[2] in {str(total), "*"}
