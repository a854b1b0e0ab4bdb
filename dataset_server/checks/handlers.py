"""Handlers: whether each source can be reached, and whether installed environments are whole."""

import asyncio
import tempfile
from pathlib import Path

from uv import find_uv_bin

from ..environments.environment import damaged_files, fault_of, installed
from ..processes import Finished, run_tool
from ..repositories import without_credentials
from ..settings import HandlerSource, Settings
from ..sources import declared_version
from .finding import Finding, failed, ok, warning

_TIMEOUT = 30.0


async def sources(settings: Settings) -> list[Finding]:
    """Ask each source whether it is there; those that serve several datasets are asked once."""
    names: dict[HandlerSource, list[str]] = {}
    for name, source in settings.sources.items():
        names.setdefault(HandlerSource(source=source.source, handler=None), []).append(name)
    asked = [_source(", ".join(sorted(served)), source, settings.python) for source, served in names.items()]
    return list(await asyncio.gather(*asked))


async def _source(names: str, source: HandlerSource, python: str) -> Finding:
    if source.kind == "path":
        return _folder(names, source.path)
    if source.kind == "git":
        url, _ = source.git
        address, credentials = without_credentials(url)
        ran = await run_tool(["git", "ls-remote", "--exit-code", "--", address], timeout=_TIMEOUT, env=credentials)
        return _reached(names, url, ran, "correct the source, or what git needs to reach it (network, credentials)")
    with tempfile.TemporaryDirectory(prefix="dataset-check-") as folder:
        wanted = Path(folder, "wanted.txt")
        wanted.write_text(f"{source.package}\n")
        command = [
            find_uv_bin(),
            "pip",
            "compile",
            "--quiet",
            "--no-deps",
            "--no-header",
            "--python",
            python,
            str(wanted),
        ]
        ran = await run_tool(command, timeout=_TIMEOUT)
    return _reached(names, source.package, ran, "correct the source, or how the package index is reached (UV_…, PIP_…)")


def _folder(names: str, path: Path) -> Finding:
    try:
        return ok("handlers", f"{names}: version {declared_version(path)} in {path}")
    except (OSError, ValueError, AttributeError) as error:  # no such file, no TOML, or not of our form
        return failed("handlers", f"{names}: {path / 'pyproject.toml'} cannot be read: {error}", "correct the source")


def _reached(names: str, where: str, ran: Finished, remedy: str) -> Finding:
    if ran.status == 0:
        return ok("handlers", f"{names}: {where} answers")
    said = (ran.tail or f"status {ran.status}").splitlines()[-1]
    return failed("handlers", f"{names}: {where} does not answer: {said}", remedy)


def environments(root: Path) -> list[Finding]:
    """Whether what is installed is as it was installed; every file is read."""
    found = installed(root)
    broken = {path.name: fault for path in found if (fault := fault_of(path))}
    rotten = {path.name: files[0] for path in found if path.name not in broken and (files := damaged_files(path))}
    told = []
    if broken:
        name, fault = next(iter(broken.items()))
        told.append(
            warning(
                "environments",
                f"{len(broken)} of {len(found)} cannot be used, such as {name}: {fault}",
                "nothing needs to be done: they are made again when they are asked for",
            )
        )
    if rotten:
        name, fault = next(iter(rotten.items()))
        told.append(
            failed(
                "environments",
                f"{len(rotten)} of {len(found)} hold files that are not what was installed, such as {name}: {fault}",
                f"remove these folders in {root}: they are made again when they are asked for; then look at the disk",
            )
        )
    return told or [ok("environments", f"{len(found)} are installed")]
