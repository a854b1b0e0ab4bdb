"""Logos on surfaces: the labels are where the logos are seen, and these lie on the planes of their surfaces."""

import io
import math

import cv2
import numpy as np
import pytest
from PIL import Image

from dataset_handlers.config import check_config
from dataset_handlers.depth import decode_depth, depth_through
from dataset_handlers.errors import BadSampleError, ConfigRefusedError, RawDataError
from dataset_handlers.inscription import Style, Surfaces, prepare_logo, project
from dataset_handlers.logos import LogosConfig, LogosHandler
from dataset_handlers.photo import Photo
from dataset_handlers.plan import Rejected, Sample
from dataset_handlers.pool import make_shards
from dataset_handlers.rgba import Cutout
from dataset_handlers.rng import SampleRandom
from dataset_handlers.shards import WorkFolder
from dataset_handlers.transforms.geometry import Geometry, resizing
from tests.handlers.support import make, quarantined

SIZE = (160, 200)
#: Logos are discs and squares of one colour each, by which they are told apart.
COLOURS = {
    "red-disc": (220, 20, 30),
    "green-disc": (30, 190, 40),
    "blue-square": (20, 60, 210),
    "yellow_square": (230, 220, 10),
    "cyan-disc": (10, 210, 220),
    "black-square": (5, 5, 5),
}
ALL = ["image", "alpha", "boxes", "category", "source_id"]
#: Nothing but geometry: colours stay what they are.
PLAIN = {
    "image_size": list(SIZE),
    "image_encoding": "png",
    "input_attributes": ALL,
    "logo_jitter": 0,
    "logo_blur": [0, 0],
    "logo_noise": [0, 0],
}


def png(pixels):
    return cv2.imencode(
        ".png", cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    )[1].tobytes()


def logo(name, side=120):
    pixels = np.zeros((side, side, 4), np.uint8)
    pixels[...] = (255, 0, 255, 0)  # what is hidden must not show
    colour = (*COLOURS[name], 255)
    if "disc" in name:
        cv2.circle(pixels, (side // 2, side // 2), side // 2 - 10, colour, -1)
    else:
        pixels[10:-10, 10:-10] = colour
    return pixels


def wall(level, size=(240, 300)):
    """A background of one grey, with a busy strip along its top on which nothing can be set."""
    pixels = np.full((*size, 3), level, np.uint8)
    tiles = np.random.default_rng(level).integers(0, 2, (size[0] // 36 + 1, size[1] // 6 + 1, 3), dtype=np.uint8) * 255
    pixels[: size[0] // 6] = np.kron(tiles, np.ones((6, 6, 1), np.uint8))[: size[0] // 6, : size[1]]
    return pixels


@pytest.fixture
def raw(tmp_path):
    root = tmp_path / "raw"
    for folder in ("logos", "backgrounds", "depth"):
        (root / folder).mkdir(parents=True)
    for name in COLOURS:
        (root / "logos" / f"{name}.png").write_bytes(png(logo(name)))
    for level in (90, 110, 130, 150, 170, 190):
        (root / "backgrounds" / f"wall{level}.png").write_bytes(png(wall(level)))
    return root


def prepared(raw, **config):
    made = LogosHandler({**PLAIN, **config}, str(raw))
    samples = [item for item in made.samples() if isinstance(item, Sample)]
    return made, made.complete_splits({"train": samples})["train"]


def all_examples(raw, **config):
    made, samples = prepared(raw, **config)
    for sample in samples:
        for number, example in enumerate(made.examples(sample, SampleRandom(made.options.seed, sample.key))):
            yield made, sample, number, example


def background_of(raw, made, sample, number):
    name = sample.data["backgrounds"][number]
    photo = Photo((raw / "backgrounds" / name).read_bytes(), name)
    return photo.warp(Geometry(resizing(photo.size, SIZE, "cover"), SIZE))


def seen(mask):
    """What is seen of each logo: its pixels, by connected components."""
    count, labels = cv2.connectedComponents(mask, connectivity=8)
    return [labels == number for number in range(1, count)]


def box_of(pixels):
    rows, columns = np.nonzero(pixels)
    return rows.min() / SIZE[0], columns.min() / SIZE[1], (rows.max() + 1) / SIZE[0], (columns.max() + 1) / SIZE[1]


def nearest_colour(photo, pixels):
    middle = np.median(photo[pixels], axis=0)
    return min(COLOURS, key=lambda name: np.abs(middle - COLOURS[name]).sum())


def test_labels_agree_with_what_is_seen_to_the_pixel(raw):
    kinds = set()
    for made, sample, number, example in all_examples(raw, logos_per_picture=[1, 4], variations_per_sample=5):
        photo, mask, alpha = example["image"], example["mask"], example["alpha"]
        np.testing.assert_array_equal(mask, np.where(alpha >= 128, 255, 0))
        components = seen(mask)
        found = {(box_of(component), nearest_colour(photo, component)) for component in components}
        labelled = {
            (tuple(box), name) for box, name in zip(example["boxes"].tolist(), example["category"], strict=True)
        }
        assert len(found) == len(labelled) == len(example["category"])
        for box, name in found:
            assert any(name == other and np.allclose(box, theirs, atol=1e-6) for theirs, other in labelled)
        assert example["category"][0] == sample.key  # a sample's own logo is there in any case
        # The photo again: the background, and over it one colour by the alpha, in exact arithmetic.
        colours = np.zeros(photo.shape)
        reach = np.ones((7, 7), np.uint8)
        for component in components:
            near = cv2.dilate(component.astype(np.uint8), reach) > 0
            colours[near] = COLOURS[nearest_colour(photo, component)]
        share = alpha[..., None] / 255
        expected = background_of(raw, made, sample, number) * (1 - share) + colours * share
        assert np.abs(photo - expected).max() <= 2.51  # colours of resampled pixels are rounded twice
        np.testing.assert_array_equal(photo[alpha == 0], background_of(raw, made, sample, number)[alpha == 0])
        kinds.add(len(components))
    assert kinds >= {1, 2, 3, 4}


@pytest.mark.parametrize("side", [150, 300, 1001])
def test_alpha_is_the_logos_opacity_seen_through_the_matrix(side):
    """Against 8 × 8 points in each pixel, of a soft opacity, on a tilted plane."""
    x, y = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side))
    opacity = np.clip(255 * 1.5 * (1 - x**2 - y**2), 0, 255).astype(np.uint8)
    cutout = Cutout(np.full((side, side, 3), 77, np.uint8), opacity)
    style = Style((0.4, 0.6), (-180, 180), 60, (0, 0), (0, 0), 0, 0, "alpha")
    for seed in range(4):
        random = np.random.default_rng(seed)
        surfaces = Surfaces(np.full((200, 200, 3), 128, np.uint8), (200, 200), None, 60, random)
        projected = project(prepare_logo(cutout, (80, 120)), surfaces, style, random)
        points = (np.arange(200 * 8) + 0.5) / 8
        grid = np.stack(np.meshgrid(points, points), -1).reshape(-1, 1, 2)
        back = cv2.perspectiveTransform(grid, np.linalg.inv(projected.matrix)).reshape(1600, 1600, 2)
        rows, columns = np.nonzero(opacity)
        plane = np.float32(opacity[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1])
        columns, rows = (np.float32(back[..., axis] - 0.5) for axis in (0, 1))
        sampled = cv2.remap(plane, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        expected = sampled.reshape(200, 8, 200, 8).mean((1, 3))
        wrong = np.abs(projected.alpha - expected)
        assert wrong.max() < 6
        assert wrong[expected > 0].mean() < 0.6
        differ = (projected.alpha >= 128) != (expected >= 128)
        assert np.abs(expected[differ] - 128).max(initial=0) < 6  # none but at the very edge


@pytest.mark.parametrize("scale", [[0.2, 0.2], [0.3, 0.5]])
def test_a_logo_that_faces_the_camera_has_the_size_asked_for(raw, scale):
    for _, sample, _, example in all_examples(
        raw, logo_scale=scale, max_tilt=0, logo_rotation=[0, 0], variations_per_sample=3
    ):
        y0, x0, y1, x1 = example["boxes"][0].astype(float)
        height, width = (y1 - y0) * SIZE[0], (x1 - x0) * SIZE[1]
        assert height == pytest.approx(width, abs=2)
        assert scale[0] * 160 - 2 <= width <= scale[1] * 160 + 2
        if "square" in sample.key:
            assert cv2.countNonZero(example["mask"]) >= 0.97 * height * width - 2 * (height + width)


def slanted(size, degrees, upright=True):
    """Depth (H, W) of a plane one unit away that turns its left, or upper, side away; for 53 degrees of view."""
    height, width = size
    length = max(size)
    x = (np.arange(width) + 0.5 - width / 2) / length
    y = (np.arange(height) + 0.5 - height / 2)[:, None] / length
    slope = math.tan(math.radians(degrees))
    return np.broadcast_to(1 / (1 + slope * (x if upright else y)), size)


def on_the_plane(mask, degrees, whole):
    """Sides of the smallest rectangle around a mask, measured on the slanted surface by casting rays onto it.

    ``whole`` is the size of the whole photo in pixels of the mask.
    """
    contour = np.concatenate(cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0])[:, 0] + 0.5
    x = (contour[:, 0] - mask.shape[1] / 2) / max(whole)
    y = (contour[:, 1] - mask.shape[0] / 2) / max(whole)
    depth = 1 / (1 + math.tan(math.radians(degrees)) * x)
    along = x * depth / math.cos(math.radians(degrees))
    (_, sides, _) = cv2.minAreaRect(np.float32(np.stack([along, y * depth], -1) * 1000))
    return sorted(sides)


@pytest.mark.parametrize("kind", ["npy", "png", "small npy"])
@pytest.mark.parametrize("degrees", [55, -40])
def test_logos_lie_on_the_plane_that_the_depth_map_shows(raw, kind, degrees):
    """A square is none as it is seen, but it is one on the surface."""
    for path in (raw / "backgrounds").iterdir():
        depth = slanted((120, 150) if kind == "small npy" else (240, 300), degrees)
        if kind == "png":
            levels = np.round(depth * 20_000).astype(np.uint16)
            (raw / "depth" / f"{path.stem}.png").write_bytes(cv2.imencode(".png", levels)[1].tobytes())
        else:
            np.save(raw / "depth" / f"{path.stem}.npy", depth.astype(np.float32))
    whole = (160, 200)
    ratios = []
    for _, sample, _, example in all_examples(
        raw, depth_folder="depth", logo_scale=[0.4, 0.6], logo_rotation=[0, 0], variations_per_sample=2
    ):
        if "square" in sample.key:
            shorter, longer = on_the_plane(example["mask"], degrees, whole)
            assert shorter / longer > 0.93
            contour = cv2.findContours(example["mask"], cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0][0]
            (_, sides, _) = cv2.minAreaRect(contour)
            ratios.append(min(sides) / max(sides))
    assert np.mean(ratios) < 0.9
    assert min(ratios) < math.cos(math.radians(degrees)) + 0.15


def test_a_photo_cut_to_the_canvas_keeps_its_perspective(raw):
    """The canvas shows the middle of a wide photo: rays still start from where its camera was."""
    for path in (raw / "backgrounds").iterdir():
        path.write_bytes(png(wall(120, (160, 480))))
        np.save(raw / "depth" / f"{path.stem}.npy", slanted((160, 480), 50))
    for _, sample, _, example in all_examples(
        raw, depth_folder="depth", logo_scale=[0.5, 0.6], logo_rotation=[0, 0], variations_per_sample=2
    ):
        if "square" in sample.key:
            shorter, longer = on_the_plane(example["mask"], 50, (160, 480))
            assert shorter / longer > 0.93


def test_logos_stay_off_what_is_not_flat(raw):
    """The whole wall is of one colour, but its right half is rubble, by the depth map."""
    rubble = slanted((240, 300), 0).copy()
    rubble[:, 150:] = np.random.default_rng(0).uniform(0.5, 2, (240, 150))
    for path in (raw / "backgrounds").iterdir():
        np.save(raw / "depth" / f"{path.stem}.npy", rubble)
    for _, _, _, example in all_examples(raw, depth_folder="depth", logos_per_picture=[1, 2], variations_per_sample=2):
        assert not example["mask"][:, 112:].any()


@pytest.mark.parametrize(
    ("name", "data", "counter"),
    [
        (None, b"", "missing_depth_maps"),
        ("{}.png", b"not a png", "unusable_depth_maps"),
        ("{}.png", png(np.full((240, 300, 3), 9, np.uint8)), "unusable_depth_maps"),  # in colour
        ("{}.png", cv2.imencode(".png", np.full((240, 240), 9, np.uint16))[1].tobytes(), "unusable_depth_maps"),
        ("{}.npy", b"\x93NUMPY", "unusable_depth_maps"),
    ],
)
def test_without_a_usable_depth_map_planes_are_drawn_and_it_is_counted(raw, tmp_path, name, data, counter):
    if name:
        for path in (raw / "backgrounds").iterdir():
            (raw / "depth" / name.format(path.stem)).write_bytes(data)
    _, without = make(LogosHandler, PLAIN, raw, tmp_path / "without")
    _, sealed = make(LogosHandler, {**PLAIN, "depth_folder": "depth"}, raw, tmp_path / "with")
    assert [shard.sha256 for shard in sealed] == [shard.sha256 for shard in without]
    assert sum(shard.counters.get(counter, 0) for shard in sealed) == len(COLOURS)


def test_depth_maps_are_numbers_of_the_photos_proportions():
    def saved(array):
        file = io.BytesIO()
        np.save(file, array)
        return file.getvalue()

    decoded = decode_depth(saved(np.ones((3, 4), np.float16)), "a.npy", (300, 400))
    assert decoded.shape == (3, 4)
    for wrong in (np.ones((3, 3)), np.ones((3, 4, 1)), np.ones((3, 4), bool), np.ones((0, 4)), np.array([["a"]])):
        with pytest.raises(BadSampleError, match=r"a\.npy"):
            decode_depth(saved(wrong), "a.npy", (300, 400))
    levels = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    np.testing.assert_array_equal(decode_depth(cv2.imencode(".png", levels)[1].tobytes(), "a.png", (300, 400)), levels)


def test_depth_is_looked_up_where_a_pixel_of_the_output_lies():
    depth = np.random.default_rng(1).random((30, 50))
    geometry = Geometry(resizing((300, 500), (80, 80), "cover"), (80, 80))
    found = depth_through(depth, (300, 500), geometry)
    for row, column in ((0, 0), (79, 79), (13, 60)):
        x = (column + 0.5 + (500 * 80 / 300 - 80) / 2) / (80 / 300)
        y = (row + 0.5) / (80 / 300)
        assert found[row, column] == depth[int(y / 10), int(x / 10)]


def test_logos_keep_apart_and_within_the_picture(raw):
    least = 99
    for _, _, _, example in all_examples(raw, logos_per_picture=[5, 5], variations_per_sample=4):
        components = [component.astype(np.uint8) for component in seen(example["mask"])]
        for component in components:
            others = cv2.subtract(example["mask"] // 255, component)
            assert not cv2.bitwise_and(cv2.dilate(component, np.ones((9, 9), np.uint8)), others).any()
        boxes = example["boxes"]
        assert ((boxes > 0) & (boxes < 1)).all()
        assert (boxes[:, 0] > 1 / 6 - 0.05).all()  # none on the busy strip; a tenth of one may be
        least = min(least, len(boxes))
    assert least >= 2


def test_logos_lie_on_their_surface_but_for_a_tenth(raw):
    """Between two busy halves there is a strip of wall, hardly wider than logos are."""
    narrow = wall(128, (240, 300))
    tiles = np.random.default_rng(0).integers(0, 2, (40, 50, 3), dtype=np.uint8) * 255
    busy = np.kron(tiles, np.ones((6, 6, 1), np.uint8))
    narrow[:, :110], narrow[:, 190:] = busy[:, :110], busy[:, 190:]
    for path in (raw / "backgrounds").iterdir():
        path.write_bytes(png(narrow))
    inside = []
    for _, _, _, example in all_examples(raw, logo_scale=[0.2, 0.4], variations_per_sample=4):
        mask = example["mask"]
        inside.append(cv2.countNonZero(mask[:, 73:127]) / cv2.countNonZero(mask))
    assert min(inside) > 0.85


def test_by_poisson_an_even_wall_looks_the_same_as_by_alpha(raw):
    ways = [all_examples(raw, blend=blend, logos_per_picture=[2, 2]) for blend in ("alpha", "poisson")]
    for (_, _, _, alpha), (_, _, _, poisson) in zip(*ways, strict=True):
        for name in ("mask", "alpha", "boxes", "category"):
            np.testing.assert_array_equal(alpha[name], poisson[name])
        assert np.abs(alpha["image"].astype(int) - poisson["image"]).max() <= 3


def test_by_poisson_a_logo_takes_on_the_light_of_its_surface(raw):
    """Walls that get lighter to the right; a disc in the middle gets lighter, too, but by alpha it does not."""
    ramp = np.broadcast_to(np.linspace(60, 200, 300)[None, :, None], (240, 300, 3)).astype(np.uint8)
    for path in (raw / "backgrounds").iterdir():
        path.write_bytes(png(ramp))
    upright = {"max_tilt": 0, "logo_rotation": [0, 0]}
    rises = {}
    for blend in ("alpha", "poisson"):
        rises[blend] = []
        for made, sample, number, example in all_examples(raw, blend=blend, logo_scale=[0.4, 0.5], **upright):
            y0, x0, y1, x1 = (
                round(value * side) for value, side in zip(example["boxes"][0].tolist(), SIZE * 2, strict=True)
            )
            row = example["image"][(y0 + y1) // 2, x0 + 8 : x1 - 8].astype(int).sum(1)
            rises[blend].append(row[-1] - row[0])
            far = cv2.dilate(example["alpha"], np.ones((5, 5), np.uint8)) == 0
            np.testing.assert_array_equal(example["image"][far], background_of(raw, made, sample, number)[far])
    assert np.abs(rises["alpha"]).max() <= 6
    assert min(rises["poisson"]) > 20


@pytest.mark.parametrize(
    "change",
    [{"logo_jitter": 1}, {"logo_noise": [5, 9]}, {"match_light": 1}, {"exposure": [1, 2]}],
)
def test_what_changes_colours_changes_no_label(raw, change):
    augmented = {"rotation": [-30, 30], "flip_horizontal": 0.5, "variations_per_sample": 2}
    changed = 0
    for one, other in zip(all_examples(raw, **augmented), all_examples(raw, **augmented, **change), strict=True):
        for name in ("mask", "alpha", "boxes"):
            np.testing.assert_array_equal(one[3][name], other[3][name])
        changed += not np.array_equal(one[3]["image"], other[3]["image"])
    assert changed >= 6


def test_labels_are_the_same_without_the_photo(raw):
    for one, other in zip(all_examples(raw), all_examples(raw, input_attributes=["alpha"]), strict=True):
        np.testing.assert_array_equal(one[3]["mask"], other[3]["mask"])
        np.testing.assert_array_equal(one[3]["alpha"], other[3]["alpha"])


def test_blur_softens_the_opacity_and_hardly_moves_the_edge(raw):
    for sharp, soft in zip(all_examples(raw), all_examples(raw, logo_blur=[1.5, 1.5]), strict=True):
        grey = [int(((example["alpha"] > 8) & (example["alpha"] < 247)).sum()) for example in (sharp[3], soft[3])]
        assert grey[1] > 2 * grey[0]
        areas = [cv2.countNonZero(example["mask"]) for example in (sharp[3], soft[3])]
        assert areas[0] == pytest.approx(areas[1], rel=0.05)


def test_no_splits_share_a_background_or_a_logo(raw):
    config = {**PLAIN, "splits": {"train": 0.5, "validation": 0.5}, "logos_per_picture": [1, 3]}
    made = LogosHandler({**config, "variations_per_sample": 4, "near_duplicates": "ignore"}, str(raw))
    samples = sorted(made.samples(), key=lambda sample: sample.key)
    by_split = made.complete_splits({"train": samples[:3], "validation": samples[3:]})
    for name in ("backgrounds", "partners"):
        used = {
            split: {str(item) for sample in completed for item in sample.data[name]}
            for split, completed in by_split.items()
        }
        assert not used["train"] & used["validation"]
        assert all(used.values())
    assert [sample.key for sample in by_split["train"]] == [sample.key for sample in samples[:3]]
    keys = {split: {sample.key for sample in completed} for split, completed in by_split.items()}
    for split, completed in by_split.items():
        assert {item["photo"].removesuffix(".png") for one in completed for item in one.data["partners"]} <= keys[split]


def test_any_number_of_workers_makes_the_same_bytes(raw, tmp_path):
    np.save(raw / "depth" / "wall110.npy", slanted((240, 300), 30))
    config = {
        "image_size": [160, 160],
        "input_attributes": ALL,
        "variations_per_sample": 3,
        "logos_per_picture": [1, 3],
        "match_light": 0.5,
        "depth_folder": "depth",
        "rotation": [-20, 20],
        "examples_per_shard": 3,
    }
    digests = []
    for workers in (1, 2):
        handler, work = LogosHandler(config, str(raw)), WorkFolder(tmp_path / str(workers))
        work.create()
        plan = handler.plan("logos", work)
        sealed = make_shards(handler, work, plan.shards, workers, lambda _done, _bad: None)
        digests.append(sorted((shard.file, shard.sha256) for shard in sealed))
    assert digests[0] == digests[1]
    assert len(digests[0]) == 6


def test_a_variation_is_the_same_whatever_was_made_before(raw):
    made, samples = prepared(raw, variations_per_sample=3, logos_per_picture=[1, 3])
    whole = list(made.examples(samples[0], SampleRandom(0, samples[0].key)))
    again, _ = prepared(raw, variations_per_sample=3, logos_per_picture=[1, 3])
    scene = again.load(samples[0], 2, SampleRandom(0, samples[0].key).variation(2))
    np.testing.assert_array_equal(scene.photo.pixels(), whole[2]["image"])


def picture(mode, fill):
    file = io.BytesIO()
    Image.new(mode, (40, 40), fill).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (picture("RGB", (9, 9, 9)), "no alpha"),
        (picture("RGBA", (9, 9, 9, 0)), "transparent everywhere"),
        (picture("RGBA", (9, 9, 9, 255)), "opaque everywhere"),
        (picture("RGBA", (9, 9, 9, 0))[:60], "cannot be decoded"),
        (b"", "empty"),
        (b"hello", "none of"),
    ],
)
def test_what_is_no_logo_is_quarantined(raw, tmp_path, data, reason):
    (raw / "logos" / "bad.png").write_bytes(data)
    config = {**PLAIN, "logos_per_picture": [1, 3]}
    _, sealed = make(LogosHandler, config, raw, tmp_path / "work")
    assert list(quarantined(sealed)) == ["bad"]
    assert reason in quarantined(sealed)["bad"]


def test_an_unreadable_background_is_replaced_and_counted(raw, tmp_path):
    for path in sorted((raw / "backgrounds").iterdir())[:3]:
        path.write_bytes(b"\xff\xd8 no photo")
    _, sealed = make(LogosHandler, {**PLAIN, "variations_per_sample": 4}, raw, tmp_path / "work")
    counted = sum(shard.counters.get("unreadable_backgrounds", 0) for shard in sealed)
    assert counted > 0
    for path in (raw / "backgrounds").iterdir():
        path.write_bytes(b"\xff\xd8 no photo")
    made, samples = prepared(raw)
    with pytest.raises(BadSampleError, match="none of 4 backgrounds can be used; the first: wall"):
        list(made.examples(samples[0], SampleRandom(0, samples[0].key)))


def test_backgrounds_without_room_are_replaced_and_where_none_has_any_logos_go_anywhere(raw, tmp_path):
    busy = np.random.default_rng(0).integers(0, 256, (240, 300, 3), dtype=np.uint8)
    coarse = cv2.resize(busy[:24, :30], (300, 240), interpolation=cv2.INTER_NEAREST)
    paths = sorted((raw / "backgrounds").iterdir())
    for path in paths[:3]:
        path.write_bytes(png(coarse))
    _, sealed = make(LogosHandler, {**PLAIN, "variations_per_sample": 4}, raw, tmp_path / "work")
    assert not quarantined(sealed)
    assert sum(shard.counters.get("backgrounds_without_room", 0) for shard in sealed) > 0
    for path in paths[3:]:
        path.write_bytes(png(coarse))
    _, sealed = make(LogosHandler, PLAIN, raw, tmp_path / "none")
    assert not quarantined(sealed)
    found = sum(shard.counters["logos_off_surfaces"] for shard in sealed)
    assert found == sum(shard.examples for shard in sealed) == len(COLOURS)


def test_a_logo_too_large_for_every_surface_says_so(raw):
    made, samples = prepared(raw, logo_scale=[1, 1])
    with pytest.raises(BadSampleError, match="no surface has room"):
        list(made.examples(samples[0], SampleRandom(0, samples[0].key)))


def test_logos_left_out_and_bad_partners_are_counted(raw, tmp_path):
    (raw / "logos" / "bad.png").write_bytes(b"hello")
    config = {**PLAIN, "logos_per_picture": [7, 7], "logo_scale": [0.45, 0.5]}
    _, sealed = make(LogosHandler, config, raw, tmp_path / "work")
    for counter in ("logos_left_out", "unusable_partners"):
        assert sum(shard.counters.get(counter, 0) for shard in sealed) > 0


def test_the_only_logo_of_a_split_is_its_own_partner(raw):
    for path in (raw / "logos").iterdir():
        if path.stem != "red-disc":
            path.unlink()
    found = [example["category"] for _, _, _, example in all_examples(raw, logos_per_picture=[3, 3])]
    assert found == [["red-disc"] * 3]


def test_folders_must_be_there(raw):
    with pytest.raises(RawDataError, match="no picture in the raw folder 'nowhere'"):
        prepared(raw, raw_folder="nowhere")
    with pytest.raises(RawDataError, match="no photo in the raw folder 'depth'"):
        prepared(raw, backgrounds_folder="depth")
    with pytest.raises(RawDataError, match="no raw folder 'maps'"):
        prepared(raw, depth_folder="maps")


@pytest.mark.parametrize(
    ("category_from", "expected"),
    [("stem", sorted(COLOURS)), ("prefix", ["black", "blue", "cyan", "green", "red", "yellow"])],
)
def test_categories_come_from_names(raw, category_from, expected):
    found = [example["category"][0] for _, _, _, example in all_examples(raw, category_from=category_from)]
    assert sorted(found) == expected


@pytest.mark.parametrize(
    "config",
    [
        {"logos_per_picture": [3, 2]},
        {"logos_per_picture": [0, 2]},
        {"logo_scale": [0, 0.5]},
        {"logo_scale": [0.5, 0.4]},
        {"logo_rotation": [-200, 0]},
        {"logo_blur": [0, 9]},
        {"logo_noise": [-1, 0]},
        {"max_tilt": 80},
        {"blend": "mixed"},
        {"image_size": None},
        {"input_attributes": ["cluster"]},
        {"raw_folder": "../logos"},
    ],
)
def test_configs_that_cannot_be_are_refused(config):
    with pytest.raises(ConfigRefusedError):
        check_config(LogosConfig, config)


def test_options_without_effect_are_as_good_as_left_out():
    def effective(**config):
        return check_config(LogosConfig, config).effective()

    idle = {"logo_jitter": 0.9, "logo_noise": [1, 2], "match_light": 1, "blend": "poisson", "category_from": "prefix"}
    assert effective(input_attributes=["alpha"], **idle) == effective(input_attributes=["alpha"])
    for name, value in idle.items():
        assert effective(input_attributes=["image", "category"], **{name: value}) != effective(
            input_attributes=["image", "category"]
        )


def test_every_option_is_described():
    options = LogosHandler.config_options()
    assert all(option["doc"] for option in options.values())
    assert options["logo_scale"]["default"] == [0.15, 0.4]


def test_fingerprints_see_what_is_visible(raw):
    made, samples = prepared(raw)
    for sample in samples:
        pixels = logo(sample.key)
        pixels[pixels[..., 3] == 0] = (1, 200, 3, 0)
        before = made.fingerprint(sample)
        (raw / "logos" / f"{sample.key}.png").write_bytes(png(pixels))
        assert made.fingerprint(sample) == before


@pytest.mark.parametrize(
    "config",
    [
        {"logos_per_picture": [1, 3]},
        {"raw_folder": "cutouts", "category_from": "prefix", "match_light": 0.5},
        {"blend": "poisson", "limit": 8, "crop_size": [256, 256], "rotation": [-15, 15]},
    ],
    ids=["logos", "objects", "poisson"],
)
def test_real_logos_and_objects(real_raw, tmp_path, config):
    attributes = ["image", "alpha", "trimap", "clicks", "boxes", "category", "source_id"]
    plan, sealed = make(LogosHandler, {"input_attributes": attributes, **config}, real_raw, tmp_path)
    assert not quarantined(sealed)
    assert not [item for item in plan.rejected if isinstance(item, Rejected)]
    files = list((real_raw / config.get("raw_folder", "logos")).iterdir())
    assert sum(shard.examples for shard in sealed) == config.get("limit", len(files))
    assert sum(shard.counters.get("empty_masks", 0) for shard in sealed) == 0


def test_logos_are_kept_by_what_is_in_their_files(raw, monkeypatch):
    prepared_ones = []
    monkeypatch.setattr(
        "dataset_handlers.logos.prepare_logo", lambda *given: prepared_ones.append(given) or prepare_logo(*given)
    )
    made, samples = prepared(raw)
    first = [made._logo(sample.data).pixels for sample in samples]
    again = [made._logo(sample.data).pixels for sample in samples]
    assert len(prepared_ones) == len(samples)
    assert all(one is other for one, other in zip(first, again, strict=True))
    path = raw / "logos" / samples[0].data["photo"]
    path.write_bytes((raw / "logos" / samples[1].data["photo"]).read_bytes())
    assert made._logo(samples[0].data).pixels is first[1]
    for number in range(20):
        (raw / "logos" / "new.png").write_bytes(png(logo("red-disc", 60 + number)))
        made._logo({"photo": "new.png"})
    assert len(made._kept) == 16
    made._logo(samples[0].data)
    assert len(prepared_ones) == len(samples) + 21


def test_copies_of_a_background_are_in_one_split(raw):
    for path in sorted((raw / "backgrounds").iterdir()):
        for quality in (70, 90):
            written = path.with_name(f"{quality}_{path.stem}.jpg")
            cv2.imwrite(str(written), cv2.imread(str(path)), [cv2.IMWRITE_JPEG_QUALITY, quality])
    made = LogosHandler({**PLAIN, "variations_per_sample": 30}, str(raw))
    samples = list(made.samples())
    by_split = made.complete_splits({"train": samples[:4], "test": samples[4:]})
    used = [
        {name.rpartition(".")[0].rpartition("_")[2] for sample in found for name in sample.data["backgrounds"]}
        for found in by_split.values()
    ]
    assert used[0]
    assert used[1]
    assert not used[0] & used[1]
