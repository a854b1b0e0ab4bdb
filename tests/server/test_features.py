"""What the server says of examples while they are made: the handler's ``features.json``, which may be anything."""

import json
import os

import pytest

from dataset_server.api import _LARGEST_FEATURES, _features

SAID = {"featuresDict": {"features": {}}}


@pytest.fixture
def file(tmp_path):
    (tmp_path / "work" / "dataset").mkdir(parents=True)
    return tmp_path / "work" / "dataset" / "features.json"


def test_what_the_handler_wrote_is_said(file):
    assert _features(file.parent.parent) is None
    file.write_text(json.dumps(SAID))
    assert _features(file.parent.parent) == SAID


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff{}", b'{"a": NaN}', b'{"a": "%s"}' % (b"a" * _LARGEST_FEATURES)]
)
def test_what_is_no_features_is_not_said(file, content):
    file.write_bytes(content)
    assert _features(file.parent.parent) is None


@pytest.mark.parametrize("what", ["file", "folder", "pipe", "directory", "no folder"])
def test_what_is_no_file_in_its_place_is_not_read(file, tmp_path, what):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "features.json").write_text(json.dumps(SAID))
    match what:
        case "file":
            file.symlink_to(outside / "features.json")
        case "folder":
            file.parent.rmdir()
            file.parent.symlink_to(outside)
        case "pipe":
            os.mkfifo(file)
        case "directory":
            file.mkdir()
        case "no folder":
            file.parent.rmdir()
    assert _features(file.parent.parent) is None
