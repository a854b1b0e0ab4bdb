"""Finds and makes environments, and removes those that nobody uses.

::

    <environments>/
      <key>/                 an environment (`environment`); appears by rename when the handler in it has answered
      version-<id>.json      which environment a version has, and its lock; stays when the environment is removed,
                             so that it is made again from the very same packages
      reference-<id>.json    what a tag, a branch, a release or ``latest`` was found to mean (`references`)
      mirror-<id>.git/       a repository's mirror (`repositories`)
      .lease-*               who is at work on a version or a mirror, among all servers that share the folder
      .use-<key>-*           who runs something in an environment
      .partial-*             what is not finished; nobody's once its lease is gone
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import sys
import sysconfig
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from ..claim import identity
from ..durable import publish_folder, remove_tree, write_file
from ..installer_faults import disk_failed, installer_failed
from ..lease import is_held, leased
from ..processes import run_tool
from ..settings import Settings
from ..sources import Resolved
from .environment import USED_FILE, Environment, fault_of, installed
from .installing import Installation, Recipe, own_digest
from .unused import Seen, unused

logger = logging.getLogger(__name__)

_DAY = 86400.0


class Environments:
    """Makes environments, and remembers which version has which."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._root = settings.environments
        self._making: dict[str, asyncio.Task[Environment]] = {}
        self._verified: set[str] = set()
        self._interpreter: str | None = None
        #: Seconds after which a mark of use says nothing any more, since nothing that is run takes that long.
        self._longest_use = settings.plan_timeout + settings.build_timeout + _DAY

    def clean(self) -> None:
        """Remove what installations left that were cut off; those of other servers that run go on."""
        self._root.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._root.glob(".partial-*")):
            if not self._belongs_to_somebody(path):
                logger.info("removing %s, which was left unfinished", path.name)
                remove_tree(path)
        for marker in self._root.glob(".use-*"):
            if not is_held(marker, self._longest_use):
                marker.unlink(missing_ok=True)

    def _belongs_to_somebody(self, path: Path) -> bool:
        if path.is_dir():
            return is_held(self._lease(path.name.split("-")[1]), _DAY)
        if path.name.startswith(".partial-lease-"):
            return is_held(path, _DAY)
        return _age(path) < _DAY  # a single file is written in no time

    async def find(self, resolved: Resolved) -> Environment | None:
        """The environment of a version, if it was made already and nothing is wrong with it."""
        known = await asyncio.to_thread(self._known, await self._identity(resolved))
        if known is None:
            return None
        environment, _ = known
        return environment if await self._is_whole(environment) else None

    async def ensure(self, resolved: Resolved) -> Environment:
        """The environment of a version, made now if need be; many callers share one installation.

        Raises `EnvironmentFailedError` or `UnknownVersionError`.
        """
        if environment := await self.find(resolved):
            return environment
        name = await self._identity(resolved)
        task = self._making.get(name)
        if task is None:
            task = self._making[name] = asyncio.create_task(self._make(resolved, name))
            task.add_done_callback(lambda _: self._making.pop(name, None))
        return await asyncio.shield(task)

    @contextlib.contextmanager
    def using(self, environment: Environment) -> Iterator[None]:
        """Keep the environment from being removed while the context lasts."""
        marker = self._root / f".use-{environment.key}-{uuid.uuid4().hex}"
        marker.write_text(json.dumps(identity()))
        try:
            yield
        finally:
            marker.unlink(missing_ok=True)
            _touch(environment.root)

    async def collect_unused(self) -> list[str]:
        """Remove what was not used for `Settings.environments_unused_days`; returns the keys of the environments."""
        return await asyncio.to_thread(self.collect, time.time())

    def collect(self, now: float) -> list[str]:
        """Remove the environments and mirrors that are unused at ``now``, in seconds since 1970."""
        keep = self._settings.environments_unused_days * _DAY
        seen = [Seen(path.name, _used(path), self._in_use(path.name)) for path in installed(self._root)]
        removed = [key for key in unused(seen, now, keep) if self._remove_unused(self._root / key, now, keep)]
        for mirror in self._root.glob("mirror-*.git"):
            if now - _used(mirror) > keep and not is_held(self._lease(mirror.name), _DAY):
                self._remove_unused(mirror, now, keep)
        if removed:
            logger.info("removed %d environments that nobody used: %s", len(removed), ", ".join(removed))
        return removed

    async def close(self) -> None:
        """Give up installations that run."""
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _in_use(self, key: str) -> bool:
        return any(is_held(marker, self._longest_use) for marker in self._root.glob(f".use-{key}-*"))

    def _remove_unused(self, folder: Path, now: float, keep: float) -> bool:
        """Move a folder aside and remove it, unless somebody came to use it meanwhile."""
        aside = self._root / f".partial-unused-{uuid.uuid4().hex}"
        try:
            folder.rename(aside)
        except FileNotFoundError:
            return False  # another server was quicker
        if now - _used(aside) <= keep or self._in_use(folder.name):
            with contextlib.suppress(OSError):  # or else it was made again already
                aside.rename(folder)
                return False
        self._verified.discard(folder.name)
        remove_tree(aside)
        return True

    def _lease(self, name: str) -> Path:
        return self._root / f".lease-{name}"

    async def _identity(self, resolved: Resolved) -> str:
        """The name of a version; versions of one source share it."""
        if self._interpreter is None:
            self._interpreter = await _interpreter(self._settings)
        identity = [resolved.source.source, resolved.fingerprint, self._interpreter, own_digest()]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]

    def _known(self, name: str) -> tuple[Environment, str] | None:
        """The environment that a version was given, there or not, and its lock."""
        try:
            known = json.loads((self._root / f"version-{name}.json").read_bytes())
            return Environment(known["key"], self._root / known["key"], known["runtime"]), known["lock"]
        except (OSError, ValueError, KeyError):
            return None

    async def _is_whole(self, environment: Environment) -> bool:
        """Whether an environment can be used: looked at closely once in a server's run."""
        if environment.key in self._verified and environment.python.exists():
            return _touch(environment.root)
        if not environment.root.is_dir():
            return False
        if await asyncio.to_thread(fault_of, environment.root):
            self._verified.discard(environment.key)
            return False
        self._verified.add(environment.key)
        return _touch(environment.root)

    async def _make(self, resolved: Resolved, name: str) -> Environment:
        what = f"version {resolved.version} of '{resolved.dataset_name}' cannot be installed"
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            async with leased(self._lease(name)):
                if environment := await self.find(resolved):
                    return environment  # by another server, while we waited
                for left in self._root.glob(f".partial-{name}-*"):
                    await asyncio.to_thread(remove_tree, left)  # by who held the lease before, and is gone
                scratch = self._root / f".partial-{name}-{uuid.uuid4().hex}"
                scratch.mkdir()
                try:
                    return await self._install(resolved, name, scratch)
                finally:
                    await asyncio.to_thread(remove_tree, scratch)
        except OSError as error:
            raise disk_failed(what, error) from error

    async def _install(self, resolved: Resolved, name: str, scratch: Path) -> Environment:
        started = time.monotonic()
        assert self._interpreter is not None
        installation = Installation(self._settings, resolved, self._interpreter, scratch)
        known = await asyncio.to_thread(self._known, name)
        if known:
            recipe = Recipe(known[1], resolved.fingerprint, known[0].runtime, self._interpreter)
        else:
            recipe = await installation.recipe()
        environment = Environment(recipe.key, self._root / recipe.key, recipe.runtime)
        if not await self._is_whole(environment):
            made = await installation.install(recipe)
            await asyncio.to_thread(self._publish, made, environment, scratch)
            self._verified.add(environment.key)
        index = {"key": recipe.key, "runtime": recipe.runtime, "lock": recipe.lock}
        file = self._root / f"version-{name}.json"
        await asyncio.to_thread(write_file, file, json.dumps(index, indent=1).encode(), scratch / "index")
        logger.info(
            "version %s of '%s' is installed as %s (%.1f s)",
            resolved.version, resolved.dataset_name, recipe.key, time.monotonic() - started,
        )  # fmt: skip
        return environment

    def _publish(self, made: Path, environment: Environment, scratch: Path) -> None:
        """Put what was made in its place, and what must not be used any more out of it."""
        if environment.root.exists():
            fault = fault_of(environment.root)
            if fault is None:
                return  # made meanwhile by who was thought to be gone, or for another source of the same content
            logger.warning("environment %s was made again: %s", environment.key, fault)
            environment.root.rename(scratch / "unusable")
        try:
            publish_folder(made, environment.root)
        except OSError:
            if fault_of(environment.root):
                raise


async def _interpreter(settings: Settings) -> str:
    """Which Python environments are made from: another one makes other environments."""
    if settings.python == sys.executable:
        return f"{sys.version} {sysconfig.get_platform()}"
    ask = "import sys, sysconfig; print(sys.version, sysconfig.get_platform())"
    answer = await run_tool([settings.python, "-I", "-c", ask], timeout=settings.describe_timeout)
    if answer.status != 0:
        raise installer_failed(f"the interpreter {settings.python} does not run", answer, settings.environments)
    return answer.output.strip()


def _used(folder: Path) -> float:
    """When a folder was last used, in seconds since 1970."""
    for path in (folder / USED_FILE, folder):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return time.time()


def _touch(folder: Path) -> bool:
    """Note that an environment is used now; false if it is gone."""
    try:
        os.utime(folder / USED_FILE)
    except FileNotFoundError:
        return False
    except OSError:  # a file system that is read-only, or full: it can be used all the same
        pass
    return True


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
