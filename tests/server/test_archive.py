"""The published zip, byte for byte what `zipfile` makes of the same files."""

import hashlib
import io
import json
import os
import threading
import zipfile
import zlib
from pathlib import Path

import pytest

from dataset_server.archive import MANIFEST, Sealed, complete_manifest, publish
from dataset_server.background import StoppedError
from dataset_server.errors import HandlerFaultError
from dataset_server.stored_zip import Member, StoredZip, end_records

LARGE = 5 << 30


def reference(folder, files, manifest, target) -> None:
    """An archive as earlier servers wrote it."""

    def member(name):
        info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
        info.external_attr, info.create_system = 0o644 << 16, 3
        return info

    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in files:
            if name != MANIFEST:
                with archive.open(member(name), "w") as out:
                    out.write((folder / name).read_bytes())
        with archive.open(member(MANIFEST), "w") as out:
            text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
            out.write(text.encode())


def sealed(path) -> Sealed:
    return Sealed(path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "dataset"
    folder.mkdir()
    files = {f"d-train.tfrecord-{number:05}-of-00003": bytes([number]) * (number * 700_000) for number in range(3)}
    files |= {"features.json": b"{}", MANIFEST: b"the handler's own, which is not taken"}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder, list(files)


def test_the_bytes_are_those_of_earlier_servers(dataset, tmp_path):
    folder, files = dataset
    manifest = {"name": "ü", "shards": [1, 2]}
    shards = {name: sealed(folder / name) for name in files if ".tfrecord" in name}
    made = publish(folder, files, manifest, shards, tmp_path / "new.zip", threading.Event())
    manifest["files"] = [{"file": "features.json", "bytes": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}]
    reference(folder, files, manifest, tmp_path / "old.zip")
    content = (tmp_path / "new.zip").read_bytes()
    assert content == (tmp_path / "old.zip").read_bytes()
    assert (made.size, made.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    for name, offset in made.offsets.items():
        whole = (folder / name).read_bytes()
        assert content[offset : offset + len(whole)] == whole
    with zipfile.ZipFile(tmp_path / "new.zip") as archive:
        assert archive.testzip() is None
        assert json.loads(archive.read(MANIFEST)) == manifest


CONTENT = bytes([1]) * 700_000


@pytest.mark.parametrize(
    "announced", [Sealed(len(CONTENT), "0" * 64), Sealed(len(CONTENT) + 100, hashlib.sha256(CONTENT).hexdigest())]
)
def test_a_shard_that_is_not_what_was_announced(dataset, tmp_path, announced):
    folder, files = dataset
    with pytest.raises(HandlerFaultError, match=files[1]) as caught:
        publish(folder, files, {}, {files[1]: announced}, tmp_path / "new.zip", threading.Event())
    assert caught.value.code == "shard_corrupt"
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"], "nothing half-made stays"


def test_a_name_as_long_as_names_can_be(dataset, tmp_path):
    publish(*dataset, {}, {}, tmp_path / f"{'n' * 251}.zip", threading.Event())
    assert {path.name for path in tmp_path.iterdir()} == {"dataset", f"{'n' * 251}.zip"}


def test_asked_to_stop_it_stops_and_leaves_nothing(dataset, tmp_path):
    folder, files = dataset
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        publish(folder, files, {}, {}, tmp_path / "new.zip", stop)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def _link(path) -> None:
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize("make", [_link, os.mkfifo, Path.mkdir])
def test_a_file_that_is_none(dataset, tmp_path, make):
    folder, files = dataset
    (folder / "features.json").unlink()
    make(folder / "features.json")
    with pytest.raises(HandlerFaultError, match="no regular file") as caught:
        publish(folder, files, {}, {}, tmp_path / "new.zip", threading.Event())
    assert caught.value.code == "handler_protocol"


WHOLE = {"config": {}, "environment": {}, "raw_data": {"sha256": "0" * 64}}


@pytest.mark.parametrize(
    "broken", [{}, {**WHOLE, "raw_data": []}, {**WHOLE, "config": {"a": 2**70}}, {**WHOLE, "config": {"a": "\ud800"}}]
)
def test_a_broken_manifest_is_the_handlers_fault(broken):
    assert complete_manifest(WHOLE, dataset_id="d", handler={})["provenance"]["raw_data_sha256"] == "0" * 64
    with pytest.raises(HandlerFaultError) as caught:
        complete_manifest(broken, dataset_id="d", handler={})
    assert caught.value.code == "handler_protocol"


@pytest.mark.parametrize("size", [0, 1, (1 << 31) - 1, 1 << 31, LARGE])
@pytest.mark.parametrize("header_at", [0, (1 << 31) - 1, 1 << 31, LARGE])
def test_headers_of_any_size(size, header_at):
    member = Member("name", size, zlib.crc32(b"x"), header_at)
    info = zipfile.ZipInfo("name", (1980, 1, 1, 0, 0, 0))
    info.external_attr, info.create_system = 0o644 << 16, 3
    info.file_size = info.compress_size = size
    info.CRC, info.header_offset = member.crc32, header_at
    assert member.local_header() == info.FileHeader(zip64=size > (1 << 31) - 1)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.filelist.append(info)
        archive.start_dir = 0
        archive._didModify = True
    assert written.getvalue() == member.central_header() + end_records(1, len(member.central_header()), 0)


def test_more_members_than_fit_without_zip64(tmp_path):
    with (tmp_path / "many.zip").open("wb") as out:
        made = StoredZip(out.write)
        for number in range(65_536):
            made.begin(f"{number}", 0, 0)
        made.finish()
    with zipfile.ZipFile(tmp_path / "many.zip") as archive:
        assert len(archive.namelist()) == 65_536
