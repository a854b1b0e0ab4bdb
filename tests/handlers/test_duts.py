"""DUTS: its two halves, its grey edges, and pairs that are none."""

import os

import cv2
import numpy as np
import pytest
from PIL import Image

from dataset_handlers.duts import DutsHandler
from dataset_handlers.errors import RawDataError
from dataset_handlers.plan import Rejected
from tests.handlers.support import decode, examples_of, make, quarantined, run_command, write_request

CONFIG = {"input_attributes": ["image", "source_id"], "max_quarantined_share": 1}


@pytest.fixture
def raw(tmp_path):
    """Two pairs for training, one for testing."""
    root = tmp_path / "raw"
    for part, names in (("DUTS-TR", "ab"), ("DUTS-TE", "c")):
        for kind in ("Image", "Mask"):
            (root / "duts" / part / f"{part}-{kind}").mkdir(parents=True)
        for name in names:
            photo = np.full((20, 30, 3), ord(name), np.uint8)
            cv2.imwrite(str(root / "duts" / part / f"{part}-Image" / f"{name}.jpg"), photo)
            grey = np.zeros((20, 30), np.uint8)
            grey[5:15, 5:20] = 255
            grey[4, 5:20] = 127
            grey[15, 5:20] = 128
            cv2.imwrite(str(root / "duts" / part / f"{part}-Mask" / f"{name}.png"), grey)
    return root


def train(raw, kind, name):
    return raw / "duts" / "DUTS-TR" / f"DUTS-TR-{kind}" / name


def test_the_halves_are_the_splits(raw, tmp_path):
    plan, sealed = make(DutsHandler, CONFIG, raw, tmp_path / "work")
    assert plan.splits == ["train", "test"]
    found = {example["source_id"].decode(): example for example in examples_of(tmp_path / "work", sealed)}
    assert set(found) == {"DUTS-TR/a", "DUTS-TR/b", "DUTS-TE/c"}
    assert [(shard.split, shard.examples) for shard in sealed] == [("train", 2), ("test", 1)]


def test_grey_edges_are_cut_at_half(raw, tmp_path):
    _, sealed = make(DutsHandler, CONFIG, raw, tmp_path / "work")
    expected = np.zeros((20, 30), np.uint8)
    expected[5:16, 5:20] = 255  # 127 is out, 128 is in
    for example in examples_of(tmp_path / "work", sealed):
        np.testing.assert_array_equal(example["mask"], expected)


def test_missing_halves_of_pairs_are_listed(raw):
    train(raw, "Image", "a.jpg").unlink()
    train(raw, "Mask", "b.png").unlink()
    found = list(DutsHandler({}, str(raw)).samples())
    rejected = {item.key: item.reason for item in found if isinstance(item, Rejected)}
    assert rejected == {"DUTS-TR/a": "a.png has no photo", "DUTS-TR/b": "b.jpg has no mask b.png"}
    assert len(found) == 3


def test_either_half_may_be_missing(raw):
    (raw / "duts" / "DUTS-TE").rename(raw / "away")
    assert {sample.split for sample in DutsHandler({}, str(raw)).samples()} == {"train"}
    (raw / "duts" / "DUTS-TR").rename(raw / "away too")
    with pytest.raises(RawDataError, match="neither DUTS-TR nor DUTS-TE"):
        list(DutsHandler({}, str(raw)).samples())


def test_a_mask_of_another_size_is_quarantined(raw, tmp_path):
    cv2.imwrite(str(train(raw, "Mask", "a.png")), np.zeros((20, 31), np.uint8))
    train(raw, "Image", "b.jpg").write_bytes(b"")
    _, sealed = make(DutsHandler, CONFIG, raw, tmp_path / "work")
    assert quarantined(sealed) == {
        "DUTS-TR/a": "the photo has 30×20 pixels, its mask 31×20; they must agree",
        "DUTS-TR/b": "b.jpg: the file is empty",
    }
    assert [example["source_id"] for example in examples_of(tmp_path / "work", sealed)] == [b"DUTS-TE/c"]


def test_a_photo_smaller_than_the_crop_is_quarantined(raw, tmp_path):
    _, sealed = make(DutsHandler, {**CONFIG, "crop_size": [21, 10]}, raw, tmp_path / "work")
    assert set(quarantined(sealed)) == {"DUTS-TR/a", "DUTS-TR/b", "DUTS-TE/c"}
    assert "a crop of 10×21 does not fit into 30×20 pixels" in quarantined(sealed).values()


def test_a_photo_whose_name_is_not_utf8_is_rejected_and_the_rest_planned(raw, tmp_path):
    for kind, ending in (("Image", b".jpg"), ("Mask", b".png")):
        folder = os.fsencode(train(raw, kind, ""))
        os.link(os.path.join(folder, b"a" + ending), os.path.join(folder, b"\xff" + ending))
    plan, _ = make(DutsHandler, CONFIG, raw, tmp_path / "work")
    assert plan.samples == 3
    assert [(item.key, item.reason) for item in plan.rejected] == [
        ("DUTS-TR/\\udcff", "its name is not UTF-8; rename the file")
    ]


def test_variations_differ_and_come_again(raw, tmp_path):
    config = {**CONFIG, "variations_per_sample": 4, "rotation": [-30, 30], "exposure": [-1, 1]}
    runs = []
    for name in ("one", "two"):
        _, sealed = make(DutsHandler, config, raw, tmp_path / name)
        runs.append([shard.sha256 for shard in sealed])
    assert runs[0] == runs[1]
    masks = [e["mask"].tobytes() for e in examples_of(tmp_path / "one", sealed) if e["source_id"] == b"DUTS-TR/a"]
    assert len(set(masks)) == 4
    _, other = make(DutsHandler, {**config, "seed": 1}, raw, tmp_path / "three")
    assert [shard.sha256 for shard in other] != runs[0]


def test_real_masks_are_the_publishers_cut_at_half(real_raw, tmp_path):
    plan, sealed = make(DutsHandler, {**CONFIG, "limit": 25}, real_raw, tmp_path)
    assert plan.found == 300
    for example in examples_of(tmp_path, sealed):
        part, stem = example["source_id"].decode().split("/")
        data = (real_raw / "duts" / part / f"{part}-Mask" / f"{stem}.png").read_bytes()
        grey = decode(data)
        grey = grey if grey.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(grey[..., :3]), cv2.COLOR_RGB2GRAY)
        np.testing.assert_array_equal(example["mask"] > 0, grey >= 128)
        assert example["image"].shape == (*grey.shape, 3)


def test_two_photos_of_one_name(raw):
    cv2.imwrite(str(train(raw, "Image", "a.png")), np.zeros((20, 30, 3), np.uint8))
    found = list(DutsHandler({}, str(raw)).samples())
    assert [item.key for item in found if isinstance(item, Rejected)] == ["DUTS-TR/a.jpg"]
    assert [item.data["photo"] for item in found if item.key == "DUTS-TR/a"] == ["DUTS-TR/DUTS-TR-Image/a.png"]


@pytest.mark.parametrize("orientation", [3, 6])
def test_an_orientation_tag_does_not_part_photo_and_mask(raw, tmp_path, orientation):
    """Masks are drawn on the rows as they are stored: the photo here is its own mask."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    mask = cv2.imread(str(train(raw, "Mask", "a.png")), cv2.IMREAD_GRAYSCALE)
    Image.fromarray(mask).convert("RGB").save(train(raw, "Image", "a.jpg"), quality=95, exif=exif)
    _, sealed = make(DutsHandler, CONFIG, raw, tmp_path / "work")
    (example,) = [item for item in examples_of(tmp_path / "work", sealed) if item["source_id"] == b"DUTS-TR/a"]
    clear = (mask < 64) | (mask > 192)
    np.testing.assert_array_equal((example["image"][..., 0] > 128)[clear], (example["mask"] == 255)[clear])


def test_a_split_of_which_nothing_is_left_fails_the_build(raw, tmp_path):
    (raw / "duts" / "DUTS-TE" / "DUTS-TE-Image" / "c.jpg").write_bytes(b"no picture")
    ask = {"dataset": "duts", "config": CONFIG, "raw_root": raw, "work_dir": tmp_path / "work"}
    (tmp_path / "work").mkdir()
    request = write_request(tmp_path / "request.json", **ask, workers=1)
    assert run_command("plan", request).status == 0
    outcome = run_command("build", request)
    assert (outcome.status, outcome.last["code"]) == (1, "empty_selection")
    assert "'test'" in outcome.last["message"]
    assert "c.jpg: is none of" in outcome.last["message"]
