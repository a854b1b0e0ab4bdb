"""From a handler version as a client names it to something that never changes: a commit, a release, or a content.

`References` remembers what `ask` finds out. Each resolution also says how to get at the code:
`Resolved.fingerprint` is the requirement of a released package; for others `checkout` makes a folder.
"""

import asyncio
import hashlib
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .errors import EnvironmentFailedError, UnknownVersionError
from .releases import ask_index, latest_release, same_release
from .repositories import COMMIT, Repository
from .settings import HandlerSource

#: The version that means the newest release there is.
LATEST: Final = "latest"

_SKIPPED = {".git", "__pycache__", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
_SKIPPED_ON_TOP = {"build", "dist"}
_ASK_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Resolved:
    """A handler version that never changes. ``version`` is part of dataset ids."""

    dataset_name: str
    version: str
    source: HandlerSource
    fingerprint: str  # of the code: a commit, a release, or a sha256 over files
    #: When this was found out, in seconds since 1970, if nobody could be asked now: the last known meaning. Else None.
    last_known: float | None = field(default=None, compare=False)

    @property
    def entry_point(self) -> str:
        """The name under which the handler's package offers it."""
        return self.source.handler or self.dataset_name


@dataclass(frozen=True)
class Asked:
    """A version as a client names it. ``spelling`` is one for all names that must mean the same."""

    spelling: str
    moves: bool  # what it means may change while the server runs


def understand(source: HandlerSource, version: str) -> Asked:
    """What sort of version that is, without asking anybody; raises `UnknownVersionError` if it can be none."""
    if source.kind == "package" and version != LATEST:
        spelling = same_release(version)
        if spelling is None:
            raise UnknownVersionError(f"'{version}' is no release; releases read like 1.2.3 (PEP 440)")
        return Asked(spelling, moves=False)
    if source.kind == "git" and COMMIT.fullmatch(version):
        return Asked(version, moves=False)
    return Asked(version, moves=True)


async def ask(source: HandlerSource, version: str, python: str, root: Path, timeout: float) -> str:
    """What ``version`` of a package or folder means now: a release, or a declared version with a digest of its files.

    Raises `UnknownVersionError`, or `EnvironmentFailedError` where the index does not answer.
    """
    if source.kind == "package":
        patience = min(timeout, _ASK_SECONDS)
        return await ask_index(source.package, None if version == LATEST else version, python, root, patience)
    return await asyncio.to_thread(_ask_folder, source, version)


async def list_references(source: HandlerSource, root: Path, timeout: float) -> Mapping[str, str]:
    """The tags and branches of a repository, with their commits now; raises `EnvironmentFailedError`."""
    return await Repository(source.git[0], root, timeout).references(timeout=min(timeout, _ASK_SECONDS))


def find_commit(version: str, found: Mapping[str, str]) -> str:
    """The commit that ``version`` means among the tags and branches ``found``; raises `UnknownVersionError`."""
    if version == LATEST:
        newest = latest_release(name.removeprefix("refs/tags/") for name in found if name.startswith("refs/tags/"))
        if newest is None:
            raise UnknownVersionError("the repository has no tag of a release (PEP 440, such as v1.2.0), so no latest")
        return found[f"refs/tags/{newest}"]
    for name in (f"refs/tags/{version}", f"refs/heads/{version}"):
        if name in found:
            return found[name]
    raise UnknownVersionError(f"there is no version '{version}': the repository has no such tag, branch or commit")


def _ask_folder(source: HandlerSource, version: str) -> str:
    try:
        declared = declared_version(source.path)
        wanted = same_release(version) or version
        if version not in (LATEST, declared) and wanted != same_release(declared):
            raise UnknownVersionError(f"this handler is served at version {declared} only; ask for that")
        return f"{declared}+{digest_folder(source.path)}"
    except (OSError, ValueError) as error:
        raise EnvironmentFailedError(f"the handler's source folder cannot be read: {error}") from error


def resolved(name: str, source: HandlerSource, meaning: str, last_known: float | None = None) -> Resolved:
    """A version from what `ask` said it means."""
    if source.kind == "package":
        return Resolved(name, meaning, source, f"{source.package}=={meaning}", last_known)
    if source.kind == "git":
        return Resolved(name, meaning, source, meaning, last_known)
    declared, _, digest = meaning.rpartition("+")
    return Resolved(name, f"{declared}+{digest[:12]}", source, digest, last_known)


def resolve_again(name: str, source: HandlerSource, resolved_version: str) -> Resolved | None:
    """The code behind an already resolved version, without asking anybody; None if it cannot be had any more.

    Raises `EnvironmentFailedError` where its folder cannot be read now.
    """
    if source.kind != "path":
        return resolved(name, source, resolved_version)
    try:
        found = resolved(name, source, _ask_folder(source, resolved_version.rpartition("+")[0]))
    except UnknownVersionError:
        return None
    return found if found.version == resolved_version else None


def declared_version(folder: Path) -> str:
    """The version a folder's ``pyproject.toml`` declares; ``0`` where it is computed."""
    with (folder / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file).get("project", {})
    if not isinstance(project, dict):
        raise ValueError("'project' in pyproject.toml is no table")  # noqa: TRY004 - a fault of the file, not of the call
    return str(project.get("version", "0"))


def _files(folder: Path) -> list[Path]:
    def counts(path: Path) -> bool:
        parts = path.relative_to(folder).parts
        skipped = any(part in _SKIPPED or part.endswith(".egg-info") for part in parts)
        return path.is_file() and not skipped and parts[0] not in _SKIPPED_ON_TOP

    return sorted(path for path in folder.rglob("*") if counts(path))


def digest_folder(folder: Path) -> str:
    """sha256 over the names and contents of a source folder, caches and build results left out."""
    digest = hashlib.sha256()
    for path in _files(folder):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


async def checkout(resolved: Resolved, scratch: Path, root: Path, timeout: float) -> Path:
    """A private copy of the code below ``scratch``; returns the folder with its ``pyproject.toml``.

    Raises `UnknownVersionError` for a commit the repository does not have, `EnvironmentFailedError` otherwise.
    """
    if resolved.source.kind == "path":
        return await asyncio.to_thread(_copy, resolved, scratch / "source")
    url, subdirectory = resolved.source.git
    return await Repository(url, root, timeout).checkout(resolved.fingerprint, subdirectory, scratch / "source")


def _copy(resolved: Resolved, target: Path) -> Path:
    folder = resolved.source.path
    for path in _files(folder):
        copy = target / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    if digest_folder(target) != resolved.fingerprint:
        raise EnvironmentFailedError(f"the source of '{resolved.dataset_name}' changed meanwhile; ask again")
    return target
