"""All checks, in an order that makes sense to read."""

import asyncio
import resource
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec

from ..auth import opening
from ..lease import is_held
from ..settings import Settings
from . import database, handlers, machine, storage
from .finding import Finding, failed, ok

_P = ParamSpec("_P")


async def check_everything(settings: Settings) -> list[Finding]:
    """What there is to say about a server with these settings."""
    served = is_held(settings.data_dir / "server.claim")
    found = [ok("settings", "they can be read, and fit together")]
    found += await machine.programs(settings)
    found += await _looked("containment", machine.containment, settings)
    found += await _looked("data folder", storage.data_folder, settings.data_dir, settings.environments)
    found.append(await asyncio.to_thread(storage.raw_data, settings.raw_root))
    inspection = None
    if file := database.database_file(settings):
        inspected, inspection = await asyncio.to_thread(database.inspect_file, file)
        found += inspected
    else:
        found.append(await database.answers(settings))
    latest = inspection.latest if inspection else None
    found.append(machine.judge_clock(time.time(), _file_time(settings.data_dir), latest))
    if inspection or settings.database_url is None:
        has_token = settings.token is not None or bool(inspection and inspection.has_tokens)
        others = opening(settings.host, settings.public_origins, settings.trusted_proxies)
        found.append(machine.openness(others, has_token=has_token))
    found += await handlers.sources(settings)
    found += await _looked("environments", handlers.environments, settings.environments)
    if settings.tls_certificate and settings.tls_key:
        found += await _looked("tls", machine.certificate, settings.tls_certificate, settings.tls_key)
    found.append(machine.port(settings, served=served))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found.append(machine.judge_open_files(hard, settings.connections_per_address))
    return found


async def _looked(
    what: str, look: Callable[_P, Iterable[Finding]], *args: _P.args, **kwargs: _P.kwargs
) -> list[Finding]:
    """What a check finds; that it may not look is a finding as well."""
    try:
        return await asyncio.to_thread(lambda: list(look(*args, **kwargs)))
    except OSError as error:
        return [failed(what, f"it cannot be looked at: {error}", "run check as the server's user")]


def _file_time(folder: Path) -> float:
    """The time a new file in ``folder`` gets, in seconds since the epoch; ours where none can be made."""
    probe = folder / f".check-{uuid.uuid4().hex}.partial"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink()
