"""`dataset-handlers check`: nothing to say against the built-in handlers, and the reason against each broken one."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataset_handlers.authors.check import check_handler, limited, succeeded
from dataset_handlers.authors.check_config import check_description
from dataset_handlers.authors.check_contents import check_contents, faults_of_reason, mentions
from dataset_handlers.authors.compare import difference
from dataset_handlers.authors.dataset import open_dataset
from dataset_handlers.authors.raw_files import changes, damaged_copy, snapshot
from dataset_handlers.authors.runs import run_command
from dataset_handlers.authors.verdict import TITLES
from dataset_handlers.errors import RawDataError, RequestError, UnknownDatasetError
from dataset_handlers.files import write_json
from dataset_handlers.metadata import write_metadata
from dataset_handlers.registry import installed
from dataset_handlers.shards import WorkFolder
from tests.handlers import broken_handlers
from tests.handlers.author_support import make_interpreter
from tests.handlers.support import make

BUILT_IN = {
    "coco": {"image_size": [48, 64], "categories": ["figure"]},
    "duts": {"image_size": [48, 64], "variations_per_sample": 2, "splits": {"train": 0.6, "test": 0.4}},
    "camvid": {"image_size": [48, 64], "crop_size": [40, 48], "flip_horizontal": 0.5, "splits": {"train": 1.0}},
    "composite": {"image_size": [48, 64], "subjects": "duts"},
    "cutouts": {"image_size": [48, 64], "input_attributes": ["image", "alpha"]},
    "logos": {"image_size": [96, 128], "raw_folder": "cutouts"},
    "mattes": {"image_size": [48, 64], "input_attributes": ["image", "alpha", "trimap"]},
}
#: What fails, and a word of the reason, for each handler that is run through all checks.
BROKEN = {
    "GlobalRandom": {"workers": "`image`"},
    "HashedKeys": {"plan-again": "keys of samples differ"},
    "Stateful": {"resume": "earlier one", "bad-files": "raise BadSampleError"},
    "Careless": {
        "keys": "not of positions",
        "reasons": "path of this machine",
        "paths": "plan/shard-00000.json",
        "raw-untouched": "cache.tmp",
    },
    "Shouting": {"plan": "hello there"},
    "Leaving": {"plan": "without a last event"},
    "OtherShape": {"build": "(32, 32, 3)"},
    "OtherField": {"build": "depth"},
}


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory):
    made = make_interpreter(tmp_path_factory.mktemp("broken") / "venv")
    names = [
        name
        for name, value in vars(broken_handlers).items()
        if getattr(value, "__module__", "").endswith("broken_handlers") and hasattr(value, "examples")
    ]
    made.add_handlers(Path(broken_handlers.__file__), {name.lower(): name for name in names})
    return made


@pytest.fixture(scope="module")
def every_raw_root(raw_root, tmp_path_factory):
    """Raw data for all built-in handlers: also discs cut out, and discs with the alpha they were drawn with."""
    root = tmp_path_factory.mktemp("every") / "raw"
    root.mkdir()
    for folder in raw_root.iterdir():
        (root / folder.name).symlink_to(folder)
    (root / "cutouts").mkdir()
    (root / "mattes").mkdir()
    for folder in ("train", "trainannot"):
        (root / "camvid" / folder).mkdir(parents=True)
    rows, columns = np.mgrid[0:60, 0:80]
    for number in range(12):
        random = np.random.default_rng(number)
        x, y, radius = random.integers((30, 25, 12), (50, 35, 20))
        alpha = np.clip((radius - np.hypot(columns - x, rows - y)) * 80, 0, 255).astype(np.uint8)
        photo = np.stack([rows * 4, columns * 3, (rows + columns * number) % 256], axis=2).astype(np.uint8)
        cv2.imwrite(str(root / "cutouts" / f"disc_{number}.png"), np.dstack([photo, alpha]))
        cv2.imwrite(str(root / "mattes" / f"disc_{number}.png"), photo)
        cv2.imwrite(str(root / "camvid" / "train" / f"disc_{number}.png"), photo)
        cv2.imwrite(str(root / "camvid" / "trainannot" / f"disc_{number}.png"), alpha // 128 * 8 + number % 3)
        cv2.imwrite(str(root / "mattes" / f"disc_{number}_alpha.png"), alpha)
    return root


@pytest.fixture(scope="module")
def verdicts(interpreter, raw_root, every_raw_root, tmp_path_factory):
    """What `check` says of each handler, by name. Several at a time: most of it is starting Python."""

    def check(name):
        if name in BUILT_IN:
            return check_handler(name, every_raw_root, BUILT_IN[name], limit=12)
        raw = raw_root
        if name == "Careless":
            raw = tmp_path_factory.mktemp("careless")
            shutil.copytree(raw_root / "duts", raw / "duts")
        return check_handler(name.lower(), raw, limit=12, python=interpreter.python)

    names = [*BUILT_IN, *BROKEN]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(check, names), strict=True))


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_built_in_handlers_pass_every_check(verdicts, name):
    assert [verdict.render() for verdict in verdicts[name] if verdict.state != "ok"] == []
    assert [verdict.name for verdict in verdicts[name]] == list(TITLES)


def test_no_built_in_handler_goes_unchecked():
    ours = {name for name, entry in installed().items() if entry.value.startswith("dataset_handlers.")}
    assert BUILT_IN.keys() == ours, "add a config for the new handler, and raw data if it needs other"


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_handler_fails_for_its_own_reason_alone(verdicts, name):
    failed = {verdict.name: verdict.detail for verdict in verdicts[name] if verdict.state == "failed"}
    assert failed.keys() == BROKEN[name].keys(), failed
    for check, word in BROKEN[name].items():
        assert word in failed[check]
    assert sorted(verdict.name for verdict in verdicts[name]) == sorted(TITLES), "each check is told of once"
    assert succeeded(verdicts[name]) == (not failed)


@pytest.mark.parametrize(
    ("name", "checks", "word"),
    [
        ("secret", ["options"], "option 'secret' is not documented"),
        ("hidden", ["options"], "option 'side' is accepted but not documented"),
        ("wrongdefault", ["effective-config", "defaults"], "the default of 'count' is refused"),
        ("lenient", ["unknown-option"], "accepts an option that does not exist"),
        ("drifting", ["effective-config"], "means another: side"),
    ],
)
def test_faults_of_configs(interpreter, tmp_path, name, checks, word):
    request = {"dataset": name, "config": {}}
    run = run_command("describe", request, tmp_path, python=interpreter.python, module="dataset_handlers.authors.probe")
    found = list(check_description(run))
    failed = [verdict for verdict in found if verdict.state == "failed"]
    assert sorted(verdict.name for verdict in failed) == sorted(checks)
    assert any(word in verdict.detail for verdict in failed)


def built(handler_class, raw_root, folder):
    """A finished dataset, made in this process."""
    plan, sealed = make(handler_class, {"limit": 8}, raw_root, folder)
    write_metadata(WorkFolder(folder), plan, sealed)
    return open_dataset(folder)


@pytest.mark.parametrize(
    ("name", "check", "word"),
    [
        ("LyingSchema", "features", "shape [32, 32, 3] where [7, 7, 3]"),
        ("SmallMask", "sizes", "image 32×32, mask 16×16"),
        ("GreyMask", "labels", "interpolation"),
    ],
)
def test_faults_of_examples(raw_root, tmp_path, name, check, word):
    dataset = built(getattr(broken_handlers, name), raw_root, tmp_path)
    failed = {
        verdict.name: verdict.detail for verdict in check_contents(dataset, raw_root) if verdict.state == "failed"
    }
    assert failed.keys() == {check}
    assert word in failed[check]


def test_faults_of_files(raw_root, tmp_path):
    """Damage done to a sound dataset is found where it is."""
    raw = tmp_path / "raw"
    shutil.copytree(raw_root / "duts", raw / "duts")
    dataset = built(broken_handlers.Sound, raw, tmp_path / "work")

    def failed():
        again = open_dataset(tmp_path / "work")
        return {verdict.name: verdict.detail for verdict in check_contents(again, raw) if verdict.state == "failed"}

    assert failed() == {}
    lineage = dataset.path / "lineage.jsonl"
    lines = [json.loads(line) for line in lineage.read_text().splitlines()]
    used = next(iter(lines[0]["files"]))
    (raw / used).write_bytes(b"edited since")
    assert used in failed()["lineage"]
    (raw / used).unlink()
    assert "cannot be read" in failed()["lineage"]
    lines[0]["files"] = {"../outside.jpg": "0" * 64}
    lineage.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "'../outside.jpg' is not below the raw root" in failed()["lineage"]
    lineage.write_text("".join(json.dumps(line) + "\n" for line in lines[1:]))
    assert "accounts for 7 of 8" in failed()["lineage"]
    shard = dataset.path / dataset.shards()[0]
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + bytes((data[-1] ^ 1,)))
    assert {"records"} <= failed().keys()
    assert "is damaged" in failed()["records"]


def test_a_sample_in_two_splits_is_found(raw_root, tmp_path):
    dataset = built(broken_handlers.Sound, raw_root, tmp_path)
    lineage = dataset.path / "lineage.jsonl"
    lines = lineage.read_text().splitlines()
    (file,) = dataset.shards()
    twice = json.dumps({**json.loads(lines[0]), "shard": "made-test.tfrecord-00000-of-00001", "examples": 0})
    lineage.write_text("\n".join([*lines, twice]) + "\n")
    dataset.manifest["shards"].append(
        {
            "file": "made-test.tfrecord-00000-of-00001",
            "split": "test",
            "examples": 0,
            "bytes": 0,
            "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        }
    )
    dataset.manifest["splits"]["test"] = {"examples": 0, "shards": 1}
    (dataset.path / "made-test.tfrecord-00000-of-00001").touch()
    write_json(dataset.path / "manifest.json", dataset.manifest)
    failed = [verdict for verdict in check_contents(open_dataset(tmp_path), raw_root) if verdict.state == "failed"]
    assert [verdict.name for verdict in failed] == ["splits"]
    assert "is in test and train" in failed[0].detail
    assert file != "made-test.tfrecord-00000-of-00001"


def test_a_whole_contract_handler(plugin_python, raw_root):
    found = check_handler("whole", raw_root, {"count": 5}, python=str(plugin_python))
    assert [verdict.render() for verdict in found if verdict.state == "failed"] == []
    states = {verdict.name: verdict.state for verdict in found}
    assert [states[name] for name in ("describe", "workers", "resume", "records", "features")] == ["ok"] * 5
    assert {states[name] for name in ("sizes", "labels", "splits", "lineage", "keys", "bad-files")} == {"skipped"}


def test_the_command_line(raw_root, interpreter, tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"image_sise": 5}')
    command = [interpreter.python, "-I", "-m", "dataset_handlers", "check", "--raw-root", str(raw_root)]
    run = subprocess.run(
        [*command, "--dataset", "duts", "--config", str(config), "--json"], capture_output=True, text=True
    )
    assert run.returncode == 1, run.stderr
    told = json.loads(run.stdout)
    assert (told["dataset"], told["ok"]) == ("duts", False)
    (failed,) = (check for check in told["checks"] if check["state"] == "failed")
    assert failed["name"] == "effective-config"
    assert "did you mean 'image_size'?" in failed["detail"]
    run = subprocess.run([*command, "--dataset", "nowhere"], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (1, "")
    assert "no installed package offers a handler 'nowhere'" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_what_cannot_be_checked_is_refused(tmp_path, raw_root):
    with pytest.raises(RawDataError, match="no raw root"):
        check_handler("duts", tmp_path / "nowhere")
    with pytest.raises(RequestError, match="one sample or more"):
        check_handler("duts", raw_root, limit=0)


def test_a_limited_config_has_several_shards():
    assert limited({}, 24) == {"limit": 24, "examples_per_shard": 4}
    assert limited({"limit": 5, "variations_per_sample": 3, "seed": 1}, 24) == {
        "limit": 5, "examples_per_shard": 3, "variations_per_sample": 3, "seed": 1,
    }  # fmt: skip
    assert limited({"examples_per_shard": 2, "limit": None}, 24)["examples_per_shard"] == 2


def test_reasons_name_neither_paths_nor_addresses():
    paths = ("/data/raw",)
    assert list(faults_of_reason("flowers/data/raw.jpg cannot be decoded at 0x1f", paths)) == []
    assert "path of this machine" in next(faults_of_reason("/data/raw/a.jpg cannot be decoded", paths))
    assert "address in memory" in next(faults_of_reason("<io.BytesIO object at 0x7fbc18aed650> is no image", paths))
    assert "without a reason" in next(faults_of_reason(" ", paths))
    assert mentions('{"folder":"/data/raw"}', "/data/raw")
    assert not mentions("/data/raw2/x and /old/data/raw", "/data/raw")


def test_changes_below_a_raw_root_are_seen(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.txt").write_text("1")
    (tmp_path / "gone.txt").write_text("1")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    before = snapshot(tmp_path)
    assert changes(before, snapshot(tmp_path)) == []
    (tmp_path / "a" / "one.txt").write_text("22")
    (tmp_path / "a" / "new.txt").touch()
    (tmp_path / "gone.txt").unlink()
    assert changes(before, snapshot(tmp_path)) == [
        "'a/new.txt' was created",
        "'gone.txt' was removed",
        "'a/one.txt' was changed",
    ]
    before = snapshot(tmp_path)
    (tmp_path / "a" / "lock").touch()
    (tmp_path / "a" / "lock").unlink()
    assert changes(before, snapshot(tmp_path)) == ["something came and went in the folder 'a'"]


def test_a_damaged_copy_spares_what_samples_share(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in "abcdefs":
        (raw / name).write_bytes(name.encode() * 100)
    lineage = [{"key": name, "files": {name: "", "s": ""}} for name in "abcdef"]
    damage = damaged_copy(raw, tmp_path / "copy", lineage, ["s"])
    assert damage == {"a": "missing", "b": "cut off", "c": "empty", "d": "garbage"}
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "copy").iterdir()}
    assert sizes == {"b": 50, "c": 0, "d": 1024, "e": 100, "f": 100, "s": 100}
    assert damaged_copy(raw, tmp_path / "none", [{"key": "x", "files": {}}], []) == {}


def test_a_damaged_copy_stays_in_its_folder(tmp_path):
    """A lineage is what a handler says, and may be wrong."""
    raw, beside = tmp_path / "raw", tmp_path / "beside"
    raw.mkdir()
    for path in (beside, tmp_path / "absolute", *(raw / name for name in "abcd")):
        path.write_bytes(b"whole")
    outside = ["../beside", str(tmp_path / "absolute"), "x/../../../beside"]
    lineage = [{"key": path, "files": {path: ""}} for path in [*outside, *"abcd"]]
    damage = damaged_copy(raw, tmp_path / "one" / "copy", lineage, ["../../more", "/more"])
    assert damage == {"a": "missing", "b": "cut off", "c": "empty", "d": "garbage"}
    assert {path.read_bytes() for path in (beside, tmp_path / "absolute")} == {b"whole"}
    assert sorted(path.name for path in (tmp_path / "one").rglob("*")) == ["b", "c", "copy", "d"]


def test_differences_are_named(raw_root, tmp_path):
    one = built(broken_handlers.Sound, raw_root, tmp_path / "one").path
    other = tmp_path / "other"
    shutil.copytree(one, other)
    assert difference(one, other) is None
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["splits"]["train"]["examples"] = 9
    write_json(other / "manifest.json", manifest, indent=1)
    assert difference(one, other) == "manifest.json differs: /splits/train/examples is 8 and 9"
    (other / "lineage.jsonl").write_text((one / "lineage.jsonl").read_text() + "{}\n")
    assert "lineage.jsonl differs: line 9" in difference(one, other)
    bright = built(broken_handlers.Worker, raw_root, tmp_path / "bright").path
    assert "example 0 in `image`" in difference(one, bright)
    (other / "extra").touch()
    assert difference(one, other) == "extra is in one of them only"


def test_the_interpreter_is_the_one_asked_for(raw_root):
    assert sys.executable  # the broken handlers are installed in another one only
    told = []
    with pytest.raises(UnknownDatasetError, match="no installed package offers a handler 'sound'"):
        check_handler("sound", raw_root, tell=told.append)
    assert told == []
