"""Git repositories of handlers: what their tags and branches mean, and a private copy of a commit's code.

Each repository has one bare mirror in the environments' folder, which is fetched into, never cloned again. Nothing in a
repository is run here: no hooks, no filters, no submodules, and no protocol but the one of the configured URL.
"""

import base64
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from .background import in_thread_to_the_end
from .durable import remove_tree
from .errors import EnvironmentFailedError, UnknownVersionError
from .installer_faults import disk_failed, installer_failed
from .lease import leased
from .processes import Finished, run_tool

COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://")
_ALLOWED: Final = frozenset({"https", "ssh", "file"})

#: What a user's own configuration may say otherwise.
_CONFIG: Final = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "submodule.recurse=false",
    "gc.auto=0",
)


@dataclass(frozen=True)
class Repository:
    """A repository at ``url``, mirrored below ``root``; ``timeout`` in seconds bounds each call of git."""

    url: str
    root: Path
    timeout: float

    @property
    def mirror(self) -> Path:
        """The bare mirror."""
        return self.root / f"mirror-{hashlib.sha256(self.url.encode()).hexdigest()[:32]}.git"

    async def references(self, *, timeout: float) -> Mapping[str, str]:
        """The commit of each tag and branch, by its whole name; raises `EnvironmentFailedError`."""
        listed = await self._git("ls-remote", "--", self._address, "refs/tags/*", "refs/heads/*", timeout=timeout)
        if listed.status != 0:
            raise installer_failed("git cannot list the versions there are", listed, self.root)
        found = {name: commit for commit, _, name in (line.partition("\t") for line in listed.output.splitlines())}
        # An annotated tag is listed twice; "^{}" marks the commit it stands for.
        commits = {name: commit for name, commit in found.items() if not name.endswith("^{}")}
        return {**commits, **{name[:-3]: commit for name, commit in found.items() if name.endswith("^{}")}}

    async def checkout(self, commit: str, subdirectory: str, target: Path) -> Path:
        """Put the code of a commit into ``target``; returns the folder in it that holds the ``pyproject.toml``.

        Raises `UnknownVersionError` for a commit the repository does not have, `EnvironmentFailedError` otherwise.
        """
        assert COMMIT.fullmatch(commit)
        async with leased(self.root / f".lease-{self.mirror.name}"):
            if not await self._has(commit):
                await self._fetch(commit)
            await self._copy(commit, target)
            os.utime(self.mirror)  # that is how `Environments.collect` knows that it is used
        folder = (target / subdirectory).resolve()
        project = folder / "pyproject.toml"
        # Links may lead about in the repository, but not out of it: an installer tells what it cannot read.
        if not project.resolve().is_relative_to(target.resolve()) or not project.is_file():
            raise EnvironmentFailedError(f"commit {commit} has no pyproject.toml in '{subdirectory or '.'}'")
        return folder

    async def _has(self, commit: str) -> bool:
        if not self.mirror.is_dir():
            return False
        seen = await self._git(f"--git-dir={self.mirror}", "cat-file", "-e", f"{commit}^{{commit}}")
        return seen.status == 0

    async def _fetch(self, commit: str) -> None:
        """Bring the mirror up to date; a commit that no tag or branch leads to is asked for by itself."""
        try:
            if not (self.mirror / "HEAD").is_file():
                await in_thread_to_the_end(remove_tree, self.mirror)
                made = await self._git("init", "--quiet", "--bare", "--template=", str(self.mirror))
                if made.status != 0:
                    raise installer_failed("git cannot keep a mirror", made, self.root)
        except OSError as error:
            raise disk_failed("the repository's mirror cannot be written", error) from error
        fetch = [f"--git-dir={self.mirror}", "fetch", "--quiet", "--force", "--prune", "--no-tags", "--no-auto-gc"]
        fetch += ["--no-recurse-submodules", "--", self._address]
        fetched = await self._git(*fetch, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        if fetched.status != 0:
            fault = installer_failed("git cannot fetch the repository", fetched, self.root)
            if not fault.retryable:
                await in_thread_to_the_end(remove_tree, self.mirror)  # it may be the mirror that is broken
            raise fault
        if not await self._has(commit):
            alone = await self._git(*fetch, f"+{commit}:refs/asked/{commit}")
            if alone.status != 0 or not await self._has(commit):
                raise UnknownVersionError(f"the repository has no commit {commit}")

    async def _copy(self, commit: str, target: Path) -> None:
        """A clone that borrows the mirror's objects; tools that read the version from git find their tags in it."""
        clone = ["clone", "--quiet", "--no-checkout", "--shared", "--template=", "--", str(self.mirror), str(target)]
        # Our own mirror is a local path, whatever protocol the repository itself speaks.
        copied = await self._git(*clone, allowed="file")
        if copied.status == 0:
            inside = [f"--git-dir={target / '.git'}", f"--work-tree={target}"]
            copied = await self._git(*inside, "checkout", "--quiet", "--force", "--detach", commit)
        if copied.status == 0:
            copied = await self._git(*inside, "rev-parse", "--verify", "HEAD")
        if copied.status != 0 or copied.output.strip() != commit:
            fault = installer_failed("the mirror of the repository does not give the commit away", copied, self.root)
            # It has rotted, or its disk is full: the next one is new.
            await in_thread_to_the_end(remove_tree, self.mirror)
            raise fault

    @property
    def _address(self) -> str:
        return without_credentials(self.url)[0]

    async def _git(self, *arguments: str, timeout: float | None = None, allowed: str | None = None) -> Finished:
        configured = [part for setting in _CONFIG for part in ("-c", setting)]
        environment = {
            "GIT_ALLOW_PROTOCOL": allowed or protocol(self.url),
            "GIT_LFS_SKIP_SMUDGE": "1",  # a repository may say itself where its large files are
            **without_credentials(self.url)[1],
        }
        return await run_tool(["git", *configured, *arguments], timeout=timeout or self.timeout, env=environment)


def without_credentials(url: str) -> tuple[str, dict[str, str]]:
    """``url`` as git may be given it, and the environment that tells git what stood before its ``@``, if it was secret.

    Everybody on a machine can read what programs are called with, so there is no place for a token.
    """
    parts = urlsplit(url)
    credentials, _, host = parts.netloc.rpartition("@")
    if parts.scheme != "https" or not credentials:
        return url, {}
    user, _, password = credentials.partition(":")
    basic = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    address, number = parts._replace(netloc=host).geturl(), int(os.environ.get("GIT_CONFIG_COUNT") or 0)
    return address, {
        "GIT_CONFIG_COUNT": str(number + 1),
        f"GIT_CONFIG_KEY_{number}": f"http.{address}.extraHeader",
        f"GIT_CONFIG_VALUE_{number}": f"Authorization: Basic {basic}",
    }


def protocol(url: str) -> str:
    """The one protocol by which git may reach ``url``; raises `EnvironmentFailedError` if that is none to be used."""
    scheme = _SCHEME.match(url)
    if scheme:
        name = scheme[1]
    elif "::" in url.partition("/")[0]:
        name = url.partition("::")[0]  # a remote helper, such as ext::, runs what its address says
    else:
        name = "ssh" if re.match(r"[^/]+:", url) else "file"
    if name not in _ALLOWED:
        raise EnvironmentFailedError(f"repositories are reached by https, ssh or file, not {name}: change the source")
    return name
