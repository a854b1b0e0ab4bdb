"""The pure parts: plans, delays, settings, names, what a refusal means, what is shown."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataset_client import errors
from dataset_client.backoff import Retries, RetryPolicy
from dataset_client.problems import SocketsBlockedError, error_from_response, error_of_handshake, parse_retry_after
from dataset_client.progress import BarReporter, LineReporter, SilentReporter, make_reporter, short_labels
from dataset_client.protocol import Event
from dataset_client.settings import DEFAULT_SERVER_URL, resolve_settings
from dataset_client.workspace import is_abandoned, new_owner_name, remove_abandoned


def test_delays_double_up_to_a_limit_and_respect_the_server():
    policy = RetryPolicy(first_delay_s=1, max_delay_s=10)
    assert [policy.delay(n, jitter=1) for n in (1, 2, 3, 4, 5, 5000)] == [1, 2, 4, 8, 10, 10]
    assert policy.delay(1, jitter=0) == 0.5
    assert policy.delay(1, jitter=0, retry_after=7) == 7


def test_a_server_that_is_away_is_waited_for_and_one_that_answers_wrongly_is_not():
    now = 100.0
    retries = Retries(RetryPolicy(attempts=3), patience_s=60, clock=lambda: now)
    away, broken = (
        errors.ServerAwayError("refused", transient=True),
        errors.ServerUnreachableError("cut", transient=True),
    )
    for _ in range(10):
        now += 5
        retries.delay_after(away)
    with pytest.raises(errors.ServerUnreachableError, match="cut"):
        retries.delay_after(broken)
    now += 20
    with pytest.raises(errors.ServerAwayError):
        retries.delay_after(away)
    retries.progressed()
    retries.delay_after(away)


def test_a_server_that_was_there_is_waited_for_longer():
    now = 0.0
    policy = RetryPolicy(attempts=1, first_contact_s=10, reconnect_s=100)
    retries = Retries(policy, patience_s=policy.first_contact_s, clock=lambda: now)
    away = errors.ServerAwayError("refused", transient=True)
    retries.delay_after(away)
    retries.reached()
    now = 99
    retries.delay_after(away)
    now = 101
    with pytest.raises(errors.ServerAwayError):
        retries.delay_after(away)


@pytest.mark.parametrize("value", ["301", "9" * 400])
def test_a_server_that_wants_a_longer_wait_than_allowed_is_given_up(value):
    retries = Retries(RetryPolicy(max_retry_after_s=300))
    refusal = error_from_response(503, {"Retry-After": value}, b"", url="http://x")
    with pytest.raises(errors.ServerBusyError):
        retries.delay_after(refusal)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None), ("120", 120), (" 3 ", 3), ("soon", None), ("-1", None),
        ("Thu, 01 Jan 1970 00:01:00 GMT", 50), ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
    ],
)  # fmt: skip
def test_retry_after(value, seconds):
    assert parse_retry_after(value, now=10) == seconds


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b'{"code": "config_md5", "detail": "differs"}', errors.InvalidRequestError),
        (401, b"", errors.UnauthorizedError),
        (403, b"{}", errors.UnauthorizedError),
        (404, b"<html>", errors.ProtocolError),
        (404, b'{"code": "dataset_unknown"}', errors.UnknownDatasetError),
        (404, b'{"code": "version_unknown"}', errors.UnknownVersionError),
        (422, b'{"code": "config_refused", "faults": "none"}', errors.ConfigRefusedError),
        (429, b"", errors.ServerBusyError),
        (503, b"", errors.ServerBusyError),
        (500, b"[]", errors.ServerError),
        (410, b'{"code": "gone"}', errors.ServerError),
        (302, b"", errors.ProtocolError),
    ],
)
def test_what_a_refusal_means(status, body, kind):
    error = error_from_response(status, {}, body, url="http://x")
    assert type(error) is kind
    assert error.transient is (status in {429, 500, 503})
    assert error.remedy or kind is errors.ServerError


def test_settings_come_from_arguments_then_environment_then_defaults():
    environ = {"DATASET_SERVER_URL": "https://data:1/root/", "DATASET_SERVER_TOKEN": "t", "DATASET_CACHE_DIR": "/c"}
    settings = resolve_settings(environ=environ)
    assert (settings.server_url, settings.token, settings.cache_dir) == ("https://data:1/root", "t", Path("/c"))
    assert resolve_settings(server_url="http://b", environ=environ).server_url == "http://b"
    defaults = resolve_settings(environ={"DATASET_SERVER_URL": ""})
    assert defaults.server_url == DEFAULT_SERVER_URL
    assert defaults.cache_dir.is_absolute()


def test_urls_are_relative_to_the_api():
    settings = resolve_settings(server_url="https://data/root", environ={})
    assert settings.url("datasets/x") == "https://data/root/api/v1/datasets/x"
    assert settings.url("https://s3/x") == "https://s3/x"
    url = settings.notifications_url({"a+b.zip": 0, "c.zip": 7})
    assert url == "wss://data/root/api/v1/notifications?topic=a%2Bb.zip&after=0&topic=c.zip&after=7"
    assert settings.is_own("https://data/other")
    assert not settings.is_own("http://data/root")


@pytest.mark.parametrize("url", ["data:8710", "ftp://data", "http://", "http://data?x=1", "http://data#x"])
def test_server_urls_that_cannot_be(url):
    with pytest.raises(errors.InvalidSettingError):
        resolve_settings(server_url=url, environ={})


@pytest.fixture(scope="module")
def dead_owner():
    """The temporary name of a process that has ended."""
    program = "from dataset_client.workspace import new_owner_name as n; print(n())"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("place", "lives", "age", "abandoned"),
    [("here", False, 0, True), ("here", True, 10, False), ("here", True, 1e6, True), ("there", False, 10, False),
     ("there", False, 1e6, True)],
)  # fmt: skip
def test_who_is_abandoned(tmp_path, dead_owner, monkeypatch, place, lives, age, abandoned):
    own = new_owner_name()
    where, pid, _ = (own if lives else dead_owner).split("-")
    owner = f"{where if place == 'here' else 'there'}-{pid}-{'0' * 12}"
    path = tmp_path / owner
    path.write_text("")
    now = time.time() + age
    monkeypatch.setattr("dataset_client.workspace.time.time", lambda: now)
    assert is_abandoned(path, owner) is abandoned


def test_an_old_file_that_its_owner_has_just_moved_is_not_abandoned(tmp_path):
    path = tmp_path / "sidecar"
    path.write_text("")
    os.utime(path, (1000.0, 1000.0))
    own = path.rename(tmp_path / new_owner_name())
    remove_abandoned(tmp_path)
    assert own.exists()


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="needs Linux")
def test_another_pid_namespace_or_boot_of_this_host_is_another_place():
    place = new_owner_name().split("-")[0]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    assert place.endswith(f"_{boot}_{os.stat('/proc/self/ns/pid').st_ino}")


def test_leftovers_of_dead_runs_are_removed_and_nothing_else(tmp_path, dead_owner):
    own = new_owner_name()
    for name in (dead_owner, own, "foreign"):
        (tmp_path / name).mkdir()
    (tmp_path / dead_owner / "file").write_text("x")
    (tmp_path / f"{dead_owner[:-12]}{'0' * 12}").write_text("a file, as write_atomically leaves it")
    remove_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {own, "foreign"}


def play(reporter):
    for number in range(1000):
        if number % 500 == 0:
            reporter.build_event(Event("t", number, 1, "state", {"state": f"state{number}"}))
        reporter.build_event(Event("t", number, 1, "progress", {"done": number, "total": 1000}))
    reporter.build_event(Event("t", 1000, 1, "ready", {}))
    reporter.download_starts("d.zip", total=2_000_000, done=0)
    for size in range(0, 2_000_001, 1000):
        reporter.downloaded(size)
    reporter.close()


def test_a_log_file_gets_a_few_lines():
    stream = io.StringIO()
    play(LineReporter(stream, clock=lambda: 0.0))
    assert stream.getvalue().splitlines() == [
        "dataset-client: state0",
        "dataset-client: state500",
        "dataset-client: ready",
        "dataset-client: downloading d.zip: 2.0 MB",
        "dataset-client: downloaded 2.0 of 2.0 MB",
    ]


def test_a_log_file_shows_life_every_half_minute():
    stream, now = io.StringIO(), [0.0]
    reporter = LineReporter(stream, clock=lambda: now[0])
    for second in range(100):
        now[0] = float(second)
        reporter.build_event(Event("t", 1, 1, "progress", {"done": second, "total": 100}))
    assert len(stream.getvalue().splitlines()) == 3


def test_a_terminal_gets_bars():
    stream = io.StringIO()
    play(BarReporter(stream))
    assert "state500" in stream.getvalue()
    assert "100%" in stream.getvalue()


def test_the_stream_chooses(capsys, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    assert isinstance(make_reporter(True, Terminal()), BarReporter)
    assert isinstance(make_reporter(True, io.StringIO()), LineReporter)
    assert isinstance(make_reporter(False, Terminal()), SilentReporter)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_reporter(True, Terminal()), LineReporter)
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", object())
    assert isinstance(make_reporter(True), BarReporter)
    assert isinstance(make_reporter(True, io.StringIO()), LineReporter)
    play(make_reporter(False))
    assert capsys.readouterr() == ("", "")


def test_several_at_once_have_a_bar_or_a_word_each():
    stream = io.StringIO()
    bars = [make_bar(stream, label, row) for row, label in enumerate(("duts", "coco"))]
    for bar in bars:
        bar.build_event(Event("t", 1, 1, "state", {"state": "building"}))
        bar.build_event(Event("t", 1, 1, "progress", {"done": 1, "total": 4}))
    for bar in bars:
        bar.note("a note")
        bar.close()
    assert all(word in stream.getvalue() for word in ("duts: building:  25%", "coco: building:  25%", "duts: a note"))
    lines = io.StringIO()
    LineReporter(lines, label="duts").note("a note")
    assert lines.getvalue() == "dataset-client: duts: a note\n"


def make_bar(stream, label, row):
    return BarReporter(stream, label=label, row=row)


def test_labels_are_as_short_as_they_can_be():
    one, two, three = (f"duts_v1_{'0' * start}{'1' * (32 - start)}.zip" for start in (2, 6, 7))
    assert short_labels(["coco_v1_" + "0" * 32 + ".zip", one]) == {
        "coco_v1_" + "0" * 32 + ".zip": "coco_v1",
        one: "duts_v1",
    }
    assert short_labels([one, two]) == {one: "duts_v1_0011", two: "duts_v1_0000"}
    assert short_labels([two, three])[three] == "duts_v1_00000001"


def test_a_notebook_without_ipywidgets_gets_bars_of_text():
    """As in a kernel's process: tqdm warns that ipywidgets are missing, and so would we, were it not silenced."""
    program = (
        "import sys, types, warnings; warnings.simplefilter('error');"
        "sys.modules['ipykernel.zmqshell'] = types.ModuleType('z');"
        "shell = types.SimpleNamespace; sys.modules['IPython'] = types.SimpleNamespace(get_ipython=shell);"
        "from dataset_client.progress import make_reporter; r = make_reporter(True);"
        "r.download_starts('d.zip', total=10, done=0); r.downloaded(10); r.note('n'); r.close()"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "100%" in run.stderr


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, b"<html>", SocketsBlockedError),
        (426, b"", SocketsBlockedError),
        (200, b"hello", SocketsBlockedError),
        (400, b'{"code": "malformed_request", "detail": "No WebSocket UPGRADE hdr: None"}', SocketsBlockedError),
        (400, b'{"code": "malformed_request", "detail": "no topic"}', errors.InvalidRequestError),
        (401, b"", errors.UnauthorizedError),
        (403, b'{"code": "forbidden"}', errors.UnauthorizedError),
        (429, b"", errors.ServerBusyError),
        (502, b"<html>", errors.ServerError),
    ],
)
def test_who_refuses_a_handshake(status, body, kind):
    assert type(error_of_handshake(status, {}, body, url="http://x")) is kind
