"""The proofs' own judgement: what did not run does not count as passed, and what is lost is noticed."""

from xml.etree import ElementTree

import pytest

from tests.proofs.case import Case, Outcome, run_cases, write_report
from tests.proofs.intrusion import FILES, judge, outcome_of
from tests.proofs.proxy import cut_at
from tests.support import event_faults

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


def test_a_case_counts_for_what_it_met(tmp_path):
    (outcome,) = run_cases([Case("aimed at", "one", lambda folder: "met")], tmp_path, 1)
    assert (outcome.group, outcome.result) == ("met", "passed")


SAID = b"HTTP/1.1 200 OK\r\na: b\r\n\r\nbodyHTTP/1.1 101 Switching\r\nc: d\r\n\r\nframes"


@pytest.mark.parametrize(
    ("said", "where", "passed"),
    [
        (SAID, "WebSocket", b"fr"),
        (SAID, "header", b"HT"),
        (SAID, "body", None),
        (SAID[:28], "body", b"bo"),
        (SAID[:28], "WebSocket", None),
        (SAID[:20], "body", None),
    ],
)
def test_where_the_proxy_cuts(said, where, passed):
    end = cut_at(said, where, 2)
    assert passed is None if end is None else said[:end].endswith(passed)


#: Numbers, attempts and kinds: an earlier attempt, of which the end is kept; then one with a progress that is replaced.
EVENTS = [(5, 1, "failed"), (6, 2, "state"), (8, 2, "progress"), (9, 2, "shard"), (10, 2, "ready")]


def test_events_that_are_whole():
    assert not event_faults(EVENTS, "ready", 2, 10)
    assert not event_faults(EVENTS[:-1], "building", 2, 9)
    assert not event_faults([EVENTS[0], EVENTS[-1]], "evicted", 2, 10)


@pytest.mark.parametrize(
    ("said", "state", "last"),
    [
        ([], "ready", 0),
        (EVENTS[:-1], "ready", 9),
        (EVENTS[:-1], "cancelled", 9),
        (EVENTS[:-1], "building", 10),
        (EVENTS[1:], "ready", 10),
        (EVENTS[:3] + EVENTS[4:], "ready", 10),
        (EVENTS, "building", 10),
        ([*EVENTS, (11, 2, "ready")], "ready", 11),
        ([*EVENTS, (11, 2, "shard")], "ready", 11),
        ([*EVENTS[:4], (10, 1, "state"), (11, 2, "ready")], "ready", 11),
    ],
)
def test_events_that_are_not(said, state, last):
    assert event_faults(said, state, 2, last)
