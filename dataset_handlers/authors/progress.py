"""A build's events as a person wants to see them: one line that updates on a terminal, a few plain lines elsewhere."""

import time
from collections.abc import Callable
from typing import IO, Any

#: Where lines cannot be overwritten, so many of them appear.
_PLAIN_LINES = 10


class ProgressLine:
    """Takes events of `dataset_handlers.commands` and writes samples done, rate and time left to ``out``."""

    def __init__(self, name: str, out: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._out, self._clock = name, out, clock
        self._live = out.isatty()
        self._started: tuple[float, int] | None = None  # when the first event came, and what was done by then
        self._told = -1
        self._shards = self._examples = 0
        self._open = False

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event."""
        if event["event"] == "planned":
            rejected = f", {event['rejected']:,} rejected" if event["rejected"] else ""
            if event["shards"]:
                self._line(f"planned {event['samples']:,} samples in {event['shards']:,} shards{rejected}")
        elif event["event"] == "progress":
            self._progress(event["done"], event["total"])
        elif event["event"] == "shard":
            self._shards += 1
            self._examples += event["examples"]
        elif event["event"] == "finished":
            left_out = f"; {event['quarantined']:,} samples in quarantine" if event["quarantined"] else ""
            self._line(f"{self._examples:,} examples in {self._shards:,} shards{left_out}")

    def close(self) -> None:
        """End a line that is still open, so that what follows has one of its own."""
        if self._open:
            self._out.write("\n")
            self._out.flush()
            self._open = False

    def _progress(self, done: int, total: int) -> None:
        now = self._clock()
        if self._started is None:
            self._started = (now, done)
            if done:
                self._line(f"going on where an earlier build ended: {done:,} of {total:,} samples are done")
        seconds, made = now - self._started[0], done - self._started[1]
        rate = made / seconds if seconds > 0 else 0.0
        text = f"{self._name}: {done:,}/{total:,} samples"
        if rate:
            text += f", {rate:,.1f}/s"
            text += f", {_clock_time((total - done) / rate)} left" if done < total else f", {_clock_time(seconds)}"
        if self._live:
            self._out.write(f"\r{text}\x1b[K")
            self._out.flush()
            self._open = True
        elif _PLAIN_LINES * done // max(1, total) > self._told:
            self._told = _PLAIN_LINES * done // max(1, total)
            self._line(text)

    def _line(self, text: str) -> None:
        self.close()
        self._out.write(f"{text}\n")
        self._out.flush()


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
