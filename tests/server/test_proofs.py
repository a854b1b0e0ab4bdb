"""The proofs' own judgement: what did not run does not count as passed."""

from xml.etree import ElementTree

import pytest

from tests.proofs.case import Outcome, write_report
from tests.proofs.intrusion import FILES, judge, outcome_of

ALL = [Outcome(group, "a test", "passed", "", 0.1) for group in FILES.values()]


def failed(outcomes):
    return [outcome.group for outcome in outcomes if outcome.result == "failed"]


def test_a_whole_run():
    assert failed(judge(0, [*ALL])) == []
    assert failed(judge(1, [*ALL])) == []


def test_a_file_of_which_nothing_ran():
    assert failed(judge(0, ALL[1:])) == [ALL[0].group]
    skipped = Outcome(ALL[0].group, "a test", "not run", "no Landlock", 0.0)
    assert failed(judge(0, [skipped, *ALL[1:]])) == [ALL[0].group]


@pytest.mark.parametrize("status", [2, 3, 4, 5, -9])
def test_a_run_that_broke_off(status):
    assert failed(judge(status, [*ALL])) == ["the run itself"]


@pytest.mark.parametrize(
    ("inside", "result"),
    [("", "passed"), ("<failure message='no'/>", "failed"), ("<error/>", "failed"), ("<skipped/>", "not run")],
)
def test_what_pytest_reports(inside, result):
    case = f"<testcase classname='tests.server.test_limits' name='test_x' time='0.5'>{inside}</testcase>"
    outcome = outcome_of(ElementTree.fromstring(case))
    assert (outcome.group, outcome.name, outcome.result) == ("too much, too often", "test_x", result)
    assert bool(outcome.why) == (result != "passed")


def test_runs_of_many_cases_are_counted(tmp_path):
    runs = [
        Outcome("fuzzing", "seed 1", "passed", "", 1.0, 6000),
        Outcome("fuzzing", "seed 2", "failed", "no", 1.0, 50),
    ]
    write_report("Title", "command", runs, tmp_path / "report.md")
    assert "| **all** | 6050 | 6000 | 50 | 0 |" in (tmp_path / "report.md").read_text()
