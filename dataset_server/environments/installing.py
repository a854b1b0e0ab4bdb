"""How an environment comes to be in a scratch folder: locked, installed by hash, tried out, sealed.

What an installation is made from is one `Recipe`: the lock of what the index delivers, and the two things that are
built here, the handler's own package and, where a handler needs it, the server's `dataset_handlers`.
"""

import asyncio
import functools
import hashlib
import json
import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zipfile import ZipFile

from packaging.utils import canonicalize_name
from uv import find_uv_bin

from ..background import in_background, look
from ..confinement import for_handlers
from ..durable import read_bounded
from ..errors import EnvironmentFailedError, HandlerFaultError, UnknownVersionError
from ..installer_faults import installer_failed, told
from ..processes import Finished, run_tool
from ..runner import run_command
from ..settings import Settings, own_handlers
from ..sources import Resolved, checkout, digest_folder
from .environment import LOCK_FILE, Environment, seal
from .locks import entries, hash_from_folders, hash_of, local_wheel, name_of, refuse_addresses, unhashed

logger = logging.getLogger(__name__)

_OWN_PACKAGE: Final = "dataset-handlers"
_LOCK_BYTES: Final = 16 << 20
#: Wheels carry the times of their files; this makes the same code the same bytes.
_BUILD_ENVIRONMENT: Final = {"SOURCE_DATE_EPOCH": "315532800"}


@dataclass(frozen=True)
class Recipe:
    """All that makes an environment what it is. ``lock`` is a lock file's text."""

    lock: str
    fingerprint: str  # of the handler's code
    runtime: str  # what version of our dataset_handlers is lent; empty for none
    interpreter: str

    @property
    def key(self) -> str:
        """The environment's name."""
        content = [self.lock, self.fingerprint, self.runtime, self.interpreter]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


class Installation:
    """One installation of a version, in a ``scratch`` folder of its own below the environments' ``root``."""

    def __init__(self, settings: Settings, resolved: Resolved, interpreter: str, scratch: Path) -> None:
        self._settings = settings
        self._resolved = resolved
        self._interpreter = interpreter
        self._scratch = scratch
        self._source: Path | None = None

    async def recipe(self) -> Recipe:
        """Lock what the version needs; raises `EnvironmentFailedError` or `UnknownVersionError`."""
        lock = await self._locked()
        lent = any(name_of(entry) == _OWN_PACKAGE and "@" in entry for entry in lock)
        if lent:
            lock = [entry for entry in lock if name_of(entry) != _OWN_PACKAGE]
        refuse_addresses(lock)
        folders = _find_links()
        without = set(unhashed(lock))
        lock = [hash_from_folders(entry, folders) if entry in without else entry for entry in lock]
        text = "".join(entry.replace(" --hash", " \\\n    --hash") + "\n" for entry in lock)
        runtime = own_digest()[:12] if lent else ""
        return Recipe(text, self._resolved.fingerprint, runtime, self._interpreter)

    async def install(self, recipe: Recipe) -> Path:
        """Make the environment, and return its folder, which is still to be published."""
        made = self._scratch / "environment"
        await self._uv("venv", "--quiet", "--python", self._settings.python, str(made))
        wheels = [await self._build(await self._checked_out(), "project")] if self._source_is_a_folder else []
        if recipe.runtime:
            own = await asyncio.to_thread(self._copy_own)
            if digest_folder(own)[:12] != recipe.runtime:
                raise EnvironmentFailedError("the server's own dataset_handlers changed since it started; restart it")
            wheels.append(await self._build(own, "runtime"))
        wanted = self._scratch / "install.txt"
        wanted.write_text(recipe.lock + "".join(f"{local_wheel(wheel)}\n" for wheel in wheels))
        options = ["--quiet", "--require-hashes", "--python", str(made / "bin" / "python")]
        await self._uv("pip", "install", *options, "--requirement", str(wanted))
        (made / LOCK_FILE).write_text(recipe.lock)
        environment = Environment(recipe.key, made, recipe.runtime)
        await self._compile_bytecode(environment, await self._try_out(environment), wheels)
        facts = {
            "fingerprint": recipe.fingerprint,
            "dataset_handlers": recipe.runtime,
            "interpreter": recipe.interpreter,
            "wheels": {wheel.name: hash_of(wheel) for wheel in wheels},
        }
        await asyncio.to_thread(seal, made, facts)
        return made

    @property
    def _source_is_a_folder(self) -> bool:
        return self._resolved.source.kind != "package"

    async def _checked_out(self) -> Path:
        if self._source is None:
            root, timeout = self._settings.environments, self._settings.install_timeout
            self._source = await checkout(self._resolved, self._scratch, root, timeout)
        return self._source

    async def _locked(self) -> list[str]:
        """The entries of the lock; one for our own `dataset_handlers`, where it is needed, holds its address."""
        if not self._source_is_a_folder:
            wanted = self._scratch / "wanted.txt"
            wanted.write_text(f"{self._resolved.fingerprint}\n")
            return await self._compile(wanted)
        folder = await self._checked_out()
        shipped = _shipped_lock(folder)
        if shipped is None:
            return await self._compile(folder / "pyproject.toml")
        lock = entries(shipped)
        refuse_addresses(lock)
        if unhashed(lock):  # pins alone are kept, and the index's hashes added
            return await self._compile(folder / "pyproject.toml", folder / LOCK_FILE)
        return lock

    async def _compile(self, *wanted: Path) -> list[str]:
        lock = self._scratch / LOCK_FILE
        options = ["--quiet", "--no-header", "--no-annotate", "--generate-hashes", "--no-sources"]
        options += ["--no-emit-index-url", "--no-emit-find-links"]
        own, source = own_handlers(), self._resolved.source
        is_it = source.kind == "package" and canonicalize_name(source.package.partition("[")[0]) == _OWN_PACKAGE
        if not is_it and (own / "pyproject.toml").is_file():
            constraint = self._scratch / "constraint.txt"
            constraint.write_text(f"{_OWN_PACKAGE} @ {own.as_uri()}\n")
            options += ["--constraint", str(constraint)]
            if (own / LOCK_FILE).is_file():
                options += ["--constraint", str(own / LOCK_FILE)]
        options += ["--python", self._settings.python, "--output-file", str(lock)]
        await self._uv("pip", "compile", *options, *map(str, wanted))
        return entries(lock.read_text())

    async def _build(self, folder: Path, name: str) -> Path:
        """The wheel of a folder; its hash is taken when it is installed."""
        wheels = self._scratch / f"wheels-{name}"
        options = ["--wheel", "--no-sources", "--python", self._settings.python, "--out-dir", str(wheels)]
        await self._uv("build", *options, str(folder))
        (wheel,) = wheels.glob("*.whl")
        return wheel

    def _copy_own(self) -> Path:
        copy = self._scratch / "own"
        shutil.copytree(own_handlers(), copy, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
        return copy

    async def _uv(self, *arguments: str) -> Finished:
        timeout = self._settings.install_timeout
        finished = await run_tool([find_uv_bin(), *arguments], timeout=timeout, env=_BUILD_ENVIRONMENT)
        if finished.status != 0:
            resolved = self._resolved
            missing = f"no version of {resolved.source.package}" if resolved.source.kind == "package" else None
            if missing and missing in finished.errors:
                said = told(finished, self._settings.environments)
                raise UnknownVersionError(f"there is no {resolved.fingerprint} to install: {said}")
            what = f"version {resolved.version} of '{resolved.dataset_name}' cannot be installed by uv {arguments[0]}"
            raise installer_failed(what, finished, self._settings.environments)
        return finished

    async def _try_out(self, environment: Environment) -> list[Path]:
        """Ask the handler to describe itself, before anybody relies on it; returns the modules it imported for that."""
        resolved = self._resolved
        request = {"dataset": resolved.dataset_name, "handler": resolved.entry_point}
        try:
            timeout = self._settings.describe_timeout
            confined = await look(for_handlers, self._settings)
            folder = self._scratch / "trial"  # beside what was installed, so that it cannot be changed
            bytecode = folder / "bytecode"
            await run_command(
                environment.python,
                "describe",
                request,
                folder,
                timeout=timeout,
                confinement=confined,
                bytecode=bytecode,
            )
            return await in_background(_compiled_below, bytecode, environment.root)
        except HandlerFaultError as error:
            if error.code == "handler_api_mismatch":
                raise
            raise EnvironmentFailedError(
                f"version {resolved.version} of '{resolved.dataset_name}' is installed but does not run: {error}",
                error.log,
            ) from error

    async def _compile_bytecode(self, environment: Environment, imported: list[Path], wheels: list[Path]) -> None:
        """Compile the modules that are imported, and all of the wheels that were built here.

        No handler can do that later. All that is installed would take ten times as long, most of it for tests.
        """
        (packages,) = environment.root.glob("lib/python*/site-packages")
        own = [packages / name for wheel in wheels for name in ZipFile(wheel).namelist() if name.endswith(".py")]
        listed = self._scratch / "modules.txt"
        listed.write_text("".join(f"{path}\n" for path in {*imported, *own} if str(path).isprintable()))
        # Without site, which would run what packages have put there; by time, or each import would hash the source.
        command = [str(environment.python), "-I", "-S", "-m", "compileall", "-q", "-i", str(listed)]
        command += ["--invalidation-mode", "timestamp"]
        if imported or own:
            compiled = await run_tool(command, timeout=self._settings.install_timeout)
            if compiled.status != 0:
                logger.warning("%s: some modules are not compiled: %s", environment.root.name, compiled.tail)


def _compiled_below(bytecode: Path, root: Path) -> list[Path]:
    """The files below ``root`` whose bytecode Python has put below its ``pycache_prefix``."""
    prefix = bytecode / root.relative_to(root.anchor)
    found = []
    for folder, _, files in os.walk(prefix):
        source = root / Path(folder).relative_to(prefix)
        found += [source / f"{name.partition('.')[0]}.py" for name in files if name.endswith(".pyc")]
    return [path for path in found if path.is_file()]


def _shipped_lock(folder: Path) -> str | None:
    """The text of the lock that a handler's folder brings; None if it brings none.

    Raises `EnvironmentFailedError` for what is no file of text: a link would have us tell what it leads to.
    """
    try:
        return read_bounded(folder / LOCK_FILE, _LOCK_BYTES).decode()
    except FileNotFoundError:
        return None
    except HandlerFaultError as error:
        raise EnvironmentFailedError(f"{error}; it must be a plain file of at most {_LOCK_BYTES} bytes") from error
    except UnicodeDecodeError as error:
        raise EnvironmentFailedError(f"the handler's {LOCK_FILE} is not UTF-8: have it made anew") from error


def _find_links() -> list[Path]:
    """The local folders among those in which uv looks for packages."""
    named = re.split(r"[,\s]+", os.environ.get("UV_FIND_LINKS", ""))
    return [Path(name.removeprefix("file://")).expanduser() for name in named if name]


@functools.cache
def own_digest() -> str:
    """Digest of our own handlers' code; computed once, a running server keeps what it started with."""
    own = own_handlers()
    return digest_folder(own) if own.is_dir() else ""
