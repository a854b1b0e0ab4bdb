"""A proof is many small cases, each of which holds or says why not; the report counts them."""

import json
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.machine import describe, sentence


class NotHere(Exception):  # noqa: N818 - not an error: this machine lacks what the case needs
    """The case needs a program or a right that this machine does not give."""


@dataclass(frozen=True)
class Case:
    """One thing that is done to the system, and `run`, which raises if it does not hold.

    ``run`` may return the group that it belongs to, where only that shows what it met.
    """

    group: str
    name: str
    run: Callable[[Path], str | None]


@dataclass(frozen=True)
class Outcome:
    """How a case ended: ``passed``, ``failed`` or ``not run``; ``why`` is empty if it passed.

    ``cases`` is how many it counts for, where it is a run of many.
    """

    group: str
    name: str
    result: str
    why: str
    seconds: float
    cases: int = 1


def run_cases(cases: Iterable[Case], scratch: Path, jobs: int) -> list[Outcome]:
    """Run all cases, ``jobs`` at a time, each in a folder of its own below ``scratch``; tell how they go.

    The folders of those that failed stay.
    """
    waiting = list(enumerate(cases))
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(jobs) as pool:
        started = [pool.submit(_run, case, scratch / f"{number:04}") for number, case in waiting]
        for done in as_completed(started):
            outcome = done.result()
            outcomes.append(outcome)
            note = f": {outcome.why.splitlines()[-1][:300]}" if outcome.why else ""
            print(
                f"[{len(outcomes)}/{len(waiting)}] {outcome.group}: {outcome.name}: {outcome.result}{note}", flush=True
            )
    return sorted(outcomes, key=lambda outcome: (outcome.group, outcome.name))


def _run(case: Case, folder: Path) -> Outcome:
    folder.mkdir(parents=True)
    start, group = time.monotonic(), case.group
    try:
        group = case.run(folder) or group
        result, why = "passed", ""
        shutil.rmtree(folder)
    except NotHere as lacking:
        result, why = "not run", str(lacking)
    except Exception:
        result, why = "failed", traceback.format_exc(limit=-4)
    return Outcome(group, case.name, result, why, round(time.monotonic() - start, 1))


def write_report(title: str, command: str, outcomes: list[Outcome], target: Path) -> None:
    """Write ``target`` (.md) with counts by group and everything that did not pass, and beside it all cases as JSON."""
    counts: Counter[tuple[str, str]] = Counter()
    for outcome in outcomes:
        counts[outcome.group, outcome.result] += outcome.cases
    groups = sorted({outcome.group for outcome in outcomes})
    machine = sentence(describe(sys.executable, None))
    lines = [f"# {title}", "", f"`{command}`", "", machine, "", "| what | cases | passed | failed | not run |"]
    lines.append("|---|---|---|---|---|")
    for group in [*groups, ""]:
        row = [sum(counts[one, result] for one in ([group] if group else groups)) for result in _RESULTS]
        lines.append(f"| {group or '**all**'} | {sum(row)} | {' | '.join(map(str, row))} |")
    short = [outcome for outcome in outcomes if outcome.result != "passed"]
    lines += ["", "## What falls short" if short else "Every case passed.", ""]
    lines += [f"- {o.group}, {o.name}: {o.result}: {o.why.strip().splitlines()[-1]}" for o in short]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(lines).rstrip() + "\n")
    rows = [asdict(outcome) for outcome in outcomes]
    target.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")


_RESULTS = ("passed", "failed", "not run")
