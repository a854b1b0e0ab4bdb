"""Composites: the mask is where the subjects are, everything else is background."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_handlers.backgrounds import photos_in, photos_without, share_out
from dataset_handlers.coco import load_coco
from dataset_handlers.composite import CompositeConfig, CompositeHandler
from dataset_handlers.config import check_config
from dataset_handlers.duts import load_duts
from dataset_handlers.errors import BadSampleError, ConfigRefusedError, RawDataError
from dataset_handlers.labels.shapes import Raster
from dataset_handlers.photo import Photo
from dataset_handlers.placement import Finish, cut_out, lay, place
from dataset_handlers.plan import assign_splits, select
from dataset_handlers.rng import SampleRandom
from dataset_handlers.scene import Scene
from dataset_handlers.transforms.geometry import Geometry, compose, resizing, translation
from tests.handlers.support import contents, examples_of, make, plan_and_build, quarantined

BASE = {"subjects": "duts", "image_size": [96, 128], "feather": 0, "input_attributes": ["image", "source_id"]}
SIZE = (96, 128)


@pytest.fixture
def handler(raw_root):
    return lambda **config: CompositeHandler({**BASE, **config}, str(raw_root))


def planned(made):
    """The samples by split, as a plan holds them."""
    options = made.options
    samples, rejected = select(made.samples(), options.seed)
    return made.complete_splits(assign_splits(samples[: options.limit], options.splits, options.seed, rejected))


def all_planned(made):
    return [sample for samples in planned(made).values() for sample in samples]


def composites(made, count=6):
    for sample in all_planned(made)[:count]:
        for variation in range(made.options.variations_per_sample):
            yield sample, variation, made.load(sample, variation, SampleRandom(0, sample.key).variation(variation))


def background_of(made, sample, variation, size=SIZE):
    path = made.backgrounds_path() / sample.data["backgrounds"][variation]
    photo = Photo(path.read_bytes(), path.name, upright=True)
    return photo.warp(Geometry(resizing(photo.size, size, "cover"), size))


def load_subject(made, data):
    load = load_coco if made.options.subjects == "coco" else load_duts
    return load(made, made.raw_data_path(), data)


def annotations(made, part="train2017"):
    return (Path(made.base_data_path) / "coco" / "annotations" / f"instances_{part}.json").read_text()


def assert_warped_alike(one, other):
    """OpenCV's warp interpolates in 32nds of a pixel, which a window rounds otherwise than the canvas, now and then."""
    difference = np.abs(one.astype(int) - other)
    assert difference.max() <= 3
    assert np.count_nonzero(difference) <= 0.03 * difference.size


# one subject


@pytest.mark.parametrize("subjects", ["duts", "coco"])
def test_hard_edges_inside_is_subject_outside_is_background(handler, subjects):
    made = handler(subjects=subjects, categories=["figure"], variations_per_sample=2)
    for sample, variation, scene in composites(made):
        photo, mask = scene.photo.pixels(), scene.mask.mask
        canvas = background_of(made, sample, variation)
        np.testing.assert_array_equal(photo[mask == 0], canvas[mask == 0])
        # The subject again, by itself, on the whole canvas: placed as the same random numbers say.
        subject = load_subject(made, sample.data)
        placed = place(subject.mask.box(), SIZE, (0.5, 0.9), SampleRandom(0, sample.key).variation(variation))
        np.testing.assert_array_equal(mask, subject.mask.draw(placed, cv2.BORDER_CONSTANT))
        warped = subject.photo.warp(placed, border=cv2.BORDER_REPLICATE)
        assert_warped_alike(photo[mask == 255], warped[mask == 255])
        np.testing.assert_array_equal(scene.alpha.alpha, mask)
        assert set(np.unique(mask)) == {0, 255}


def test_the_subject_lies_wholly_on_the_canvas_at_the_size_asked_for(handler):
    made = handler(subject_scale=[0.5, 0.5], variations_per_sample=3)
    for _, _, scene in composites(made):
        _, _, width, height = cv2.boundingRect(scene.mask.mask)
        assert max(width / 128, height / 96) == pytest.approx(0.5, abs=2 / 96)


def test_a_full_scale_fills_the_canvas(handler):
    made = handler(subject_scale=[1, 1])
    for _, _, scene in composites(made):
        _, _, width, height = cv2.boundingRect(scene.mask.mask)
        assert max(width / 128, height / 96) >= 1 - 2 / 96


def test_subjects_do_hang_over(handler):
    at_the_edge = 0
    for _, _, scene in composites(handler(overhang=0.5, variations_per_sample=4)):
        mask = scene.mask.mask
        assert mask.any()
        at_the_edge += bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
    assert at_the_edge >= 6


def test_a_subject_beyond_the_edge_is_placed_again(handler):
    made = handler(overhang=0.9, subject_scale=[1, 1])
    corners = np.zeros((200, 200), np.uint8)
    corners[:8, :8] = corners[-8:, -8:] = 255
    subject = Scene(Photo.from_pixels(np.zeros((200, 200, 3), np.uint8)), Raster(corners))
    again = 0
    for seed in range(60):
        try:
            first = place(subject.mask.box(), SIZE, (1, 1), np.random.default_rng(seed), 0.9)
            cut_out(subject, first, Finish())
        except BadSampleError:
            with contextlib.suppress(BadSampleError):  # three times is all
                again += bool(made._placed(subject, np.random.default_rng(seed)).mask.any())
    assert again >= 5


def test_matching_the_light_leaves_mask_and_background(handler):
    pairs = zip(composites(handler()), composites(handler(match_light=1.0)), strict=True)
    for (_, _, plain), (_, _, matched) in pairs:
        inside = plain.mask.mask == 255
        np.testing.assert_array_equal(plain.mask.mask, matched.mask.mask)
        np.testing.assert_array_equal(plain.photo.pixels()[~inside], matched.photo.pixels()[~inside])
        assert (plain.photo.pixels()[inside] != matched.photo.pixels()[inside]).any()


# several subjects


def test_partners_are_of_the_same_split_and_under_the_own_subject(handler):
    made = handler(subjects_per_picture=[3, 3], variations_per_sample=2, input_attributes=["image", "boxes"])
    by_split = planned(made)
    assert set(by_split) == {"train", "test"}
    for samples in by_split.values():
        own = {sample.data["photo"] for sample in samples}
        for sample in samples:
            partners = [data["photo"] for data in sample.data["partners"]]
            assert own.issuperset(partners)
            assert sample.data["photo"] not in partners
            assert len(set(partners)) == len(partners) >= 2
    several = 0
    for sample, variation, scene in composites(made):
        subject = load_subject(made, sample.data)
        placed = place(subject.mask.box(), SIZE, (0.5, 0.9), SampleRandom(0, sample.key).variation(variation))
        mask = subject.mask.draw(placed, cv2.BORDER_CONSTANT)
        np.testing.assert_array_equal(scene.instances[-1].shape.mask, mask)
        warped = subject.photo.warp(placed, border=cv2.BORDER_REPLICATE)
        assert_warped_alike(scene.photo.pixels()[mask == 255], warped[mask == 255])
        union = np.zeros(SIZE, np.uint8)
        for instance in scene.instances:
            assert not (union & instance.shape.mask).any()  # no pixel is of two
            union |= instance.shape.mask
        np.testing.assert_array_equal(union, scene.mask.mask)
        several += len(scene.instances) == 3
    assert several >= 6


def test_the_number_of_subjects_is_drawn(handler):
    made = handler(subjects_per_picture=[1, 3], subject_scale=[0.1, 0.1], input_attributes=["boxes"])
    counts = [len(scene.instances) for _, _, scene in composites(made, 26)]
    assert set(counts) == {1, 2, 3}


def test_boxes_and_categories_of_single_instances(handler, raw_root, tmp_path):
    config = {**BASE, "subjects": "coco", "categories": ["figure"], "single_instances": True, "limit": 8}
    made = CompositeHandler({**config, "input_attributes": ["boxes", "category"]}, str(raw_root))
    samples = list(made.samples())
    annotated = sum(len(json.loads(annotations(made, part))["annotations"]) for part in ("train2017", "val2017"))
    assert len(samples) == annotated > 26
    for sample in all_planned(made):
        (example,) = made.examples(sample, SampleRandom(0, sample.key))
        assert example["category"] == ["figure"]
        x, y, width, height = cv2.boundingRect(example["mask"])
        wanted = np.array([[y / 96, x / 128, (y + height) / 96, (x + width) / 128]])
        np.testing.assert_allclose(example["boxes"], wanted, atol=1e-6)
        assert sample.key.endswith(f"#{sample.data['subjects'][0]['id']}")
        assert len(sample.data["subjects"]) == 1


def test_the_instances_of_a_photo_stay_apart(handler):
    made = handler(subjects="coco", categories=["figure"], input_attributes=["boxes", "category"])
    several = 0
    for sample, _, scene in composites(made, 12):
        assert len(scene.instances) == len(sample.data["subjects"])
        several += len(scene.instances) > 1
        subject = load_subject(made, sample.data)
        placed = place(subject.mask.box(), SIZE, (0.5, 0.9), SampleRandom(0, sample.key).variation(0))
        for instance, own in zip(scene.instances, subject.instances, strict=True):
            np.testing.assert_array_equal(instance.shape.mask, own.shape.draw(placed, cv2.BORDER_CONSTANT))
            assert instance.category == "figure"
    assert several >= 3


def test_small_instances_can_be_left_out(handler):
    single = {"subjects": "coco", "categories": ["figure"], "single_instances": True}
    areas = sorted(item["area"] for item in json.loads(annotations(handler()))["annotations"])
    sizes = [sum(1 for _ in handler(min_instance_area=area, **single).samples()) for area in (0.0, areas[9], 1e9)]
    assert sizes[0] > sizes[1] + 8
    assert sizes[2] == 0


# backgrounds


def test_backgrounds_vary_by_variation_and_do_not_follow_each_other(handler):
    made = handler(variations_per_sample=12)
    chosen = [tuple(sample.data["backgrounds"][:12]) for sample in all_planned(made)]
    assert all(len(set(names)) > 3 for names in chosen)
    assert len(set(chosen)) == len(chosen)
    fewer = [tuple(sample.data["backgrounds"][:2]) for sample in all_planned(handler(variations_per_sample=2))]
    assert [names[:2] for names in chosen] == fewer  # more variations leave the first ones as they were


@given(
    st.sets(st.text("abcdef", min_size=1), min_size=3, max_size=60),
    st.lists(st.integers(1, 1000), min_size=1, max_size=3),
    st.integers(0, 99),
)
def test_backgrounds_are_shared_out_in_proportion_and_never_twice(photos, sizes, seed):
    by_split = dict(zip(("train", "validation", "test"), sizes, strict=False))
    shares = share_out(sorted(photos), by_split, seed)
    assert list(shares) == list(by_split)
    assert sorted(photo for share in shares.values() for photo in share) == sorted(photos)
    assert shares == share_out(sorted(photos, reverse=True), by_split, seed)
    for split, share in shares.items():
        assert share
        fair = 1 + (len(photos) - len(sizes)) * by_split[split] / sum(sizes)
        assert abs(len(share) - fair) <= 1


@pytest.mark.parametrize("splits", [None, {"train": 0.6, "validation": 0.2, "test": 0.2}])
def test_no_background_is_in_two_splits(handler, raw_root, tmp_path, splits):
    config = {**BASE, "splits": splits, "variations_per_sample": 3, "subjects_per_picture": [1, 2]}
    plan, sealed = make(CompositeHandler, config, raw_root, tmp_path)
    read = {split: set() for split in plan.splits}
    for planned_shard, shard in zip(plan.shards, sealed, strict=True):
        read[planned_shard.split] |= {path for lineage in shard.lineage for path, _ in lineage.files}
    assert len(read) == (3 if splits else 2)
    everything = [path for paths in read.values() for path in paths]
    assert len(everything) == len(set(everything))
    assert all(any(path.startswith("backgrounds/") for path in paths) for paths in read.values())


@given(
    st.lists(st.integers(1, 5), min_size=3, max_size=20),
    st.lists(st.integers(1, 1000), min_size=1, max_size=3),
    st.integers(0, 99),
)
def test_copies_of_a_background_stay_together(counts, sizes, seed):
    by_split = dict(zip(("train", "validation", "test"), sizes, strict=False))
    groups = [[f"{number} {copy}" for copy in range(count)] for number, count in enumerate(counts)]
    alike = {photo: group[0] for group in groups for photo in group}
    shares = share_out(list(alike), by_split, seed, alike)
    assert sorted(photo for share in shares.values() for photo in share) == sorted(alike)
    assert all(len({photo in share for photo in group}) == 1 for group in groups for share in shares.values())
    alone = share_out([group[0] for group in groups], by_split, seed)
    assert {split: [photo for photo in share if photo.endswith(" 0")] for split, share in shares.items()} == alone


@pytest.mark.parametrize("near_duplicates", ["group", "remove", "ignore"])
def test_copies_of_a_background_are_in_one_split(raw_root, tmp_path, near_duplicates):
    root = copied(raw_root, tmp_path, 8)
    for path in sorted((root / "backgrounds").iterdir()):
        picture = cv2.imread(str(path))
        for quality in (60, 80):
            cv2.imwrite(str(path.with_name(f"{quality}-{path.stem}.jpg")), picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    (root / "backgrounds" / "broken.jpg").write_bytes(b"no picture")
    (root / "backgrounds" / "empty.jpg").write_bytes(b"")
    config = {**BASE, "near_duplicates": near_duplicates, "variations_per_sample": 20}
    made = CompositeHandler(config, str(root))
    used = [
        {Path(name).stem.rpartition("-")[2] for sample in samples for name in sample.data["backgrounds"]}
        for samples in planned(made).values()
    ]
    parted = (used[0] & used[1]) - {"broken", "empty"}
    assert bool(parted) == (near_duplicates == "ignore")
    read = {path for path, _ in made.take_read_files()}
    assert len(read) == (0 if near_duplicates == "ignore" else 26)


def test_copies_of_one_background_are_too_few_for_two_splits(raw_root, tmp_path):
    root = copied(raw_root, tmp_path, 1)
    (photo,) = (root / "backgrounds").iterdir()
    shutil.copy(photo, photo.with_name("copy.jpg"))
    with pytest.raises(RawDataError, match=r"2 splits cannot do with 1 background photos \(2 with copies\)"):
        all_planned(CompositeHandler(BASE, str(root)))


def test_fingerprints_of_cutouts_do_not_see_what_is_hidden(tmp_path):
    (tmp_path / "cutouts").mkdir()
    rgba = np.zeros((64, 64, 4), np.uint8)
    cv2.circle(rgba, (30, 34), 20, (40, 200, 90, 255), -1)
    hidden = rgba[..., 3] == 0
    for seed in range(2):
        rgba[..., :3][hidden] = cv2.resize(np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8), (64, 64))[
            hidden
        ]
        cv2.imwrite(str(tmp_path / "cutouts" / f"{seed}.png"), rgba)
    made = CompositeHandler({**BASE, "subjects": "cutouts"}, str(tmp_path))
    one, other = (made.fingerprint(sample) for sample in made.samples())
    assert one == other is not None
    assert [path for path, _ in made.take_read_files()] == ["cutouts/0.png", "cutouts/1.png"]


def test_instances_of_one_photo_are_no_near_duplicates(raw_root, tmp_path):
    config = {**BASE, "subjects": "coco", "categories": ["figure"], "single_instances": True}
    plan, _ = make(CompositeHandler, {**config, "splits": {"train": 0.5, "test": 0.5}}, raw_root, tmp_path)
    assert plan.samples > 26  # more than there are photos
    assert plan.near_duplicates == ()


def test_pipes_are_no_backgrounds(raw_root, tmp_path):
    root = copied(raw_root, tmp_path, 4)
    os.mkfifo(root / "backgrounds" / "pipe.jpg")
    assert len(photos_in(root / "backgrounds")) == 4


def test_backgrounds_are_needed(handler):
    for folder in ("nowhere", "duts"):
        with pytest.raises(RawDataError, match=f"no photo in the raw folder '{folder}'"):
            all_planned(handler(backgrounds_folder=folder))


def copied(raw_root, tmp_path, backgrounds):
    """A raw root with the subjects of ``raw_root``, and the first few of its backgrounds."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "duts").symlink_to(raw_root / "duts")
    folder = tmp_path / "raw" / "backgrounds"
    folder.mkdir()
    for path in sorted((raw_root / "backgrounds").iterdir())[:backgrounds]:
        shutil.copy(path, folder)
    return tmp_path / "raw"


def test_fewer_backgrounds_than_splits_are_refused(raw_root, tmp_path):
    root = copied(raw_root, tmp_path, 1)
    with pytest.raises(RawDataError, match="2 splits cannot do with 1 background photos"):
        all_planned(CompositeHandler(BASE, str(root)))
    assert all_planned(CompositeHandler({**BASE, "splits": {"all": 1.0}}, str(root)))


def test_too_few_subjects_for_a_picture_are_refused(handler):
    with pytest.raises(RawDataError, match="split 'test' has 6 subjects, too few for 7 in a picture"):
        all_planned(handler(subjects_per_picture=[1, 7]))


def test_an_unreadable_background_gives_way_to_another(raw_root, tmp_path):
    root = copied(raw_root, tmp_path, 8)
    broken = sorted((root / "backgrounds").iterdir())[:4]
    broken[0].write_bytes(b"")
    broken[1].write_bytes(b"no picture")
    broken[2].write_bytes(broken[2].read_bytes()[:2000])
    broken[3].write_bytes(broken[3].read_bytes()[:-500] + b"\xff\xd9")
    config = {**BASE, "splits": {"all": 1.0}, "variations_per_sample": 2}
    _, sealed = make(CompositeHandler, config, root, tmp_path / "made")
    usable = sum(shard.examples for shard in sealed)
    assert usable >= 2 * 24
    assert all("none of 4 backgrounds can be read" in why for why in quarantined(sealed).values())
    counted = sum(shard.counters.get("unreadable_backgrounds", 0) for shard in sealed)
    assert counted >= 10
    _, again = make(CompositeHandler, config, root, tmp_path / "again")
    assert [shard.sha256 for shard in sealed] == [shard.sha256 for shard in again]


def test_no_readable_background_is_a_reason(raw_root, tmp_path):
    root = copied(raw_root, tmp_path, 3)
    for path in (root / "backgrounds").iterdir():
        path.write_bytes(b"")
    _, sealed = make(CompositeHandler, {**BASE, "splits": {"all": 1.0}}, root, tmp_path / "made")
    reasons = quarantined(sealed)
    assert len(reasons) == 26
    assert all("none of 3 backgrounds can be read; the first: background_" in why for why in reasons.values())


def test_an_unusable_partner_gives_way_to_another(raw_root, tmp_path):
    root = copied(raw_root, tmp_path, 4)
    (root / "duts").unlink()
    shutil.copytree(raw_root / "duts", root / "duts")
    masks = sorted((root / "duts/DUTS-TR/DUTS-TR-Mask").iterdir())
    for path in masks[:5]:
        cv2.imwrite(str(path), np.zeros((240, 320), np.uint8))
    _, sealed = make(CompositeHandler, {**BASE, "subjects_per_picture": [2, 2]}, root, tmp_path / "made")
    assert set(quarantined(sealed)) == {f"DUTS-TR/{path.stem}" for path in masks[:5]}
    assert sum(shard.counters.get("unusable_partners", 0) for shard in sealed) > 0


# backgrounds of COCO


def test_backgrounds_of_coco_show_none_of_the_categories(tmp_path, raw_root):
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "val2017").mkdir()
    names = ["cat.jpg", "dog.jpg", "both.jpg", "nothing.jpg", "crowd.jpg", "../../secret.jpg", "/etc/secret.jpg"]
    shown = [(1, 1, 0), (2, 2, 0), (3, 1, 0), (3, 2, 0), (5, 1, 1)]
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names, 1)],
        "annotations": [{"image_id": image, "category_id": kind, "iscrowd": crowd} for image, kind, crowd in shown],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    file = root / "annotations" / "instances_val2017.json"
    file.write_text(json.dumps(content))
    made = CompositeHandler(BASE, str(tmp_path))
    assert photos_without(made, root, ["cat"]) == ["val2017/dog.jpg", "val2017/nothing.jpg"]
    assert photos_without(made, root, ["cat", "dog"]) == ["val2017/nothing.jpg"]
    with pytest.raises(ConfigRefusedError, match="no category 'horse'; it has cat, dog"):
        photos_without(made, root, ["horse"])
    with pytest.raises(RawDataError, match="no photo without cat in the raw folder 'elsewhere'"):
        photos_without(made, tmp_path / "elsewhere", ["cat"])
    for damaged in ("{", "[]", '{"images": []}', '{"categories": [{"id": 1}], "images": [], "annotations": []}'):
        file.write_text(damaged)
        with pytest.raises(RawDataError, match="cannot be read as COCO annotations"):
            photos_without(made, root, ["cat"])


# options


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"subject_scale": [0.9, 0.5]}, "subject_scale"),
        ({"subject_scale": [0, 0.5]}, "above 0"),
        ({"subjects_per_picture": [3, 2]}, "subjects_per_picture"),
        ({"input_attributes": ["category"], "subjects": "duts"}, "have no category"),
        ({"input_attributes": ["category"], "subjects": "cutouts"}, "category_from"),
        ({"single_instances": True, "near_duplicates": "remove"}, "leave it at 'group'"),
        ({"overhang": 0.95}, "less than or equal to 0.9"),
    ],
)
def test_contradictions_are_refused(config, reason):
    with pytest.raises(ConfigRefusedError, match=reason):
        check_config(CompositeConfig, config)


def test_options_without_effect_are_as_good_as_left_out():
    def effective(**config):
        return check_config(CompositeConfig, config).effective()

    assert effective(subjects_folder="coco", backgrounds_folder="backgrounds") == effective()
    assert effective(category_from="name", decontaminate=True) == effective()
    assert effective(subjects="duts", categories=["dog"], single_instances=True, min_instance_area=9.0) == effective(
        subjects="duts"
    )
    assert effective(subjects="duts", categories=["dog"], backgrounds="coco") != effective(
        subjects="duts", backgrounds="coco"
    )
    assert effective(backgrounds="coco")["backgrounds_folder"] == "coco"
    assert effective(subjects="cutouts", feather=3.0) == effective(subjects="cutouts")
    assert effective(subjects="mattes", decontaminate=True) == effective(subjects="mattes")
    assert effective(subjects="cutouts", decontaminate=True) != effective(subjects="cutouts")
    for subjects in ("coco", "duts"):
        unseen = {"subjects": subjects, "input_attributes": ["trimap"]}
        assert effective(**unseen, match_light=0.5) == effective(**unseen)
    assert effective(match_light=0.5) != effective()
    for config in ({}, {"subjects": "mattes"}, {"subjects": "cutouts", "backgrounds": "coco"}):
        assert effective(**effective(**config)) == effective(**config)


# whole builds


def test_the_same_again(raw_root, tmp_path):
    config = {
        **BASE,
        "limit": 6,
        "variations_per_sample": 2,
        "feather": 1.5,
        "exposure": [-1, 1],
        "rotation": [-20, 20],
    }
    digests = []
    for name in ("one", "two"):
        _, sealed = make(CompositeHandler, config, raw_root, tmp_path / name)
        digests.append([shard.sha256 for shard in sealed])
    assert digests[0] == digests[1]
    found = examples_of(tmp_path / "one", sealed)
    assert len(found) == 12
    assert len({example["mask"].tobytes() for example in found}) == 12


def test_the_same_from_any_number_of_workers(raw_root, tmp_path):
    config = {**BASE, "subjects_per_picture": [1, 3], "match_light": 0.5, "overhang": 0.2, "examples_per_shard": 4}
    made = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        request = {"dataset": "composite", "config": config, "raw_root": raw_root, "workers": workers}
        assert plan_and_build(folder, **request).status == 0
        made.append(contents(folder))
    assert made[0] == made[1]


# real photos

REAL = {
    "coco": {"subjects": "coco", "categories": ["person", "dog"], "backgrounds": "coco"},
    "coco_person": {"subjects": "coco", "subjects_folder": "coco_person", "single_instances": True},
    "duts": {"subjects": "duts", "feather": 0},
    "cutouts": {"subjects": "cutouts"},
    "mattes": {"subjects": "mattes", "splits": {"train": 1.0}, "variations_per_sample": 4},
}


@pytest.fixture(params=REAL)
def real(request, real_raw):
    config = {"image_size": [160, 160], "input_attributes": ["image", "alpha", "boxes"], **REAL[request.param]}
    return CompositeHandler(config, str(real_raw))


def test_real_subjects_lie_exactly_where_the_mask_says(real):
    soft = real.options.subjects in ("cutouts", "mattes")
    done = 0
    for sample in all_planned(real)[:12]:
        for variation in range(real.options.variations_per_sample):
            random = SampleRandom(0, sample.key).variation(variation)
            try:
                scene = real.load(sample, variation, random)
            except BadSampleError:
                continue  # a few are too thin for a feather on so small a canvas
            photo, mask, alpha = scene.photo.pixels(), scene.mask.mask, scene.alpha.alpha
            canvas = background_of(real, sample, variation, (160, 160))
            np.testing.assert_array_equal(photo[alpha == 0], canvas[alpha == 0])
            subject = real._subject(sample.data)
            random = SampleRandom(0, sample.key).variation(variation)
            placed = place(subject.mask.box(), (160, 160), (0.5, 0.9), random)
            if soft:
                np.testing.assert_array_equal(mask, np.where(alpha >= 128, 255, 0))
                drawn = subject.alpha.draw(placed, cv2.BORDER_CONSTANT)
                assert np.abs(drawn.astype(int) - alpha).max() <= 8  # by the same 32nds of a pixel
                assert np.abs(drawn.astype(int) - alpha).mean() <= 0.1
            else:
                drawn = subject.mask.draw(placed, cv2.BORDER_CONSTANT)
                assert np.count_nonzero(drawn != mask) <= 0.001 * mask.size
                assert not alpha[mask == 0].any()
            np.testing.assert_array_equal(
                np.maximum.reduce([instance.shape.mask for instance in scene.instances]), mask
            )
            done += 1
    assert done >= 4


def test_true_alpha_of_real_cutouts_against_floating_point(real_raw):
    """Enlarged, as a DCT scale or a filter would need a reference of its own."""
    made = CompositeHandler(
        {"subjects": "cutouts", "image_size": [700, 700], "input_attributes": ["image"]}, str(real_raw)
    )
    done = 0
    for sample in all_planned(made)[:10]:
        subject = made._subject(sample.data)
        placed = place(subject.mask.box(), (700, 700), (0.9, 1.0), np.random.default_rng(5))
        if placed.matrix[0, 0] < 1:
            continue
        background = background_of(made, sample, 0, (700, 700))
        picture = lay(background, [cut_out(subject, placed, made.options.finish)], 0)
        share = subject.alpha.alpha[..., None] / 255.0
        matrix = compose(translation(-0.5, -0.5), placed.matrix, translation(0.5, 0.5))[:2]
        light, opacity = (
            cv2.warpAffine(source, matrix, (700, 700), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
            for source in (subject.photo.pixels() * share, share)
        )
        difference = np.abs(picture.photo - (light + background * (1 - opacity[..., None])))
        assert difference.mean() <= 0.5
        assert np.percentile(difference, 99.9) <= 4  # the warp's 32nds of a pixel, on the finest detail
        np.testing.assert_array_equal(picture.photo[picture.alpha == 0], background[picture.alpha == 0])
        done += 1
    assert done >= 4


def test_the_old_background_of_a_real_matte_is_gone(real_raw):
    """A lemur from before green leaves: before grey, its fringe is as good as without green."""
    green = []
    for clean in (False, True):
        config = {"subjects": "mattes", "image_size": [320, 320], "decontaminate": clean, "splits": {"train": 1.0}}
        made = CompositeHandler(config, str(real_raw))
        (sample,) = all_planned(made)
        subject = made._subject(sample.data)
        placed = place(subject.mask.box(), (320, 320), (0.9, 0.9), np.random.default_rng(0))
        picture = lay(np.full((320, 320, 3), 128, np.uint8), [cut_out(subject, placed, made.options.finish)], 0)
        fringe = picture.photo[(picture.alpha > 20) & (picture.alpha < 200)].astype(int)
        green.append((fringe[:, 1] - fringe[:, [0, 2]].mean(1)).mean())
    assert green[0] > 3
    assert abs(green[1]) < green[0] / 3


def test_real_photos_of_one_split_are_in_no_other(real_raw):
    config = {
        "subjects": "coco",
        "backgrounds": "coco",
        "splits": {"train": 0.5, "test": 0.5},
        "near_duplicates": "ignore",
    }
    by_split = planned(CompositeHandler({**config, "subjects_per_picture": [1, 2]}, str(real_raw)))
    used = [
        {name for sample in samples for name in sample.data["backgrounds"]}
        | {data["photo"] for sample in samples for data in (sample.data, *sample.data["partners"])}
        for samples in by_split.values()
    ]
    assert all(len(photos) > 20 for photos in used)
    assert not used[0] & used[1]
