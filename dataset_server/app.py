"""Wires the server together, starts it and stops it."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator

from aiohttp import web

from dataset_client.protocol import MAX_REQUEST_BYTES

from .api import BUILDS, CATALOG, DATABASE, HUB, SETTINGS, STORE
from .builds import Builds
from .catalog import Catalog
from .claim import claim
from .environments import Environments
from .hub import Hub
from .middlewares import bearer, faults, same_origin
from .processes import hide_environment
from .routes import ROUTES
from .settings import Settings
from .store import Database, Store

logger = logging.getLogger(__name__)


def create_app(settings: Settings) -> web.Application:
    """The application for ``settings``; its resources live from start-up to clean-up."""
    token = settings.token.get_secret_value() if settings.token else None
    app = web.Application(middlewares=[faults, same_origin, bearer(token)], client_max_size=MAX_REQUEST_BYTES)
    app[SETTINGS] = settings
    app[DATABASE] = Database(settings.database)
    app[STORE] = Store(app[DATABASE])
    app[HUB] = Hub()
    environments = Environments(settings)
    app[BUILDS] = Builds(settings, app[STORE], app[HUB], environments)
    app[CATALOG] = Catalog(settings, app[STORE], app[HUB], environments, app[BUILDS])

    async def resources(app: web.Application) -> AsyncIterator[None]:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        with claim(settings.data_dir):
            await app[DATABASE].create()
            environments.clean()
            app[BUILDS].prepare()
            await app[CATALOG].resume()
            yield
            await app[CATALOG].close()
            await app[BUILDS].close()
            await environments.close()
            await app[DATABASE].close()

    app.cleanup_ctx.append(resources)
    app.add_routes(ROUTES)
    return app


async def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; prints the address once it listens.

    Raises `AlreadyServedError`, or `OSError` where the address cannot be listened on.
    """
    hide_environment()
    runner = web.AppRunner(create_app(settings), access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port)
        await site.start()
        (bound, *_) = runner.addresses
        host = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        print(f"dataset-server listens on http://{host}:{bound[1]}", flush=True)  # noqa: T201 - for whoever started us
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, stop.set)
        await stop.wait()
        logger.info("stopping; unfinished builds go on at the next start")
    finally:
        await runner.cleanup()
