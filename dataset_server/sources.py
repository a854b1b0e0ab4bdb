"""From a handler version as a client names it to something that never changes: a commit, a release, or a content.

Each resolution also says how to get at the code: `Resolved.requirement` for a released package, otherwise a folder
that `checkout` makes.
"""

import asyncio
import hashlib
import re
import shutil
import tomllib
import uuid
from dataclasses import dataclass
from pathlib import Path

from .errors import EnvironmentFailedError, UnknownVersionError
from .processes import run_tool
from .settings import HandlerSource

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SKIPPED = {".git", "__pycache__", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
_SKIPPED_ON_TOP = {"build", "dist"}
_RELEASE = re.compile(r"v?\d+(\.\d+)*([._+-]?[a-z0-9]+)*", re.IGNORECASE)


@dataclass(frozen=True)
class Resolved:
    """A handler version that never changes. ``version`` is part of dataset ids."""

    dataset_name: str
    version: str
    source: HandlerSource
    fingerprint: str  # of the code: a commit, a release, or a sha256 over files

    @property
    def entry_point(self) -> str:
        """The name under which the handler's package offers it."""
        return self.source.handler or self.dataset_name


async def resolve(name: str, source: HandlerSource, version: str, timeout: float) -> Resolved:
    """What ``version`` means now; raises `UnknownVersionError`, or `EnvironmentFailedError` if git does not answer."""
    if source.kind == "git":
        return await _resolve_git(name, source, version, timeout)
    if source.kind == "package":
        if not _RELEASE.fullmatch(version):
            raise UnknownVersionError(f"'{version}' is no release of '{name}'; releases read like 1.2.3")
        return Resolved(name, version, source, f"{source.package}=={version}")
    return await asyncio.to_thread(_resolve_path, name, source, version)


def resolve_again(name: str, source: HandlerSource, resolved_version: str) -> Resolved | None:
    """The code behind an already resolved version, without asking anybody; None if it cannot be had any more."""
    if source.kind == "git":
        return Resolved(name, resolved_version, source, resolved_version)
    if source.kind == "package":
        return Resolved(name, resolved_version, source, f"{source.package}=={resolved_version}")
    try:
        found = _resolve_path(name, source, resolved_version.rpartition("+")[0])
    except (UnknownVersionError, OSError, ValueError):
        return None
    return found if found.version == resolved_version else None


def _resolve_path(name: str, source: HandlerSource, version: str) -> Resolved:
    declared = declared_version(source.path)
    if version != declared:
        raise UnknownVersionError(f"'{name}' is served at version {declared} only; ask for that")
    digest = digest_folder(source.path)
    return Resolved(name, f"{declared}+{digest[:12]}", source, digest)


def declared_version(folder: Path) -> str:
    """The version a folder's ``pyproject.toml`` declares; ``0`` where it is computed."""
    with (folder / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file).get("project", {})
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


async def _resolve_git(name: str, source: HandlerSource, version: str, timeout: float) -> Resolved:
    url, _ = source.git
    refs = [f"refs/tags/{version}", f"refs/tags/{version}^{{}}", f"refs/heads/{version}"]
    listed = await run_tool(["git", "ls-remote", "--", url, *refs], timeout=timeout)
    if listed.status != 0:
        raise EnvironmentFailedError(f"git cannot list the versions of '{name}'", listed.tail)
    found = {ref: commit for commit, _, ref in (line.partition("\t") for line in listed.output.splitlines())}
    for ref in (refs[1], refs[0], refs[2]):  # a tag's commit, a light tag, a branch
        if ref in found:
            return Resolved(name, found[ref], source, found[ref])
    if _COMMIT.fullmatch(version):
        return Resolved(name, version, source, version)
    raise UnknownVersionError(f"'{name}' has no version '{version}': its repository has no such tag, branch or commit")


async def checkout(resolved: Resolved, scratch: Path, timeout: float) -> Path:
    """A private copy of the code below ``scratch``; returns the folder with its ``pyproject.toml``.

    Raises `UnknownVersionError` for a commit the repository does not have, `EnvironmentFailedError` otherwise.
    """
    if resolved.source.kind == "path":
        return await asyncio.to_thread(_copy, resolved, scratch / "source")
    url, subdirectory = resolved.source.git
    target = scratch / f"source-{uuid.uuid4().hex[:8]}"
    cloned = await run_tool(["git", "clone", "--quiet", "--no-checkout", "--", url, str(target)], timeout=timeout)
    if cloned.status != 0:
        raise EnvironmentFailedError(f"git cannot fetch '{resolved.dataset_name}'", cloned.tail)
    commit = ["git", "-C", str(target), "checkout", "--quiet", "--detach", resolved.fingerprint]
    taken = await run_tool(commit, timeout=timeout)
    if taken.status != 0:
        raise UnknownVersionError(f"the repository of '{resolved.dataset_name}' has no commit {resolved.fingerprint}")
    folder = (target / subdirectory).resolve()
    if not folder.is_relative_to(target.resolve()) or not (folder / "pyproject.toml").is_file():
        raise EnvironmentFailedError(
            f"version {resolved.version} of '{resolved.dataset_name}' has no pyproject.toml in '{subdirectory or '.'}'"
        )
    return folder


def _copy(resolved: Resolved, target: Path) -> Path:
    folder = resolved.source.path
    for path in _files(folder):
        copy = target / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    if digest_folder(target) != resolved.fingerprint:
        raise EnvironmentFailedError(f"the source of '{resolved.dataset_name}' changed meanwhile; ask again")
    return target
