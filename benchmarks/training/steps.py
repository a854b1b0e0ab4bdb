"""What all sides share: a process that takes steps when it is told to."""

import json
import resource
import sys
import time
from collections.abc import Callable

LEARNING_RATE = 1e-5


def peak_mb() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def serve(make: Callable[[], tuple[float, Callable[[], float], int]]) -> None:
    """Make the work, then take as many steps as each line of the input says; print how it went.

    ``make`` gives the loss in evaluation mode before any step, a function that takes a step and gives its loss, and
    the number of weights. The framework must have been imported before: memory is told beyond that.
    """
    imported = peak_mb()
    loss, step, weights = make()
    started = time.monotonic()
    step()
    first = time.monotonic() - started
    step()  # allocators and caches
    ready = {"event": "ready", "loss": loss, "weights": weights, "imported_mb": imported, "first_seconds": first}
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        used, seconds = time.process_time(), []
        for _ in range(int(line)):
            started = time.perf_counter()
            last = step()
            seconds.append(time.perf_counter() - started)
        cpu = (time.process_time() - used) / len(seconds)
        stepped = {"event": "stepped", "seconds": seconds, "cpu": cpu, "loss": last, "peak_mb": peak_mb()}
        print(json.dumps(stepped), flush=True)
