"""Whether the database answers, asked at most once a second: probes need no token, and may come at any rate."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from .errors import UnavailableError

logger = logging.getLogger(__name__)

#: Seconds for which an answer, or that there was none, is remembered.
_FRESH_SECONDS = 1.0
#: Seconds after which a database that has said nothing does not answer; it is asked anew only once it has.
_PATIENCE_SECONDS = 5.0


class Readiness:
    """Remembers what the last ``ping`` came to; those who ask meanwhile wait for the same one."""

    def __init__(self, ping: Callable[[], Awaitable[None]], clock: Callable[[], float] = time.monotonic) -> None:
        self._ping = ping
        self._clock = clock
        self._asking: asyncio.Task[bool] | None = None
        self._answered_at = 0.0

    async def require(self) -> None:
        """Raise `UnavailableError` if the database does not answer."""
        asking = self._asking
        if asking is None or (asking.done() and self._clock() - self._answered_at >= _FRESH_SECONDS):
            asking = self._asking = asyncio.create_task(self._ask(), name="readiness")
        await asyncio.wait({asking}, timeout=_PATIENCE_SECONDS)
        if not (asking.done() and asking.result()):
            raise UnavailableError("the database does not answer", retry_after=_FRESH_SECONDS)

    async def _ask(self) -> bool:
        try:
            await self._ping()
        except Exception:  # the boundary: whatever it is, the server is not ready
            logger.exception("the database does not answer")
            return False
        else:
            return True
        finally:
            self._answered_at = self._clock()
