"""What an operator does: reading logs, checking, backing up, restoring, scrubbing; by the real commands."""

import contextlib
import datetime
import errno
import json
import logging
import os
import re
import resource
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests
import trustme
from hypothesis import given
from hypothesis import strategies as st

from dataset_server import logs
from dataset_server.__main__ import main
from dataset_server.backup import BackupError, back_up, restore
from dataset_server.checks import database, everything, machine, storage
from dataset_server.checks.finding import failed
from dataset_server.checks.machine import containment, judge_clock
from dataset_server.checks.storage import Space, file_system, judge_space
from dataset_server.credentials import masked
from dataset_server.logs import JsonFormatter, TextFormatter, log_context, request_id
from dataset_server.migrations import head
from dataset_server.settings import load_settings
from dataset_server.store.inspection import Inspection, copy_database, mark_evicted
from tests.support import ROOT, Server, git, wait_until

GIB = 1 << 30


# -- logs


def record(message: str, *arguments: object, error: BaseException | None = None) -> logging.LogRecord:
    exc_info = (type(error), error, None) if error else None
    return logging.LogRecord("dataset_server.builds", logging.WARNING, "f.py", 1, message, arguments, exc_info)


def test_a_line_says_whose_it_is():
    with log_context(request="r1", topic="t1"), log_context(build="b1", client=""):
        text = TextFormatter().format(record("%d shards", 3))
        line = json.loads(JsonFormatter().format(record("%d shards", 3)))
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING dataset_server\.builds "
        r"\[request=r1 topic=t1 build=b1\]: 3 shards",
        text,
    )
    when = datetime.datetime.fromisoformat(line.pop("time"))
    assert when.utcoffset() == datetime.timedelta(0)
    assert line == {
        "level": "warning",
        "logger": "dataset_server.builds",
        "message": "3 shards",
        "request": "r1",
        "topic": "t1",
        "build": "b1",
    }
    assert logs.current_ids() == {}


def test_an_exception_is_told_whole():
    line = json.loads(JsonFormatter().format(record("failed", error=ValueError("the reason"))))
    assert "ValueError: the reason" in line["exception"]
    assert TextFormatter().format(record("failed", error=ValueError("the reason"))).endswith("ValueError: the reason")


@given(st.text())
def test_nobody_forges_a_line(message):
    assert len(TextFormatter().format(record("%s", message)).splitlines()) == 1
    assert len(JsonFormatter().format(record("%s", message)).splitlines()) == 1


@pytest.mark.parametrize("sane", ["a", "0123456789abcdef" * 4, "req-1._Z"])
def test_a_sane_request_id_is_kept(sane):
    assert request_id(sane) == sane


@pytest.mark.parametrize("insane", [None, "", "a" * 65, "a b", "a\nb", "ä", "a[topic=x]"])
def test_any_other_is_replaced(insane):
    assert re.fullmatch("[0-9a-f]{32}", request_id(insane))


# -- what checks decide


def test_space_is_judged_by_what_is_free():
    assert judge_space(Space(GIB - 1, 1000 * GIB)).level == "failed"
    assert judge_space(Space(9 * GIB, 20 * GIB)).level == "warning"
    assert judge_space(Space(40 * GIB, 1000 * GIB)).level == "warning"
    assert judge_space(Space(60 * GIB, 1000 * GIB)).level == "ok"


def test_the_clock_is_judged_by_what_else_knows_the_time():
    now = 1.9e9
    assert judge_clock(now, now - 1, now - 1).level == "ok"
    assert judge_clock(now, now + 20, None).level == "warning"
    assert judge_clock(now, now, now + 3600).level == "warning"
    assert judge_clock(86400.0, 86400.0, None).level == "failed"


def test_folders_that_handlers_shall_read_and_are_not_there(tmp_path):
    settings = load_settings(raw_root=tmp_path, data_dir=tmp_path.parent / "data", handler_reads=[tmp_path / "models"])
    assert any(str(tmp_path / "models") in finding.message for finding in containment(settings))
    (tmp_path / "models").mkdir()
    assert not any(str(tmp_path / "models") in finding.message for finding in containment(settings))


def test_where_others_get_in_a_token_is_asked_for():
    assert machine.openness(None, has_token=False).level == "ok"
    assert machine.openness("listening on 0.0.0.0", has_token=True).level == "ok"
    assert machine.openness("with public_origins", has_token=False).level == "failed"


def test_open_files_are_judged_by_what_connections_need():
    assert machine.judge_open_files(5096, 4096).level == "ok"
    assert machine.judge_open_files(5095, 4096).level == "warning"
    assert machine.judge_open_files(resource.RLIM_INFINITY, 4096).level == "ok"


def test_a_server_may_open_as_many_files_as_its_user_may():
    code = (
        "import resource; from dataset_server.connections import allow_open_files;"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1];"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard)); allow_open_files();"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


async def test_what_may_not_be_looked_at_is_a_finding(monkeypatch, tmp_path):
    """As it is for the wrong user; root may look at everything."""

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))

    for found in await everything._looked("data folder", refuse), await everything._looked("tls", refuse):
        assert [item.level for item in found] == ["failed"]
        assert "user" in found[0].remedy
    monkeypatch.setattr(Path, "stat", refuse)
    found, inspection = database.inspect_file(tmp_path / "server.db")
    assert ([item.level for item in found], inspection) == (["failed"], None)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("git+https://me:word@example.org/f.git@{version}", "git+https://***@example.org/f.git@{version}"),
        ("fatal: https://token@example.org/f.git not found", "fatal: https://***@example.org/f.git not found"),
        ("postgresql+asyncpg://me:a@b/c@db:5432/x", "postgresql+asyncpg://***@db:5432/x"),
        ("https://example.org/f.git@{version}", "https://example.org/f.git@{version}"),
        ("me@example.org, see https://example.org/", "me@example.org, see https://example.org/"),
        ("a ssh://git@one/x and https://u:p@two/y", "a ssh://***@one/x and https://***@two/y"),
    ],
)
def test_addresses_are_shown_without_credentials(text, shown):
    assert masked(text) == shown
    assert failed("handlers", text, "").message == shown


def test_the_mount_that_holds_a_path_is_found(tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        f"40 22 0:50 / {tmp_path} rw - tmpfs tmpfs rw\n"
        f"41 40 0:51 / {tmp_path}/with\\040space rw shared:2 - nfs4 server:/export rw,vers=4.2\n"
    )
    assert file_system(Path("/nowhere"), table) == "ext4"
    assert file_system(tmp_path / "data", table) == "tmpfs"
    assert file_system(tmp_path / "with space" / "data", table) == "nfs4"
    assert file_system(tmp_path, tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("kind", "is_network"), [("nfs4", True), ("cifs", True), ("fuse.sshfs", True), ("ext4", False)]
)
def test_network_file_systems_are_known(kind, is_network):
    assert bool(storage._NETWORK.fullmatch(kind)) == is_network


def test_a_database_is_judged_by_its_faults_revision_and_leases():
    living = {"living": True, "dead": False}

    def levels(*arguments):
        return [(item.check, item.level) for item in database.judge(Inspection(*arguments), living)]

    assert levels([], head(), {"living": 2}, None) == [("database", "ok")]
    assert levels([], head(), {"living": 2, "dead": 1}, None) == [("database", "ok"), ("leases", "warning")]
    assert levels([], "0001", {}, None) == [("database", "warning")]
    assert levels([], "9999", {}, None) == [("database", "failed")]
    assert levels(["row 3 missing from index"], head(), {}, None) == [("database", "failed")]


def test_a_certificate_is_tried_before_clients_do(tmp_path):
    def write(name: str, **validity) -> tuple[Path, Path]:
        issued = trustme.CA().issue_cert("data.example.org", **validity)
        certificate, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        return certificate, key

    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    good = write("good", not_before=now - day, not_after=now + 90 * day)
    soon = write("soon", not_before=now - day, not_after=now + 3 * day)
    over = write("over", not_before=now - 9 * day, not_after=now - day)
    assert [item.level for item in machine.certificate(*good)] == ["ok"]
    assert [item.level for item in machine.certificate(*soon)] == ["warning"]
    assert [item.level for item in machine.certificate(*over)] == ["failed"]
    assert [item.level for item in machine.certificate(good[0], soon[1])] == ["failed"]
    assert [item.level for item in machine.certificate(good[0], tmp_path / "none")] == ["failed"]


# -- the commands, beside a server that has made a dataset


@pytest.fixture(scope="module")
def made(server) -> dict:
    ready = server.make("tones", {"count": 6}, version="1.0")
    assert ready["kind"] == "ready", ready
    return ready


def of(server: Server) -> list[str]:
    config = server.data_dir / "test-settings.toml"
    return ["--config", str(config), "--raw-root", str(server.raw_root), "--data-dir", str(server.data_dir)]


def findings(capsys, *arguments: str) -> tuple[int, list[dict]]:
    status = main(["check", "--json", *arguments])
    return status, json.loads(capsys.readouterr().out)["findings"]


def test_check_finds_nothing_wrong_with_a_server_that_runs(server, made, capsys):
    port = server.url.rpartition(":")[2]
    status, found = findings(capsys, *of(server), "--port", port)
    assert status == 0, found
    assert {"settings", "python", "uv", "git", "data folder", "disk", "raw data", "database", "clock"} <= {
        item["check"] for item in found
    }
    (in_use,) = [item for item in found if item["check"] == "port"]
    assert "while the server runs" in in_use["message"]


def test_check_names_every_fault_with_a_remedy(tmp_path, raw_root, capsys):
    repository = tmp_path / "repository"
    repository.mkdir()
    git("init", "--quiet", cwd=repository)
    git("commit", "--quiet", "--allow-empty", "--message", "first", cwd=repository)
    config = tmp_path / "server.toml"
    config.write_text(
        f'[handlers.here]\nsource = "git+file://{repository}@{{version}}"\n'
        f'[handlers.gone]\nsource = "git+file://{tmp_path / "gone"}@{{version}}"\n'
    )
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "server.db").write_bytes(b"this is no database, though it is long enough to look like one" * 100)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        options = ["--config", str(config), "--raw-root", str(raw_root), "--data-dir", str(data_dir), "--port", port]
        status, found = findings(capsys, *options)
    failures = {(item["check"], item["message"].partition(":")[0]) for item in found if item["level"] == "failed"}
    assert status == 1
    assert {check for check, _ in failures} == {"database", "handlers", "port"}
    assert ("handlers", "gone") in failures
    assert any(item["message"].startswith("here: ") and item["level"] == "ok" for item in found)
    assert all(item["remedy"] for item in found if item["level"] != "ok")
    assert not list(data_dir.glob(".check*"))


def test_check_lists_what_is_wrong_with_the_settings(tmp_path, capsys):
    status, found = findings(capsys, "--data-dir", str(tmp_path), "--port", "70000")
    messages = [item["message"].partition(":")[0] for item in found if item["level"] == "failed"]
    assert (status, sorted(messages)) == (1, ["port", "raw_root"])


def test_a_backup_of_a_running_server_becomes_a_server(server, made, tmp_path, make_server, capsys):
    assert main(["backup", str(tmp_path / "backup"), "--archives", *of(server)]) == 0
    assert "0 archives are not in it" in capsys.readouterr().out
    assert main(["restore", str(tmp_path / "backup"), "--data-dir", str(tmp_path / "restored")]) == 0
    other = make_server("restored", handlers=server.handlers, settings=server.settings)
    answer = other.post("tones", {"count": 6}, "1.0")
    assert answer.status_code == 200, answer.text
    archive = answer.json()["archive"]
    assert archive["sha256"] == made["archive"]["sha256"]
    assert len(requests.get(f"{other.api}/{archive['url']}", timeout=60).content) == archive["bytes"]


def test_what_was_not_backed_up_is_made_again(server, made, tmp_path, make_server):
    assert main(["backup", str(tmp_path / "backup"), *of(server)]) == 0
    assert main(["restore", str(tmp_path / "backup"), "--data-dir", str(tmp_path / "restored")]) == 0
    other = make_server("restored", handlers=server.handlers, settings=server.settings)
    assert other.get(f"datasets/{made['dataset_id']}").json()["state"] == "evicted"
    again = other.make("tones", {"count": 6}, version="1.0")
    assert (again["kind"], again["archive"]["sha256"]) == ("ready", made["archive"]["sha256"])


def test_secrets_stay_out_of_a_backup(server, made, tmp_path, monkeypatch):
    monkeypatch.setenv("DATASET_SERVER_TOKEN", "a-secret-of-some-length")
    monkeypatch.setenv(
        "DATASET_SERVER_HANDLERS", '{"f": {"source": "git+https://me:hidden-word@example.org/f.git@{version}"}}'
    )
    assert main(["backup", str(tmp_path / "backup"), *of(server)]) == 0
    text = (tmp_path / "backup" / "settings.json").read_text()
    assert "example.org/f.git" in text
    assert "a-secret" not in text
    assert "hidden-word" not in text


def test_what_versions_are_locked_to_survives(server, made, tmp_path, monkeypatch):
    """After a restore the same environments are made, also of what has no lock of its own."""
    monkeypatch.setenv("DATASET_SERVER_ENVIRONMENTS_DIR", str(server.environments_dir))
    assert main(["backup", str(tmp_path / "backup"), *of(server)]) == 0
    restore(tmp_path / "backup", tmp_path / "restored")
    known = sorted(path for kind in ("version", "reference") for path in server.environments_dir.glob(f"{kind}-*.json"))
    assert {path.name.partition("-")[0] for path in known} == {"version", "reference"}
    for path in known:
        copy = tmp_path / "restored" / "environments" / path.name
        assert copy.read_bytes() == path.read_bytes()
        assert copy.stat().st_mtime_ns == path.stat().st_mtime_ns, "when that was found out"


def test_rotten_archives_are_named_and_left_out(server, made, tmp_path, capsys):
    aside = tmp_path / "data"
    assert main(["backup", str(tmp_path / "first"), "--archives", *of(server)]) == 0
    restore(tmp_path / "first", aside)
    (archive,) = (aside / "archives").glob("*.zip")
    flip_a_byte(archive)
    arguments = ["--config", of(server)[1], "--raw-root", str(server.raw_root), "--data-dir", str(aside)]
    assert main(["backup", str(tmp_path / "second"), "--archives", *arguments]) == 1
    assert made["dataset_id"] in capsys.readouterr().err
    assert not list((tmp_path / "second" / "archives").glob("*.zip"))
    assert main(["scrub", *arguments]) == 1
    assert archive.stem in capsys.readouterr().out
    assert main(["scrub", *arguments]) == 0


def flip_a_byte(path: Path) -> None:
    """In a new file: a backup's archives are second names of the server's own."""
    content = bytearray(path.read_bytes() or b"x")
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


@pytest.fixture
def backup(server, made, tmp_path) -> Path:
    assert main(["backup", str(tmp_path / "backup"), "--archives", *of(server)]) == 0
    return tmp_path / "backup"


def test_a_backup_that_is_not_whole_is_refused(backup, tmp_path):
    target = tmp_path / "restored"
    for path in [path for path in backup.rglob("*") if path.is_file() and path.name != "backup.json"]:
        content = path.read_bytes()
        flip_a_byte(path)
        with pytest.raises(BackupError, match="is not what was backed up"):
            restore(backup, target)
        path.unlink()
        with pytest.raises(BackupError, match="is missing"):
            restore(backup, target)
        path.write_bytes(content)
    assert not target.exists()
    assert not list(tmp_path.glob("*.partial"))
    restore(backup, target)
    with pytest.raises(BackupError, match="not empty"):
        restore(backup, target)


def test_a_folder_that_is_there_is_filled_from_within(backup, tmp_path, monkeypatch):
    """As systemd and containers have it: who restores may not write beside the data folder."""
    target = tmp_path / "closed" / "data"
    target.mkdir(parents=True)
    before = target.parent.stat().st_mtime_ns
    appeared, real = [], Path.rename

    def rename(path, to):
        appeared.append(to.name)
        return real(path, to)

    monkeypatch.setattr(Path, "rename", rename)
    restore(backup, target)
    assert target.parent.stat().st_mtime_ns == before, "nothing was made or renamed there"
    assert sorted(path.name for path in target.iterdir()) == ["archives", "environments", "server.db"]
    assert appeared[-1] == "server.db", "no server begins with half of it"
    assert list((target / "archives").glob("*.zip"))


def test_a_restore_knows_no_superseded_archives(backup, tmp_path):
    """Their files are in no backup."""
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        with contextlib.closing(sqlite3.connect(backup / "server.db")) as db:
            db.backup(copy)
        with copy:
            columns = [row[1] for row in copy.execute("PRAGMA table_info(revisions)")]
            values = {"dataset_id": "x", "sha256": "", "manifest": "{}", "shards": "[]"}
            row = [values.get(column, 1) for column in columns]
            copy.execute(f"INSERT INTO revisions VALUES ({', '.join('?' * len(row))})", row)
    mark_evicted(tmp_path / "copy.db", [])
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT count(*) FROM revisions").fetchone() == (0,)


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"database_revision": "9999"}, {"files": {"../escape": {"bytes": 1, "sha256": ""}}}]
)
def test_a_backup_of_a_later_server_is_refused(backup, tmp_path, change):
    manifest = backup / "backup.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **change}))
    with pytest.raises(BackupError):
        restore(backup, tmp_path / "restored")
    assert main(["restore", str(backup), "--data-dir", str(tmp_path / "restored")]) == 1
    assert not (tmp_path / "restored").exists()


def test_a_copy_is_of_one_moment(tmp_path):
    """Pairs are written while copies are made: no copy has half a pair."""
    source = tmp_path / "source.db"
    with sqlite3.connect(source) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript("CREATE TABLE a (n); CREATE TABLE b (n);")
    db.close()
    stop, written = threading.Event(), 0

    def write() -> None:
        nonlocal written
        db = sqlite3.connect(source, timeout=30)
        while not stop.is_set():
            with db:
                db.execute("INSERT INTO a VALUES (?)", (written,))
                db.execute("INSERT INTO b VALUES (?)", (written,))
            written += 1
        db.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(10):
            assert wait_until(lambda seen=written: written > seen)
            copy_database(source, tmp_path / f"{number}.db")
    finally:
        stop.set()
        writer.join()
    for number in range(10):
        db = sqlite3.connect(tmp_path / f"{number}.db")
        (first,), (second,) = (db.execute(f"SELECT count(*) FROM {table}").fetchone() for table in "ab")
        db.close()
        assert first == second > 0


def test_a_database_of_another_revision_is_not_backed_up(tmp_path):
    db = sqlite3.connect(tmp_path / "server.db")
    db.executescript("CREATE TABLE alembic_version (version_num); INSERT INTO alembic_version VALUES ('9999');")
    db.close()
    with pytest.raises(BackupError, match="revision 9999"):
        back_up(tmp_path / "server.db", "{}", tmp_path / "backup", tmp_path / "environments", None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["server.db"]


@pytest.mark.parametrize("revision", ["0001", "9999"])
@pytest.mark.parametrize("command", [["token", "list"], ["token", "revoke", "0"], ["scrub"]])
def test_commands_leave_the_database_of_another_version_alone(tmp_path, raw_root, capsys, command, revision):
    """A server of that version may be using it."""
    file = tmp_path / "server.db"
    with contextlib.closing(sqlite3.connect(file)) as db, db:
        db.execute("CREATE TABLE alembic_version (version_num)")
        db.execute("INSERT INTO alembic_version VALUES (?)", [revision])
    assert main([*command, "--raw-root", str(raw_root), "--data-dir", str(tmp_path)]) == 1
    assert f"revision {revision}" in capsys.readouterr().err
    with contextlib.closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT version_num FROM alembic_version").fetchall() == [(revision,)]
        assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)


# -- the command line


@pytest.mark.parametrize("command", ["serve", "check", "backup", "restore", "scrub", "token", "openapi"])
def test_help_shows_examples(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"dataset-server {command}" in capsys.readouterr().out.partition("example")[2]


def test_wrong_settings_are_wrong_usage(tmp_path, capsys):
    for command in (["serve"], ["backup", str(tmp_path / "backup")], ["scrub"]):
        assert main([*command, "--data-dir", str(tmp_path)]) == 2
        assert "raw_root" in capsys.readouterr().err


def test_the_document_is_printed(server, capsys):
    assert main(["openapi"]) == 0
    assert json.loads(capsys.readouterr().out) == server.get("openapi.json").json()


# -- a server's log


def test_requests_and_builds_can_be_followed_through_the_log(make_server, plugin_sources):
    server = make_server(handlers=plugin_sources, settings={"log_format": "json"})
    body = {"dataset_name": "tones", "handler_version": "1.0", "dataset_config": {"count": 3}}
    answer = requests.post(f"{server.api}/datasets", json=body, headers={"X-Request-Id": "from-the-test"}, timeout=120)
    assert answer.headers["X-Request-Id"] == "from-the-test"
    topic = answer.json()["topic_id"]
    ready = server.events(topic)[-1]
    assert ready["kind"] == "ready", ready
    missing = requests.get(f"{server.url}/nothing", headers={"X-Request-Id": "not sane"}, timeout=60)
    assert missing.status_code == 404
    made_up = missing.headers["X-Request-Id"]
    assert re.fullmatch("[0-9a-f]{32}", made_up)

    def lines() -> list[dict]:
        return [json.loads(line) for line in (server.data_dir / "test-server.log").read_text().splitlines()]

    def access(request: str) -> list[dict]:
        return [line for line in lines() if line["logger"] == "dataset_server.access" and line["request"] == request]

    assert wait_until(lambda: access(made_up))
    (post,) = access("from-the-test")
    assert re.fullmatch(r"POST /api/v1/datasets 202 \d+ bytes [\d.]+ ms", post["message"])
    assert access(made_up)[0]["message"].startswith("GET - 404 ")
    assert [line for line in lines() if line.get("topic") == topic]
    assert [line for line in lines() if line.get("build") == ready["data"]["dataset_id"]]
    assert all(abs(datetime.datetime.fromisoformat(line["time"]).timestamp() - time.time()) < 3600 for line in lines())
