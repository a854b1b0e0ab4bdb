"""CamVid: class numbers as published, void apart, through every geometry; and annotations that are none."""

import json
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from dataset_handlers.authors.dataset import open_dataset
from dataset_handlers.authors.drawing import panels
from dataset_handlers.authors.preview import contact_sheet
from dataset_handlers.authors.stats import render
from dataset_handlers.camvid import CLASSES, CamvidHandler
from dataset_handlers.errors import BadSampleError, ConfigRefusedError, RawDataError
from dataset_handlers.images import decode_labels
from dataset_handlers.metadata import write_metadata
from dataset_handlers.plan import Rejected
from dataset_handlers.shards import WorkFolder
from tests.handlers.support import examples_of, make, quarantined

CONFIG = {
    "input_attributes": ["image", "source_id"],
    "image_encoding": "png",
    "max_quarantined_share": 1,
    "near_duplicates": "ignore",
}
HEIGHT, WIDTH = 30, 44


def stripes():
    """All twelve raw levels, in upright stripes of four columns."""
    return np.repeat(np.arange(WIDTH // 4 + 1, dtype=np.uint8), 4)[None, :WIDTH].repeat(HEIGHT, 0)


@pytest.fixture
def raw(tmp_path):
    """Two frames for training, one for each of validation and test; photos show their annotation's levels in red."""
    root = tmp_path / "raw" / "camvid"
    for part, names in (("train", "ab"), ("val", "c"), ("test", "d")):
        (root / part).mkdir(parents=True)
        (root / f"{part}annot").mkdir()
        for number, name in enumerate(names):
            levels = np.roll(stripes(), 12 * number, axis=1)
            levels[:5] = 11
            photo = np.dstack([np.full_like(levels, ord(name)), np.zeros_like(levels), levels * 20])
            cv2.imwrite(str(root / part / f"{name}.png"), photo)
            cv2.imwrite(str(root / f"{part}annot" / f"{name}.png"), levels)
    return tmp_path / "raw"


def annotation(raw, name="a", part="train"):
    return raw / "camvid" / f"{part}annot" / f"{name}.png"


def made(raw, folder, **config):
    plan, sealed = make(CamvidHandler, {**CONFIG, **config}, raw, folder)
    return plan, sealed, {item["source_id"].decode(): item for item in examples_of(folder, sealed)}


def test_the_parts_are_the_splits_and_the_levels_are_the_publishers(raw, tmp_path):
    plan, sealed, found = made(raw, tmp_path / "work")
    assert plan.splits == ["train", "validation", "test"]
    assert [(shard.split, shard.examples) for shard in sealed] == [("train", 2), ("validation", 1), ("test", 1)]
    for key, example in found.items():
        part, name = key.split("/")
        levels = cv2.imread(str(annotation(raw, name, part)), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(example["mask"], np.where(levels == 11, 255, levels))


def test_photo_and_classes_go_through_one_geometry(raw, tmp_path):
    """Crops and mirrored ones; what the photo shows says which class each pixel must have."""
    config = {"crop_size": [20, 24], "flip_horizontal": 0.5, "flip_vertical": 0.5, "variations_per_sample": 12}
    _, sealed = make(CamvidHandler, {**CONFIG, **config}, raw, tmp_path / "work")
    examples = examples_of(tmp_path / "work", sealed)
    assert len(examples) == 48
    for example in examples:
        shown = example["image"][..., 0] // 20
        np.testing.assert_array_equal(example["mask"], np.where(shown == 11, 255, shown))
    crops = {(example["source_id"], example["mask"].tobytes()) for example in examples}
    assert len(crops) > 40
    again = make(CamvidHandler, {**CONFIG, **config}, raw, tmp_path / "again")[1]
    assert [shard.sha256 for shard in again] == [shard.sha256 for shard in sealed]


def test_no_class_is_made_up_between_two(raw, tmp_path):
    """Sky (0) beside bicyclists (10): no mean of the two, and nothing but them and void, however it is turned."""
    levels = np.zeros((HEIGHT, WIDTH), np.uint8)
    levels[:, WIDTH // 2 :] = 10
    cv2.imwrite(str(annotation(raw)), levels)
    config = {"image_size": [50, 60], "rotation": [-40, 40], "scale": [0.5, 2.0], "perspective": [0.0, 0.1]}
    _, _, found = made(raw, tmp_path / "work", **config)
    assert set(np.unique(found["train/a"]["mask"])) <= {0, 10}, "beyond its frame, a photo is mirrored"


def test_what_is_beside_a_fitted_photo_is_void(raw, tmp_path):
    _, _, found = made(raw, tmp_path / "work", image_size=[44, 44], resize_mode="fit")
    for example in found.values():
        assert (example["mask"][:7] == 255).all()
        assert (example["mask"][37:] == 255).all()
        assert (example["image"][:7] == 0).all()
        assert (example["mask"][14:35] != 255).mean() > 0.9


def test_the_manifest_names_the_classes_and_counts_void_apart(raw, tmp_path):
    plan, sealed, found = made(raw, tmp_path / "work")
    write_metadata(WorkFolder(tmp_path / "work"), plan, sealed)
    manifest = json.loads((tmp_path / "work" / "dataset" / "manifest.json").read_bytes())
    assert manifest["labels"] == {str(number): name for number, name in enumerate(CLASSES)}
    statistics = manifest["statistics"]["train"]
    masks = np.stack([found["train/a"]["mask"], found["train/b"]["mask"]])
    counted = np.bincount(masks.ravel(), minlength=256)
    assert statistics["label_pixels"] == {str(number): counted[number] for number in range(11)}
    assert statistics["void_pixels"] == counted[255] > 0
    assert not any("subject" in name for name in statistics), "there is none"
    levels = np.stack([found["train/a"]["image"], found["train/b"]["image"]])[:, ::16].reshape(-1, 3)
    assert statistics["channel_mean"] == pytest.approx(levels.mean(axis=0), abs=1e-3)
    assert manifest["gate"] == []
    text = render(manifest)
    assert "Bicyclist" in text
    assert "void pixels" in text


def test_a_preview_draws_every_class_in_a_colour_of_its_own_and_void_in_none(raw, tmp_path):
    plan, sealed, _ = made(raw, tmp_path / "work", image_size=[160, 160])
    write_metadata(WorkFolder(tmp_path / "work"), plan, sealed)
    dataset = open_dataset(tmp_path / "work")
    example = next(iter(dataset.examples("test")))
    grey = {"image": np.full((160, 160, 3), 100, np.uint8), "mask": example["mask"]}
    _, drawn = panels(grey, (160, 160), dataset.classes)
    pixels = np.asarray(drawn)
    colours = {int(level): np.unique(pixels[example["mask"][..., 0] == level], axis=0) for level in (*range(11), 255)}
    assert all(len(found) == 1 for found in colours.values())
    assert len({tuple(found[0]) for found in colours.values()}) == 12
    assert tuple(colours[255][0]) == (45, 45, 45), "the photo, dimmed"
    sheet = np.asarray(contact_sheet(dataset, ["test"], count=1))
    over = np.asarray(panels(example, (160, 160), dataset.classes)[1])
    assert np.array_equal(sheet[34 : 34 + 160, 16 + 163 : 16 + 323], over)


def test_annotations_in_a_palette_are_numbers_all_the_same(raw, tmp_path):
    levels = cv2.imread(str(annotation(raw)), cv2.IMREAD_UNCHANGED)
    coloured = Image.fromarray(levels).convert("P")
    coloured.putdata(levels.ravel().tolist())
    coloured.putpalette([value for number in range(12) for value in (255 - number, 7 * number, 99)])
    coloured.save(annotation(raw))
    _, _, found = made(raw, tmp_path / "work")
    np.testing.assert_array_equal(found["train/a"]["mask"], np.where(levels == 11, 255, levels))


def test_annotations_that_are_none_are_quarantined(raw, tmp_path):
    for name, levels, why in (
        ("a", np.full((HEIGHT, WIDTH), 12, np.uint8), "a.png: has levels that are no class: 12; there are 0 to 10"),
        ("b", np.full((HEIGHT, WIDTH), 11, np.uint8), "b.png: all of it is void"),
        ("c", np.full((HEIGHT, WIDTH, 3), 5, np.uint8), r"c.png: its pixels (RGB) are no class numbers"),
        ("d", np.full((HEIGHT, WIDTH + 1), 5, np.uint8), "the photo has 44×30 pixels, its mask 45×30"),
    ):
        part = {"c": "val", "d": "test"}.get(name, "train")
        cv2.imwrite(str(annotation(raw, name, part)), levels)
        _, sealed, _ = made(raw, tmp_path / name)
        assert quarantined(sealed)[f"{part}/{name}"].startswith(why)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_levels_of_fewer_bits_are_no_class_numbers(bits):
    """A reader spreads them over 0 to 255: of two bits, class 3 would come as 255, which is void."""
    header = struct.pack(">IIBBBBB", 8, 1, bits, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 + bits))
    parts = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    with pytest.raises(BadSampleError, match=f"grey levels have {bits} bits; write class numbers as 8-bit grey levels"):
        decode_labels(b"\x89PNG\r\n\x1a\n" + b"".join(chunks), "a.png")


def test_a_crop_that_shows_nothing_known_is_told_of(raw, tmp_path):
    levels = np.full((HEIGHT, WIDTH), 11, np.uint8)
    levels[0, 0] = 3
    cv2.imwrite(str(annotation(raw)), levels)
    plan, sealed, _ = made(raw, tmp_path / "work", crop_size=[10, 10], crop_mode="center")
    write_metadata(WorkFolder(tmp_path / "work"), plan, sealed)
    (finding,) = open_dataset(tmp_path / "work").manifest["gate"]
    assert (finding["check"], finding["split"], finding["count"]) == ("void_masks", "train", 1)


def test_frames_without_annotation_are_listed_and_parts_may_be_missing(raw):
    annotation(raw).unlink()
    (raw / "camvid" / "train" / "b.png").unlink()
    found = list(CamvidHandler({}, str(raw)).samples())
    rejected = {item.key: item.reason for item in found if isinstance(item, Rejected)}
    assert rejected == {"train/a": "a.png has no mask a.png", "train/b": "b.png has no photo"}
    (raw / "camvid" / "val").rename(raw / "away")
    assert {item.key for item in CamvidHandler({}, str(raw)).samples()} == {"train/a", "train/b", "test/d"}
    with pytest.raises(RawDataError, match="none of train, val and test in the raw folder 'elsewhere'"):
        list(CamvidHandler({"raw_folder": "elsewhere"}, str(raw)).samples())


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"crop_size": [8, 8], "crop_mode": "subject"}, "no subject to crop about"),
        ({"crop_size": [8, 8], "random_crop_centered": True}, "no subject to crop about"),
        ({"input_attributes": ["image", "clicks"]}, "these raw data have no 'clicks'"),
        ({"input_attributes": ["trimap"]}, "these raw data have no 'trimap'"),
    ],
)
def test_what_needs_a_subject_is_refused(config, reason):
    with pytest.raises(ConfigRefusedError, match=reason):
        CamvidHandler(config, "raw")


def test_the_published_frames(real_raw, tmp_path):
    """The full set, by its annotations alone: frames by split, and the pixels of each class in the training split."""
    if not (real_raw / "camvid" / "train").is_dir():
        pytest.skip("CamVid, as SegNet's tutorial ships it, is not at ../shared/data/raw/camvid")
    config = {"input_attributes": ["mask"], "near_duplicates": "ignore"}
    plan, sealed = make(CamvidHandler, config, real_raw, tmp_path)
    write_metadata(WorkFolder(tmp_path), plan, sealed)
    manifest = open_dataset(tmp_path).manifest
    splits = {split: counts["examples"] for split, counts in manifest["splits"].items()}
    assert splits == {"train": 367, "validation": 101, "test": 233}
    assert manifest["quarantine"] == []
    pixels = {split: statistics["label_pixels"] for split, statistics in manifest["statistics"].items()}
    void = {split: statistics["void_pixels"] for split, statistics in manifest["statistics"].items()}
    for split, frames in splits.items():
        assert sum(pixels[split].values()) + void[split] == frames * 360 * 480
        assert pixels[split].keys() == {str(number) for number in range(11)}
    # What the field knows of CamVid: most is road, building, sky and tree; pole, sign and bicyclist are rare.
    train = sorted(pixels["train"], key=lambda level: -pixels["train"][level])
    assert [CLASSES[int(level)] for level in train[:4]] == ["Road", "Building", "Sky", "Tree"]
    assert {CLASSES[int(level)] for level in train[-2:]} == {"Pedestrian", "Bicyclist"}
