"""Draws the first examples of a dataset as a picture: photo, mask, and the mask laid over the photo."""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageOps

from dataset_client import Dataset, open_dataset

Array = npt.NDArray[np.uint8]

CELL = 128
GAP = 6
TITLE = 18
COLOUR = np.array([235, 60, 120])


def overlay(photo: Array, mask: Array) -> Array:
    """``photo`` (H, W, 3) with the subject of ``mask`` (H, W, 1) tinted and everything else dimmed."""
    inside = mask.astype(np.float64) / 255
    tinted = photo * 0.55 + COLOUR * 0.45
    return np.rint(tinted * inside + photo * 0.45 * (1 - inside)).astype(np.uint8)


def contact_sheet(dataset: Dataset, columns: int = 8) -> Image.Image:
    """One band per split: its name, and three rows of examples (photo, mask, overlay)."""
    first = next(example for split in dataset.splits for example in dataset.as_numpy_iterator(split))
    cell = (CELL, round(CELL * first["image"].shape[0] / first["image"].shape[1]))
    band = TITLE + 3 * (cell[1] + GAP)
    sheet = Image.new("RGB", (GAP + columns * (cell[0] + GAP), band * len(dataset.splits) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (split, count) in enumerate(dataset.splits.items()):
        top = index * band
        draw.text((GAP, top + 3), f"{dataset.manifest['dataset_name']} · {split} · {count} examples", "black")
        for column, example in zip(range(columns), dataset.as_numpy_iterator(split), strict=False):
            photo, mask = example["image"], example["mask"]
            for row, picture in enumerate((photo, np.repeat(mask, 3, axis=2), overlay(photo, mask))):
                thumbnail = ImageOps.pad(Image.fromarray(picture), cell, color="white")
                sheet.paste(thumbnail, (GAP + column * (cell[0] + GAP), top + TITLE + row * (cell[1] + GAP)))
    return sheet


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, help="folder of a dataset, as `dataset-client request` prints it")
    parser.add_argument("picture", type=Path, help="PNG to write")
    options = parser.parse_args()
    contact_sheet(open_dataset(options.dataset)).save(options.picture)
