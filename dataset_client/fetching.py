"""An archive's files, from the server into the cache: fetched by one process, waited for by the others."""

import asyncio
import contextlib
import mmap
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dataset_client.answers import Archive
from dataset_client.backoff import Retries, random_jitter
from dataset_client.cache import Cache, CachedDataset, Revision
from dataset_client.claim import Holder, LostError, Work, claim, remove_stale
from dataset_client.concurrency import StoppedError, check_stop, in_abandonable_thread, in_thread
from dataset_client.contents import Contents, Tail, Wanted, read_contents
from dataset_client.errors import (
    CacheError,
    DatasetClientError,
    IntegrityError,
    ProtocolError,
    ServerUnreachableError,
)
from dataset_client.http import Http
from dataset_client.manifest import FEATURES_FILE, MANIFEST_FILE, Member
from dataset_client.plan import make_plan, require_space
from dataset_client.progress import Reporter
from dataset_client.room import reserve, time_of
from dataset_client.settings import Settings
from dataset_client.shards import remove_old
from dataset_client.source import NoRangesError, RevisionReplacedError, Source
from dataset_client.transfer import Pace, Transfer
from dataset_client.uses import announce, release
from dataset_client.whole import load
from dataset_client.workfile import WorkFile
from dataset_client.workspace import cache_errors, fsync_directory

#: Hears of each file once it is complete and right, in the work folder still; from any thread.
OnFile = Callable[[Contents, WorkFile], None]
#: Seconds, within which each who waits looks again at a moment of his own.
_POLL_S = 0.5
#: Bytes of the archive that are copied at once where they are here already.
_BLOCK = 16 << 20


class _UselessError(Exception):
    """What has arrived is not worth keeping, for ``reason``, which is what the caller sees."""

    def __init__(self, reason: DatasetClientError) -> None:
        super().__init__(str(reason))
        self.reason = reason


async def fetch(
    settings: Settings,
    archive: Archive,
    cache: Cache,
    reporter: Reporter,
    pace: Pace | None = None,
    on_file: OnFile | None = None,
) -> CachedDataset:
    """The dataset of ``archive`` in the cache, fetched into it if need be, and in use by this process from now on.

    Where another process fetches it, that is waited for, and gone on with should it die. Nothing is written where the
    dataset is there already. ``on_file`` hears of what this process fetches.

    Raises `IntegrityError`, `ProtocolError`, `RevisionReplacedError`, `CacheError`, or what ended the last attempt.
    """
    revision, waits_for = Revision.of(archive), ""
    if cached := await _take(cache, revision):
        return cached
    await asyncio.to_thread(_tidy, cache)
    while True:
        if cached := await _take(cache, revision):
            return cached
        claimed = await claim(cache.downloads, cache.scratch, revision.stem)
        if isinstance(claimed, Holder):
            waits_for = _tell(reporter, archive, claimed, waits_for)
            await asyncio.sleep(_POLL_S * (0.1 + 0.9 * random_jitter()))
            continue
        try:
            return await _Fetch(settings, archive, cache, reporter, pace or Pace(), claimed, on_file).run()
        except LostError:
            reporter.note("another process went on with this download meanwhile")


async def _take(cache: Cache, revision: Revision) -> CachedDataset | None:
    """`Cache.take`, which who is cancelled does not wait for."""
    return await in_thread(lambda stop: cache.take(revision, stop))


def _tidy(cache: Cache) -> None:
    cache.prepare()
    remove_stale(cache.downloads, cache.scratch)
    remove_old(cache.shards, cache.scratch, time_of(cache))


def _tell(reporter: Reporter, archive: Archive, holder: Holder, waits_for: str) -> str:
    """Tell of whom we wait for, once, and how far he is; returns his name."""
    if holder.name != waits_for:
        reporter.note(f"{holder.name} is downloading it; waiting for that")
        reporter.download_starts(archive.dataset_id, total=holder.total or archive.bytes, done=holder.done)
    elif holder.done:
        reporter.downloaded(holder.done)
    return holder.name


class _Fetch:
    """One archive that is fetched into a work folder of ours."""

    def __init__(
        self,
        settings: Settings,
        archive: Archive,
        cache: Cache,
        reporter: Reporter,
        pace: Pace,
        work: Work,
        on_file: OnFile | None,
    ) -> None:
        self._settings = settings
        self._archive = archive
        self._cache = cache
        self._reporter = reporter
        self._pace = pace
        self._work = work
        self._on_file = on_file
        self._revision = Revision.of(archive)
        self._transfer: Transfer | None = None

    async def run(self) -> CachedDataset:
        """Fetch, verify and install it. What has arrived is kept for whoever goes on, unless it is of no use."""
        work = self._work
        work.begin(on_loss=lambda: self._interrupt(LostError()))
        try:
            installed = await _take(self._cache, self._revision) or await self._fetch()
        except BaseException as error:
            if isinstance(error, CacheError) and not work.path.is_dir():
                raise LostError from error
            if isinstance(error, _UselessError):
                work.discard()
                raise error.reason from None
            work.give_up()
            raise
        work.discard()
        return installed

    async def _fetch(self) -> CachedDataset:
        source = Source(self._archive.url, self._archive.bytes, self._archive.sha256)
        try:
            try:
                tail, contents = await self._contents(source)
                members = await in_thread(self._fill, source, tail, contents, interrupt=self._interrupt)
            except NoRangesError:
                contents, members = await self._fetch_whole(source)
        except RevisionReplacedError as error:
            if error.may_come_back:
                raise
            raise _UselessError(error) from error
        return await in_thread(self._install, members, contents)

    async def _contents(self, source: Source) -> tuple[Tail, Contents]:
        """What the archive holds, from its end; that is kept with what else arrives."""
        known = b""
        with contextlib.suppress(OSError):
            known = self._work.tail.read_bytes()
        with Http(self._settings) as http:
            retries, mismatches = self._retries(), 0
            while True:
                tail = Tail(source.size, self._reader(http, source), first=self._pace.tail, data=known)
                try:
                    # abandonable: no file is written
                    contents = await in_abandonable_thread(self._read, tail)
                    break
                except RevisionReplacedError:
                    raise
                except (IntegrityError, ProtocolError) as error:
                    mismatches += not known
                    if mismatches > 1 or isinstance(error, ProtocolError):
                        raise _UselessError(error) from error  # it was published like this
                    known = b""
                except DatasetClientError as error:
                    await asyncio.sleep(retries.delay_after(error))
        with contextlib.suppress(OSError):
            if len(tail.data) > len(known):
                self._work.tail.write_bytes(tail.data)
        return tail, contents

    def _read(self, tail: Tail) -> Contents:
        archive = self._archive
        return read_contents(tail, dataset_id=archive.dataset_id, manifest_sha256=archive.manifest_sha256)

    def _reader(self, http: Http, source: Source) -> Callable[[int, int], bytes]:
        def read(start: int, stop: int) -> bytes:
            data, position = memoryview(bytearray(stop - start)), 0
            with source.get(http, start, stop) as body:
                while count := body.readinto(data[position:]):
                    position += count
            if position < len(data):
                raise ServerUnreachableError(f"{source.url} ended in the middle of an answer", transient=True)
            return bytes(data)

        return read

    def _fill(
        self, stop: threading.Event, source: Source, tail: Tail, contents: Contents, beside: int = 0
    ) -> list[Member]:
        """Have all files in the work folder, complete and right, of what is here and what is fetched. Blocking.

        ``beside`` are bytes that the work folder has besides the files, until they are there.
        """
        with cache_errors(self._work.path):
            self._work.journals.mkdir(exist_ok=True)
        files = {
            wanted.file: WorkFile(wanted, self._work.files / wanted.file, self._work.journals / wanted.file)
            for wanted in contents.wanted
        }
        plan = make_plan(contents.wanted, _missing(files), self._copies(contents.wanted))
        for name, path in plan.take.items():
            check_stop(stop)
            with contextlib.suppress(OSError):  # what cannot be taken is fetched
                files[name].take(path)
        plan = make_plan(contents.wanted, _missing(files), {})
        total = sum(wanted.bytes for wanted in contents.wanted)
        reserve(self._cache, self._work, total + beside, plan.missing, self._settings.cache_limit, stop)
        with cache_errors(self._work.path):
            free = shutil.disk_usage(self._work.path).free
        require_space(self._archive.dataset_id, missing=plan.missing, free=free)

        def on_bytes(here: int) -> None:
            self._work.progress(here + beside, total + beside)
            self._reporter.downloaded(here)

        self._reporter.download_starts(self._archive.dataset_id, total=total, done=total - plan.missing)

        def on_file(file: WorkFile) -> None:
            if self._on_file is not None:
                self._on_file(contents, file)

        transfer = self._transfer = Transfer(self._settings, source, files, self._pace, on_bytes, on_file)
        check_stop(stop)  # an interruption before this did not find the transfer
        known, asked = plan.pieces(known_from=tail.start, piece_bytes=self._pace.piece)
        for piece in known:
            for start in range(piece.start, piece.stop, _BLOCK):
                check_stop(stop)
                transfer.store(piece, start, memoryview(tail.between(start, min(start + _BLOCK, piece.stop))))
        asked.sort(key=lambda piece: all(target.file != FEATURES_FILE for target in piece.targets))  # readers want it
        transfer.run(asked)
        members = [Member(wanted.file, wanted.bytes, files[wanted.file].sha256) for wanted in contents.wanted]
        return [*members, self._write_manifest(contents)]

    def _copies(self, wanted: Sequence[Wanted]) -> dict[str, Path]:
        """Files of earlier revisions that are likely the same, and of this one where it is damaged."""
        known = {file.file: (file.sha256, file.bytes) for file in wanted if file.sha256 is not None}
        copies = self._cache.copies_of(known)
        for file in wanted:
            own = self._cache.datasets / self._revision.stem / file.file
            with contextlib.suppress(OSError):
                if file.file not in copies and own.stat().st_size == file.bytes:
                    copies[file.file] = own
        return copies

    def _write_manifest(self, contents: Contents) -> Member:
        path = self._work.files / MANIFEST_FILE
        with cache_errors(path):
            with path.open("wb") as file:
                file.write(contents.manifest_bytes)
                file.flush()
                os.fsync(file.fileno())
            fsync_directory(path.parent)
        return Member(MANIFEST_FILE, len(contents.manifest_bytes), self._archive.manifest_sha256)

    def _install(self, stop: threading.Event, members: Sequence[Member], contents: Contents) -> CachedDataset:
        if not self._work.is_ours():
            raise LostError
        path = self._cache.datasets / self._revision.stem
        announce(path)  # first: it can be evicted from the moment in which it is there
        try:
            self._cache.install(self._work.files, self._revision, members)
            check_stop(stop)  # nobody hears of it any more
        except BaseException:
            release(path)
            raise
        return CachedDataset(self._revision, path, contents.manifest)

    # -- servers that serve no parts

    async def _fetch_whole(self, source: Source) -> tuple[Contents, list[Member]]:
        """Fetch the archive as a whole, into one more file than there would be otherwise, and its files out of that."""
        whole, twice = self._work.path / "whole", 2 * source.size
        await in_thread(lambda stop: reserve(self._cache, self._work, twice, twice, self._settings.cache_limit, stop))
        with cache_errors(whole):
            free = shutil.disk_usage(self._work.path).free
        require_space(self._archive.dataset_id, missing=twice, free=free)
        for _ in range(2):
            await load(self._settings, source, whole)
            try:
                return await in_thread(self._fill_from, source, whole, interrupt=self._interrupt)
            except NoRangesError:  # some of it was wrong
                continue
            finally:
                whole.unlink(missing_ok=True)
        raise _UselessError(IntegrityError(f"{source.url} gives other bytes than were announced"))

    def _fill_from(self, stop: threading.Event, source: Source, whole: Path) -> tuple[Contents, list[Member]]:
        with (
            cache_errors(whole),
            whole.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            tail = Tail(source.size, lambda *_: b"", first=0, data=data)
            try:
                contents = self._read(tail)
            except IntegrityError as error:
                raise NoRangesError from error
            return contents, self._fill(stop, source, tail, contents, beside=source.size)

    def _retries(self) -> Retries:
        policy = self._settings.retry
        return Retries(policy, patience_s=policy.reconnect_s)

    def _interrupt(self, error: BaseException | None = None) -> None:
        if self._transfer is not None:
            self._transfer.fail(error or StoppedError())


def _missing(files: Mapping[str, WorkFile]) -> dict[str, list[tuple[int, int]]]:
    return {name: file.missing() for name, file in files.items()}
