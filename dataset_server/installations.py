"""Installing handler versions: a few at a time and each client in its turn, since one takes minutes and all cores."""

from .environments import Environment, Environments
from .queue import FairQueue, Limits
from .sources import Resolved

#: Two at a time, of two clients and of two versions: who waits for a version that is being installed takes no place.
_AT_A_TIME = Limits(2, per_client=1, per_group=1)


class Installations:
    """The way to an environment for requests, builds and descriptions alike."""

    def __init__(self, environments: Environments) -> None:
        self._environments = environments
        self._queue = FairQueue(_AT_A_TIME)

    async def ensure(self, resolved: Resolved, client: str) -> Environment:
        """The environment of a version, made when it is the client's turn if need be.

        Raises `EnvironmentFailedError` or `UnknownVersionError`.
        """
        if environment := await self._environments.find(resolved):
            return environment
        ticket = self._queue.join(client=client, group=f"{resolved.dataset_name} {resolved.version}")
        async with self._queue.turn(ticket):
            return await self._environments.ensure(resolved)
