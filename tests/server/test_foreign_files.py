"""What a handler leaves is read without trust, and removed whatever it is."""

import contextlib
import itertools
import os
from pathlib import Path

import pytest

from dataset_server.durable import read_bounded, remove_tree, temporary_folder
from dataset_server.errors import HandlerFaultError
from dataset_server.handler_events import loads_foreign, parse_event

DEEPER_THAN_PYTHON_RECURSES = 3000


def deep(folder: Path) -> None:
    """Folders in folders, with a file in the last."""
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        for _ in range(DEEPER_THAN_PYTHON_RECURSES):
            os.mkdir("d")
            os.chdir("d")
        Path("last").write_text("x")
    finally:
        os.fchdir(before)
        os.close(before)


def test_anything_can_be_removed(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    with temporary_folder("dataset-test-") as folder:
        deep(folder)
        (folder / "link").symlink_to(kept)
        os.mkfifo(folder / "pipe")
        (folder / "locked" / "in").mkdir(parents=True)
        (folder / "locked" / "in" / "file").write_text("x")
        (folder / "locked" / "in").chmod(0)
        (folder / "locked").chmod(0)
    assert not folder.exists()
    assert (kept / "file").read_text() == "x", "links are removed, not followed"
    remove_tree(kept / "file")
    (tmp_path / "link").symlink_to(kept)
    remove_tree(tmp_path / "link")
    remove_tree(tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == [kept]


def test_a_folder_is_emptied_though_names_are_passed_over(tmp_path, monkeypatch):
    """As a file system may where names go while others are read (readdir(3)); and not all need to be held at once."""
    for folder in (tmp_path / "tree", tmp_path / "tree" / "in"):
        for number in range(10):
            (folder / f"folder {number}").mkdir(parents=True)
            (folder / f"file {number}").touch()
    scan = os.scandir

    @contextlib.contextmanager
    def some(folder):
        with scan(folder) as entries:
            yield itertools.islice(entries, 12)

    monkeypatch.setattr(os, "scandir", some)
    remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_what_cannot_be_removed_raises_nothing(tmp_path, monkeypatch, caplog):
    (tmp_path / "tree" / "in").mkdir(parents=True)
    (tmp_path / "tree" / "file").write_text("x")

    def refuse(*_, **__):
        raise PermissionError("no")

    monkeypatch.setattr(os, "unlink", refuse)
    remove_tree(tmp_path / "tree")
    assert "cannot be removed" in caplog.text
    assert not (tmp_path / "tree" / "in").exists()


def _link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize("make", [_link, os.mkfifo, Path.mkdir, _sparse])
def test_what_is_no_plain_small_file_is_not_read(tmp_path, make):
    path = tmp_path / "note"
    make(path)
    with pytest.raises(HandlerFaultError, match="note") as caught:
        read_bounded(path, 64)
    assert caught.value.code == "handler_protocol"


def test_a_small_file_is_read(tmp_path):
    (tmp_path / "note").write_bytes(b"x" * 64)
    assert read_bounded(tmp_path / "note", 64) == b"x" * 64
    with pytest.raises(HandlerFaultError):
        read_bounded(tmp_path / "note", 63)
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "nothing", 64)


@pytest.mark.parametrize(
    "content", [b"NaN", b"[-Infinity]", b'{"a": 1e999}', b"[" * 100_000, b"\xff", b"1" * 5000, b""]
)
def test_what_is_no_json_is_the_handlers_fault(content):
    with pytest.raises(HandlerFaultError) as caught:
        loads_foreign(content, "a plan")
    assert caught.value.code == "handler_protocol"
    with pytest.raises(HandlerFaultError):
        parse_event(b'{"event": "described", "more": ' + content + b"}")


def test_faults_are_what_clients_are_told_they_are():
    fault = parse_event(b'{"event": "error", "code": "config_refused", "faults": [{"path": "/a", "reason": "b"}]}')
    assert [one.model_dump() for one in fault.faults] == [{"path": "/a", "reason": "b"}]
    for faults in (b'[{"field": "a", "msg": "b"}]', b'[{"path": "/a", "reason": 1}]', b'"a"'):
        with pytest.raises(HandlerFaultError) as caught:
            parse_event(b'{"event": "error", "code": "config_refused", "faults": ' + faults + b"}")
        assert caught.value.code == "handler_protocol"
