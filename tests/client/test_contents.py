"""Archives that must not be believed."""

import hashlib
import io
import json
import stat
import warnings
import zipfile

import pytest
from client_archives import TestArchive, make_files, zip_files

from dataset_client import Dataset, errors
from dataset_client.contents import Tail, read_contents
from dataset_client.online import obtain


def link(name, target):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info, target


def deflated(name):
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info, b"0" * 1000


def contents_of(data, dataset_id, manifest=None, *, first=100):
    """What is read of an archive, whose manifest is announced to be this one."""
    if manifest is None:
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            manifest = opened.read("manifest.json")
    tail = Tail(len(data), lambda start, stop: data[start:stop], first=first)
    return read_contents(tail, dataset_id=dataset_id, manifest_sha256=hashlib.sha256(manifest).hexdigest())


def read(dataset_id, members):
    files = {name if isinstance(name, str) else name.filename: data for name, data in members}
    return contents_of(zip_files(members), dataset_id, files.get("manifest.json", b""))


@pytest.mark.parametrize("first", [1, 100, 1 << 20])
def test_where_everything_is(first):
    dataset_id, files = make_files()
    data = zip_files(files.items())
    contents = contents_of(data, dataset_id, first=first)
    found = {wanted.file: data[wanted.at : wanted.at + wanted.bytes] for wanted in contents.wanted}
    assert {**found, "manifest.json": contents.manifest_bytes} == files


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a/b", "..", ".hidden", "a\\b", "C:evil", "evil\n", "x" * 300]
)
def test_names_that_leave_the_directory_or_hide(name):
    dataset_id, files = make_files()
    with pytest.raises(errors.IntegrityError, match="forbidden name"):
        read(dataset_id, [*files.items(), (name, b"boo")])


@pytest.mark.parametrize(
    ("member", "match"),
    [(link("link", "/etc/passwd"), "link"), (deflated("bomb"), "not stored"), (("README", b""), "too many")],
)
def test_special_members(member, match):
    dataset_id, files = make_files()
    with pytest.raises(errors.IntegrityError, match=match):
        read(dataset_id, [*files.items(), member])


@pytest.mark.parametrize("twin", ["features.json", "Features.json"])
def test_duplicates(twin):
    dataset_id, files = make_files()
    # zipfile warns of a duplicate that it writes, so the name is changed afterwards
    data = zip_files([*files.items(), ("X" * len(twin), b"{}")]).replace(b"X" * len(twin), twin.encode())
    with pytest.raises(errors.IntegrityError, match="two members"):
        contents_of(data, dataset_id, files["manifest.json"])


def shard_name(files):
    return next(name for name in files if ".tfrecord" in name)


def test_a_missing_shard():
    dataset_id, files = make_files()
    files.pop(shard_name(files))
    with pytest.raises(errors.IntegrityError, match="lacks"):
        read(dataset_id, files.items())


def test_an_extra_shard():
    dataset_id, files = make_files()
    with pytest.raises(errors.IntegrityError, match="too many"):
        read(dataset_id, [*files.items(), ("x.tfrecord-0", b"")])


def test_a_shard_of_another_size_than_the_manifests():
    dataset_id, files = make_files()
    files[shard_name(files)] += b"x"
    with pytest.raises(errors.IntegrityError, match=r"the manifest says"):
        read(dataset_id, files.items())


def test_a_manifest_that_was_not_announced():
    dataset_id, files = make_files()
    with pytest.raises(errors.IntegrityError, match="announced"):
        contents_of(zip_files(files.items()), dataset_id, b"another")


def test_any_damage_of_the_end_is_noticed_or_harmless():
    """No sha256 is over the directory of an archive: what is read of it is right, or refused."""
    dataset_id, files = make_files()
    data = zip_files(files.items())
    right = contents_of(data, dataset_id)
    noticed = 0
    for offset in range(data.index(b"PK\x01\x02"), len(data)):
        wrong = bytearray(data)
        wrong[offset] ^= 1 << offset % 8
        try:
            with warnings.catch_warnings(action="ignore"):
                found = contents_of(bytes(wrong), dataset_id, files["manifest.json"])
        except (errors.IntegrityError, errors.ProtocolError):
            noticed += 1
            continue
        assert [(w.file, w.at, w.bytes, w.sha256) for w in found.wanted] == [
            (w.file, w.at, w.bytes, w.sha256) for w in right.wanted
        ]
    assert noticed > 100


def test_archives_whose_manifest_does_not_list_its_small_files():
    dataset_id, files = make_files(lists_files=False)
    contents = read(dataset_id, [*files.items(), ("README", b"me")])
    unlisted = {wanted.file for wanted in contents.wanted if wanted.sha256 is None}
    assert unlisted == {"features.json", "dataset_info.json", "lineage.jsonl", "README"}


async def test_their_small_files_are_checked_by_the_zips_own_checksum(topic, settings, request_, reporter):
    dataset_id, files = make_files(lists_files=False)
    topic.archive = TestArchive(dataset_id, zip_files(files.items()))
    cached = await obtain(request_, settings, reporter)
    Dataset(cached.path, cached.manifest, {}).verify()
    assert (cached.path / "features.json").read_bytes() == files["features.json"]
    wrong = topic.archive.data.replace(b"featuresDict", b"featuresDick", 1)
    topic.archive = TestArchive(dataset_id, wrong)
    with pytest.raises(errors.IntegrityError, match=r"features\.json"):
        await obtain(request_, settings, reporter)


@pytest.mark.parametrize("missing", ["manifest.json", "features.json", "dataset_info.json"])
def test_metadata_must_be_there(missing):
    dataset_id, files = make_files()
    files.pop(missing)
    with pytest.raises(errors.IntegrityError, match=missing):
        read(dataset_id, files.items())


def test_another_dataset():
    _, files = make_files()
    with pytest.raises(errors.IntegrityError, match="holds"):
        read("other_v1_" + "0" * 32 + ".zip", files.items())


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
def test_manifests_that_are_none(key, value, error):
    dataset_id, files = make_files()
    files["manifest.json"] = json.dumps(json.loads(files["manifest.json"]) | {key: value}).encode()
    with pytest.raises(error):
        read(dataset_id, files.items())


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x05\x06" + b"\xff" * 18])
def test_no_zip_at_all(data):
    with pytest.raises(errors.IntegrityError, match="damaged"):
        contents_of(data, "d", b"")


def test_a_directory_that_claims_to_be_the_whole_archive():
    tail = Tail(1 << 40, lambda start, stop: b"x" * (stop - start), first=100)
    with pytest.raises(errors.IntegrityError, match="too large"):
        tail.between(0, 10)


async def test_a_dangerous_archive_leaves_nothing_in_the_cache(topic, settings, request_, reporter):
    dataset_id, files = make_files()
    topic.archive = TestArchive(dataset_id, zip_files([*files.items(), ("../evil", b"")]))
    with pytest.raises(errors.IntegrityError, match="forbidden"):
        await obtain(request_, settings, reporter)
    for folder in ("datasets", "tmp", "topics", "downloads"):
        assert list((settings.cache_dir / folder).iterdir()) == []
