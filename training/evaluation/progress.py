"""What a person sees while runs are evaluated, on stderr: a bar on a terminal, elsewhere a line now and then."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

_SECONDS = 30.0  # between lines


class Progress:
    """Over ``total`` things, called ``unit``; in the end a line says how long ``what`` took."""

    def __init__(self, what: str, total: int, *, shown: bool, unit: str = "photos") -> None:
        self.what, self.total, self.unit, self.shown = what, total, unit, shown
        self.done, self.began = 0, time.monotonic()
        self._told = self.began
        self._lines = shown and not sys.stderr.isatty()
        self._bar = tqdm(total=total, desc=what, unit=f" {unit}", leave=False, disable=not shown or self._lines)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()
        if self.shown and kind is None:
            took = time.monotonic() - self.began
            sys.stderr.write(f"{self.what:<18} {self.done:,} {self.unit} in {took:.1f} s\n")

    def move(self, count: int = 1) -> None:
        """``count`` more are done."""
        self.done += count
        self._bar.update(count)
        now = time.monotonic()
        if self._lines and now - self._told >= _SECONDS and self.done < self.total:
            self._told = now
            left = (now - self.began) / self.done * (self.total - self.done)
            sys.stderr.write(f"{self.what:<18} {self.done:,} of {self.total:,} {self.unit}, {left:.0f} s left\n")
