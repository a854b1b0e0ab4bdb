"""What a check of a handler found: one named verdict for each part of the contract."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

#: Every check by name, in the order they are made, with what it holds a handler to.
TITLES = {
    "describe": "it describes itself in this package's API version",
    "options": "every option has a type and a documentation",
    "defaults": "each default is valid and means the same as leaving the option out",
    "unknown-option": "an option that does not exist is refused",
    "effective-config": "the effective config is JSON and means itself; the order of options means nothing",
    "plan": "it plans",
    "plan-again": "planned again, by another process, the plan is the same",
    "build": "it builds, and says so line by line",
    "workers": "1, 2 and 4 workers make the same bytes",
    "resume": "killed and resumed, it makes the same bytes",
    "records": "every record is whole, its checksums hold, and the manifest counts it",
    "features": "every example decodes as features.json declares it",
    "sizes": "photo, mask and alpha of an example agree in size",
    "labels": "masks hold labels and nothing else",
    "splits": "no sample is in two splits",
    "lineage": "the lineage names files below the raw root by their sha256",
    "keys": "a sample keeps its key when other files come or go",
    "bad-files": "damaged and missing raw files are quarantined or refused",
    "reasons": "quarantine reasons are the same each time and name no path or address",
    "paths": "neither plan nor dataset holds a path of this machine",
    "raw-untouched": "nothing was written below the raw root",
}

State = Literal["ok", "failed", "skipped"]
_MOST_FAULTS = 3


@dataclass(frozen=True)
class Verdict:
    """One check: its ``name`` in `TITLES`, its state, and why it failed, was skipped, or what it looked at."""

    name: str
    state: State
    detail: str = ""

    def to_json(self) -> dict[str, str]:
        """The verdict for machines."""
        return {"name": self.name, "state": self.state, "title": TITLES[self.name], "detail": self.detail}

    def render(self) -> str:
        """The verdict for people: one line, and one more for what it has to say."""
        word = "FAILED" if self.state == "failed" else self.state
        line = f"{word:<8}{self.name:<17}{TITLES[self.name]}"
        return f"{line}\n{'':<25}{self.detail}" if self.detail else line


def judge(name: str, faults: Sequence[str], looked_at: str = "") -> Verdict:
    """Failed with the first few ``faults``, or ok with what was ``looked_at``."""
    if not faults:
        return Verdict(name, "ok", looked_at)
    more = f"; and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
    return Verdict(name, "failed", "; ".join(faults[:_MOST_FAULTS]) + more)


def skip(names: Sequence[str], why: str) -> list[Verdict]:
    """Checks that could not be made."""
    return [Verdict(name, "skipped", why) for name in names]
