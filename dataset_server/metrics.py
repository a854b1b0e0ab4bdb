"""What the server counts, for ``GET /metrics`` in Prometheus' text format.

Names start with ``dataset_server_``; docs/operations.md lists them with what to watch. Labels take few values each:
routes are patterns, not paths, and nothing a client or a handler says becomes a label.
"""

import asyncio
import contextlib
import functools
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from .background import look
from .environments.environment import installed
from .errors import (
    ConfigRefusedError,
    DiskFullError,
    EnvironmentFailedError,
    HandlerFaultError,
    ServerFault,
    UnknownDatasetError,
    UnknownVersionError,
)
from .logs import AccessLogger, route, sent_bytes
from .store.schema import ACTIVE

Outcome = Literal["ready", "failed", "cancelled"]

_REQUEST_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 60, 600, 3600)
_BUILD_BUCKETS = (1, 10, 60, 300, 900, 3600, 3 * 3600, 12 * 3600, 48 * 3600)
_PREFIX = "dataset_server"
_LOOK_SECONDS = 2.0
_FAULTS = (ConfigRefusedError, DiskFullError, EnvironmentFailedError, UnknownDatasetError, UnknownVersionError)
#: Codes a request may end with before it has a dataset; handlers make up others, which count as ``other``.
_REQUEST_CODES = frozenset({*(fault.code for fault in _FAULTS), ServerFault.code, *HandlerFaultError.codes, "other"})


@dataclass(frozen=True)
class Metrics:
    """The collectors of one server, on a registry of their own."""

    registry: CollectorRegistry
    requests: Counter
    request_seconds: Histogram
    response_bytes: Counter
    sockets: Gauge
    events: Counter
    requests_failed: Counter
    builds: Counter
    build_seconds: Histogram
    retries: Counter
    datasets: Gauge
    evictions: Counter
    evicted_bytes: Counter
    scrub_findings: Counter
    environments: Gauge
    disk_free_bytes: Gauge
    disk_bytes: Gauge

    @classmethod
    def create(cls) -> Self:
        """All collectors, at zero."""
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(name, meaning, labels, _PREFIX, registry=registry)

        def gauge(name: str, meaning: str, *labels: str) -> Gauge:
            return Gauge(name, meaning, labels, _PREFIX, registry=registry)

        def histogram(name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, meaning, labels, _PREFIX, registry=registry, buckets=buckets)

        metrics = cls(
            registry=registry,
            requests=counter("requests", "Answers sent to their end.", "method", "route", "status"),
            request_seconds=histogram(
                "request_seconds", "Seconds an answer took, sockets left out.", _REQUEST_BUCKETS, "route"
            ),
            response_bytes=counter("response_bytes", "Bytes of answers sent to their end.", "route"),
            sockets=gauge("sockets", "Notification sockets that are open."),
            events=counter("events_sent", "Events sent on notification sockets."),
            requests_failed=counter("requests_failed", "Requests that failed before they had a dataset.", "code"),
            builds=counter("builds", "Builds that ended.", "outcome"),
            build_seconds=histogram("build_seconds", "Seconds of builds that became ready.", _BUILD_BUCKETS),
            retries=counter("build_retries", "Failures after which a build is tried again by itself."),
            datasets=gauge("datasets", "Datasets by state.", "state"),
            evictions=counter("evictions", "Archives removed to make room."),
            evicted_bytes=counter("evicted_bytes", "Bytes of archives removed to make room."),
            scrub_findings=counter("scrub_findings", "Archives that scrubbing found rotten or missing."),
            environments=gauge("environments", "Installed environments of handlers."),
            disk_free_bytes=gauge("disk_free_bytes", "Bytes free where the folder is.", "folder"),
            disk_bytes=gauge("disk_bytes", "Size in bytes of the disk the folder is on.", "folder"),
        )
        for outcome in ("ready", "failed", "cancelled"):
            metrics.builds.labels(outcome)
        for code in _REQUEST_CODES:
            metrics.requests_failed.labels(code)
        return metrics

    def answered(self, method: str, route: str, status: int, size: int, seconds: float) -> None:
        """Count an answer of ``size`` bytes; a socket's time is its client's, and not measured."""
        self.requests.labels(method if method in _METHODS else "other", route, status).inc()
        self.response_bytes.labels(route).inc(size)
        if status != 101:
            self.request_seconds.labels(route).observe(seconds)

    @contextlib.contextmanager
    def open_socket(self) -> Iterator[None]:
        """Count a notification socket while the context lasts."""
        with self.sockets.track_inprogress():
            yield

    def event_sent(self) -> None:
        """Count an event that was handed to a socket."""
        self.events.inc()

    def request_failed(self, code: str) -> None:
        """Count a request that failed for good before it had a dataset."""
        self.requests_failed.labels(code if code in _REQUEST_CODES else "other").inc()

    def build_ended(self, outcome: Outcome, seconds: float) -> None:
        """Count a build that ended for good, ``seconds`` after it had begun."""
        self.builds.labels(outcome).inc()
        if outcome == "ready":
            self.build_seconds.observe(seconds)

    def build_retried(self) -> None:
        """Count a failure after which a build is tried again by itself."""
        self.retries.inc()

    def evicted(self, size: int) -> None:
        """Count an archive of ``size`` bytes that made room."""
        self.evictions.inc()
        self.evicted_bytes.inc(size)

    def scrub_found(self) -> None:
        """Count an archive that is not what it was."""
        self.scrub_findings.inc()

    def count_datasets(self, states: Mapping[str, int]) -> None:
        """Set how many datasets are in each state."""
        for state in (*ACTIVE, "ready", "failed", "cancelled", "evicted"):
            self.datasets.labels(state).set(states.get(state, 0))

    def count_environments(self, folder: Path) -> None:
        """Set how many environments are installed in ``folder``; reads the disk."""
        count = math.nan
        with contextlib.suppress(OSError):
            count = sum(1 for _ in installed(folder))
        self.environments.set(count)

    def measure_disk(self, name: str, folder: Path) -> None:
        """Set the size of the disk that a folder is on, and what is free of it; asks the disk."""
        free = total = math.nan  # a folder that is away has neither
        with contextlib.suppress(OSError):
            total, _, free = shutil.disk_usage(folder)
        self.disk_free_bytes.labels(name).set(free)
        self.disk_bytes.labels(name).set(total)

    def render(self) -> web.Response:
        """All of it, as an answer."""
        return web.Response(body=generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


class Observer:
    """Looks at disks for `Metrics`."""

    def __init__(self, metrics: Metrics, environments: Path, folders: Mapping[str, Path]) -> None:
        count = functools.partial(metrics.count_environments, environments)
        self._looks = [_Look(count, metrics.environments)]
        for name, folder in folders.items():
            measure = functools.partial(metrics.measure_disk, name, folder)
            self._looks.append(_Look(measure, metrics.disk_free_bytes.labels(name), metrics.disk_bytes.labels(name)))

    async def observe(self) -> None:
        """Bring it all up to date; what is not known within `_LOOK_SECONDS` is not a number until it is."""
        await asyncio.gather(*(look.take() for look in self._looks))


class _Look:
    """A look at a disk, which sets ``gauges``; by one thread at a time, since a network disk may never answer."""

    def __init__(self, measure: Callable[[], None], *gauges: Gauge) -> None:
        self._measure = measure
        self._gauges = gauges
        self._looking: asyncio.Future[None] | None = None

    async def take(self) -> None:
        looking = self._looking
        if looking is None or looking.done():
            looking = self._looking = look(self._measure)
        await asyncio.wait({looking}, timeout=_LOOK_SECONDS)
        if not looking.done():
            for gauge in self._gauges:
                gauge.set(math.nan)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

METRICS = web.AppKey("metrics", Metrics)
OBSERVER = web.AppKey("observer", Observer)


class CountingAccessLogger(AccessLogger):
    """Logs each answer, and counts it."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Log and count a request; ``time`` is in seconds."""
        super().log(request, response, time)
        if isinstance(request, web.Request):
            size = sent_bytes(response)
            request.app[METRICS].answered(request.method, route(request), response.status, size, time)
