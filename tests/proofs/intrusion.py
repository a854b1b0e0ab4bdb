"""Attempts to get in or to break out, counted: the tests of the suite, case by case, and Schemathesis at length."""

import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from tests.proofs.case import Outcome
from tests.server.fuzzing import fuzz_until
from tests.support import ROOT

#: What each file of tests is about.
FILES = {
    "tests/server/test_intrusion.py": "over HTTP and the socket",
    "tests/server/test_bad_requests.py": "malformed requests",
    "tests/server/test_rights.py": "without the right to",
    "tests/server/test_limits.py": "too much, too often",
    "tests/server/test_containment.py": "from inside a handler",
    "tests/server/test_bad_handlers.py": "handlers that misbehave",
    "tests/server/test_foreign_files.py": "what a handler leaves in its folders",
    "tests/client/test_contents.py": "bombs, links and traversal in archives",
}
_RAN = (0, 1)  # what pytest ends with when it ran its tests, whether they passed or not


def run_all(cases: int) -> list[Outcome]:
    """Every test of `FILES`, and ``cases`` of Schemathesis or more."""
    return [*run_tests(), *run_fuzzing(cases)]


def run_tests() -> list[Outcome]:
    """Every case of `FILES`, as pytest saw it."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", f"--junitxml={report}"]
        ended = subprocess.run([*command, *FILES], cwd=ROOT, check=False)
        found = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
        return judge(ended.returncode, [outcome_of(case) for case in found])


def judge(status: int, outcomes: list[Outcome]) -> list[Outcome]:
    """What came of pytest's run, with a failure for each file of which nothing ran, and for a run that broke off."""
    ran = {outcome.group for outcome in outcomes if outcome.result != "not run"}
    for file, group in FILES.items():
        if group not in ran:
            outcomes.append(Outcome(group, file, "failed", f"no test of {file} ran", 0.0))
    if status not in _RAN:
        outcomes.append(Outcome("the run itself", "pytest", "failed", f"pytest ended with status {status}", 0.0))
    return outcomes


def outcome_of(case: ElementTree.Element) -> Outcome:
    """What the ``testcase`` of a JUnit report says; its ``classname`` is the file's module, and a class's if any."""
    file = case.get("classname", "").replace(".", "/") + ".py"
    result, why = "passed", ""
    for tag, named in (("skipped", "not run"), ("failure", "failed"), ("error", "failed")):
        if (found := case.find(tag)) is not None:
            result, why = named, found.get("message") or named
    return Outcome(FILES.get(file, file), case.get("name", ""), result, why, float(case.get("time", 0)))


def run_fuzzing(cases: int) -> Iterator[Outcome]:
    """Runs of Schemathesis; one that breaks off is a failure, and the last."""
    start = time.monotonic()
    try:
        for name, run in fuzz_until(cases, examples=150, seed=1):
            result, why = ("passed", "") if run.passed else ("failed", run.report or "it said nothing")
            yield Outcome("Schemathesis", name, result, why, round(time.monotonic() - start, 1), max(run.cases, 1))
            start = time.monotonic()
    except Exception:
        why = traceback.format_exc(limit=-4)
        yield Outcome("Schemathesis", "the run itself", "failed", why, round(time.monotonic() - start, 1))
