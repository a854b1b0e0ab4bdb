"""Asking handlers what they can do and what a config means to them; each answer is a process of its own."""

from typing import Any

from dataset_client.protocol import MalformedConfigError, canonical_json

from .background import look
from .confinement import for_handlers
from .durable import temporary_folder
from .environments import Environment, Environments
from .errors import ConfigRefusedError, HandlerFaultError
from .handler_events import Described
from .queue import FairQueue, Limits
from .runner import run_command
from .settings import Settings
from .sources import Resolved

#: Handlers that are asked at a time: in all, and of one version, so that one that hangs does not keep the others out.
_AT_A_TIME = Limits(4, per_group=2)


class Describer:
    """Asks handlers, a few at a time and each client in its turn."""

    def __init__(self, settings: Settings, environments: Environments) -> None:
        self._settings = settings
        self._environments = environments
        self._queue = FairQueue(_AT_A_TIME)

    async def effective_config(
        self, resolved: Resolved, environment: Environment, config: dict[str, Any], client: str
    ) -> str:
        """The canonical effective config; raises `ConfigRefusedError`."""
        described = await self.describe(resolved, environment, {"config": config}, client)
        if described.effective_config is None:
            raise HandlerFaultError("handler_protocol", "the handler's description lacks the effective config")
        return canonical(described.effective_config)

    async def describe(
        self, resolved: Resolved, environment: Environment, more: dict[str, Any], client: str
    ) -> Described:
        """Ask a handler for its options, and with a ``config`` for what that means to it.

        Raises `ConfigRefusedError` or `HandlerFaultError`.
        """
        request = {"dataset": resolved.dataset_name, "handler": resolved.entry_point, **more}
        ticket = self._queue.join(client=client, group=f"{resolved.dataset_name} {resolved.version}")
        async with self._queue.turn(ticket):
            with (
                self._environments.using(environment),
                temporary_folder("dataset-describe-") as folder,
            ):
                answer = await run_command(
                    environment.python,
                    "describe",
                    request,
                    folder,
                    timeout=self._settings.describe_timeout,
                    confinement=await look(for_handlers, self._settings),
                )
        assert isinstance(answer, Described)
        return answer


def canonical(config: dict[str, Any]) -> str:
    """Canonical JSON of what a handler returned; a config it cannot write so is its fault."""
    try:
        return canonical_json(config)
    except MalformedConfigError as error:
        raise ConfigRefusedError(str(error), [{"path": "", "reason": str(error)}]) from error
