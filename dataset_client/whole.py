"""An archive as a whole, from a server that serves no parts of it."""

import asyncio
import threading
from pathlib import Path

from dataset_client.backoff import Retries
from dataset_client.concurrency import check_stop, in_abandonable_thread, in_thread
from dataset_client.errors import DatasetClientError, ServerUnreachableError
from dataset_client.http import Body, Http
from dataset_client.settings import Settings
from dataset_client.source import RevisionReplacedError, Source, get
from dataset_client.workspace import cache_errors


async def load(settings: Settings, source: Source, target: Path) -> None:
    """Fetch all of the archive at once into ``target``, over and over until all of it arrives.

    Raises `RevisionReplacedError`, `CacheError`, or what ended the last attempt.
    """
    retries = Retries(settings.retry, patience_s=settings.retry.reconnect_s)
    with Http(settings) as http:
        while True:
            try:
                with await in_abandonable_thread(get, http, source.url, None) as body:
                    published = body.headers.get("X-Content-SHA256") or source.sha256
                    if published != source.sha256:
                        raise RevisionReplacedError(f"{source.url} has been replaced by a new revision")
                    size = await in_thread(_save, body, target, source.size, interrupt=body.interrupt)
                if size == source.size:
                    return
                raise ServerUnreachableError(f"{source.url} ended after {size} of {source.size} bytes", transient=True)
            except DatasetClientError as error:
                await asyncio.sleep(retries.delay_after(error))


def _save(stop: threading.Event, body: Body, target: Path, size: int) -> int:
    """Write a body to a file, up to ``size`` bytes; returns how many came."""
    block, position = memoryview(bytearray(1 << 20)), 0
    with cache_errors(target), target.open("wb") as file:
        while position < size and (count := body.readinto(block[: size - position])):
            check_stop(stop)
            file.write(block[:count])
            position += count
    return position
