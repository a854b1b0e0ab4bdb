"""Wires the server together, starts it and stops it."""

import asyncio
import contextlib
import gc
import json
import logging
import signal
from collections.abc import AsyncIterator

from aiohttp import web

from dataset_client.protocol import MAX_REQUEST_BYTES

from .api import AUDIT, BUILDS, CATALOG, DATABASE, DOCUMENT, HUB, READINESS, SETTINGS, SOCKETS, STORE
from .auth import Access, opening, require_tokens_beyond_loopback, watch
from .builds import Builds
from .cache import Cache
from .catalog import Catalog
from .claim import claim
from .confinement import gaps
from .connections import Connections, listen
from .downloads import CACHE
from .environments import Environments
from .hub import Hub
from .installations import Installations
from .logs import request_context, tell_request_id
from .metrics import METRICS, OBSERVER, CountingAccessLogger, Metrics, Observer
from .middlewares import SMALL_BODY, faults, in_time, note_start, one_answer, rights, same_origin
from .notifications import Sockets
from .openapi import document
from .origins import is_trusted
from .processes import can_filter_calls, hide_environment, landlock_abi
from .readiness import Readiness
from .routes import ROUTES, needed_role
from .secure_headers import secure_headers
from .settings import Settings
from .store import BuildStore, Database, Store
from .store.audit import Audit
from .store.tokens import TokenStore
from .tls import server_context

logger = logging.getLogger(__name__)

_COLLECT_SECONDS = 6 * 3600.0
#: Seconds that sockets get to pass on how builds ended, before they are closed.
_TELL_SECONDS = 2.0


def create_app(settings: Settings) -> web.Application:
    """The application for ``settings``; its resources live from start-up to clean-up."""
    database = Database(settings.database)
    access = Access(TokenStore(database), settings.token.get_secret_value() if settings.token else None)
    guards = [
        same_origin(settings.public_origins),
        in_time(settings.request_timeout, up_to=SMALL_BODY),
        rights(
            access,
            needed_role,
            requests_per_minute=settings.requests_per_minute,
            trusted_proxies=settings.trusted_proxies,
        ),
        in_time(settings.request_timeout),
    ]
    app = web.Application(middlewares=[request_context, faults, one_answer, *guards], client_max_size=MAX_REQUEST_BYTES)
    app.on_response_prepare.append(tell_request_id)
    app.on_response_prepare.append(secure_headers(is_tls=settings.tls_certificate is not None))
    app.on_response_prepare.append(note_start)
    app[SETTINGS] = settings
    app[METRICS] = Metrics.create()
    folders = {"data": settings.data_dir, "raw": settings.raw_root}
    app[OBSERVER] = Observer(app[METRICS], settings.environments, folders)
    app[DATABASE] = database
    app[READINESS] = Readiness(database.probe)
    app[AUDIT] = Audit(database, settings.audit_days)
    app[SOCKETS] = Sockets(settings.sockets_per_client)
    app[STORE] = Store(app[DATABASE])
    app[HUB] = Hub()
    app[DOCUMENT] = json.dumps(document())
    environments = Environments(settings)
    cache = app[CACHE] = Cache(settings, database, app[METRICS])
    builds = BuildStore(database)
    installations = Installations(environments)
    app[BUILDS] = Builds(settings, app[STORE], builds, app[HUB], environments, installations, cache, app[METRICS])
    parts = (app[STORE], builds, app[HUB], environments, installations, cache, app[BUILDS], app[METRICS])
    app[CATALOG] = Catalog(settings, *parts)

    async def resources(app: web.Application) -> AsyncIterator[None]:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with contextlib.AsyncExitStack() as closing:  # in reverse order, and all of it, whatever fails
            closing.enter_context(claim(settings.data_dir))
            closing.push_async_callback(app[DATABASE].close)
            await app[DATABASE].create()
            others = opening(settings.host, settings.public_origins, settings.trusted_proxies)
            await require_tokens_beyond_loopback(others, access)
            closing.push_async_callback(app[AUDIT].close)
            app[AUDIT].start()
            closing.push_async_callback(access.close)
            watching = watch(access, lambda: app[SOCKETS].end_revoked(access))
            closing.push_async_callback(_end, asyncio.create_task(watching))
            environments.clean()
            closing.push_async_callback(_end, asyncio.create_task(_collect_environments(environments)))
            closing.push_async_callback(environments.close)
            closing.push_async_callback(cache.close)
            await cache.start(app[CATALOG].make_again)
            closing.push_async_callback(app[BUILDS].close)
            await app[BUILDS].open()
            closing.push_async_callback(app[CATALOG].close)
            await app[CATALOG].resume()
            yield

    app.cleanup_ctx.append(resources)
    app.add_routes(ROUTES)
    return app


async def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; prints the address once it listens.

    Raises `AlreadyServedError`, or `OSError` where the address cannot be listened on.
    """
    hide_environment()
    for gap in gaps(settings, landlock_abi(), filters=can_filter_calls()):
        logger.warning("%s", gap)
    tls = None
    if settings.tls_certificate and settings.tls_key:
        tls = server_context(settings.tls_certificate, settings.tls_key)
    runner = web.AppRunner(create_app(settings), shutdown_timeout=2.0)
    await runner.setup()
    listening = None
    try:
        assert runner.server is not None
        listening = await listen(
            runner.server,
            settings.host,
            settings.port,
            Connections(settings.connections_per_address, lambda peer: is_trusted(peer, settings.trusted_proxies)),
            idle_timeout=settings.request_timeout,
            access_log_class=CountingAccessLogger,
            tls=tls,
        )
        bound = listening.sockets[0].getsockname()
        host = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        scheme = "https" if tls else "http"
        asked_to_stop = _signals()
        print(f"dataset-server listens on {scheme}://{host}:{bound[1]}", flush=True)  # noqa: T201 - for whoever started us
        _collect_garbage_seldom()
        await asked_to_stop.get()
        logger.info("stopping; unfinished builds go on at the next start")
        await _drain(runner.app, settings.drain_seconds, asked_to_stop)
    finally:
        if listening:
            listening.close()
        await runner.cleanup()


def _collect_garbage_seldom() -> None:
    """Thousands of sockets are hundreds of thousands of objects: to look through them after every 700 new ones, as
    Python does, takes a third of the server's time. What is there at the start stays, and is not looked at at all.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def _collect_environments(environments: Environments) -> None:
    """Remove environments that nobody has used for long, now and then."""
    while True:
        try:
            await environments.collect_unused()
        except OSError:
            logger.exception("unused environments could not be removed")
        await asyncio.sleep(_COLLECT_SECONDS)


def _signals() -> asyncio.Queue[int]:
    """The requests to stop, as they come."""
    received: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, received.put_nowait, number)
    return received


async def _drain(app: web.Application, seconds: float, asked_to_stop: asyncio.Queue[int]) -> None:
    """Take nothing new, let running builds end within ``seconds`` or until asked once more; then sockets are closed."""
    app[CATALOG].stop()
    draining = asyncio.create_task(app[BUILDS].drain(seconds))
    again = asyncio.create_task(asked_to_stop.get())
    await asyncio.wait((draining, again), return_when=asyncio.FIRST_COMPLETED)
    for task in (draining, again):
        task.cancel()
    await asyncio.gather(draining, again, return_exceptions=True)
    with contextlib.suppress(TimeoutError):  # a socket that is not read
        async with asyncio.timeout(_TELL_SECONDS):
            await app[HUB].all_told()
    await app[SOCKETS].end_all()
