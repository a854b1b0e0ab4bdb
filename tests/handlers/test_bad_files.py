"""Raw files as they come, through whole builds: each is used as documented, or quarantined with its reason.

Here: kinds of photos and masks that are not what one expects. Elsewhere:

- segmentations that cannot be drawn (fewer than three points, runs of a wrong size or length), annotations without
  photo, photos of another size than annotated, names that lead out of the folder: test_coco.py
- photos without mask and masks without photo, a mask of another size, doubled names, names that are not UTF-8,
  orientation tags, splits of which nothing is left: test_duts.py
- too many bad samples, truncated photos through the commands: test_faults.py
- every truncation and random damage, one decoder at a time: test_images.py and test_jpeg.py
- raw data that changes while a dataset is made: test_metadata.py (photos that were read twice), and below
- a JPEG of 16,384 × 16,384 in little memory: test_photo.py
"""

import io
import json
import resource
import struct
import zlib

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from dataset_handlers.coco import CocoHandler
from dataset_handlers.duts import DutsHandler
from dataset_handlers.shards import WorkFolder
from tests.handlers.support import examples_of, make, plan_and_build, quarantined

PHOTO = np.ascontiguousarray(skimage.data.astronaut()[60:156, 150:278])
GREY = np.ascontiguousarray(PHOTO[..., 1])
MASK = np.zeros(GREY.shape, np.uint8)
MASK[20:70, 30:90] = 255

CONFIG = {"image_encoding": "png", "input_attributes": ["image", "source_id"], "max_quarantined_share": 1}


def encoded(picture, kind, **options):
    stream = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(stream, kind, **options)
    return stream.getvalue()


def duts(folder, photo, mask=None, *, name="a", ending="jpg"):
    """A raw root with one pair for training as given, and one that is well."""
    pairs = {name: (photo, encoded(MASK, "PNG") if mask is None else mask), "well": (encoded(PHOTO, "PNG"), None)}
    for kind in ("Image", "Mask"):
        (folder / "duts" / "DUTS-TR" / f"DUTS-TR-{kind}").mkdir(parents=True)
    for stem, (picture, its_mask) in pairs.items():
        end = ending if stem == name else "png"
        (folder / "duts" / "DUTS-TR" / "DUTS-TR-Image" / f"{stem}.{end}").write_bytes(picture)
        data = encoded(MASK, "PNG") if its_mask is None else its_mask
        (folder / "duts" / "DUTS-TR" / "DUTS-TR-Mask" / f"{stem}.png").write_bytes(data)
    return folder


def built(tmp_path, raw, **config):
    """The example of the pair in question, or the reason why there is none; the other pair is there in any case."""
    _, sealed = make(DutsHandler, {**CONFIG, **config}, raw, tmp_path / "work")
    examples = {example["source_id"].decode(): example for example in examples_of(tmp_path / "work", sealed)}
    assert "DUTS-TR/well" in examples
    del examples["DUTS-TR/well"]
    (said,) = [*examples.values(), *quarantined(sealed).values()]
    return said


JPEG = encoded(PHOTO, "JPEG", quality=95)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "a.jpg: the file is empty"),
        (JPEG[:-2], "a.jpg: cannot be decoded"),
        (JPEG[: len(JPEG) // 2], "a.jpg: cannot be decoded"),
        (JPEG[: len(JPEG) // 2] + b"\xff\xd9", "a.jpg: cannot be decoded"),
        (JPEG[:300] + b"\xff\xd9", "a.jpg: cannot be decoded"),
        (b"\xff\xd8\xff\xd9", "a.jpg: "),
        (encoded(PHOTO, "PNG")[:-3000], "a.jpg: cannot be decoded"),
        (encoded(PHOTO, "GIF"), "a.jpg: is none of JPEG, PNG, BMP, TIFF, WEBP"),
        (b"GIF89a", "a.jpg: is none of"),
        (b"<svg/>", "a.jpg: is none of"),
    ],
    ids=["empty", "no end", "half", "half ended", "header", "markers", "half PNG", "GIF", "GIF's start", "text"],
)
def test_damaged_photos_are_quarantined(tmp_path, data, reason):
    assert built(tmp_path, duts(tmp_path / "raw", data)).startswith(reason)


def palette(**options):
    return encoded(Image.fromarray(PHOTO).quantize(64), "PNG", **options)


def deep(picture, kind):
    return cv2.imencode(kind, (picture.astype(np.uint16) << 8) + 99)[1].tobytes()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(Image.fromarray(PHOTO).convert("CMYK"), "JPEG", quality=98), PHOTO),
        (encoded(GREY, "JPEG", quality=98), np.dstack([GREY] * 3)),
        (encoded(GREY, "PNG"), np.dstack([GREY] * 3)),
        (deep(GREY, ".png"), np.dstack([GREY] * 3)),
        (deep(PHOTO[..., ::-1], ".png"), PHOTO),
        (deep(GREY, ".tiff"), np.dstack([GREY] * 3)),
        (palette(), np.asarray(Image.fromarray(PHOTO).quantize(64).convert("RGB"))),
        (palette(transparency=3), np.asarray(Image.fromarray(PHOTO).quantize(64).convert("RGB"))),
        (encoded(np.dstack([PHOTO, GREY]), "PNG"), PHOTO),
        (encoded(PHOTO, "BMP"), PHOTO),
        (encoded(PHOTO, "WEBP", lossless=True), PHOTO),
        (encoded(PHOTO, "JPEG", quality=98, progressive=True), PHOTO),
    ],
    ids=["CMYK", "grey JPEG", "grey PNG", "16-bit grey", "16-bit RGB", "16-bit TIFF", "palette", "palette with hole",
         "alpha", "BMP", "WebP", "progressive"],
)  # fmt: skip
def test_unusual_photos_are_converted(tmp_path, data, expected):
    image = built(tmp_path, duts(tmp_path / "raw", data))["image"].astype(int)
    assert image.shape == expected.shape
    assert np.abs(image - expected).mean() < (4 if data[:2] == b"\xff\xd8" else 0.001)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_an_animation_the_first_picture_is_used(tmp_path, kind):
    others = [Image.fromarray(255 - PHOTO), Image.fromarray(PHOTO // 2)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(PHOTO, kind, save_all=True, append_images=others, duration=100, **options)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.n_frames == 3
    np.testing.assert_array_equal(built(tmp_path, duts(tmp_path / "raw", data))["image"], PHOTO)


def test_an_annotated_photo_stays_as_it_is_stored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(PHOTO, "JPEG", quality=98, exif=exif)
    example = built(tmp_path, duts(tmp_path / "raw", data))
    assert np.abs(example["image"].astype(int) - PHOTO).mean() < 4
    np.testing.assert_array_equal(example["mask"], MASK)


def bomb(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(10**6)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("place", ["photo", "mask"])
def test_a_decompression_bomb_is_refused_before_memory_is_taken(tmp_path, place):
    data = bomb(60_000, 60_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    raw = duts(tmp_path / "raw", data) if place == "photo" else duts(tmp_path / "raw", JPEG, data)
    name = "a.jpg" if place == "photo" else "a.png"
    assert built(tmp_path, raw) == f"{name}: 60000×60000 pixels are too many"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # all of it would be 10 GiB


def test_masks_of_three_channels_that_differ_are_taken_for_their_luma(tmp_path):
    coloured = np.zeros((*MASK.shape, 3), np.uint8)
    coloured[10:40, 10:40] = (255, 255, 255)
    coloured[50:60, 10:40] = (255, 0, 0)  # luma 76
    coloured[70:80, 10:40] = (0, 255, 0)  # luma 150
    mask = built(tmp_path, duts(tmp_path / "raw", JPEG, encoded(coloured, "PNG")))["mask"]
    luma = np.asarray(Image.fromarray(coloured).convert("L"))
    np.testing.assert_array_equal(mask, np.where(luma >= 128, 255, 0))
    assert mask[75, 20] == 255
    assert mask[55, 20] == 0


@pytest.mark.parametrize("edges", ["threshold", "soft"])
def test_grey_edges_are_cut_or_kept(tmp_path, edges):
    soft = cv2.GaussianBlur(MASK, (0, 0), 3)
    mask = built(tmp_path, duts(tmp_path / "raw", JPEG, encoded(soft, "PNG")), mask_edges=edges)["mask"]
    np.testing.assert_array_equal(mask, soft if edges == "soft" else np.where(soft >= 128, 255, 0))


@pytest.mark.parametrize("level", [0, 127])
@pytest.mark.parametrize("edges", ["threshold", "soft"])
def test_an_empty_mask_is_quarantined(tmp_path, level, edges):
    empty = encoded(np.full(MASK.shape, level, np.uint8), "PNG")
    reason = built(tmp_path, duts(tmp_path / "raw", JPEG, empty), mask_edges=edges)
    assert reason == "a.png: the mask is empty, there is no subject"


def test_of_two_faults_of_a_mask_its_size_is_told(tmp_path):
    other = encoded(np.zeros((5, 5), np.uint8), "PNG")
    reason = built(tmp_path, duts(tmp_path / "raw", JPEG, other))
    assert reason == "the photo has 128×96 pixels, its mask 5×5; they must agree"


@pytest.mark.parametrize("name", ["with space", "Größe 写真 🐈", "a'b\"c", "-rf", "a%20b"])
def test_names_of_any_kind(tmp_path, name):
    example = built(tmp_path, duts(tmp_path / "raw", JPEG, name=name))
    assert example["source_id"].decode() == f"DUTS-TR/{name}"


def made_of(tmp_path, change):
    """The quarantine of a build before which, but after its plan, ``change`` was done to the photo."""
    raw = duts(tmp_path / "raw", JPEG)
    handler = DutsHandler(CONFIG, str(raw))
    work = WorkFolder(tmp_path / "work")
    work.create()
    plan = handler.plan("made", work)
    change(raw / "duts" / "DUTS-TR" / "DUTS-TR-Image" / "a.jpg")
    return quarantined([handler.make_shard(work, shard, lambda _: None) for shard in plan.shards])


def test_a_photo_that_goes_away_is_quarantined(tmp_path):
    assert made_of(tmp_path, lambda path: path.unlink()) == {"DUTS-TR/a": "a.jpg: No such file or directory"}


def test_a_photo_that_becomes_another_is_held_against_its_mask(tmp_path):
    found = made_of(tmp_path, lambda path: path.write_bytes(encoded(PHOTO[:50], "JPEG")))
    assert found == {"DUTS-TR/a": "the photo has 128×50 pixels, its mask 128×96; they must agree"}


@pytest.fixture
def coco(tmp_path):
    """Builds a COCO folder of photos of 30 × 20 pixels."""

    def build(images, annotations):
        folder = tmp_path / "raw" / "coco"
        (folder / "val2017").mkdir(parents=True)
        (folder / "annotations").mkdir()
        for name in {image["file_name"] for image in images}:
            cv2.imwrite(str(folder / "val2017" / name), np.full((20, 30, 3), 90, np.uint8))
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
        (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
        config = {**CONFIG, "categories": ["thing"], "input_attributes": ["boxes", "image", "source_id"]}
        plan, sealed = make(CocoHandler, config, tmp_path / "raw", tmp_path / "work")
        rejected = {item.key: item.reason for item in plan.rejected} | quarantined(sealed)
        return {item["source_id"].decode(): item for item in examples_of(tmp_path / "work", sealed)}, rejected

    return build


def image_of(number, name=None):
    return {"id": number, "file_name": name or f"{number}.png", "height": 20, "width": 30}


def square(number, image, x=2, y=2):
    corners = [x, y, x + 10, y, x + 10, y + 10, x, y + 10]
    return {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "segmentation": [corners]}


def test_images_of_one_id_are_rejected(coco):
    made, rejected = coco([image_of(1), image_of(1, "other.png"), image_of(2)], [square(1, 1), square(2, 2)])
    assert set(made) == {"val2017/2"}
    assert rejected == {"val2017/1": "instances_val2017.json: 2 images have the id 1"}


def test_annotations_listed_twice_count_once_and_others_of_one_id_are_two(coco, tmp_path):
    made, _ = coco([image_of(1)], [square(1, 1), square(1, 1), square(1, 1, x=15), square(2, 1, x=18, y=6)])
    (example,) = made.values()
    assert cv2.connectedComponents(example["mask"])[0] - 1 == 2
    config = {"categories": ["thing"], "subject_count": [3, 3]}
    assert len(list(CocoHandler(config, str(tmp_path / "raw")).samples())) == 1


def test_photos_without_annotations_are_no_samples_and_annotations_without_image_are_listed(coco):
    made, rejected = coco([image_of(1), image_of(2)], [square(1, 1), square(7, 99)])
    assert set(made) == {"val2017/1"}
    assert rejected == {"val2017/99": "instances_val2017.json: annotations of image 99, which is not listed"}


def test_polygons_that_leave_the_photo_are_cut_at_its_frame(coco):
    made, _ = coco([image_of(1)], [square(1, 1, x=-5, y=-5), square(2, 1, x=25, y=15)])
    (example,) = made.values()
    expected = np.zeros((20, 30), np.uint8)
    expected[:5, :5] = expected[15:, 25:] = 255
    np.testing.assert_array_equal(example["mask"], expected)


def test_a_polygon_outside_of_the_photo_is_quarantined(coco):
    made, rejected = coco([image_of(1), image_of(2)], [square(1, 1, x=50), square(2, 2)])
    assert set(made) == {"val2017/2"}
    assert rejected == {"val2017/1": "1.png: no subject is within the photo"}


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (image_of(1) | {"height": float("inf")}, "lacks"),
        (image_of(1) | {"height": 0}, "0"),
        (image_of(1, name="a.png") | {"id": "one"}, None),
    ],
    ids=["endless", "flat", "an id that is text"],
)
def test_an_image_that_is_odd_spoils_no_other(coco, image, reason):
    made, rejected = coco([image, image_of(2)], [square(1, image["id"]), square(2, 2)])
    assert "val2017/2" in made
    assert all(reason in said for said in rejected.values()) if reason else not rejected


def test_names_no_file_can_have_are_listed(tmp_path, coco):
    made, _ = coco([image_of(1), image_of(2)], [square(1, 1), square(2, 2)])
    assert len(made) == 2
    file = tmp_path / "raw" / "coco" / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = "a\0.png"
    content["images"].append(image_of(3) | {"file_name": "b.\ud800"})
    content["annotations"].append(square(3, 3))
    file.write_text(json.dumps(content))
    config = {**CONFIG, "categories": ["thing"]}
    plan, sealed = make(CocoHandler, config, tmp_path / "raw", tmp_path / "again")
    assert [item.reason for item in plan.rejected] == ["its name is not UTF-8; rename the file"]
    (reason,) = quarantined(sealed).values()
    assert "null byte" in reason
    assert len(examples_of(tmp_path / "again", sealed)) == 1


def test_a_subject_of_two_points_is_passed_over_where_there_is_another(coco):
    line = square(2, 1) | {"segmentation": [[1, 1, 9, 9]]}
    made, rejected = coco([image_of(1)], [square(1, 1), line])
    assert not rejected
    assert int((made["val2017/1"]["mask"] > 0).sum()) == 100


def test_levels_of_32_bits_are_refused(tmp_path):
    for kind in (np.int32, np.float32):
        raw = duts(tmp_path / kind.__name__, encoded(Image.fromarray(GREY.astype(kind)), "TIFF"), ending="jpg")
        assert "32 bits" in built(tmp_path / f"{kind.__name__}-built", raw)


def test_a_faint_halo_is_no_subject(tmp_path):
    soft = np.full(GREY.shape, 3, np.uint8)
    soft[20:70, 30:90] = 255
    raw = duts(tmp_path, encoded(PHOTO, "PNG"), encoded(soft, "PNG"), ending="png")
    handler = DutsHandler({"mask_edges": "soft"}, str(raw))
    (sample,) = [item for item in handler.samples() if item.key == "DUTS-TR/a"]
    scene = handler.load(sample, 0, np.random.default_rng(0))
    assert scene.mask.box() == (30, 20, 90, 70)
    counted = handler.counters({"mask": soft})
    assert counted["subject_pixels"] == 50 * 60


def test_files_of_what_is_quarantined_are_part_of_the_raw_data(tmp_path):
    digests = []
    for cut in (500, 600):
        folder = tmp_path / str(cut)
        raw = duts(folder, JPEG[:cut])
        made = plan_and_build(folder / "work", dataset="duts", config=CONFIG, raw_root=raw)
        assert made.status == 0, made.log
        manifest = json.loads((folder / "work" / "dataset" / "manifest.json").read_bytes())
        assert len(manifest["quarantine"]) == 1
        digests.append(manifest["raw_data"]["sha256"])
    assert digests[0] != digests[1]
