"""Near-duplicates never straddle splits that are drawn, are reported where they do, and removed on request."""

import json
import os
import shutil
import signal

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_handlers.duts import DutsHandler
from dataset_handlers.errors import EmptySelectionError, RawDataError, WorkerDiedError
from dataset_handlers.metadata import write_metadata
from dataset_handlers.plan import Plan, Rejected, Sample, assign_splits, keep_one_of_each, load_samples
from dataset_handlers.selection.fingerprints import fingerprints
from dataset_handlers.shards import WorkFolder
from tests.handlers.support import plan_and_build


def pairs_of(count, groups):
    """Samples in groups, each sample's group by its key."""
    samples = [Sample(f"photo-{number}") for number in range(count)]
    leaders = {}
    for group in groups:
        members = sorted(samples[number].key for number in group)
        leaders.update((key, members[0]) for key in members)
    return samples, leaders


@given(
    st.lists(st.sets(st.integers(0, 59), min_size=2, max_size=5), max_size=12),
    st.sampled_from([{"train": 0.8, "validation": 0.1, "test": 0.1}, {"train": 0.5, "test": 0.5}]),
    st.integers(0, 1000),
)
def test_groups_are_never_parted_and_sizes_stay_near_their_fractions(groups, fractions, seed):
    seen, disjoint = set(), []
    for group in groups:
        group -= seen
        seen |= group
        if len(group) > 1:
            disjoint.append(group)
    samples, leaders = pairs_of(60, disjoint)
    by_split = assign_splits(samples, fractions, seed, (), leaders)
    split_of = {sample.key: split for split, members in by_split.items() for sample in members}
    assert len(split_of) == 60
    for group in disjoint:
        assert len({split_of[f"photo-{number}"] for number in group}) == 1
    ends = np.cumsum([len(by_split[split]) for split in fractions])
    for end, wanted in zip(ends, np.cumsum(list(fractions.values())) * 60, strict=True):
        assert abs(end - wanted) <= 4.5  # a group of five, begun before the cut


def test_without_groups_splits_are_what_they_were():
    samples, _ = pairs_of(60, [])
    fractions = {"train": 0.7, "test": 0.3}
    assert assign_splits(samples, fractions, 5) == assign_splits(samples, fractions, 5, (), {})


def test_a_group_that_takes_all_leaves_a_split_empty_and_says_so():
    samples, leaders = pairs_of(6, [range(6)])
    with pytest.raises(EmptySelectionError, match="split 'test' gets none"):
        assign_splits(samples, {"train": 0.5, "test": 0.5}, 0, (), leaders)


def test_of_near_duplicates_the_held_out_one_is_kept():
    train, test, other = Sample("a", split="train"), Sample("b", split="test"), Sample("c", split="train")
    kept, removed = keep_one_of_each([train, test, other], [[train, test]])
    assert kept == [test, other]
    assert removed == [Rejected("a", "shows the same photo as 'b', which is kept")]


@pytest.fixture
def raw_with_copies(raw_root, tmp_path):
    """DUTS photos, six of the training half copied: recompressed into it, and as they are into the test half."""
    root = tmp_path / "raw"
    shutil.copytree(raw_root / "duts", root / "duts")
    train, test = root / "duts" / "DUTS-TR", root / "duts" / "DUTS-TE"
    for photo in sorted((train / "DUTS-TR-Image").iterdir())[:6]:
        picture = cv2.imread(str(photo))
        again = train / "DUTS-TR-Image" / f"again-{photo.stem}.jpg"
        cv2.imwrite(str(again), picture, [cv2.IMWRITE_JPEG_QUALITY, 50])
        shutil.copy(train / "DUTS-TR-Mask" / f"{photo.stem}.png", train / "DUTS-TR-Mask" / f"{again.stem}.png")
        shutil.copy(photo, test / "DUTS-TE-Image" / f"leaked-{photo.stem}.jpg")
        shutil.copy(train / "DUTS-TR-Mask" / f"{photo.stem}.png", test / "DUTS-TE-Mask" / f"leaked-{photo.stem}.png")
    return root


def plan_of(raw, folder, **config):
    work = WorkFolder(folder)
    work.create()
    plan = DutsHandler(config, str(raw)).plan("duts", work, workers=2)
    found = {}
    for shard in plan.shards:
        found.setdefault(shard.split, []).extend(sample.key for sample in load_samples(work.plan, shard))
    assert Plan.load(work.plan) == plan
    return plan, found


def original(key):
    part, _, name = key.partition("/")
    stem = name.removeprefix("again-").removeprefix("leaked-")
    return key if stem == name and part == "DUTS-TE" else f"DUTS-TR/{stem}"


@pytest.mark.parametrize("seed", range(4))
def test_copies_of_a_photo_end_in_one_split(raw_with_copies, tmp_path, seed):
    _, found = plan_of(raw_with_copies, tmp_path / "work", splits={"train": 0.6, "validation": 0.4}, seed=seed)
    assert not {original(key) for key in found["train"]} & {original(key) for key in found["validation"]}


def test_ignored_they_are_parted(raw_with_copies, tmp_path):
    config = {"splits": {"train": 0.6, "validation": 0.4}, "near_duplicates": "ignore"}
    plan, found = plan_of(raw_with_copies, tmp_path / "work", **config)
    assert {original(key) for key in found["train"]} & {original(key) for key in found["validation"]}
    assert plan.near_duplicates == ()


def test_the_publishers_leak_is_reported(raw_with_copies, tmp_path):
    made = plan_and_build(tmp_path, dataset="duts", config={"image_size": [32, 32]}, raw_root=raw_with_copies)
    assert made.status == 0, made.log
    manifest = json.loads((tmp_path / "dataset" / "manifest.json").read_bytes())
    (leak,) = [finding for finding in manifest["gate"] if finding["check"] == "leakage"]
    assert (leak["severity"], leak["count"]) == ("warning", 6)
    groups = [{original(item["key"]) for item in group} for group in manifest["near_duplicates"]]
    assert len(groups) == 6
    assert all(len(group) == 1 for group in groups)
    assert all({item["split"] for item in group} == {"train", "test"} for group in manifest["near_duplicates"])


def test_removed_they_are_listed_and_gone(raw_with_copies, tmp_path):
    config = {"near_duplicates": "remove", "max_quarantined_share": 0}
    plan, found = plan_of(raw_with_copies, tmp_path / "work", **config)
    names = [original(key) for keys in found.values() for key in keys]
    assert len(names) == len(set(names))
    assert not plan.rejected  # they are usable, only not wanted
    assert len(plan.removed) == 12
    assert all("which is kept" in item.reason for item in plan.removed)
    assert {key for key in found["test"] if "leaked" in key}  # what is held out stays


def test_a_single_split_is_not_looked_through(raw_with_copies, tmp_path, monkeypatch):
    monkeypatch.setattr(DutsHandler, "fingerprint", lambda *_: pytest.fail("hashed for nothing"))
    plan_of(raw_with_copies, tmp_path / "work", splits={"train": 1})


def test_the_order_fractions_are_named_in_means_nothing():
    samples = [Sample(f"photo-{number}") for number in range(25)]
    one, other = {"train": 0.1, "validation": 0.2, "test": 0.7}, {"test": 0.7, "validation": 0.2, "train": 0.1}
    assert assign_splits(samples, one, 0) == assign_splits(samples, other, 0)
    configs = [json.dumps(DutsHandler({"splits": splits}, "raw").options.effective()) for splits in (one, other)]
    assert configs[0] == configs[1]


@pytest.mark.parametrize("seed", range(50))
def test_a_group_falls_to_the_side_it_is_more_on(seed):
    samples, leaders = pairs_of(10, [range(4)])
    by_split = assign_splits(samples, {"train": 0.5, "test": 0.5}, seed, (), leaders)
    assert abs(len(by_split["train"]) - 5) <= 2


class Mortal(DutsHandler):
    """A handler whose photos end the process that looks at them."""

    def fingerprint(self, sample):
        os.kill(os.getpid(), signal.SIGSEGV)


def test_a_process_that_dies_over_a_photo_ends_the_plan(tmp_path):
    samples = [Sample(f"DUTS-TR/{number}", {"photo": "x.jpg"}) for number in range(1100)]
    with pytest.raises(WorkerDiedError, match="near-duplicates"):
        fingerprints(Mortal({}, str(tmp_path)), samples, 2)


def test_two_processes_find_what_one_does(raw_root):
    handler = DutsHandler({}, str(raw_root))
    samples = [item for item in handler.samples() if isinstance(item, Sample)] * 40
    assert len(samples) > 1000
    assert fingerprints(handler, samples, 2) == fingerprints(handler, samples, 1)


def test_a_photo_that_changes_between_plan_and_build_is_noticed(raw_with_copies, tmp_path):
    config = {"image_size": [32, 32]}
    handler = DutsHandler(config, str(raw_with_copies))
    work = WorkFolder(tmp_path / "work")
    work.create()
    plan = handler.plan("duts", work)
    photo = min((raw_with_copies / "duts" / "DUTS-TR" / "DUTS-TR-Image").iterdir())
    cv2.imwrite(str(photo), cv2.flip(cv2.imread(str(photo)), 1))
    sealed = [handler.make_shard(work, shard, lambda _: None) for shard in plan.shards]
    with pytest.raises(RawDataError, match=f"{photo.name} changed while"):
        write_metadata(work, plan, sealed)
