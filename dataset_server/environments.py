"""One Python environment for each handler version, made once, side by side with all others.

An environment is a folder named by what is in it: the hash of the locked requirements, the handler's code and the
interpreter. It appears by rename when everything is installed and the handler has answered; until then it is nobody's.
"""

import asyncio
import functools
import hashlib
import json
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from .errors import EnvironmentFailedError, HandlerFaultError, UnknownVersionError
from .processes import Finished, run_tool
from .runner import run_command
from .settings import Settings, own_handlers
from .sources import Resolved, checkout, digest_folder

LOCK_FILE = "requirements.lock"


@dataclass(frozen=True)
class Environment:
    """A ready environment: its ``key``, and the interpreter in it."""

    key: str
    root: Path
    runtime: str  # what version of dataset-handlers the server lent it; empty if it brought its own

    @property
    def python(self) -> Path:
        """The interpreter."""
        return self.root / "bin" / "python"


class Environments:
    """Makes environments, and remembers which version has which."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._root = settings.environments
        self._making: dict[str, asyncio.Task[Environment]] = {}
        self._uv = find_uv_bin()

    def clean(self) -> None:
        """Remove what an installation left that was cut off."""
        self._root.mkdir(parents=True, exist_ok=True)
        for path in self._root.glob(".partial-*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def find(self, resolved: Resolved) -> Environment | None:
        """The environment of a version, if it was made already."""
        try:
            known = json.loads(self._index(resolved).read_bytes())
            environment = Environment(known["key"], self._root / known["key"], known["runtime"])
        except (OSError, ValueError, KeyError):
            return None
        return environment if environment.python.exists() else None

    async def ensure(self, resolved: Resolved) -> Environment:
        """The environment of a version, made now if need be; many callers share one installation.

        Raises `EnvironmentFailedError` or `UnknownVersionError`.
        """
        if environment := self.find(resolved):
            return environment
        name = self._index(resolved).name
        task = self._making.get(name)
        if task is None:
            task = self._making[name] = asyncio.create_task(self._make(resolved))
            task.add_done_callback(lambda _: self._making.pop(name, None))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Give up installations that run."""
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _index(self, resolved: Resolved) -> Path:
        """The file that remembers a version's environment; versions of one source share it."""
        identity = [resolved.source.source, resolved.fingerprint, self._settings.python, _own_digest()]
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        return self._root / f"version-{digest[:32]}.json"

    async def _make(self, resolved: Resolved) -> Environment:
        scratch = self._root / f".partial-{uuid.uuid4().hex}"
        scratch.mkdir(parents=True)
        try:
            environment = await self._install(resolved, scratch)
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
        index = self._index(resolved)
        partial = index.with_name(f".partial-{uuid.uuid4().hex}")
        partial.write_text(json.dumps({"key": environment.key, "runtime": environment.runtime}))
        partial.replace(index)
        return environment

    async def _install(self, resolved: Resolved, scratch: Path) -> Environment:
        timeout = self._settings.install_timeout
        constraint, runtime = await self._runtime(resolved, scratch)
        lock = scratch / LOCK_FILE
        project: list[str] = []
        if resolved.source.kind == "package":
            wanted = scratch / "wanted.txt"
            wanted.write_text(f"{resolved.fingerprint}\n")
            await self._compile(resolved, wanted, lock, constraint)
        else:
            folder = await checkout(resolved, scratch, timeout)
            project = [str(folder)]
            if (folder / LOCK_FILE).is_file():
                shutil.copyfile(folder / LOCK_FILE, lock)
            else:
                await self._compile(resolved, folder / "pyproject.toml", lock, constraint)
        content = [
            lock.read_text().replace(str(scratch), ""),
            resolved.fingerprint,
            runtime,
            self._settings.python,
        ]
        key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
        target = self._root / key
        environment = Environment(key, target, runtime)
        if environment.python.exists():
            return environment
        made = scratch / "environment"
        await self._uv_run(resolved, ["venv", "--quiet", "--python", self._settings.python, str(made)], timeout)
        install = [
            "pip",
            "install",
            "--quiet",
            "--compile-bytecode",
            "--python",
            str(made / "bin" / "python"),
        ]
        await self._uv_run(resolved, [*install, "--requirement", str(lock)], timeout)
        if project:
            await self._uv_run(resolved, [*install, "--no-deps", *project], timeout)
        shutil.copyfile(lock, made / LOCK_FILE)
        await self._try_out(resolved, Environment(key, made, runtime), scratch)
        if target.exists():  # its interpreter is gone: Python was upgraded under it
            target.rename(scratch / "unusable")
        made.rename(target)
        return environment

    async def _runtime(self, resolved: Resolved, scratch: Path) -> tuple[list[str], str]:
        """Our own `dataset_handlers` for packages that need it and do not bring it: as constraint, and its version."""
        own = own_handlers()
        if not (own / "pyproject.toml").is_file() or (resolved.source.kind == "path" and resolved.source.path == own):
            return [], ""
        wheels = scratch / "wheels"
        copy = scratch / "own"
        await asyncio.to_thread(shutil.copytree, own, copy, ignore=shutil.ignore_patterns("build", "*.egg-info"))
        build = ["build", "--quiet", "--wheel", "--out-dir", str(wheels), str(copy)]
        await self._uv_run(resolved, build, self._settings.install_timeout)
        constraint = scratch / "constraint.txt"
        (wheel,) = wheels.glob("*.whl")
        constraint.write_text(f"dataset-handlers @ {wheel.as_uri()}\n")
        return ["--constraint", str(constraint)], _own_digest()[:12]

    async def _compile(self, resolved: Resolved, wanted: Path, lock: Path, constraint: list[str]) -> None:
        """Lock what ``wanted`` needs."""
        command = ["pip", "compile", "--quiet", "--no-header", "--no-annotate", *constraint]
        command += ["--python", self._settings.python, "--output-file", str(lock), str(wanted)]
        own = own_handlers() / LOCK_FILE
        if constraint and own.is_file():
            command += ["--constraint", str(own)]
        await self._uv_run(resolved, command, self._settings.install_timeout)

    async def _uv_run(self, resolved: Resolved, arguments: list[str], timeout: float) -> Finished:
        finished = await run_tool([self._uv, *arguments], timeout=timeout)
        if finished.status != 0:
            missing = f"no version of {resolved.source.package}" if resolved.source.kind == "package" else None
            if missing and missing in finished.errors:
                raise UnknownVersionError(f"there is no {resolved.fingerprint} to install: {finished.tail}")
            raise EnvironmentFailedError(
                f"version {resolved.version} of '{resolved.dataset_name}' cannot be installed "
                f"(uv {arguments[0]} ended with {finished.status})",
                finished.tail,
            )
        return finished

    async def _try_out(self, resolved: Resolved, environment: Environment, scratch: Path) -> None:
        """Ask the handler to describe itself, before anybody relies on it."""
        request = {"dataset": resolved.dataset_name, "handler": resolved.entry_point}
        try:
            timeout = self._settings.describe_timeout
            await run_command(environment.python, "describe", request, scratch, timeout=timeout)
        except HandlerFaultError as error:
            if error.code == "handler_api_mismatch":
                raise
            raise EnvironmentFailedError(
                f"version {resolved.version} of '{resolved.dataset_name}' is installed but does not run: {error}",
                error.log,
            ) from error


@functools.cache
def _own_digest() -> str:
    """Digest of our own handlers' code; computed once, a running server keeps what it started with."""
    own = own_handlers()
    return digest_folder(own) if own.is_dir() else ""
