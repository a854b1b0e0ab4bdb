"""Archives that must not be believed."""

import json
import stat
import threading
import zipfile

import pytest
from client_archives import make_files, zip_files

from dataset_client import errors
from dataset_client.online import obtain
from dataset_client.unpack import unpack


def link(name, target):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info, target


def deflated(name):
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info, b"0" * 1000


@pytest.fixture
def target(tmp_path):
    directory = tmp_path / "inner" / "target"
    directory.mkdir(parents=True)
    return directory


def unpack_members(tmp_path, target, dataset_id, members):
    path = tmp_path / "a.zip"
    path.write_bytes(zip_files(members))
    return unpack(threading.Event(), path, target, dataset_id=dataset_id)


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a/b", "..", ".hidden", "a\\b", "C:evil", "evil\n", "x" * 300]
)
def test_names_that_leave_the_directory_or_hide(tmp_path, target, name):
    dataset_id, files = make_files()
    with pytest.raises(errors.IntegrityError, match="forbidden name"):
        unpack_members(tmp_path, target, dataset_id, [*files.items(), (name, b"boo")])
    assert not (tmp_path / "inner" / "evil").exists()
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(
    ("member", "match"),
    [(link("link", "/etc/passwd"), "link"), (deflated("bomb"), "not stored"), (("README", b""), None)],
)
def test_special_members(tmp_path, target, member, match):
    dataset_id, files = make_files()
    if match is None:
        unpack_members(tmp_path, target, dataset_id, [*files.items(), member])
        return
    with pytest.raises(errors.IntegrityError, match=match):
        unpack_members(tmp_path, target, dataset_id, [*files.items(), member])


@pytest.mark.parametrize("twin", ["features.json", "Features.json"])
def test_duplicates(tmp_path, target, twin):
    dataset_id, files = make_files()
    # zipfile warns of a duplicate that it writes, so the name is changed afterwards
    data = zip_files([*files.items(), ("X" * len(twin), b"{}")]).replace(b"X" * len(twin), twin.encode())
    path = tmp_path / "a.zip"
    path.write_bytes(data)
    with pytest.raises(errors.IntegrityError, match="two members"):
        unpack(threading.Event(), path, target, dataset_id=dataset_id)


def shard_name(files):
    return next(name for name in files if ".tfrecord" in name)


def test_a_missing_shard(tmp_path, target):
    dataset_id, files = make_files()
    files.pop(shard_name(files))
    with pytest.raises(errors.IntegrityError, match="lacks the shards"):
        unpack_members(tmp_path, target, dataset_id, files.items())


def test_an_extra_shard(tmp_path, target):
    dataset_id, files = make_files()
    with pytest.raises(errors.IntegrityError, match="too many"):
        unpack_members(tmp_path, target, dataset_id, [*files.items(), ("x.tfrecord-0", b"")])


@pytest.mark.parametrize("change", [lambda data: data + b"x", lambda data: bytes([data[0] ^ 1]) + data[1:]])
def test_a_shard_that_is_not_the_manifests(tmp_path, target, change):
    dataset_id, files = make_files()
    name = shard_name(files)
    files[name] = change(files[name])
    with pytest.raises(errors.IntegrityError, match=r"the manifest says"):
        unpack_members(tmp_path, target, dataset_id, files.items())


@pytest.mark.parametrize("missing", ["manifest.json", "features.json", "dataset_info.json"])
def test_metadata_must_be_there(tmp_path, target, missing):
    dataset_id, files = make_files()
    files.pop(missing)
    with pytest.raises(errors.IntegrityError, match=missing):
        unpack_members(tmp_path, target, dataset_id, files.items())


def test_another_dataset(tmp_path, target):
    _, files = make_files()
    with pytest.raises(errors.IntegrityError, match="holds"):
        unpack_members(tmp_path, target, "other_v1_" + "0" * 32 + ".zip", files.items())


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("format", 2, errors.ProtocolError),
        ("shards", [{"file": "../x", "split": "s", "examples": 1, "bytes": 1, "sha256": ""}], errors.IntegrityError),
        ("shards", None, errors.IntegrityError),
        ("splits", {}, errors.IntegrityError),
        ("splits", [], errors.IntegrityError),
    ],
)
def test_manifests_that_are_none(tmp_path, target, key, value, error):
    dataset_id, files = make_files()
    files["manifest.json"] = json.dumps(json.loads(files["manifest.json"]) | {key: value}).encode()
    with pytest.raises(error):
        unpack_members(tmp_path, target, dataset_id, files.items())


def test_an_archive_that_vanished(tmp_path, target):
    with pytest.raises(errors.CacheError, match=r"gone\.zip"):
        unpack(threading.Event(), tmp_path / "gone.zip", target, dataset_id="d")


def test_no_zip_at_all(tmp_path, target):
    path = tmp_path / "a.zip"
    path.write_bytes(b"no zip")
    with pytest.raises(errors.IntegrityError, match="damaged"):
        unpack(threading.Event(), path, target, dataset_id="d")


async def test_a_dangerous_archive_leaves_nothing_in_the_cache(topic, settings, request_, reporter):
    from client_archives import TestArchive

    dataset_id, files = make_files()
    topic.archive = TestArchive(dataset_id, zip_files([*files.items(), ("../evil", b"")]))
    with pytest.raises(errors.IntegrityError, match="forbidden"):
        await obtain(request_, settings, reporter)
    for folder in ("datasets", "tmp", "topics", "downloads"):
        assert list((settings.cache_dir / folder).iterdir()) == []
