"""Installing handler versions: a few at a time and each client in its turn, since one takes minutes and all cores."""

import asyncio
import time

from .environments import Environment, Environments
from .errors import ServerFault
from .queue import FairQueue, Limits, Ticket
from .sources import Resolved

#: Two at a time, of two clients and of two versions: who waits for a version that is being installed takes no place.
_AT_A_TIME = Limits(2, per_client=1, per_group=1)
#: Failures that are remembered, for those who were waiting already.
_REMEMBERED = 100


class Installations:
    """The way to an environment for requests, builds and descriptions alike."""

    def __init__(self, environments: Environments) -> None:
        self._environments = environments
        self._queue = FairQueue(_AT_A_TIME)
        self._failed: dict[str, tuple[float, ServerFault]] = {}

    async def ensure(self, resolved: Resolved, client: str) -> Environment:
        """The environment of a version, made when it is the client's turn if need be.

        An installation that fails does so for all who were waiting by then. It goes on, and keeps its turn, when who
        asked for it is cancelled. Raises `EnvironmentFailedError` or `UnknownVersionError`.
        """
        if environment := await self._environments.find(resolved):
            return environment
        joined = time.monotonic()
        ticket = self._queue.join(client=client, group=f"{resolved.dataset_name} {resolved.version}")
        try:
            await ticket.called.wait()
            self._share_failure(ticket.job.group, joined)
        except BaseException:
            self._queue.leave(ticket)
            raise
        work = asyncio.ensure_future(self._environments.ensure(resolved))
        work.add_done_callback(lambda _: self._end(ticket, work))
        return await asyncio.shield(work)

    def _share_failure(self, group: str, joined: float) -> None:
        failed = self._failed.get(group)
        if failed and failed[0] >= joined:
            raise failed[1].with_traceback(None)  # or each who shares it would lengthen that of the others

    def _end(self, ticket: Ticket, work: asyncio.Future[Environment]) -> None:
        fault = None if work.cancelled() else work.exception()
        if isinstance(fault, ServerFault):
            self._failed.pop(ticket.job.group, None)
            self._failed[ticket.job.group] = time.monotonic(), fault
            if len(self._failed) > _REMEMBERED:
                del self._failed[next(iter(self._failed))]
        self._queue.leave(ticket)
