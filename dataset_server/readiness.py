"""Whether the database answers, asked at most once a second: probes need no token, and may come at any rate."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from sqlalchemy.exc import SQLAlchemyError

from .errors import UnavailableError

logger = logging.getLogger(__name__)

#: Seconds for which an answer, or that there was none, is remembered.
_FRESH_SECONDS = 1.0


class Readiness:
    """Remembers what the last ``ping`` came to; those who ask meanwhile wait for the same one."""

    def __init__(self, ping: Callable[[], Awaitable[None]], clock: Callable[[], float] = time.monotonic) -> None:
        self._ping = ping
        self._clock = clock
        self._asking = asyncio.Lock()
        self._asked_at: float | None = None
        self._answers = False

    async def require(self) -> None:
        """Raise `UnavailableError` if the database does not answer."""
        async with self._asking:
            if self._asked_at is None or self._clock() - self._asked_at >= _FRESH_SECONDS:
                try:
                    await self._ping()
                    self._answers = True
                except (SQLAlchemyError, OSError):
                    logger.exception("the database does not answer")
                    self._answers = False
                self._asked_at = self._clock()
        if not self._answers:
            raise UnavailableError("the database does not answer", retry_after=_FRESH_SECONDS)
