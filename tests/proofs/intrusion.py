"""Attempts to get in or to break out, counted: the tests of the suite, case by case, and Schemathesis at length."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from tests.proofs.case import Outcome
from tests.support import ROOT

#: What each file of tests is about.
FILES = {
    "tests/server/test_intrusion.py": "over HTTP and the socket",
    "tests/server/test_bad_requests.py": "malformed requests",
    "tests/server/test_rights.py": "without the right to",
    "tests/server/test_limits.py": "too much, too often",
    "tests/server/test_containment.py": "from inside a handler",
    "tests/server/test_bad_handlers.py": "handlers that misbehave",
}


def run_tests() -> list[Outcome]:
    """Every case of `FILES`, as pytest saw it."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "2",
            "--dist",
            "loadfile",
            f"--junitxml={report}",
            *FILES,
        ]
        subprocess.run(command, cwd=ROOT, check=False, env=os.environ)
        cases = ElementTree.parse(report).iter("testcase")
        return [_outcome(case) for case in cases]


def _outcome(case: ElementTree.Element) -> Outcome:
    file = case.get("classname", "").replace(".", "/") + ".py"
    result, why = "passed", ""
    for tag, named in (("failure", "failed"), ("error", "failed"), ("skipped", "not run")):
        if (found := case.find(tag)) is not None:
            result, why = named, found.get("message") or named
    return Outcome(FILES.get(file, file), case.get("name", ""), result, why, float(case.get("time", 0)))
