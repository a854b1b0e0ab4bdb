"""Handlers: whether each source can be reached, and whether installed environments are whole."""

import asyncio
import tempfile
import tomllib
from pathlib import Path

from uv import find_uv_bin

from ..environments.environment import fault_of
from ..processes import Finished, run_tool
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
        ran = await run_tool(["git", "ls-remote", "--exit-code", "--", url], timeout=_TIMEOUT)
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
    except (OSError, tomllib.TOMLDecodeError) as error:
        return failed("handlers", f"{names}: {path / 'pyproject.toml'} cannot be read: {error}", "correct the source")


def _reached(names: str, where: str, ran: Finished, remedy: str) -> Finding:
    if ran.status == 0:
        return ok("handlers", f"{names}: {where} answers")
    said = (ran.tail or f"status {ran.status}").splitlines()[-1]
    return failed("handlers", f"{names}: {where} does not answer: {said}", remedy)


def environments(root: Path) -> Finding:
    """Whether what is installed is as it was installed."""
    installed = [path.parent.parent for path in root.glob("*/bin/python")] if root.is_dir() else []
    broken = {path.name: fault for path in installed if (fault := fault_of(path))}
    if broken:
        name, fault = next(iter(broken.items()))
        return warning(
            "environments",
            f"{len(broken)} of {len(installed)} cannot be used, such as {name}: {fault}",
            "nothing needs to be done: they are made again when they are asked for",
        )
    return ok("environments", f"{len(installed)} are installed")
