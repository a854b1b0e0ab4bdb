"""Photos with true alpha: to the level, and what does not belong together, with its reason."""

import io
import json
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset_handlers.commands import check_request, plan
from dataset_handlers.errors import BadSampleError, ConfigRefusedError, RawDataError
from dataset_handlers.example_proto import decode_example
from dataset_handlers.labels.trimap import trimap
from dataset_handlers.mattes import MattesHandler, load_matte
from dataset_handlers.plan import Rejected, Sample
from dataset_handlers.rng import SampleRandom
from dataset_handlers.tfrecord import read_records
from tests.handlers.support import contents, decode, make, quarantined, run_command, write_request

ALL = ["alpha", "image", "source_id", "trimap"]


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def matte(seed, size=(50, 70)):
    """An alpha with a soft edge, somewhere."""
    random = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width]
    centre_y, centre_x = random.uniform(0.4, 0.6, 2)
    distance = np.hypot(y / height - centre_y, x / width - centre_x)
    return np.clip((0.35 - distance) * 8 * 255, 0, 255).astype(np.uint8)


def photo(seed, size=(50, 70)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def fill(root, files):
    folder = root / "mattes"
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data if isinstance(data, bytes) else encoded(data))
    return root


@pytest.fixture
def some(tmp_path):
    """Six photos with alpha, one of them JPEG."""
    files = {f"{n} ü.png": photo(n) for n in range(5)} | {"5 ü.jpg": encoded(photo(5), "JPEG")}
    return fill(tmp_path / "raw", {**files, **{f"{n} ü_alpha.png": matte(n) for n in range(6)}})


def built(config, root, folder):
    made, sealed = make(MattesHandler, {"input_attributes": ALL, "image_encoding": "png", **config}, root, folder)
    examples = {}
    for shard in sealed:
        for record in read_records(folder / "dataset" / shard.file):
            found = {name: values[0] for name, values in decode_example(record).items()}
            key = found.pop("source_id").decode()
            examples[key] = {name: decode(value) for name, value in found.items()}
    return examples, made, sealed


def test_the_real_one_to_the_level(real_raw, tmp_path):
    examples, made, _ = built({"trimap_widths": [4, 7]}, real_raw, tmp_path)
    assert list(examples) == ["lemur"]
    assert made.rejected == ()
    example = examples["lemur"]
    with Image.open(real_raw / "mattes" / "lemur.png") as opened:
        np.testing.assert_array_equal(example["image"], np.asarray(opened.convert("RGB")))
    with Image.open(real_raw / "mattes" / "lemur_alpha.png") as opened:
        alpha = np.asarray(opened)
    np.testing.assert_array_equal(example["alpha"], alpha)
    np.testing.assert_array_equal(example["mask"], np.where(alpha >= 128, 255, 0))
    # Ours, in the widths asked for, not the publisher's.
    np.testing.assert_array_equal(example["trimap"], trimap(alpha, 4, 7, tolerance=5))


def test_soft_masks_are_alpha(some, tmp_path):
    examples, *_ = built({"mask_edges": "soft", "image_size": [40, 40]}, some, tmp_path / "made")
    assert len(examples) == 6
    for example in examples.values():
        np.testing.assert_array_equal(example["mask"], example["alpha"])
        assert len(np.unique(example["mask"])) > 2


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.sampled_from([None, [31, 64], [90, 60]]),
    flip=st.sampled_from([0.0, 1.0]),
    rotation=st.floats(-180, 180),
    scale=st.floats(0.6, 1.5),
    mode=st.sampled_from(["stretch", "fit", "cover"]),
)
def test_photo_and_alpha_go_together(tmp_path, size, flip, rotation, scale, mode):
    # The photo is its alpha.
    alpha = matte(3)
    root = fill(tmp_path, {"a.png": np.dstack([alpha] * 3), "a_alpha.png": alpha})
    config = {
        "image_size": size,
        "resize_mode": mode,
        "flip_horizontal": flip,
        "rotation": [rotation, rotation],
        "scale": [scale, scale],
        "input_attributes": ["alpha", "image"],
    }
    handler = MattesHandler(config, str(root))
    (sample,) = handler.samples()
    (example,) = handler.examples(sample, SampleRandom(0, sample.key))
    for channel in range(3):
        np.testing.assert_array_equal(example["image"][..., channel], example["alpha"])


def test_what_belongs_to_what(tmp_path):
    files = {
        "a.png": photo(1),
        "a_alpha.png": matte(1),
        "a_trimap.png": matte(1),
        "b.jpeg": encoded(photo(2), "JPEG"),
        "b.png": photo(2),
        "b_alpha.png": matte(2),
        "c.png": photo(3),
        "d_alpha.png": matte(4),
        "e_alpha.jpg": encoded(photo(5), "JPEG"),
        "readme.txt": b"",
    }
    handler = MattesHandler({}, str(fill(tmp_path, files)))
    os.mkfifo(tmp_path / "mattes" / "pipe.png")  # reading one would never end
    os.mkfifo(tmp_path / "mattes" / "pipe_alpha.png")
    found = sorted(handler.samples(), key=lambda item: item.key)
    assert [item for item in found if isinstance(item, Sample)] == [
        Sample("a", {"photo": "a.png", "alpha": "a_alpha.png"}),
        Sample("b", {"photo": "b.jpeg", "alpha": "b_alpha.png"}),
    ]
    assert [item for item in found if isinstance(item, Rejected)] == [
        Rejected("b.png", "b.png and b.jpeg have one name; b.jpeg is used"),
        Rejected("c.png", "c.png has no alpha c_alpha.png"),
        Rejected("d", "d_alpha.png has no photo"),
        Rejected("e_alpha.jpg", "e_alpha.jpg has no alpha e_alpha_alpha.png"),
    ]


@pytest.mark.parametrize("files", [None, {}, {"a.png": b"x"}])
def test_without_any_alpha_the_raw_folder_is_named(tmp_path, files):
    if files is not None:
        fill(tmp_path, files)
    with pytest.raises(RawDataError, match=r"no NAME_alpha\.png in the raw folder 'mattes'"):
        list(MattesHandler({}, str(tmp_path)).samples())


BAD = {
    "empty": ({"a_alpha.png": np.zeros((50, 70), np.uint8)}, "no pixel is opaque"),
    "faint": ({"a_alpha.png": matte(1) // 3}, "no pixel is opaque"),
    "size": ({"a_alpha.png": matte(1, (51, 70))}, "the photo has 70×50 pixels, its mask 70×51; they must agree"),
    "no bytes": ({"a_alpha.png": b""}, "a_alpha.png: the file is empty"),
    "no alpha": ({"a_alpha.png": b"nothing" * 50}, "a_alpha.png: is none of"),
    "cut alpha": ({"a_alpha.png": encoded(matte(1))[:300]}, "a_alpha.png: cannot be decoded"),
    "cut photo": ({"a.png": encoded(photo(1))[:3000]}, "a.png: cannot be decoded"),
    "no photo": ({"a.png": b""}, "a.png: the file is empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_left_out_with_its_reason(some, tmp_path, case):
    files, reason = BAD[case]
    fill(some, {"a.png": photo(1), "a_alpha.png": matte(1), **files})
    examples, _, sealed = built({}, some, tmp_path / "made")
    assert len(examples) == 6
    assert list(quarantined(sealed)) == ["a"]
    assert reason in quarantined(sealed)["a"]


def test_grey_16_bit_and_coloured_files_are_converted(tmp_path):
    alpha = matte(1)
    wide = io.BytesIO()
    Image.fromarray(alpha.astype(np.uint16) * 256 + 99).save(wide, "PNG")
    root = fill(tmp_path / "raw", {"a.png": alpha, "a_alpha.png": wide.getvalue()})
    fill(root, {"b.png": photo(2), "b_alpha.png": np.dstack([alpha] * 3)})
    examples, *_ = built({}, root, tmp_path / "made")
    np.testing.assert_array_equal(examples["a"]["alpha"], alpha)
    np.testing.assert_array_equal(examples["a"]["image"], np.dstack([alpha] * 3))
    np.testing.assert_array_equal(examples["b"]["alpha"], alpha)


def test_what_composites_take(some):
    handler = MattesHandler({}, str(some))
    scene = load_matte(handler, handler.raw_data_path(), {"photo": "1 ü.png", "alpha": "1 ü_alpha.png"})
    np.testing.assert_array_equal(scene.photo.pixels(), photo(1))
    np.testing.assert_array_equal(scene.alpha.alpha, matte(1))
    np.testing.assert_array_equal(scene.mask.mask, np.where(matte(1) >= 128, 255, 0))
    with pytest.raises(BadSampleError, match="No such file"):
        load_matte(handler, handler.raw_data_path(), {"photo": "1 ü.png", "alpha": "gone.png"})


def test_there_is_no_category():
    with pytest.raises(ConfigRefusedError, match="no 'category'; there are 'alpha'"):
        MattesHandler({"input_attributes": ["category"]}, "/")


def test_the_same_bytes_from_one_worker_and_two(some, tmp_path):
    config = {
        "image_size": [40, 40],
        "rotation": [-90, 90],
        "variations_per_sample": 3,
        "examples_per_shard": 3,
        "input_attributes": ["alpha", "clicks", "image", "trimap"],
    }
    made = []
    for workers in (1, 2):
        folder = tmp_path / f"made {workers}"
        ask = {"dataset": "mattes", "config": config, "raw_root": some, "workers": workers, "work_dir": folder}
        file = write_request(folder / "request.json", **ask)
        plan(check_request(json.loads(file.read_bytes())), [].append)
        done = run_command("build", file)
        assert done.status == 0, done.log
        made.append(contents(folder))
    assert made[0].keys() == made[1].keys()
    for name, data in made[0].items():
        assert data == made[1][name], name
