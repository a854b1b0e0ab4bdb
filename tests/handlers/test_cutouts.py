"""Cut-outs: alpha to the level, nothing of what it hides, several in a picture, clusters; what is none, and why."""

import io
import json
import math
import os
import weakref
import zlib
from collections import Counter

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import example as also
from hypothesis import strategies as st
from PIL import Image

from dataset_handlers.commands import check_request, plan
from dataset_handlers.cutouts import CutoutsHandler
from dataset_handlers.errors import BadSampleError, ConfigRefusedError, RawDataError
from dataset_handlers.example_proto import decode_example
from dataset_handlers.placement import place
from dataset_handlers.plan import Rejected, Sample
from dataset_handlers.rgba import Cutout, decode_cutout, extended
from dataset_handlers.rng import SampleRandom
from dataset_handlers.tfrecord import read_records
from dataset_handlers.transforms.geometry import transform_point
from tests.handlers.support import contents, decode, make, quarantined, run_command, write_request

ALL = ["alpha", "image", "source_id"]


def blob(seed, size=(40, 52), colour=None):
    """A cut-out with a soft edge: colours at random, or one; random ones where it is transparent."""
    random = np.random.default_rng(seed)
    height, width = size
    rgba = random.integers(0, 256, (height, width, 4), np.uint8)
    y, x = np.mgrid[:height, :width]
    distance = np.hypot((y - height / 2) / height, (x - width / 2) / width)
    rgba[..., 3] = np.clip((0.4 - distance) * 10 * 255, 0, 255)
    if colour is not None:
        rgba[rgba[..., 3] > 0, :3] = colour
    return rgba


def encoded(rgba, kind="PNG", **options):
    file = io.BytesIO()
    (rgba if isinstance(rgba, Image.Image) else Image.fromarray(rgba)).save(file, kind, **options)
    return file.getvalue()


def fill(root, files, folder="cutouts"):
    for name, data in files.items():
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else encoded(data))
    return root


@pytest.fixture
def some(tmp_path):
    """Ten cut-outs of different sizes."""
    return fill(tmp_path / "raw", {f"{n:02}.png": blob(n, (30 + n, 60 - 2 * n)) for n in range(10)})


def built(config, root, folder):
    """All examples by field, pictures decoded, by source; the plan, and the shards."""
    config = {"input_attributes": ALL, "image_encoding": "png", **config}
    plan, sealed = make(CutoutsHandler, config, root, folder)
    examples = []
    for shard in sealed:
        for record in read_records(folder / "dataset" / shard.file):
            found = dict(decode_example(record))
            for name in ("image", "mask", "alpha", "trimap"):
                if name in found:
                    found[name] = decode(found[name][0])
            found["key"] = found["source_id"][0].decode()
            examples.append(found)
    return examples, plan, sealed


def on_colour(rgba, colour):
    """Laid over one colour, in whole numbers, rounded to the nearest."""
    alpha = rgba[..., 3:].astype(int)
    return (rgba[..., :3].astype(int) * alpha + np.array(colour) * (255 - alpha) + 127) // 255


def test_all_real_cutouts_to_the_level(real_raw, tmp_path):
    colour = [200, 30, 90]
    config = {"background_color": colour, "category_from": "name", "input_attributes": [*ALL, "category", "boxes"]}
    examples, plan, sealed = built(config, real_raw, tmp_path)
    assert len(examples) == 80
    assert plan.rejected == ()
    assert quarantined(sealed) == {}
    for example in examples:
        with Image.open(real_raw / "cutouts" / f"{example['key']}.png") as opened:
            rgba = np.asarray(opened)
        np.testing.assert_array_equal(example["alpha"], rgba[..., 3])
        np.testing.assert_array_equal(example["mask"], np.where(rgba[..., 3] >= 128, 255, 0))
        np.testing.assert_array_equal(example["image"], on_colour(rgba, colour))
        assert example["category"] == [example["key"].split("__")[0].encode()]
        rows, columns = np.nonzero(example["mask"])
        height, width = example["mask"].shape
        box = [rows.min() / height, columns.min() / width, (rows.max() + 1) / height, (columns.max() + 1) / width]
        np.testing.assert_allclose(example["boxes"], box, rtol=1e-6)


def test_colours_that_are_transparent_never_show(tmp_path):
    rgba = blob(1)
    other = rgba.copy()
    other[other[..., 3] == 0, :3] = (255, 0, 255)
    assert (other != rgba).any()
    config = {
        "image_size": [61, 47],
        "rotation": [20, 20],
        "scale": [0.4, 0.4],
        "input_attributes": [*ALL, "trimap", "clicks"],
    }
    one, *_ = built(config, fill(tmp_path / "one", {"a.png": rgba}), tmp_path / "made one")
    two, *_ = built(config, fill(tmp_path / "two", {"a.png": other}), tmp_path / "made two")
    assert list(one[0]) == list(two[0])
    for name, value in one[0].items():
        np.testing.assert_array_equal(value, two[0][name])
    several = {**config, "items_per_picture": [3, 3]}
    one, *_ = built(several, tmp_path / "one", tmp_path / "several one")
    two, *_ = built(several, tmp_path / "two", tmp_path / "several two")
    np.testing.assert_array_equal(one[0]["image"], two[0]["image"])


def test_colours_go_on_from_the_nearest_visible_pixel():
    # Every pixel's colour says where it is.
    y, x = np.mgrid[:60, :70]
    photo = np.dstack([x, y, np.zeros_like(x)]).astype(np.uint8)
    alpha = (np.random.default_rng(3).random((60, 70)) < 0.01).astype(np.uint8) * 9
    filled = extended(Cutout(photo, alpha)).astype(int)
    rows, columns = np.nonzero(alpha)
    nearest = np.sqrt(((rows - y[..., None]) ** 2 + (columns - x[..., None]) ** 2).min(axis=-1))
    assert (alpha[filled[..., 1], filled[..., 0]] > 0).all()
    taken = np.hypot(filled[..., 0] - x, filled[..., 1] - y)
    assert (taken <= 1.05 * nearest).all()
    np.testing.assert_array_equal(filled[alpha > 0], photo[alpha > 0])
    with pytest.raises(ValueError, match="nothing is visible"):
        extended(Cutout(photo, np.zeros_like(alpha)))


def premultiplied_tiff(rgba):
    """A TIFF whose tag 338 (ExtraSamples) says that colours are multiplied by alpha."""
    tag = b"\x52\x01\x03\x00\x01\x00\x00\x00"
    data = encoded(rgba, "TIFF")
    assert data.count(tag + b"\x02") == 1
    return data.replace(tag + b"\x02", tag + b"\x01")


def sixteen_bits(rgba):
    done, data = cv2.imencode(".png", cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA).astype(np.uint16) * 256 + 77)
    assert done
    return data.tobytes()


def turned(rgba, kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # the top row is the right side
    return encoded(np.ascontiguousarray(np.rot90(rgba)), kind, exif=exif)


def test_every_kind_of_picture_with_alpha():
    rgba = blob(5)
    grey = Image.fromarray(rgba[..., 0]), Image.fromarray(rgba[..., 3])
    lossless = {
        "webp": encoded(rgba, "WEBP", lossless=True, exact=True),
        "tiff": encoded(rgba, "TIFF", compression="tiff_deflate"),
        "16 bits": sixteen_bits(rgba),
        "turned png": turned(rgba, "PNG"),
        "turned tiff": turned(rgba, "TIFF"),
    }
    for name, data in lossless.items():
        cutout = decode_cutout(data, name)
        np.testing.assert_array_equal(np.dstack([cutout.photo, cutout.alpha]), rgba, err_msg=name)
    cutout = decode_cutout(encoded(Image.merge("LA", grey)), "grey")
    np.testing.assert_array_equal(cutout.alpha, rgba[..., 3])
    np.testing.assert_array_equal(cutout.photo, np.dstack([rgba[..., 0]] * 3))
    # A palette of four colours, each with an opacity of its own.
    palette = Image.fromarray((np.arange(40 * 52).reshape(40, 52) // 600).astype(np.uint8), "L").copy()
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    cutout = decode_cutout(encoded(palette, transparency=bytes([0, 60, 200, 255])), "palette")
    assert cutout.alpha.ravel()[::600].tolist() == [0, 60, 200, 255]
    assert cutout.photo.reshape(-1, 3)[::600].tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]]
    # One colour that stands for transparent.
    photo = blob(6)[..., :3].copy()
    photo[:20] = (1, 2, 3)
    cutout = decode_cutout(encoded(Image.fromarray(photo), transparency=(1, 2, 3)), "keyed")
    np.testing.assert_array_equal(cutout.alpha > 0, (photo != (1, 2, 3)).any(axis=-1))


def test_a_tiff_that_says_it_is_premultiplied_is_divided():
    straight = blob(7)
    multiplied = straight.copy()
    multiplied[..., :3] = (straight[..., :3].astype(int) * straight[..., 3:] + 127) // 255
    cutout = decode_cutout(premultiplied_tiff(multiplied), "a.tif")
    np.testing.assert_array_equal(cutout.alpha, straight[..., 3])
    opacity = straight[..., 3].astype(int)
    error = np.abs(cutout.photo.astype(int) - straight[..., :3]).max(axis=-1)
    assert (error[opacity > 0] <= 255 / opacity[opacity > 0] + 1).all()


def bad_files():
    rgba = blob(8)
    opaque, clear, tiny, ghost = rgba.copy(), rgba.copy(), rgba.copy(), rgba.copy()
    opaque[..., 3] = 255
    clear[..., 3] = 0
    tiny[..., 3] = 0
    tiny[5:10, 5:10, 3] = 255
    ghost[..., 3] //= 3
    frames = {"save_all": True, "append_images": [Image.fromarray(blob(9))]}
    return {
        "rgb.png": (encoded(rgba[..., :3].copy()), "no alpha channel"),
        "photo.png": (encoded(rgba[..., :3].copy(), "JPEG"), "no alpha channel"),
        "opaque.png": (encoded(opaque), "opaque everywhere"),
        "clear.png": (encoded(clear), "transparent everywhere"),
        "tiny.png": (encoded(tiny), "25 pixels are opaque (level 128 or more), fewer than 64"),
        "ghost.png": (encoded(ghost), "0 pixels are opaque"),
        "nothing.png": (b"", "the file is empty"),
        "noise.webp": (bytes(range(256)) * 4, "is none of"),
        "cut.png": (encoded(rgba)[:2000], "cannot be decoded"),
        "cut.webp": (encoded(rgba, "WEBP", lossless=True)[:2000], "cannot be decoded"),
        "moving.webp": (encoded(rgba, "WEBP", **frames), "animated or has several pages (2)"),
        "moving.png": (encoded(rgba, "PNG", **frames), "animated or has several pages (2)"),
        "pages.tiff": (encoded(rgba, "TIFF", **frames), "animated or has several pages (2)"),
    }


@pytest.mark.parametrize("planning", [{}, {"clusters": 2}, {"items_per_picture": [2, 2], "image_size": [64, 64]}])
def test_what_is_no_cutout_is_left_out_with_its_reason(tmp_path, planning):
    files = {f"bad/{name}": data for name, (data, _) in bad_files().items()}
    root = fill(tmp_path / "raw", {**files, "good.png": blob(1), "fine.png": blob(2)})
    config = {"max_quarantined_share": 1.0, **planning}
    examples, plan, sealed = built(config, root, tmp_path / "made")
    assert {example["key"] for example in examples} == {"good", "fine"}
    reasons = {**quarantined(sealed), **{item.key: item.reason for item in plan.rejected}}
    doubled = {"bad/moving", "bad/cut"}  # two files with one name each
    for name, (_, reason) in bad_files().items():
        key = f"bad/{name.rpartition('.')[0]}"
        if planning or key not in doubled:
            assert any(item.key == key and reason in item.reason for item in plan.rejected) or reason in reasons[key]
    # Nothing is read for a plan that does not depend on it.
    assert len(plan.raw_files) == (len(files) + 2 if planning else 0)


def test_names_folders_and_endings(tmp_path):
    names = ["Große Eule (2).PNG", "tiere/vögel/эму 鳥.png", "tiere/a.b.webp", "x.tif"]
    files = {
        name: encoded(blob(n), {"webp": "WEBP", ".tif": "TIFF"}.get(name[-4:], "PNG")) for n, name in enumerate(names)
    }
    root = fill(tmp_path / "raw", {**files, "readme.txt": b"no picture", "tiere/photo.jpg": b"passed over"})
    examples, plan, sealed = built({}, root, tmp_path / "made")
    assert {example["key"] for example in examples} == {name.rpartition(".")[0] for name in names}
    assert plan.rejected == ()
    assert quarantined(sealed) == {}
    fill(root, {"x.png": blob(9)})
    _, plan, _ = built({}, root, tmp_path / "again")
    assert plan.rejected == (Rejected("x", "another sample has the same key"),)


def test_without_pictures_the_raw_folder_is_named(tmp_path):
    (tmp_path / "cutouts").mkdir()
    with pytest.raises(RawDataError, match=r"no picture in the raw folder 'cutouts'.*\.png"):
        list(CutoutsHandler({}, str(tmp_path)).samples())


@pytest.mark.parametrize(
    ("source", "expected", "reason"),
    [
        ("name", {"a__b__c": "a", "in/d__e": "d"}, "its name has no '__'"),
        ("folder", {"in/d__e": "in", "in/plain": "in"}, "it is in no folder"),
    ],
)
def test_categories(tmp_path, source, expected, reason):
    root = fill(tmp_path, dict.fromkeys(["a__b__c.png", "in/d__e.png", "in/plain.png", "__x.png"], blob(1)))
    config = {"category_from": source, "input_attributes": ["image", "category"]}
    found = list(CutoutsHandler(config, str(root)).samples())
    assert {item.key: item.data["category"] for item in found if isinstance(item, Sample)} == expected
    rejected = [item for item in found if isinstance(item, Rejected)]
    assert len(rejected) == 4 - len(expected)
    assert all(reason in item.reason for item in rejected)
    without = list(CutoutsHandler({"category_from": source}, str(root)).samples())
    assert len(without) == 4
    assert all(isinstance(item, Sample) for item in without)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"input_attributes": ["cluster"]}, "the attribute 'cluster' needs `clusters`"),
        ({"balance": 0.5}, "`balance` fills up clusters; set `clusters`"),
        ({"clusters": 2, "balance": 0.5, "background_color": [0, 0, 0]}, "nothing here tells these apart"),
        ({"clusters": 2, "balance": 0.5, "input_attributes": ["alpha"]}, "nothing here tells these apart"),
        ({"input_attributes": ["category"]}, "the attribute 'category' needs `category_from`"),
        ({"items_per_picture": [1, 2]}, "set image_size"),
        ({"items_per_picture": [3, 2], "image_size": [64, 64]}, "no range [least, most]"),
        ({"item_scale": [0.0, 0.5]}, "no range [low, high] above 0"),
        ({"background_color": [0, 0, 256]}, "less than or equal to 255"),
        ({"clusters": 0}, "greater than or equal to 1"),
    ],
)
def test_contradictions_are_refused(config, reason):
    with pytest.raises(ConfigRefusedError) as refused:
        CutoutsHandler(config, "/nowhere")
    assert reason in str(refused.value)


def test_options_without_effect_are_as_good_as_left_out():
    effective = CutoutsHandler({"input_attributes": ["alpha"]}, "/").options.effective()
    idle = {"category_from": "name", "background_color": [1, 2, 3], "item_scale": [0.1, 0.2]}
    assert CutoutsHandler({**idle, "input_attributes": ["alpha"]}, "/").options.effective() == effective
    used = {**idle, "input_attributes": ["category", "image"], "items_per_picture": [1, 2], "image_size": [9, 9]}
    assert {name: CutoutsHandler(used, "/").options.effective()[name] for name in idle} == idle


GEOMETRY = st.fixed_dictionaries(
    {
        "image_size": st.sampled_from([None, [48, 64], [70, 33]]),
        "resize_mode": st.sampled_from(["stretch", "fit", "cover"]),
        "crop_size": st.sampled_from([None, [25, 28]]),
        "flip_horizontal": st.sampled_from([0.0, 1.0]),
        "flip_vertical": st.sampled_from([0.0, 1.0]),
        "rotation": st.sampled_from([[0.0, 0.0], [-180.0, 180.0]]),
        "scale": st.sampled_from([[1.0, 1.0], [0.5, 1.5]]),
        "shear": st.sampled_from([[0.0, 0.0], [-20.0, 20.0]]),
        "perspective": st.sampled_from([[0.0, 0.0], [0.0, 0.1]]),
        "seed": st.integers(0, 1000),
    }
)


#: Shrunk by blocks while it looks beyond the frame, where photos and alphas once parted.
BEYOND_THE_FRAME = {
    "image_size": [70, 33], "resize_mode": "stretch", "crop_size": None, "flip_horizontal": 0.0, "flip_vertical": 1.0,
    "rotation": [0.0, 0.0], "scale": [0.5, 1.5], "shear": [0.0, 0.0], "perspective": [0.0, 0.0], "seed": 645,
}  # fmt: skip


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=GEOMETRY)
@also(config=BEYOND_THE_FRAME)
def test_photo_alpha_and_mask_go_together(tmp_path, config):
    # A white subject on black: the photo is its alpha.
    root = fill(tmp_path, {"white.png": blob(3, colour=(255, 255, 255))})
    handler = CutoutsHandler(
        {**config, "background_color": [0, 0, 0], "input_attributes": ["image", "alpha"]}, str(root)
    )
    (sample,) = handler.samples()
    (example,) = handler.examples(sample, SampleRandom(config["seed"], sample.key))
    alpha = example["alpha"]
    for channel in range(3):
        np.testing.assert_array_equal(example["image"][..., channel], alpha)
    # The mask is drawn of its own, by nearest neighbour; its edge is where alpha passes one half, within a pixel.
    kernel = np.ones((3, 3), np.uint8)
    subject = np.where(alpha >= 128, 255, 0).astype(np.uint8)
    assert not (example["mask"] & ~cv2.dilate(subject, kernel)).any()
    assert not (cv2.erode(subject, kernel, borderValue=0) & ~example["mask"]).any()


def items_of(handler, sample, random):
    """What is in a picture, the sample's own last, as its random numbers say."""
    least, most = handler.options.items_per_picture
    pool = sample.data["further"]
    first, share = random.random(2)
    further = [
        pool[(int(first * len(pool)) + n) % len(pool)] for n in range(least - 1 + int(share * (most - least + 1)))
    ]
    return [*further, sample.data]


def arranged_by_hand(handler, sample, variation, files):
    """The picture, alpha and masks of a sample with several items, in floating point and one step at a time."""
    size = handler.options.image_size
    random = SampleRandom(handler.options.seed, sample.key).variation(variation)
    picture = np.tile(random.integers(0, 256, 3).astype(float), (*size, 1))
    uncovered = np.ones(size)
    opacities = []
    shown = items_of(handler, sample, random)
    for data in shown:
        rgba = files[data["photo"]].astype(np.float64)
        box = cv2.boundingRect((rgba[..., 3] >= 128).astype(np.uint8))
        placed = place((box[0], box[1], box[0] + box[2], box[1] + box[3]), size, handler.options.item_scale, random)
        shift = np.eye(3)
        shift[:2, 2] = 0.5  # OpenCV counts from pixel centres
        matrix = np.linalg.inv(shift) @ placed.matrix @ shift
        rgba[..., :3] *= rgba[..., 3:] / 255
        moved = cv2.warpAffine(rgba, matrix[:2], size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        opacity = moved[..., 3] / 255
        picture = moved[..., :3] + picture * (1 - opacity[..., None])
        uncovered *= 1 - opacity
        opacities.append(opacity * 255)
    return picture, 255 * (1 - uncovered), opacities, shown


def test_several_items_occlude_one_another(tmp_path):
    files = {f"c{n}__x.png": blob(n, (14 + n, 20 - n)) for n in range(6)}  # all are enlarged: nothing is filtered
    root = fill(tmp_path / "raw", files)
    config = {
        "items_per_picture": [2, 4],
        "image_size": [90, 120],
        "item_scale": [0.5, 0.9],
        "variations_per_sample": 3,
        "category_from": "name",
        "input_attributes": ["image", "alpha", "boxes", "category"],
    }
    handler = CutoutsHandler(config, str(root))
    samples = handler.complete_samples("train", list(handler.samples()))
    counts = set()
    for sample in samples:
        for variation in range(3):
            random = SampleRandom(0, sample.key).variation(variation)
            scene = handler.load(sample, variation, random)
            picture, alpha, opacities, shown = arranged_by_hand(handler, sample, variation, files)
            counts.add(len(opacities))
            # OpenCV interpolates at 32nds of a pixel: up to a 64th off on each axis, of steps of up to 255 levels.
            error = np.abs(scene.photo.pixels() - picture)
            assert error.max() <= 8
            assert error.mean() <= 0.5
            assert np.abs(scene.alpha.alpha - alpha).max() <= 8
            np.testing.assert_array_equal(scene.mask.mask, np.where(scene.alpha.alpha >= 128, 255, 0))
            # Whose pixel it is: the frontmost item's that is opaque by half; unsure where one is about half.
            owner = np.full(alpha.shape, -1)
            unsure = np.zeros(alpha.shape, bool)
            for number, opacity in enumerate(opacities):
                owner[opacity >= 127.5] = number
                unsure |= np.abs(opacity - 127.5) < 8
            expected = [(data["category"], owner == number) for number, data in enumerate(shown)]
            expected = [(category, seen) for category, seen in expected if seen.any()]
            assert [item.category for item in scene.instances] == [category for category, _ in expected]
            for instance, (_, seen) in zip(scene.instances, expected, strict=True):
                assert (((instance.shape.mask == 255) == seen) | unsure).all()
            covered = sum((item.shape.mask == 255).astype(int) for item in scene.instances)
            assert covered.max() == 1
            assert (scene.mask.mask[covered == 1] == 255).all()
            assert scene.instances[-1].category == sample.data["category"]  # the sample's own is in front
    assert counts == {2, 3, 4}
    (example, *_) = handler.examples(samples[0], SampleRandom(0, samples[0].key))
    scene = handler.load(samples[0], 0, SampleRandom(0, samples[0].key).variation(0))
    boxes = [item.shape.box() for item in scene.instances]
    wanted = [[y0 / 90, x0 / 120, y1 / 90, x1 / 120] for x0, y0, x1, y1 in boxes]
    np.testing.assert_allclose(example["boxes"], wanted, rtol=1e-6)


@settings(max_examples=50)
@given(
    box=st.tuples(*[st.integers(0, 50)] * 2, *[st.integers(51, 400)] * 2),
    canvas=st.tuples(st.integers(16, 200), st.integers(16, 200)),
    share=st.floats(0.05, 1),
    seed=st.integers(0, 99),
)
def test_items_lie_wholly_on_the_canvas(box, canvas, share, seed):
    placed = place(box, canvas, (share, share), np.random.default_rng(seed))
    x0, y0 = transform_point(placed.matrix, *box[:2])
    x1, y1 = transform_point(placed.matrix, *box[2:])
    assert -1e-6 <= x0 < x1 <= canvas[1] + 1e-6
    assert -1e-6 <= y0 < y1 <= canvas[0] + 1e-6
    assert max((x1 - x0) / canvas[1], (y1 - y0) / canvas[0]) == pytest.approx(share)


def test_no_split_lends_items_to_another(some, tmp_path):
    config = {
        "items_per_picture": [2, 3],
        "image_size": [40, 40],
        "splits": {"train": 0.6, "test": 0.4},
        "variations_per_sample": 4,
    }
    plan, _ = make(CutoutsHandler, config, some, tmp_path / "made")
    members, lent = {}, {}
    for shard in plan.shards:
        stored = json.loads((tmp_path / "made" / "plan" / f"shard-{shard.number:05}.json").read_text())
        for _, data in stored["samples"]:
            members.setdefault(shard.split, set()).add(data["photo"])
            further = {item["photo"] for item in data["further"]}
            lent.setdefault(shard.split, set()).update(further)
            assert data["photo"] not in further
    assert members["train"].isdisjoint(members["test"])
    assert len(members["train"] | members["test"]) == 10
    assert all(lent[split] == members[split] for split in ("train", "test"))


def test_a_sample_alone_in_its_split_is_shown_with_itself(tmp_path):
    root = fill(tmp_path / "raw", {"a.png": blob(1)})
    examples, *_ = built({"items_per_picture": [3, 3], "image_size": [64, 64]}, root, tmp_path / "made")
    assert len(examples) == 1
    assert examples[0]["mask"].any()


@pytest.fixture
def lopsided(tmp_path):
    """Twelve red wide cut-outs and three blue upright ones."""
    red = {f"red {n:02}.png": blob(n, (30, 60), (220, 10 + n, 10)) for n in range(12)}
    blue = {f"blue {n}.png": blob(n, (60, 30), (10, 10 + n, 220)) for n in range(3)}
    return fill(tmp_path / "raw", {**red, **blue})


@pytest.mark.parametrize(
    ("share", "variations", "expected"), [(0, 1, (12, 3)), (0.5, 1, (12, 6)), (1, 1, (12, 12)), (0.6, 2, (24, 16))]
)
def test_small_clusters_are_filled_up(lopsided, tmp_path, share, variations, expected):
    config = {"clusters": 2, "balance": share, "variations_per_sample": variations, "near_duplicates": "ignore"}
    config["input_attributes"] = [*ALL, "cluster"]
    examples, _, sealed = built(config, lopsided, tmp_path / "made")
    by_cluster = [[item for item in examples if item["cluster"] == [cluster]] for cluster in (0, 1)]
    assert (len(by_cluster[0]), len(by_cluster[1])) == expected
    assert {item["key"][:3] for item in by_cluster[0]} == {"red"}
    assert {item["key"] for item in by_cluster[1]} == {"blue 0", "blue 1", "blue 2"}
    assert [sum(shard.counters[f"cluster:{cluster}"] for shard in sealed) for cluster in (0, 1)] == list(expected)
    colours = {tuple(item["image"][0, 0]) for item in by_cluster[1]}
    assert len(colours) == expected[1]  # each is an example of its own


def test_the_same_bytes_from_one_worker_and_two_and_true_statistics(lopsided, tmp_path):
    config = {
        "items_per_picture": [1, 3],
        "image_size": [48, 64],
        "clusters": 2,
        "balance": 0.5,
        "rotation": [-20, 20],
        "examples_per_shard": 4,
        "splits": {"train": 0.7, "test": 0.3},
        "near_duplicates": "ignore",
        "input_attributes": ["alpha", "boxes", "clicks", "image", "trimap"],
    }
    made = []
    for workers in (1, 2):
        folder = tmp_path / f"made {workers}"
        ask = {"dataset": "cutouts", "config": config, "raw_root": lopsided, "workers": workers, "work_dir": folder}
        file = write_request(folder / "request.json", **ask)
        plan(check_request(json.loads(file.read_bytes())), [].append)
        done = run_command("build", file)
        assert done.status == 0, done.log
        made.append(contents(folder))
    assert made[0].keys() == made[1].keys()
    assert len(made[0]) > 5
    for name, data in made[0].items():
        assert data == made[1][name], name

    # Clusters are counted though they are not written, and filled up split by split.
    statistics = json.loads(made[0]["manifest.json"])["statistics"]
    sizes = {"train": Counter(), "test": Counter()}
    for shard in json.loads((folder / "plan" / "plan.json").read_text())["shards"]:
        stored = json.loads((folder / "plan" / f"shard-{shard['number']:05}.json").read_text())
        sizes[shard["split"]].update(str(data["cluster"]) for _, data in stored["samples"])
    assert len(sizes["train"]) == 2
    for split, found in sizes.items():
        wanted = math.ceil(max(found.values()) / 2)  # of the split's own largest cluster
        assert statistics[split]["clusters"] == {cluster: max(wanted, count) for cluster, count in found.items()}
        assert statistics[split]["samples"] == sum(found.values())


def test_a_shard_made_twice_in_one_process_reads_its_files_twice(some, tmp_path):
    handler = CutoutsHandler({"variations_per_sample": 2}, str(some))
    sample = min(handler.samples(), key=lambda item: item.key)
    for _ in range(2):
        assert len(list(handler.examples(sample, SampleRandom(0, sample.key)))) == 2
        assert [path for path, _ in handler.take_read_files()] == ["cutouts/00.png"]


def test_soft_masks(some, tmp_path):
    config = {"mask_edges": "soft", "image_size": [50, 50], "input_attributes": ALL}
    for more in ({}, {"items_per_picture": [2, 3]}):
        examples, *_ = built({**config, **more}, some, tmp_path / f"made {len(more)}")
        for example in examples:
            np.testing.assert_array_equal(example["mask"], example["alpha"])
        assert any(len(np.unique(example["mask"])) > 2 for example in examples)


def test_real_twins_in_two_folders_are_in_one_split(real_raw, tmp_path):
    # The same file is there under two names.
    config = {"splits": {"train": 0.5, "test": 0.5}, "input_attributes": ["source_id"]}
    for seed in range(2):
        plan, _ = make(CutoutsHandler, {**config, "seed": seed}, real_raw, tmp_path / str(seed))
        pairs = [{key for _, key in group} for group in plan.near_duplicates]
        assert {"military__fireman240a", "people__fireman240a"} in pairs
        group = next(group for group in plan.near_duplicates if ("people__fireman240a" in {key for _, key in group}))
        assert len({split for split, _ in group}) == 1


def test_real_clusters_and_several_items(real_raw, tmp_path):
    config = {
        "clusters": 5,
        "items_per_picture": [1, 3],
        "image_size": [96, 128],
        "category_from": "name",
        "input_attributes": [*ALL, "boxes", "category", "cluster"],
    }
    examples, plan, sealed = built(config, real_raw, tmp_path)
    assert len(examples) + len(quarantined(sealed)) == 80
    assert plan.rejected == ()
    assert all("nothing is left of the subject" in reason for reason in quarantined(sealed).values())
    assert len(quarantined(sealed)) <= 4
    assert {example["cluster"][0] for example in examples} == set(range(5))
    for example in examples:
        assert example["mask"].shape == (96, 128)
        np.testing.assert_array_equal(example["mask"], np.where(example["alpha"] >= 128, 255, 0))
        assert len(example["boxes"]) == 4 * len(example["category"]) > 0


def test_a_picture_that_vanishes_while_building_is_quarantined(some):
    handler = CutoutsHandler({}, str(some))
    samples = list(handler.samples())
    (some / "cutouts" / "03.png").unlink()
    (gone,) = [sample for sample in samples if sample.key == "03"]
    with pytest.raises(BadSampleError, match=r"03\.png: No such file"):
        list(handler.examples(gone, SampleRandom(0, gone.key)))


@pytest.mark.parametrize(
    ("more", "differ"),
    [
        ({}, False),
        ({"flip_horizontal": 1.0, "rotation": [5, 5], "exposure": [1, 1], "equalize": 1.0}, False),
        ({"noise": [3, 3], "exposure": [-1, 1], "input_attributes": ["alpha"]}, False),
        ({"probabilities": {"blur": 0.5}}, False),
        ({"image_size": [32, 32], "crop_size": [16, 16], "crop_mode": "center"}, False),
        ({"image_size": [32, 32], "crop_size": [16, 16]}, True),
        ({"image_size": [32, 32], "items_per_picture": [2, 2]}, True),
        ({"flip_vertical": 0.5}, True),
        ({"rotation": [5, 6]}, True),
        ({"rotation": [5, 5], "probabilities": {"rotation": 0.5}}, True),
        ({"noise": [3, 3]}, True),
        ({"channel_shuffle": 1.0}, True),
        ({"input_attributes": ["clicks"]}, True),
        ({"background_color": None}, True),
    ],
)
def test_clusters_are_filled_up_with_examples_that_differ(lopsided, tmp_path, more, differ):
    config = {"clusters": 2, "balance": 1.0, "near_duplicates": "ignore", "background_color": [9, 9, 9]}
    config = {**config, "input_attributes": ALL, "image_encoding": "png", **more}
    if not differ:
        with pytest.raises(ConfigRefusedError, match="nothing here tells these apart"):
            CutoutsHandler(config, str(lopsided))
        return
    _, sealed = make(CutoutsHandler, config, lopsided, tmp_path / "made")
    records = [record for shard in sealed for record in read_records(tmp_path / "made" / "dataset" / shard.file)]
    assert len(records) == 24
    # Where two examples differ in whether something happens, they may fall out alike.
    assert len(set(records)) >= (16 if more.keys() & {"flip_vertical", "probabilities"} else 20)


def test_a_plan_of_many_variations_stays_small(some, tmp_path):
    config = {"items_per_picture": [1, 4], "image_size": [16, 16], "input_attributes": ["image"]}
    sizes = []
    for variations in (8, 800):
        handler = CutoutsHandler({**config, "variations_per_sample": variations}, str(some))
        completed = handler.complete_samples("train", list(handler.samples()))
        assert all(len(sample.data["further"]) == 9 for sample in completed)  # of ten, all others
        sizes.append(len(json.dumps([sample.data for sample in completed])))
    assert sizes[0] == sizes[1]


def test_of_several_items_one_is_held_at_its_full_size(tmp_path, monkeypatch):
    """A cut-out is placed before the next one is decoded."""
    root = fill(tmp_path, {f"{n}.png": blob(n, (60, 60)) for n in range(5)})
    handler = CutoutsHandler({"items_per_picture": [5, 5], "image_size": [64, 64]}, str(root))
    sample = handler.complete_samples("train", list(handler.samples()))[0]
    alive = []
    decode_one = handler._decoded

    def decoded(data):
        cutout = decode_one(data)
        alive.append(weakref.ref(cutout.photo))
        counts.append(sum(reference() is not None for reference in alive))
        return cutout

    counts = []
    monkeypatch.setattr(handler, "_decoded", decoded)
    handler.load(sample, 0, SampleRandom(0, sample.key).variation(0))
    assert len(counts) == 5
    assert max(counts) <= 3  # the sample's own, the one at hand, and the one before it


def test_what_is_too_large_is_refused_by_its_header():
    header = encoded(blob(1))[:16] + (9000).to_bytes(4, "big") + (6000).to_bytes(4, "big") + encoded(blob(1))[24:]
    header = header[:29] + zlib.crc32(header[12:29]).to_bytes(4, "big") + header[33:]
    with pytest.raises(BadSampleError, match="9000×6000 pixels are too many for a cut-out"):
        decode_cutout(header, "a.png")


def test_the_cutout_kept_is_the_samples_own(some):
    """Variations may be made one by one, in any order."""
    handler = CutoutsHandler({"variations_per_sample": 2}, str(some))
    one, other = sorted(handler.samples(), key=lambda item: item.key)[:2]
    handler.load(one, 0, np.random.default_rng(0))
    late = handler.load(other, 1, np.random.default_rng(0))
    alone = CutoutsHandler({"variations_per_sample": 2}, str(some)).load(other, 1, np.random.default_rng(0))
    np.testing.assert_array_equal(late.photo.pixels(), alone.photo.pixels())


def test_pipes_and_folders_are_passed_over_and_broken_links_are_told(some, tmp_path):
    os.mkfifo(some / "cutouts" / "pipe.png")
    (some / "cutouts" / "folder.png").mkdir()
    (some / "cutouts" / "link.png").symlink_to(tmp_path / "nowhere.png")
    examples, _, sealed = built({"max_quarantined_share": 1.0}, some, tmp_path / "made")
    assert len(examples) == 10
    assert list(quarantined(sealed)) == ["link"]


def test_nothing_is_read_beside_the_raw_root(some, tmp_path):
    (tmp_path / "secret.png").write_bytes(encoded(blob(1)))
    handler = CutoutsHandler({}, str(some))
    for name in ("../../secret.png", str(tmp_path / "secret.png"), "x/../../../secret.png"):
        sample = Sample("a", {"photo": name, "category": ""})
        with pytest.raises(BadSampleError, match=r"secret\.png: is not below the raw root"):
            list(handler.examples(sample, SampleRandom(0, "a")))
    assert handler.take_read_files() == []
    (some / "cutouts" / "link.png").symlink_to(tmp_path / "secret.png")  # a link is put there on purpose
    assert handler.read_raw(some / "cutouts" / "link.png") == encoded(blob(1))
    dotted = CutoutsHandler({}, f"{some}/../{some.name}")
    assert dotted.read_raw(dotted.raw_data_path() / "link.png") == encoded(blob(1))
    assert dotted.take_read_files()[0][0] == "cutouts/link.png"
