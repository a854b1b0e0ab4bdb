"""Fetches a dataset in the background and tells of each shard as it arrives, for `stream.DatasetStream`.

While the dataset is made its shards are fetched one by one, each when it is sealed. As soon as it is ready, what is
missing is fetched with the archive, of which each file counts from the moment it has been verified.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path

from dataset_client.arrivals import Arrivals, ArrivedShard
from dataset_client.cache import Cache, CachedDataset
from dataset_client.concurrency import in_abandonable_thread
from dataset_client.contents import Contents
from dataset_client.dataset import Dataset
from dataset_client.errors import BuildCancelledError, CacheError, IntegrityError, UnsupportedFeatureError
from dataset_client.following import messages_of
from dataset_client.http import Http
from dataset_client.manifest import FEATURES_FILE, Shard, shards_of
from dataset_client.online import obtain
from dataset_client.progress import Reporter
from dataset_client.protocol import Event
from dataset_client.readers.features import Feature, parse_features
from dataset_client.request import DatasetRequest
from dataset_client.sealed import SealedShard, fetch_shard, keep
from dataset_client.settings import Settings
from dataset_client.source import NoRangesError, RevisionReplacedError
from dataset_client.stream import DatasetStream
from dataset_client.transfer import Pace
from dataset_client.uses import release
from dataset_client.workfile import WorkFile

#: Sealed shards that are fetched at the same time: there are several where the client comes late, or was away.
_AT_ONCE = 4
#: Seconds between two questions for what the examples hold, which older handlers say only in the end.
_ASK_AGAIN_S = 5.0


def start(request: DatasetRequest, settings: Settings, reporter: Reporter) -> DatasetStream:
    """Ask for a dataset and fetch it in a thread of its own, which ends with the process at the latest."""
    arrivals, begun = Arrivals(), threading.Event()
    cancel: list[Callable[[], object]] = []
    streaming = _Streaming(request, settings, reporter, arrivals)

    async def fetch() -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        cancel.append(lambda: loop.call_soon_threadsafe(task.cancel))
        begun.set()
        outcome: Dataset | BaseException
        try:
            outcome = await streaming.run()
        except asyncio.CancelledError:
            closed = "the stream was closed; the build goes on at the server"
            outcome = BuildCancelledError(closed, remedy="Ask again to go on with what has arrived.")
        except BaseException as error:  # it goes to who iterates
            outcome = error
        try:
            arrivals.end(outcome)
        finally:
            reporter.close()

    def run() -> None:
        try:
            asyncio.run(fetch())
        except BaseException as error:  # no loop could be made: that goes to who iterates, too
            arrivals.end(error)
        finally:
            begun.set()

    thread = threading.Thread(target=run, name="dataset-client-stream", daemon=True)
    thread.start()
    begun.wait()

    def stop() -> None:
        with contextlib.suppress(RuntimeError):  # its loop is closed: it has ended
            for end in cancel:
                end()
        thread.join()
        streaming.release()

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
        self._told = _Told(arrivals)
        self._dataset_id = ""
        self._describing: asyncio.Task[None] | None = None
        self._open = list[Path]()  # the shards that are in use for who reads the stream

    async def run(self) -> Dataset:
        """The whole dataset. Raises as `obtain` does, and `IntegrityError` for one that was made anew meanwhile, with
        other examples, or whose examples hold something else than was said before.
        """
        archive = _Archive(self._cache, self._told, self._open)
        obtaining = asyncio.create_task(
            obtain(
                self._request,
                self._settings,
                self._reporter,
                watch=self._watch,
                on_file=archive.verified,
                on_event=self._heard,
            )
        )
        fetching = [asyncio.create_task(self._fetch_sealed()) for _ in range(_AT_ONCE)]
        try:
            await asyncio.wait([obtaining, *fetching], return_when=asyncio.FIRST_COMPLETED)
            for task in fetching:
                if task.done() and not obtaining.done():
                    await task  # it ends with an error alone
            cached = await obtaining
        finally:
            await _end([obtaining, *fetching, *([self._describing] if self._describing else [])])
        try:
            return self._complete(cached)
        except BaseException:
            release(cached.path)
            raise

    def _complete(self, cached: CachedDataset) -> Dataset:
        dataset = Dataset(cached.path, cached.manifest, self._request.config)
        shards = shards_of(cached.manifest)
        self._told.require_same(shards)
        self._told.require_described(dataset)
        for shard in shards:
            self._told.arrived(
                ArrivedShard(shard.file, shard.split, shard.examples, dataset.path / shard.file), shard.sha256
            )
        return dataset

    async def _watch(self, topic_id: str) -> AsyncGenerator[Event]:
        """What happens on the topic; before it is told that all shards are sealed, those that are being fetched are
        waited for.
        """
        async with contextlib.aclosing(messages_of([topic_id], self._settings, self._reporter.note)) as messages:
            async for message in messages:
                if message.kind == "ready":
                    while not self._sealed.empty():  # what is not begun comes sooner with the archive
                        self._sealed.get_nowait()
                        self._sealed.task_done()
                    await self._sealed.join()
                yield message

    def _heard(self, event: Event) -> None:
        """Put a shard that the attempt which answers us has sealed on our list."""
        self._dataset_id = str(event.data.get("dataset_id") or self._dataset_id)
        if event.kind == "shard":
            self._sealed.put_nowait(SealedShard.of(event.data))

    async def _fetch_sealed(self) -> None:
        while True:
            shard = await self._sealed.get()
            self._describing = self._describing or asyncio.create_task(self._describe())
            await self._fetch(shard)
            self._sealed.task_done()

    async def _fetch(self, shard: SealedShard) -> None:
        if self._told.knows(shard.file, shard.sha256):
            return
        await asyncio.to_thread(self._cache.prepare)
        try:
            path = await fetch_shard(self._settings, self._cache, shard, Pace())
        except (RevisionReplacedError, IntegrityError, NoRangesError):
            return  # it is fetched with the archive
        except CacheError as error:
            if error.code != "cache_limit":
                raise
            return  # the archive may fit when others are done with theirs
        self._open.append(path)
        self._told.arrived(ArrivedShard(shard.file, shard.split, shard.examples, path), shard.sha256)

    def release(self) -> None:
        """Have no shard in use any more: once nobody reads them."""
        while self._open:
            release(self._open.pop())

    async def _describe(self) -> None:
        """Find out what the examples hold, as soon as the handler has said so."""
        with Http(self._settings) as http:
            while True:
                with contextlib.suppress(Exception):  # what is wrong shows with the dataset itself
                    manifest = await in_abandonable_thread(http.get_manifest, self._dataset_id)
                    if features := manifest.get("features"):
                        self._told.described(parse_features(features))
                        return
                await asyncio.sleep(_ASK_AGAIN_S)


class _Told:
    """Which shards have arrived, so that each is told of once, and what they hold; from any thread."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._lock = threading.Lock()
        self._sha256: dict[str, str] = {}
        self._features: Mapping[str, Feature] | None = None

    def knows(self, file: str, sha256: str) -> bool:
        """Whether a shard has been told of; raises `IntegrityError` if its bytes are other ones now."""
        known = self._sha256.get(file)
        if known not in {None, sha256}:
            raise _made_anew()
        return known is not None

    def arrived(self, shard: ArrivedShard, sha256: str) -> None:
        """Tell of a shard, unless that was done. Raises as `knows` does."""
        with self._lock:
            if not self.knows(shard.file, sha256):
                self._sha256[shard.file] = sha256
                self._arrivals.arrived(shard)

    def require_same(self, shards: tuple[Shard, ...]) -> None:
        """Raise `IntegrityError` unless all that has been told of is among these."""
        with self._lock:
            published = {shard.file: shard.sha256 for shard in shards}
            if any(published.get(file) != sha256 for file, sha256 in self._sha256.items()):
                raise _made_anew()

    def described(self, features: Mapping[str, Feature]) -> None:
        """Tell what the examples hold; raises `IntegrityError` if something else was told before."""
        with self._lock:
            if self._features is None:
                self._features = features
                self._arrivals.describe(features)
            elif features != self._features:
                raise _described_wrongly()

    def require_described(self, dataset: Dataset) -> None:
        """Raise `IntegrityError` if something else was told of the examples than the dataset says itself."""
        with self._lock:
            if self._features is None:
                return
            try:
                is_same = dataset.features == self._features
            except UnsupportedFeatureError:
                is_same = False
            if not is_same:
                raise _described_wrongly()


class _Archive:
    """The files of an archive while it is fetched."""

    def __init__(self, cache: Cache, told: _Told, opened: list[Path]) -> None:
        self._cache = cache
        self._told = told
        self._open = opened
        self._lock = threading.Lock()
        self._contents: Contents | None = None
        self._shards: Mapping[str, Shard] = {}

    def verified(self, contents: Contents, file: WorkFile) -> None:
        """Hear of a file, from any thread; what is raised ends the transfer."""
        with self._lock:
            if contents is not self._contents:
                shards = shards_of(contents.manifest)
                self._told.require_same(shards)
                self._contents, self._shards = contents, {shard.file: shard for shard in shards}
        name = file.wanted.file
        if name == FEATURES_FILE:
            with contextlib.suppress(OSError, ValueError, UnsupportedFeatureError):  # it shows with the dataset itself
                self._told.described(parse_features(json.loads(file.path.read_bytes())))
        elif (shard := self._shards.get(name)) and (path := self._kept(file.path, shard.sha256)):
            self._told.arrived(ArrivedShard(name, shard.split, shard.examples, path), shard.sha256)

    def _kept(self, path: Path, sha256: str) -> Path | None:
        try:
            kept = keep(self._cache, path, sha256)
        except OSError:  # no links here: then it is read when all is there
            return None
        self._open.append(kept)
        return kept


def _made_anew() -> IntegrityError:
    return IntegrityError(
        "the dataset was made anew while it was read, with other examples than those that were given already",
        remedy="Iterate again: begin the epoch anew with another request.",
    )


def _described_wrongly() -> IntegrityError:
    return IntegrityError(
        "the examples hold something else than the server said while it made them: what was given was decoded by that",
        remedy="Iterate again: begin the epoch anew with another request.",
    )


async def _end(tasks: list["asyncio.Task[None] | asyncio.Task[CachedDataset]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
