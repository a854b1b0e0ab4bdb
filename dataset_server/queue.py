"""Whose turn it is: a queue with priorities in which no client starves another.

Next is, in this order: the highest priority; the client with the fewest running; the client that was served longest
ago; the longest wait. A client that is passed over again and again rises by one priority for each `PATIENCE` starts of
others, so that lower priorities wait, but not for ever. Within a client the order is priority, then age.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

#: Starts of others after which a client that waits counts as one priority higher.
PATIENCE: Final = 20


@dataclass(frozen=True)
class Job:
    """Something that waits for its turn. ``group`` is what a group limit counts, for example a handler version."""

    number: int  # rises with the order of arrival
    client: str = ""
    priority: int = 0
    group: str = ""
    since: int = 0  # how many jobs had been started when it came


@dataclass(frozen=True)
class Limits:
    """How many run at a time: in all, for each client and of each group; None is no limit."""

    jobs: int
    per_client: int | None = None
    per_group: int | None = None


def choose(
    waiting: Iterable[Job], running: Collection[Job], served: Mapping[str, int], started: int, limits: Limits
) -> Job | None:
    """The job whose turn it is, or None if none may start now.

    ``served`` says for each client at which of the ``started`` starts it was last served.
    """
    if len(running) >= limits.jobs:
        return None
    clients, groups = Counter(job.client for job in running), Counter(job.group for job in running)

    def may_start(job: Job) -> bool:
        return (limits.per_client is None or clients[job.client] < limits.per_client) and (
            limits.per_group is None or groups[job.group] < limits.per_group
        )

    def rank(job: Job) -> tuple[int, int, int, int, int]:
        last = served.get(job.client, 0)
        passed_over = started - max(job.since, last)
        return (-job.priority - passed_over // PATIENCE, clients[job.client], last, -job.priority, job.number)

    return min(filter(may_start, waiting), key=rank, default=None)


@dataclass(eq=False)
class Ticket:
    """A place in the queue, and then a turn, until it is given back with `FairQueue.leave`."""

    job: Job
    called: asyncio.Event = field(default_factory=asyncio.Event)


class FairQueue:
    """Runs at most ``limits`` jobs at a time, in the order that `choose` decides."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: dict[Job, Ticket] = {}
        self._running: set[Job] = set()
        self._served: dict[str, int] = {}
        self._arrived = self._started = 0
        self._stopped = False
        self._order: list[Job] | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    def join(self, *, client: str = "", priority: int = 0, group: str = "") -> Ticket:
        """Take a place; its turn may come at once."""
        self._arrived += 1
        ticket = Ticket(Job(self._arrived, client, priority, group, self._started))
        self._waiting[ticket.job] = ticket
        self._call()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give up a place, or a turn; a second time nothing happens."""
        self._waiting.pop(ticket.job, None)
        self._running.discard(ticket.job)
        self._call()

    @contextlib.asynccontextmanager
    async def turn(self, ticket: Ticket) -> AsyncIterator[None]:
        """Wait for the turn, and have it while the context lasts."""
        try:
            await ticket.called.wait()
            yield
        finally:
            self.leave(ticket)

    def stop(self) -> None:
        """Let nobody start any more."""
        self._stopped = True

    async def idle(self) -> None:
        """Wait until nobody has a turn."""
        await self._idle.wait()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many have their turn."""
        return len(self._running)

    def position(self, ticket: Ticket) -> int | None:
        """1 for who is next, 2 … as things stand now; None for who does not wait."""
        if ticket.job not in self._waiting:
            return None
        if self._order is None:
            self._order = foretell(self._waiting, self._served, self._started)
        return self._order.index(ticket.job) + 1

    def _call(self) -> None:
        self._order = None
        while not self._stopped:
            job = choose(self._waiting, self._running, self._served, self._started, self._limits)
            if job is None:
                break
            self._started += 1
            self._served[job.client] = self._started
            self._running.add(job)
            self._waiting.pop(job).called.set()
        if self._running:
            self._idle.clear()
        else:
            self._idle.set()
        if not self._waiting and not self._running:
            self._served.clear()  # who was served before an idle time is no matter, and names must not pile up


def foretell(waiting: Iterable[Job], served: Mapping[str, int], started: int) -> list[Job]:
    """The order in which jobs would start, one at a time, if nobody else came."""
    by_client: dict[str, list[Job]] = {}
    for job in sorted(waiting, key=lambda job: (job.priority, -job.number)):
        by_client.setdefault(job.client, []).append(job)
    served, order = dict(served), list[Job]()
    while by_client:
        heads = [jobs[-1] for jobs in by_client.values()]
        chosen = choose(heads, (), served, started, Limits(1))
        assert chosen is not None
        started += 1
        served[chosen.client] = started
        order.append(by_client[chosen.client].pop())
        if not by_client[chosen.client]:
            del by_client[chosen.client]
    return order
