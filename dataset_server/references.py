"""What versions mean, remembered: exact ones for good, moving ones for a short while, and on disk for bad days.

A commit and a release never change their meaning. A tag, a branch, ``latest`` and the content of a folder may, so they
are asked for anew after `Settings.reference_seconds`; a repository is asked for all tags and branches at once. Every
answer is written down; when a repository or an index does not answer, the last known meaning counts, if its environment
is there.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from .durable import write_file
from .errors import EnvironmentFailedError, UnknownVersionError
from .queue import FairQueue, Limits
from .settings import HandlerSource, Settings
from .sources import Resolved, ask, find_commit, list_references, resolved, understand

logger = logging.getLogger(__name__)

#: Questions to indexes and folders at a time, in all and of one client, however many versions nobody knows it asks for.
_AT_A_TIME = Limits(4, per_client=2)
#: Versions that are remembered to be none; the oldest are forgotten.
_REMEMBERED = 1000


@dataclass(frozen=True)
class Meaning:
    """What a version was found to mean; ``found`` in seconds since 1970, ``until`` by the monotonic clock."""

    meaning: str
    found: float
    until: float
    is_fresh: bool = True


@dataclass(frozen=True)
class Listed:
    """The tags and branches of a repository; ``until`` by the monotonic clock."""

    found: Mapping[str, str]
    until: float


class References:
    """Says what versions mean. ``is_installed`` tells whether a version can be used with nobody to ask."""

    def __init__(self, settings: Settings, is_installed: Callable[[Resolved], Awaitable[object]]) -> None:
        self._settings = settings
        self._root = settings.environments
        self._is_installed = is_installed
        self._known: dict[tuple[str, str], Meaning] = {}
        self._unknown: dict[tuple[str, str], tuple[float, str]] = {}
        self._asking: dict[tuple[str, str, str], asyncio.Task[Meaning]] = {}
        self._queue = FairQueue(_AT_A_TIME)
        self._listed: dict[str, Listed] = {}
        self._listing: dict[str, asyncio.Task[Listed]] = {}

    async def resolve(self, name: str, source: HandlerSource, version: str, client: str = "") -> Resolved:
        """What ``version`` of the dataset ``name`` means now; many callers share one question, in their client's turn.

        Raises `UnknownVersionError`, or `EnvironmentFailedError` if nobody answers and nothing is known.
        """
        asked = understand(source, version)
        if source.kind == "git" and not asked.moves:
            return resolved(name, source, version)  # whether there is such a commit turns out when it is fetched
        key = (source.source, asked.spelling)
        known = self._known.get(key)
        if known is None or time.monotonic() > known.until:
            self._refuse_unknown(key)
            task = self._asking.get((*key, client))
            if task is None:
                task = self._asking[*key, client] = asyncio.create_task(self._find_out(name, source, version, client))
                task.add_done_callback(lambda _: self._asking.pop((*key, client), None))
            known = await asyncio.shield(task)
        return resolved(name, source, known.meaning, None if known.is_fresh else known.found)

    def _refuse_unknown(self, key: tuple[str, str]) -> None:
        until, message = self._unknown.get(key, (0.0, ""))
        if message and time.monotonic() <= until:
            raise UnknownVersionError(message)

    def forget(self, source: HandlerSource, version: str) -> None:
        """Ask anew next time: something that relied on this meaning has failed."""
        with contextlib.suppress(UnknownVersionError):
            self._known.pop((source.source, understand(source, version).spelling), None)
        if source.kind == "git":
            self._listed.pop(source.git[0], None)

    async def _find_out(self, name: str, source: HandlerSource, version: str, client: str) -> Meaning:
        asked = understand(source, version)
        file = self._file(source, asked.spelling)
        recorded = await asyncio.to_thread(_read, file)
        if recorded and not asked.moves:
            known = Meaning(*recorded, until=float("inf"))
        else:
            known = await self._ask(name, source, version, client, recorded)
        self._known[source.source, asked.spelling] = known
        if known.is_fresh and (recorded is None or recorded[0] != known.meaning):
            if recorded:
                logger.info("%s: version %s means %s now, before %s", name, version, known.meaning, recorded[0])
            await asyncio.to_thread(self._record, file, source, version, known.meaning)
        elif known.is_fresh and asked.moves:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(os.utime, file)
        return known

    async def _ask(
        self, name: str, source: HandlerSource, version: str, client: str, recorded: tuple[str, float] | None
    ) -> Meaning:
        asked = understand(source, version)
        lasts = self._settings.reference_seconds if asked.moves else float("inf")
        try:
            if source.kind == "git":
                listed = await self._list(source)
                return Meaning(find_commit(version, listed.found), time.time(), listed.until)
            async with self._queue.turn(self._queue.join(client=client)):
                known = self._known.get((source.source, asked.spelling))
                if known and time.monotonic() <= known.until:
                    return known  # another client has asked meanwhile
                meaning = await self._ask_now(source, version, asked.spelling)
        except EnvironmentFailedError as error:
            if recorded is None or not await self._is_installed(resolved(name, source, recorded[0])):
                raise
            when = datetime.fromtimestamp(recorded[1], UTC).isoformat(timespec="seconds")
            logger.warning(
                "%s: nobody can be asked what version %s means now (%s); using its last known meaning %s, of %s",
                name, version, error, recorded[0], when,
            )  # fmt: skip
            return Meaning(*recorded, time.monotonic() + lasts, is_fresh=False)
        return Meaning(meaning, time.time(), time.monotonic() + lasts)

    async def _ask_now(self, source: HandlerSource, version: str, spelling: str) -> str:
        """The answer of an index or a folder; that there is no such version is remembered for a short while, too."""
        key, timeout = (source.source, spelling), self._settings.install_timeout
        self._refuse_unknown(key)
        try:
            return await ask(source, version, self._settings.python, self._root, timeout)
        except UnknownVersionError as fault:
            self._unknown.pop(key, None)
            self._unknown[key] = time.monotonic() + self._settings.reference_seconds, str(fault)
            if len(self._unknown) > _REMEMBERED:
                del self._unknown[next(iter(self._unknown))]
            raise

    async def _list(self, source: HandlerSource) -> Listed:
        """The tags and branches of a repository, as they were a short while ago at most; many callers share a list."""
        url = source.git[0]
        listed = self._listed.get(url)
        if listed is None or time.monotonic() > listed.until:
            task = self._listing.get(url)
            if task is None:
                task = self._listing[url] = asyncio.create_task(self._list_now(source))
                task.add_done_callback(lambda _: self._listing.pop(url, None))
            listed = await asyncio.shield(task)
        return listed

    async def _list_now(self, source: HandlerSource) -> Listed:
        until = time.monotonic() + self._settings.reference_seconds
        found = await list_references(source, self._root, self._settings.install_timeout)
        listed = self._listed[source.git[0]] = Listed(found, until)
        return listed

    def _file(self, source: HandlerSource, spelling: str) -> Path:
        # The answer of an index depends on which Python asks.
        identity = [source.source, spelling, self._settings.python if source.kind == "package" else ""]
        return self._root / f"reference-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]}.json"

    def _record(self, file: Path, source: HandlerSource, version: str, meaning: str) -> None:
        said = {"source": source.source, "version": version, "meaning": meaning}
        self._root.mkdir(parents=True, exist_ok=True)
        try:
            write_file(file, json.dumps(said, indent=1).encode(), self._root / f".partial-reference-{uuid.uuid4().hex}")
        except OSError:
            logger.exception("what version %s means cannot be written down", version)


def _read(file: Path) -> tuple[str, float] | None:
    """A recorded meaning, and when it was last confirmed."""
    try:
        return str(json.loads(file.read_bytes())["meaning"]), file.stat().st_mtime
    except (OSError, ValueError, KeyError, TypeError):
        return None
