"""Fetches a dataset in the background and tells of each shard as it arrives, for `stream.DatasetStream`."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable

from dataset_client.cache import Cache
from dataset_client.concurrency import in_abandonable_thread
from dataset_client.dataset import Dataset
from dataset_client.errors import BuildCancelledError, IntegrityError
from dataset_client.following import messages_of
from dataset_client.http import Http
from dataset_client.manifest import shards_of
from dataset_client.online import obtain
from dataset_client.progress import Reporter
from dataset_client.protocol import Event
from dataset_client.readers.features import parse_features
from dataset_client.request import DatasetRequest
from dataset_client.sealed import SealedShard, fetch_shard
from dataset_client.settings import Settings
from dataset_client.stream import Arrivals, ArrivedShard, DatasetStream
from dataset_client.transfer import Pace, RevisionReplacedError

#: Seconds between two questions for what the examples hold, which older handlers say only in the end.
_ASK_AGAIN_S = 5.0


def start(request: DatasetRequest, settings: Settings, reporter: Reporter) -> DatasetStream:
    """Ask for a dataset and fetch it in a thread of its own, which ends with the process at the latest."""
    arrivals, begun = Arrivals(), threading.Event()
    cancel: list[Callable[[], object]] = []

    async def fetch() -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        cancel.append(lambda: loop.call_soon_threadsafe(task.cancel))
        begun.set()
        try:
            arrivals.end(await _Streaming(request, settings, reporter, arrivals).run())
        except asyncio.CancelledError:
            arrivals.end(BuildCancelledError("the stream was closed; the build goes on at the server"))
        except BaseException as error:  # it goes to who iterates
            arrivals.end(error)
        finally:
            reporter.close()

    threading.Thread(target=lambda: asyncio.run(fetch()), name="dataset-client-stream", daemon=True).start()
    begun.wait()

    def stop() -> None:
        with contextlib.suppress(RuntimeError):  # its loop is closed: it has ended
            cancel[0]()

    return DatasetStream(arrivals, request.config, stop)


class _Streaming:
    """One request, whose shards are fetched as they are sealed; `obtain` does everything else."""

    def __init__(self, request: DatasetRequest, settings: Settings, reporter: Reporter, arrivals: Arrivals) -> None:
        self._request = request
        self._settings = settings
        self._reporter = reporter
        self._arrivals = arrivals
        self._cache = Cache(settings.cache_dir)
        self._sealed = asyncio.Queue[SealedShard]()
        self._here: dict[str, str] = {}
        self._dataset_id = ""

    async def run(self) -> Dataset:
        """The whole dataset. Raises as `obtain` does."""
        fetching = asyncio.create_task(self._fetch_sealed())
        try:
            cached = await obtain(self._request, self._settings, self._reporter, watch=self._watch)
        finally:
            fetching.cancel()
            await asyncio.wait([fetching])
        dataset = Dataset(cached.path, cached.manifest, self._request.config)
        shards = shards_of(cached.manifest)
        published = {shard.file: shard.sha256 for shard in shards}
        if any(published.get(file) != sha256 for file, sha256 in self._here.items()):
            raise IntegrityError("the dataset was made anew meanwhile, with other examples; iterate again")
        for shard in shards:
            if shard.file not in self._here:
                path = dataset.path / shard.file
                self._arrivals.arrived(ArrivedShard(shard.file, shard.split, shard.examples, path))
        return dataset

    async def _watch(self, topic_id: str) -> AsyncGenerator[Event]:
        """What happens on the topic; shards that are sealed are put on our list, and fetched before the end is told."""
        async with contextlib.aclosing(messages_of([topic_id], self._settings, self._reporter.note)) as messages:
            async for message in messages:
                if message.kind == "shard":
                    self._sealed.put_nowait(SealedShard.of(message.data))
                self._dataset_id = str(message.data.get("dataset_id") or self._dataset_id)
                if message.kind == "ready":
                    await self._sealed.join()
                yield message

    async def _fetch_sealed(self) -> None:
        describing: asyncio.Task[None] | None = None
        try:
            while True:
                shard = await self._sealed.get()
                describing = describing or asyncio.create_task(self._describe())
                try:
                    await self._fetch(shard)
                finally:
                    self._sealed.task_done()
        finally:
            if describing:
                describing.cancel()
                await asyncio.wait([describing])

    async def _fetch(self, shard: SealedShard) -> None:
        if shard.file in self._here:
            return
        await asyncio.to_thread(self._cache.prepare)
        try:
            path = await fetch_shard(self._settings, self._cache, shard, Pace())
        except (RevisionReplacedError, IntegrityError):
            return  # it is fetched with the archive
        self._here[shard.file] = shard.sha256
        self._arrivals.arrived(ArrivedShard(shard.file, shard.split, shard.examples, path))

    async def _describe(self) -> None:
        """Find out what the examples hold, as soon as the handler has said so."""
        with Http(self._settings) as http:
            while True:
                with contextlib.suppress(Exception):  # what is wrong shows with the dataset itself
                    manifest = await in_abandonable_thread(http.get_manifest, self._dataset_id)
                    if features := manifest.get("features"):
                        self._arrivals.describe(parse_features(features))
                        return
                await asyncio.sleep(_ASK_AGAIN_S)
