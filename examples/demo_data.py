"""Makes raw data to try the pipeline on: real photographs with drawn subjects, laid out as COCO and DUTS are.

The photographs are the ones scikit-image ships (public domain, CC0 or no known restrictions): an astronaut's portrait,
a cat, a cup of coffee, a rocket, a retina, tissue, the Hubble deep field, grass, gravel, brick. Parts of them serve as
backgrounds; the subjects on them are drawn: smooth blobs with a coloured, striped skin, and balls. A network can learn
to find those in minutes. Cut-outs, mattes and logos are drawn as well (`examples.drawn_subjects`), and street scenes
(`examples.drawn_streets`).
"""

import argparse
import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import skimage

from examples.drawn_streets import street
from examples.drawn_subjects import CUTOUTS, MATTES, ball, icons

Array = npt.NDArray[np.uint8]

PHOTOS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "hubble_deep_field.jpg",
    "retina.jpg",
    "ihc.png",
    "grass.png",
    "gravel.png",
    "brick.png",
)
HEIGHT, WIDTH = 240, 320

#: The raw folders there are; those of `DEMO` are what the demo and most tests need.
DEMO = ("coco", "duts", "backgrounds")
EVERY = (*DEMO, "cutouts", "mattes", "logos", "camvid")


def load_photos() -> list[Array]:
    """The photographs scikit-image ships, (H, W, 3) uint8 BGR."""
    folder = Path(skimage.__file__).parent / "data"
    photos = [cv2.imread(str(folder / name), cv2.IMREAD_COLOR) for name in PHOTOS]
    return [np.asarray(photo, np.uint8) for photo in photos if photo is not None]


def part_of(photo: Array, random: np.random.Generator, height: int = HEIGHT, width: int = WIDTH) -> Array:
    """A random part of a photo, mirrored at random, at the size asked for."""
    scale = random.uniform(0.5, 1.0) * min(photo.shape[0] / height, photo.shape[1] / width)
    rows, columns = max(1, int(height * scale)), max(1, int(width * scale))
    top = random.integers(photo.shape[0] - rows + 1)
    left = random.integers(photo.shape[1] - columns + 1)
    part = photo[top : top + rows, left : left + columns]
    if random.random() < 0.5:
        part = part[:, ::-1]
    return np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def outline(random: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float64]:
    """The outline of a blob, (72, 2) points x, y inside the picture: a circle with a few random harmonics."""
    angles = np.linspace(0, 2 * math.pi, 72, endpoint=False)
    radius = np.ones_like(angles)
    for harmonic in (2, 3, 5):
        radius += random.uniform(0, 0.5 / harmonic) * np.cos(harmonic * angles + random.uniform(0, 2 * math.pi))
    size = random.uniform(0.15, 0.3) * min(height, width)
    points = np.stack([np.cos(angles) * radius, np.sin(angles) * radius * random.uniform(0.8, 1.5)], 1) * size
    centre = np.array([random.uniform(0.3, 0.7) * width, random.uniform(0.35, 0.65) * height])
    return np.clip(points + centre, 0, [width - 1, height - 1])


def draw_subject(photo: Array, points: npt.NDArray[np.float64], random: np.random.Generator) -> tuple[Array, Array]:
    """``photo`` with a striped blob in it, and its soft mask (H, W) with grey edges."""
    height, width = photo.shape[:2]
    fixed = np.rint(points * 16).astype(np.int32)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, shift=4)
    y, x = np.mgrid[:height, :width]
    direction, period = random.uniform(0, math.pi), random.uniform(7, 14)
    stripes = np.sin((x * math.cos(direction) + y * math.sin(direction)) * 2 * math.pi / period) * 0.35
    light = 0.75 + 0.25 * (points[:, 1].mean() - y) / height + stripes
    hue = np.full((1, 1, 3), (random.uniform(0, 180), 210, 235), np.uint8)
    colour = cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float64)
    skin = np.clip(light[..., None] * colour, 0, 255)
    alpha = mask[..., None] / 255
    return np.rint(photo * (1 - alpha) + skin * alpha).astype(np.uint8), mask


def make_coco(
    root: Path,
    photos: list[Array],
    random: np.random.Generator,
    train: int,
    validation: int,
    balls: np.random.Generator | None = None,
) -> None:
    """COCO's layout: blobs are instances of the category 'figure', as polygons.

    With a generator for ``balls``, there is one of the category 'ball' beside most of them.
    """
    for part, count in (("train2017", train), ("val2017", validation)):
        (root / part).mkdir(parents=True)
        images, annotations = [], []
        for number in range(1, count + 1):
            name = f"{number:012}.jpg"
            picture = part_of(photos[random.integers(len(photos))], random)
            figures = []
            for _ in range(random.integers(1, 3)):
                figures.append(outline(random, HEIGHT, WIDTH))
                picture, _mask = draw_subject(picture, figures[-1], random)
                annotations.append(_annotation(len(annotations) + 1, number, 1, figures[-1]))
            if balls and (points := free_circle(balls, np.concatenate(figures))) is not None:
                picture = draw_ball(picture, points, balls)
                annotations.append(_annotation(len(annotations) + 1, number, 2, points))
            cv2.imwrite(str(root / part / name), picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
            images.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
        content = {
            "info": {"description": "drawn subjects on photographs"},
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "figure"}, *([{"id": 2, "name": "ball"}] if balls else [])],
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))


def free_circle(random: np.random.Generator, taken: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
    """A circle inside the picture, (48, 2) points x, y, that is clear of the outlines ``taken``; None if none is found.

    Outlines are larger than the circle: it is in none of them if its centre is far from all of their points.
    """
    radius = random.uniform(14, 26)
    for centre in random.uniform((radius, radius), (WIDTH - radius, HEIGHT - radius), (4, 2)):
        inside = ((taken.min(0) < centre) & (centre < taken.max(0))).all()
        if not inside and np.hypot(*(taken - centre).T).min() > radius + 6:
            angles = np.linspace(0, 2 * math.pi, 48, endpoint=False)
            return np.asarray(centre + radius * np.stack([np.cos(angles), np.sin(angles)], 1))
    return None


def draw_ball(photo: Array, points: npt.NDArray[np.float64], random: np.random.Generator) -> Array:
    """``photo`` with a ball within the circle ``points``."""
    centre, radius = points.mean(0), float(np.ptp(points[:, 0])) / 2
    # The ball reaches 0.94 of the way to the rim of its picture.
    scale = radius / 0.94 / 32
    matrix = np.array([[scale, 0, centre[0] - 32 * scale], [0, scale, centre[1] - 32 * scale]])
    drawn = cv2.warpAffine(ball(random, 64), matrix, (photo.shape[1], photo.shape[0]), flags=cv2.INTER_LINEAR)
    return laid_over(photo, np.asarray(drawn, np.uint8))


def laid_over(photo: Array, drawn: Array) -> Array:
    """``photo`` (H, W, 3) under ``drawn`` (H, W, 4)."""
    alpha = drawn[..., 3:] / 255
    return np.rint(photo * (1 - alpha) + drawn[..., :3] * alpha).astype(np.uint8)


def _annotation(number: int, image: int, category: int, points: npt.NDArray[np.float64]) -> dict[str, Any]:
    x, y = points[:, 0], points[:, 1]
    area = 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))
    box = [float(x.min()), float(y.min()), float(np.ptp(x)), float(np.ptp(y))]
    polygon = [round(float(value), 2) for value in points.ravel()]
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "iscrowd": 0,
        "area": area,
        "bbox": box,
        "segmentation": [polygon],
    }


def make_duts(root: Path, photos: list[Array], random: np.random.Generator, train: int, test: int) -> None:
    """DUTS' layout: one subject per photo, its mask with grey edges."""
    for part, count in (("DUTS-TR", train), ("DUTS-TE", test)):
        image_folder, mask_folder = root / part / f"{part}-Image", root / part / f"{part}-Mask"
        image_folder.mkdir(parents=True)
        mask_folder.mkdir(parents=True)
        for number in range(count):
            picture = part_of(photos[random.integers(len(photos))], random)
            picture, mask = draw_subject(picture, outline(random, HEIGHT, WIDTH), random)
            cv2.imwrite(str(image_folder / f"figure_{number:05}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
            cv2.imwrite(str(mask_folder / f"figure_{number:05}.png"), mask)


def make_backgrounds(root: Path, photos: list[Array], random: np.random.Generator, count: int) -> None:
    """A folder of photos without a subject."""
    root.mkdir(parents=True)
    for number in range(count):
        picture = part_of(photos[number % len(photos)], random, 360, 480)
        cv2.imwrite(str(root / f"background_{number:03}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 92])


def make_cutouts(root: Path, random: np.random.Generator, each: int) -> None:
    """Folders of RGBA pictures, ``each`` of every kind."""
    for kind, draw in CUTOUTS.items():
        (root / kind).mkdir(parents=True)
        for number in range(each):
            cv2.imwrite(str(root / kind / f"{kind}_{number:02}.png"), draw(random, int(random.integers(120, 200))))


def make_mattes(root: Path, photos: list[Array], random: np.random.Generator, each: int) -> None:
    """Photos of furry, defocused and half transparent things, each with its true opacity."""
    root.mkdir(parents=True)
    for name, draw in MATTES.items():
        for number in range(each):
            drawn = draw(random, HEIGHT, WIDTH)
            photo = laid_over(part_of(photos[random.integers(len(photos))], random), drawn)
            cv2.imwrite(str(root / f"{name}_{number:02}.png"), photo)
            cv2.imwrite(str(root / f"{name}_{number:02}_alpha.png"), drawn[..., 3])


def make_logos(root: Path) -> None:
    """RGBA icons, named for what they show."""
    root.mkdir(parents=True)
    for name, icon in icons().items():
        cv2.imwrite(str(root / f"{name}.png"), icon)


def make_camvid(root: Path, random: np.random.Generator, train: int, held_out: int) -> None:
    """CamVid's layout: street scenes with a class for each pixel."""
    for part, count in (("train", train), ("val", held_out), ("test", held_out)):
        for folder in (root / part, root / f"{part}annot"):
            folder.mkdir(parents=True)
        for number in range(count):
            picture, classes = street(random, HEIGHT, WIDTH)
            cv2.imwrite(str(root / part / f"street_{number:03}.png"), picture)
            cv2.imwrite(str(root / f"{part}annot" / f"street_{number:03}.png"), classes)


def make_raw_data(
    root: Path,
    *,
    train: int = 160,
    held_out: int = 40,
    seed: int = 0,
    folders: Collection[str] = DEMO,
    balls: bool = False,
) -> None:
    """A raw root with those ``folders`` of `EVERY`; ``train`` and ``held_out`` photos in each of coco, duts
    and camvid.

    ``balls`` are a second category in coco, beside its figures.
    """
    cv2.setNumThreads(0)
    photos = load_photos()
    random = np.random.default_rng(seed)
    more = random.spawn(4)  # what is drawn for one folder does not depend on the others
    if "coco" in folders:
        make_coco(root / "coco", photos, random, train, held_out, more[2] if balls else None)
    if "duts" in folders:
        make_duts(root / "duts", photos, random, train, held_out)
    if "backgrounds" in folders:
        make_backgrounds(root / "backgrounds", photos, random, 2 * len(photos))
    if "cutouts" in folders:
        make_cutouts(root / "cutouts", more[0], 8)
    if "mattes" in folders:
        make_mattes(root / "mattes", photos, more[1], 2)
    if "logos" in folders:
        make_logos(root / "logos")
    if "camvid" in folders:
        make_camvid(root / "camvid", more[3], train, held_out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to make it; must not exist")
    make_raw_data(parser.parse_args().folder, folders=EVERY, balls=True)
