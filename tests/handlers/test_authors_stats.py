"""`dataset-handlers stats` and the progress line: what people read."""

import io
import json
import subprocess
import sys

import pytest

from dataset_handlers.authors.dataset import open_dataset
from dataset_handlers.authors.progress import ProgressLine
from dataset_handlers.authors.stats import render, statistics
from dataset_handlers.errors import RequestError

MANIFEST = {
    "dataset_name": "pears",
    "config": {"seed": 0},
    "splits": {"test": {"examples": 1, "shards": 1}, "train": {"examples": 3000, "shards": 2}},
    "shards": [{"split": "train"}, {"split": "train"}, {"split": "test"}],
    "statistics": {
        "train": {
            "examples": 3000,
            "samples": 1500,
            "pixels": 4000,
            "subject_pixels": 1000,
            "channel_mean": [100.123, 90.0, 80.5],
            "channel_std": [1.0, 2.0, 3.0],
            "subject_share_histogram": [0, 30, 10, 0, 1, 0, 0, 0, 0, 0],
            "level_histogram": [4, 2],
            "empty_masks": 7,
            "full_masks": 0,
            "categories": {"cat": 5, "person": 100},
            "clusters": {"0": 60, "1": 40},
            "grey_mask_pixels": 12,
            "a_new_one": 0.25,
            "nested": {"deep": {"er": 1}},
        },
        "test": {"examples": 1, "samples": 1},
    },
    "gate": [
        {"check": "near_duplicates", "severity": "warning", "count": 1200, "message": "photos that look alike"},
        {"check": "leakage", "severity": "error", "count": 1, "message": "in train and test"},
    ],
    "quarantine": [
        {"key": "a/pear_1", "reason": "pear_1.jpg is empty"},
        {"key": "a/pear_2", "reason": "pear_2.jpg is empty"},
        {"key": "x", "reason": "another sample has the same key"},
    ],
}

EXPECTED = """\
pears: 3,001 examples in 2 splits

train: 100.0% of all examples, in 2 shards
  examples                 3,000
  samples                  1,500
  pixels                   4,000
  pixels on subjects       1,000  (25.0%)
  grey mask pixels         12
  empty masks              7
  full masks               0
  channel means (R, G, B)  100.1, 90, 80.5
  channel deviations       1, 2, 3
  a new one                0.25
  nested                   {"deep": {"er": 1}}
  subject share histogram:
    10%–20%  30  ██████████████████████████████
    20%–30%  10  ██████████
    30%–40%   0
    40%–50%   1  █
  level histogram:
    0  4  ██████████████████████████████
    1  2  ███████████████
  categories:
    person  100  ██████████████████████████████
       cat    5  ██
  clusters:
    0  60  ██████████████████████████████
    1  40  ████████████████████

test: 0.0% of all examples, in 1 shard
  examples  1
  samples   1

gate
  warning  near_duplicates × 1,200: photos that look alike
  error    leakage × 1: in train and test

quarantine
  2 × ….jpg is empty  (e.g. a/pear_1)
  1 × another sample has the same key  (e.g. x)
"""


def test_every_kind_of_statistic_has_its_look():
    assert render(MANIFEST) == EXPECTED


def test_little_is_enough():
    small = {"dataset_name": "a", "splits": {"train": {"examples": 0, "shards": 1}}, "shards": [{"split": "train"}]}
    assert render(small) == (
        "a: 0 examples in 1 split\n\ntrain: – of all examples, in 1 shard\n\n"
        "gate\n  nothing found\n\nquarantine\n  no sample was left out\n"
    )


def test_many_reasons_are_summed_up():
    quarantine = [{"key": f"k{n}", "reason": f"reason number {n // 2}"} for n in range(30)]
    text = render({**MANIFEST, "quarantine": quarantine})
    assert text.count("reason number") == 10
    assert text.endswith("  10 × 5 other reasons\n")


@pytest.fixture(scope="module")
def built(raw_root, tmp_path_factory):
    """A dataset as a person builds it: without planning, and with its progress."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "config.json").write_text('{"image_size": [32, 48], "splits": {"train": 0.5, "test": 0.5}}')
    return folder, build(folder, raw_root)


def build(folder, raw_root, *more, dataset="duts", config="config.json"):
    command = [sys.executable, "-I", "-m", "dataset_handlers", "build", "--dataset", dataset, "--config", config]
    command += ["--raw-root", str(raw_root), "--work-dir", "out", *more]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


def test_a_build_plans_by_itself_and_says_how_far_it_is(built):
    _, done = built
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "planned 26 samples in 2 shards"
    assert lines[1] == "duts: 0/26 samples"
    assert lines[-3].startswith("duts: 26/26 samples, ")
    assert lines[-2:] == ["26 examples in 2 shards", "the dataset is in out/dataset"]


def test_a_build_again_makes_nothing_again(built, raw_root):
    folder, _ = built
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "out" / "dataset").glob("*tfrecord*")}
    done = build(folder, raw_root)
    assert "going on where an earlier build ended: 26 of 26 samples are done" in done.stdout
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "out" / "dataset").glob("*tfrecord*")} == before


def test_events_can_be_had(built, raw_root):
    folder, _ = built
    events = [json.loads(line) for line in build(folder, raw_root, "--json").stdout.splitlines()]
    assert [event["event"] for event in events] == ["shard", "shard", "progress", "finished"]


def test_a_folder_with_another_dataset_is_refused(built, raw_root, tmp_path):
    folder, _ = built
    (folder / "other.json").write_text('{"image_size": [8, 8]}')
    done = build(folder, raw_root, config="other.json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "dataset-handlers: out holds a dataset 'duts' of another config; "
        "name another --work-dir, or remove that folder\n"
    )


def test_a_folder_of_another_raw_root_is_refused(built, raw_root, tmp_path):
    folder, _ = built
    other = tmp_path / "raw"
    (other / "duts").mkdir(parents=True)
    done = build(folder, other)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"dataset-handlers: out holds a dataset of the raw root {raw_root.resolve()}, not of "
    )
    assert done.stderr.endswith("name another --work-dir, or remove that folder\n")
    linked = tmp_path / "link"
    linked.symlink_to(raw_root)
    assert build(folder, linked).returncode == 0  # it is the same one
    text = "".join(path.read_text() for part in ("plan", "sealed") for path in (folder / "out" / part).glob("*.json"))
    assert str(raw_root) not in text


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_plan_of_another_raw_root_is_refused(raw_root, tmp_path, more):
    (tmp_path / "config.json").write_text("{}")
    command = [sys.executable, "-I", "-m", "dataset_handlers", "plan", "--dataset", "duts"]
    subprocess.run([*command, "--raw-root", raw_root, "--work-dir", "out", *more], check=True, cwd=tmp_path)
    (tmp_path / "raw" / "duts").mkdir(parents=True)
    assert "holds a dataset of the raw root" in build(tmp_path, tmp_path / "raw").stderr


def test_refused_configs_list_every_fault(built, raw_root, tmp_path):
    (tmp_path / "config.json").write_text('{"image_sise": [1, 1], "seed": "1"}')
    done = build(tmp_path, raw_root)
    assert done.returncode == 1
    first, *faults = done.stderr.splitlines()
    assert first == "dataset-handlers: the config is refused; mend it and run this again:"
    assert [fault.split(":")[0].strip() for fault in faults] == ["/seed", "/image_sise"]
    assert "did you mean 'image_size'?" in faults[1]
    assert not (tmp_path / "out" / "plan" / "plan.json").exists()
    (tmp_path / "config.json").write_text("{")
    assert "config.json cannot be read" in build(tmp_path, raw_root).stderr


def test_statistics_of_a_real_dataset(built):
    folder, _ = built
    command = [sys.executable, "-I", "-m", "dataset_handlers", "stats"]
    text = subprocess.run([*command, "out"], capture_output=True, text=True, cwd=folder)
    assert text.returncode == 0, text.stderr
    assert text.stdout.startswith("duts: 26 examples in 2 splits\n\ntrain: 50.0% of all examples")
    told = subprocess.run([*command, "out/dataset", "--json"], capture_output=True, text=True, cwd=folder)
    manifest = json.loads((folder / "out" / "dataset" / "manifest.json").read_text())
    assert json.loads(told.stdout) == statistics(manifest)
    assert json.loads(told.stdout)["statistics"]["train"]["examples"] == 13
    nothing = subprocess.run([*command, "nowhere"], capture_output=True, text=True, cwd=folder)
    assert nothing.returncode == 1
    assert nothing.stderr.startswith("dataset-handlers: nowhere holds no dataset; name the folder")


def test_a_dataset_that_is_not_finished_is_said_to_be_so(tmp_path):
    (tmp_path / "plan").mkdir()
    with pytest.raises(RequestError, match="is not finished; run `dataset-handlers build` again"):
        open_dataset(tmp_path)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def tell(out, events, times):
    line = ProgressLine("pears", out, clock=iter(times).__next__)
    for event in events:
        line(event)
    line.close()
    return out.getvalue()


def progress(done, total=1000):
    return {"event": "progress", "done": done, "total": total}


def test_progress_on_a_terminal_is_one_line():
    events = [progress(0), progress(10), progress(1000), {"event": "finished", "quarantined": 2}]
    told = tell(Terminal(), events, [100.0, 110.0, 200.0])
    assert told == (
        "\rpears: 0/1,000 samples\x1b[K"
        "\rpears: 10/1,000 samples, 1.0/s, 16:30 left\x1b[K"
        "\rpears: 1,000/1,000 samples, 10.0/s, 1:40\x1b[K"
        "\n0 examples in 0 shards; 2 samples in quarantine\n"
    )


def test_progress_elsewhere_is_a_few_lines():
    told = tell(io.StringIO(), [progress(n) for n in range(0, 1001, 10)], range(101))
    lines = told.splitlines()
    assert len(lines) == 11
    assert lines[0] == "pears: 0/1,000 samples"
    assert lines[5] == "pears: 500/1,000 samples, 10.0/s, 0:50 left"
    assert "\x1b" not in told
    assert "\r" not in told


def test_the_rate_is_that_of_this_build():
    told = tell(io.StringIO(), [progress(900), progress(1000), progress(1000)], [0.0, 10.0, 10.0])
    assert told.splitlines()[0] == "going on where an earlier build ended: 900 of 1,000 samples are done"
    assert told.splitlines()[2] == "pears: 1,000/1,000 samples, 10.0/s, 0:10"
    hours = tell(io.StringIO(), [progress(0), progress(1)], [0.0, 10.0])
    assert hours.splitlines()[-1] == "pears: 0/1,000 samples"
    assert "2:46:30 left" in tell(Terminal(), [progress(0), progress(1)], [0.0, 10.0])
