"""Handler versions side by side: tags of a git repository, commits, and what they mean."""

import io
import shutil
import zipfile

import pytest
import requests
from PIL import Image

from dataset_handlers.example_proto import decode_example
from dataset_handlers.tfrecord import read_records
from tests.support import PLUGINS, git


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A git repository with the `tones` handler below a folder: v1 is dark, v2 is bright; a branch moves on."""
    root = tmp_path_factory.mktemp("repository")
    git("init", "--quiet", "--initial-branch", "main", cwd=root)
    shutil.copytree(PLUGINS / "tones", root / "handlers")
    module = root / "handlers" / "src" / "tones_plugin.py"
    for tag, level in (("v1", 10), ("v2", 200)):
        module.write_text(module.read_text().replace("LEVEL = 10", f"LEVEL = {level}"))
        git("add", "-A", cwd=root)
        git("commit", "--quiet", "-m", tag, cwd=root)
        git("tag", "-a", tag, "-m", tag, cwd=root)
    return root


@pytest.fixture
def git_server(make_server, repository):
    return make_server(handlers={"tones": f"git+file://{repository}@{{version}}#subdirectory=handlers"})


def levels(server, dataset_id: str) -> set[int]:
    archive = zipfile.ZipFile(
        io.BytesIO(requests.get(f"{server.api}/datasets/{dataset_id}/archive", timeout=60).content)
    )
    seen = set()
    for name in archive.namelist():
        if ".tfrecord" in name:
            path = server.data_dir / name
            path.write_bytes(archive.read(name))
            for record in read_records(path):
                with Image.open(io.BytesIO(decode_example(record)["image"][0])) as picture:
                    seen.add(picture.getpixel((0, 0))[0])
    return seen


def test_two_tags_both_build_both_stay(git_server, repository):
    first = git_server.make("tones", {"count": 20}, version="v1")
    second = git_server.make("tones", {"count": 20}, version="v2")
    assert levels(git_server, first["dataset_id"]) == {10, 11, 12}
    assert levels(git_server, second["dataset_id"]) == {200, 201, 202}
    # Both are still there, and the first environment still makes new datasets.
    third = git_server.make("tones", {"count": 20, "brighter": 5}, version="v1")
    assert levels(git_server, third["dataset_id"]) == {15, 16, 17}
    assert git_server.post("tones", {"count": 20}, version="v1").status_code == 200
    commit = git("rev-parse", "v1^{commit}", cwd=repository)
    assert commit in first["dataset_id"]
    by_commit = git_server.make("tones", {"count": 20}, version=commit)
    assert by_commit["dataset_id"] == first["dataset_id"], "a tag and its commit are one dataset"
    manifest = git_server.get(f"datasets/{first['dataset_id']}/manifest").json()
    assert manifest["handler"]["version"] == commit


def test_versions_that_are_not_there(git_server):
    for version in ("v3", "0" * 40):
        result = git_server.make("tones", {}, version=version)
        assert result["code"] == "version_unknown", result


def test_a_repository_that_is_not_there(make_server, tmp_path):
    server = make_server(handlers={"tones": f"git+file://{tmp_path}/nowhere@{{version}}"})
    result = server.make("tones", {}, version="v1")
    assert result["code"] == "environment_failed"


def test_a_package_version_that_was_never_published(make_server):
    server = make_server(handlers={"tones": "rfc8785=={version}"})
    result = server.make("tones", {}, version="99.99.99")
    assert result["code"] == "version_unknown", result
    installed_but_no_handler = server.make("tones", {}, version="0.1.4")
    assert installed_but_no_handler["code"] == "environment_failed"


def test_the_whole_contract_without_our_base_class(server):
    ready = server.make("whole", {"count": 7}, version="1.0")
    assert ready["kind"] == "ready", ready
    manifest = server.get(f"datasets/{ready['dataset_id']}/manifest").json()
    assert {split: entry["examples"] for split, entry in manifest["splits"].items()} == {"train": 7, "test": 7}
    refused = server.make("whole", {"count": "many"}, version="1.0")
    assert refused["code"] == "config_refused"


def test_handlers_describe_themselves(server):
    listed = {entry["dataset_name"]: entry for entry in server.get("handlers").json()["handlers"]}
    assert listed["coco"]["version"] == "0.1.0"
    described = server.get("handlers/coco/0.1.0").json()
    assert described["options"]["crop_size"]["default"] is None
    assert described["options"]["batch_size"]["reader_only"] is True
    assert described["schema"]["properties"]["image_size"]["description"]
    assert server.get("handlers/coco/7").json()["code"] == "version_unknown"
