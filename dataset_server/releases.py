"""Releases of packages and of tags: which versions are one and the same (PEP 440), and which is the newest."""

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from packaging.utils import canonicalize_version
from packaging.version import InvalidVersion, Version
from uv import find_uv_bin

from .errors import UnknownVersionError
from .installer_faults import installer_failed, told
from .processes import run_tool


def same_release(version: str) -> str | None:
    """One spelling for all of a release: ``v1.0``, ``1.0`` and ``1.0.0`` give ``1``; None if it is no version."""
    try:
        return canonicalize_version(Version(version))
    except InvalidVersion:
        return None


def latest_release(tags: Iterable[str]) -> str | None:
    """The tag of the highest release, pre-releases and development releases left out; None if there is none."""
    releases = []
    for tag in tags:
        try:
            version = Version(tag)
        except InvalidVersion:
            continue
        if not (version.is_prerelease or version.is_devrelease):
            releases.append((version, tag))
    return max(releases)[1] if releases else None


async def ask_index(package: str, version: str | None, python: str, root: Path, timeout: float) -> str:
    """The release of a package as the index names it: the one meant by ``version``, or the newest there is.

    The newest is the newest that is neither a pre-release nor withdrawn nor, by the index's word, for another
    ``python``. Raises `UnknownVersionError`, or `EnvironmentFailedError` if the index does not answer.
    """
    wanted = package if version is None else f"{package}=={Version(version)}"
    name = package.partition("[")[0]
    options = ["--quiet", "--no-header", "--no-annotate", "--no-deps", "--no-sources", "--refresh-package", name]
    with tempfile.TemporaryDirectory(prefix="dataset-release-") as folder:
        file = Path(folder) / "wanted.txt"
        file.write_text(f"{wanted}\n")
        found = await run_tool(
            [find_uv_bin(), "pip", "compile", *options, "--python", python, str(file)], timeout=timeout
        )
    pinned = re.search(r"^[\w.\[\],-]+==(\S+)", found.output, re.MULTILINE)
    if found.status == 0 and pinned:
        return str(Version(pinned[1]))
    if version and "there is no version of" in found.errors:
        raise UnknownVersionError(f"there is no {wanted} to install: {told(found, root)}")
    raise installer_failed(
        f"the index does not tell which release of '{package}' {version or 'latest'} is", found, root
    )
