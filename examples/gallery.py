"""Contact sheets of every built-in handler: what they make of raw data, to look at.

Without raw data of your own it draws the pictures of the documentation, from self-made data (`examples.demo_data`).
Each sheet is one dataset, made and drawn as `dataset-handlers preview` does it; those of a handler are one picture.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from dataset_handlers.authors.building import build_a_few
from dataset_handlers.authors.preview import contact_sheet
from examples.demo import mark

ROOT = Path(__file__).resolve().parent.parent
_ONE_SPLIT = {"splits": {"train": 1.0}, "seed": 7}


@dataclass(frozen=True)
class Sheet:
    """One dataset of at most ``samples`` samples, ``columns`` x ``rows`` of its examples drawn."""

    handler: str
    config: Mapping[str, Any]
    columns: int
    rows: int
    samples: int

    def draw(self, raw_root: Path) -> Image.Image:
        """Make the dataset and draw it."""
        with tempfile.TemporaryDirectory(prefix="gallery-") as folder:
            made = build_a_few(self.handler, {**_ONE_SPLIT, **self.config}, str(raw_root), self.samples, Path(folder))
            return contact_sheet(made, count=self.columns * self.rows, columns=self.columns)


@dataclass(frozen=True)
class Subjects:
    """What differs between raw data of one's own and self-made ones."""

    people: Mapping[str, Any]
    categories: Sequence[str]
    category_from: str
    times: int  # each matte is shown


SELF_MADE = Subjects({"categories": ["figure"]}, ("figure", "ball"), "folder", 2)
PUBLISHED = Subjects({"raw_folder": "coco_person"}, ("person", "car", "chair", "cup", "bus", "horse"), "name", 4)


def gallery(of: Subjects) -> dict[str, list[list[Sheet]]]:
    """Rows of sheets by handler."""
    strong = {
        "image_size": [240, 320],
        "crop_size": [200, 280],
        "random_crop_centered": True,
        "variations_per_sample": 3,
        "flip_horizontal": 0.5,
        "scale": [0.8, 1.3],
        "rotation": [-30, 30],
        "perspective": [0.05, 0.15],
        "exposure": [-1.2, 1.2],
        "saturation": [0.3, 1.6],
        "hue": [-60, 60],
        "blur": [0.5, 3],
        "noise": [5, 25],
        "dropout": [0.1, 0.25],
        "dropout_count": 2,
        "probabilities": {"hue": 0.5, "blur": 0.4, "noise": 0.5, "dropout": 0.5},
    }
    people = {"image_size": [240, 320], "resize_mode": "cover", "flip_horizontal": 0.5, **of.people}
    labels = {"image_size": [240, 320], "resize_mode": "cover", "mask_labels": "categories"}
    labels |= {"input_attributes": ["image", "category"], "categories": of.categories}
    clusters = {"image_size": [160, 160], "resize_mode": "fit", "category_from": of.category_from, "clusters": 4}
    clusters |= {"input_attributes": ["image", "category", "cluster"], "rotation": [-25, 25], "scale": [0.8, 0.8]}
    several = {"image_size": [240, 320], "items_per_picture": [3, 6], "input_attributes": ["image", "alpha", "boxes"]}
    mattes = {"image_size": [240, 320], "resize_mode": "cover", "variations_per_sample": of.times, "scale": [0.8, 1.5]}
    mattes |= {"rotation": [-15, 15], "input_attributes": ["image", "alpha", "trimap", "source_id"]}
    placed = {"image_size": [240, 320], "match_light": 0.5}
    of_coco = {**placed, "subjects_folder": of.people.get("raw_folder", "coco"), "subject_scale": [0.6, 0.95]}
    of_coco |= {"categories": of.people.get("categories", ["person"]), "min_instance_area": 4000}
    of_cutouts = {**placed, "subjects": "cutouts", "subjects_per_picture": [2, 4], "subject_scale": [0.3, 0.7]}
    of_cutouts |= {"overhang": 0.3, "input_attributes": ["image", "alpha", "boxes"]}
    of_mattes = {**placed, "subjects": "mattes", "variations_per_sample": of.times, "subject_scale": [0.7, 0.95]}
    of_mattes |= {"input_attributes": ["image", "alpha"]}
    logos = {"image_size": [240, 320], "logos_per_picture": [2, 4], "max_tilt": 60, "match_light": 0.3}
    logos |= {"input_attributes": ["image", "boxes", "category"], "logo_scale": [0.2, 0.5]}
    streets = {"image_size": [240, 320], "crop_size": [224, 224], "flip_horizontal": 0.5, "variations_per_sample": 2}
    streets |= {"input_attributes": ["image", "source_id"]}
    return {
        "coco": [
            [
                Sheet(
                    "coco", {**people, "input_attributes": ["image", "trimap", "clicks", "boxes", "source_id"]}, 1, 5, 5
                ),
                Sheet("coco", labels, 1, 5, 5),
            ]
        ],
        "duts": [[Sheet("duts", strong, 3, 5, 5)]],
        "camvid": [[Sheet("camvid", streets, 4, 3, 6)]],
        "cutouts": [[Sheet("cutouts", clusters, 3, 4, 100)], [Sheet("cutouts", several, 2, 3, 100)]],
        "mattes": [[Sheet("mattes", mattes, 1, 6, 6)]],
        "composite": [
            [Sheet("composite", of_coco, 3, 2, 6)],
            [Sheet("composite", of_cutouts, 2, 3, 20)],
            [Sheet("composite", of_mattes, 2, 3, 6)],
        ],
        "logos": [[Sheet("logos", logos, 3, 2, 30)], [Sheet("logos", {**logos, "blend": "poisson"}, 3, 1, 30)]],
    }


def main() -> None:
    """Draw every picture and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folders = "coco, coco_person, duts, camvid, cutouts, mattes, backgrounds and logos"
    parser.add_argument("--raw-root", type=Path, help=f"raw data of your own: folders {folders}")
    parser.add_argument("--output", type=Path, help="folder of the pictures; docs/images, or demo-output/gallery")
    options = parser.parse_args()
    if options.raw_root is not None:
        if options.output is None:
            mark(ROOT / "demo-output")
        draw(options.raw_root, PUBLISHED, options.output or ROOT / "demo-output" / "gallery")
        return
    from examples.demo_data import EVERY, make_raw_data

    with tempfile.TemporaryDirectory(prefix="gallery-raw-") as folder:
        make_raw_data(Path(folder), train=40, held_out=8, folders=EVERY, balls=True)
        draw(Path(folder), SELF_MADE, options.output or ROOT / "docs" / "images")


def draw(raw_root: Path, of: Subjects, output: Path) -> None:
    """One picture for each handler, in ``output``."""
    output.mkdir(parents=True, exist_ok=True)
    for handler, rows in gallery(of).items():
        drawn = [beside([sheet.draw(raw_root) for sheet in row]) for row in rows]
        path = output / f"gallery-{handler}.jpg"  # as PNG they would be four times as large
        below(drawn).save(path, quality=88, subsampling=0, optimize=True)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB", flush=True)


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in a row, on white."""
    row = Image.new("RGB", (sum(one.width for one in pictures), max(one.height for one in pictures)), "white")
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width
    return row


def below(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in a column, on white."""
    column = Image.new("RGB", (max(one.width for one in pictures), sum(one.height for one in pictures)), "white")
    top = 0
    for picture in pictures:
        column.paste(picture, (0, top))
        top += picture.height
    return column


if __name__ == "__main__":
    main()
