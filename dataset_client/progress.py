"""Showing how far it is: bars on a terminal or in a notebook, a few lines in a log file, or nothing.

Several requests at once have a reporter each, with a label: a bar below the other, or a word at the start of a line.
"""

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TextIO

from dataset_client.protocol import Event

_LINE_EVERY_S = 30.0


class Reporter(Protocol):
    """What is told how far a request is. `downloaded` is called from another thread than the rest."""

    def build_event(self, event: Event) -> None:
        """An event of the build came."""

    def download_starts(self, name: str, *, total: int, done: int) -> None:
        """A download of ``total`` bytes starts, of which ``done`` are here already."""

    def downloaded(self, size: int) -> None:
        """``size`` bytes are here; fewer than before if it had to start over."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def close(self) -> None:
        """Nothing more comes."""


def make_reporter(progress: bool, stream: TextIO | None = None, *, label: str = "", row: int | None = None) -> Reporter:
    """The reporter that suits ``stream``, by default stderr; a silent one if ``progress`` is False.

    Of several at once each has a ``label`` and a ``row``, 0 and up, for its bar.
    """
    stream = stream or sys.stderr
    if not progress:
        return SilentReporter()
    if is_interactive(stream):
        return BarReporter(stream, label=label, row=row)
    return LineReporter(stream, label=label)


def short_labels(ids: Iterable[str]) -> dict[str, str]:
    """A label for each id: its beginning, as far as it takes to tell them apart, and the name at least."""
    names = sorted(ids)
    labels = {}
    for name in names:
        stem = name.removesuffix(".zip").rpartition("_")
        length = next(
            length for length in (0, 4, 8, 32) if sum(n.startswith(f"{stem[0]}_{stem[2][:length]}") for n in names) == 1
        )
        labels[name] = f"{stem[0]}_{stem[2][:length]}".rstrip("_")
    return labels


def is_interactive(stream: TextIO) -> bool:
    """Whether a line on ``stream`` can be drawn over again: on a terminal that can, or in a notebook."""
    if is_notebook():
        return stream in {sys.stdout, sys.stderr}  # anything else is a file
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    return "ipykernel.zmqshell" in sys.modules


class SilentReporter:
    """Shows nothing."""

    def build_event(self, event: Event) -> None:
        """Nothing."""

    def download_starts(self, name: str, *, total: int, done: int) -> None:
        """Nothing."""

    def downloaded(self, size: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class LineReporter:
    """Writes a line when the state changes, and one every half minute in between."""

    def __init__(self, stream: TextIO, *, label: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._start = f"dataset-client: {label}: " if label else "dataset-client: "
        self._clock = clock
        self._state = ""
        self._last_line = 0.0
        self._total = 0

    def build_event(self, event: Event) -> None:
        """A line for a new state or an end; progress now and then."""
        if event.kind == "state" and event.data.get("state") != self._state:
            self._state = str(event.data.get("state"))
            self.note(self._state)
        elif event.kind == "progress" and self._is_due():
            done, total = event.data.get("done"), event.data.get("total")
            self.note(f"{self._state or 'building'}: {done} of {total} samples")
        elif event.is_terminal and event.kind != self._state:
            self._state = event.kind
            self.note(event.kind)

    def download_starts(self, name: str, *, total: int, done: int) -> None:
        """One line."""
        self._total = total
        rest = f", {done / 1e6:.1f} MB of them are here already" if done else ""
        self.note(f"downloading {name}: {total / 1e6:.1f} MB{rest}")

    def downloaded(self, size: int) -> None:
        """One line at the end, and now and then before."""
        if size == self._total or self._is_due():
            self.note(f"downloaded {size / 1e6:.1f} of {self._total / 1e6:.1f} MB")

    def note(self, text: str) -> None:
        """One line."""
        self._last_line = self._clock()
        self._stream.write(f"{self._start}{text}\n")  # in one piece, as several threads may write
        self._stream.flush()

    def close(self) -> None:
        """Nothing is open."""

    def _is_due(self) -> bool:
        return self._clock() - self._last_line >= _LINE_EVERY_S


class BarReporter:
    """Draws one bar for the samples built and one for the bytes loaded."""

    def __init__(self, stream: TextIO, *, label: str = "", row: int | None = None) -> None:
        self._stream = stream
        self._start = f"{label}: " if label else ""
        self._row = row
        self._bar: Any = None
        self._state = ""

    def build_event(self, event: Event) -> None:
        """Move the bar; the state is its description."""
        if event.kind == "state":
            self._state = str(event.data.get("state", ""))
        elif event.is_terminal:
            self._state = event.kind
        bar = self._open(unit=" samples", total=None) if self._bar is None else self._bar
        bar.set_description_str(f"{self._start}{self._state}", refresh=event.kind != "progress")
        if event.kind == "progress":
            if bar.total != event.data.get("total"):
                bar.reset(event.data.get("total"))  # a widget notices nothing less
            self._move(event.data.get("done") or 0)
        if event.is_terminal:
            self.close()

    def download_starts(self, name: str, *, total: int, done: int) -> None:
        """A bar in bytes."""
        self.close()
        self._open(
            unit="B",
            total=total,
            initial=done,
            unit_scale=True,
            unit_divisor=1000,
            desc=f"{self._start}downloading" if self._start else f"downloading {name}",
        )

    def downloaded(self, size: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._move(size)

    def note(self, text: str) -> None:
        """A line above the bar."""
        _tqdm().write(f"dataset-client: {self._start}{text}", file=self._stream)

    def close(self) -> None:
        """Leave the bar as it is and end its line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _open(self, **options: Any) -> Any:
        self._bar = _tqdm()(file=self._stream, dynamic_ncols=True, position=self._row, **options)
        return self._bar

    def _move(self, position: int) -> None:
        if position < self._bar.n:
            self._bar.n = position  # tqdm cannot go back by update()
            self._bar.refresh()
        else:
            self._bar.update(position - self._bar.n)


def _tqdm() -> Any:
    """The class that draws bars here: a widget in a notebook that has ipywidgets, and text anywhere else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that ipywidgets are not there: text will do
        from tqdm.auto import tqdm  # only where something is drawn
    return tqdm
