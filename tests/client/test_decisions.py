"""The pure parts: plans, delays, settings, names, what a refusal means, what is shown."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataset_client import errors
from dataset_client.answers import Archive
from dataset_client.backoff import Retries, RetryPolicy
from dataset_client.parts import remove_stale
from dataset_client.plan import plan_download
from dataset_client.problems import error_from_response, parse_retry_after
from dataset_client.progress import BarReporter, LineReporter, SilentReporter, make_reporter
from dataset_client.protocol import Event
from dataset_client.settings import DEFAULT_SERVER_URL, resolve_settings
from dataset_client.workspace import is_abandoned, new_owner_name, remove_abandoned

OFFER = Archive("d", "u", 100, "0" * 64)


@pytest.mark.parametrize(
    ("partial", "resume_from", "disk"), [(0, 0, 200), (30, 30, 170), (100, 100, 100), (101, 0, 200)]
)
def test_a_download_resumes_what_is_here_and_needs_room_for_the_rest(partial, resume_from, disk):
    assert plan_download(OFFER, partial_bytes=partial, free_bytes=disk) == resume_from
    with pytest.raises(errors.CacheError, match="GB free") as caught:
        plan_download(OFFER, partial_bytes=partial, free_bytes=disk - 1)
    assert caught.value.code == "disk_full"


def test_parts_that_nobody_continues_are_removed_after_a_week(tmp_path):
    for name, days in (("old.part", 8), ("new.part", 6)):
        (tmp_path / name).write_text("x")
        when = time.time() - days * 24 * 3600
        os.utime(tmp_path / name, (when, when))
    remove_stale(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new.part"]


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


@pytest.mark.parametrize("value", ["301", "9" * 400])
def test_a_server_that_wants_a_longer_wait_than_allowed_is_given_up(value):
    retries = Retries(RetryPolicy(max_retry_after_s=300))
    refusal = error_from_response(503, {"Retry-After": value}, b"", url="http://x")
    for ask in (retries.delay_after, retries.next_delay):
        with pytest.raises(errors.ServerBusyError):
            ask(refusal)


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
    assert settings.notifications_url("a+b.zip") == "wss://data/root/api/v1/notifications?topic=a%2Bb.zip&after=0"
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
def test_who_is_abandoned(tmp_path, dead_owner, place, lives, age, abandoned):
    own = new_owner_name()
    where, pid, _ = (own if lives else dead_owner).split("-")
    owner = f"{where if place == 'here' else 'there'}-{pid}-{'0' * 12}"
    path = tmp_path / owner
    path.write_text("")
    os.utime(path, (time.time() - age,) * 2)
    assert is_abandoned(path, owner) is abandoned


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


def test_the_stream_chooses(capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    assert isinstance(make_reporter(True, Terminal()), BarReporter)
    assert isinstance(make_reporter(True, io.StringIO()), LineReporter)
    assert isinstance(make_reporter(False, Terminal()), SilentReporter)
    play(make_reporter(False))
    assert capsys.readouterr() == ("", "")
