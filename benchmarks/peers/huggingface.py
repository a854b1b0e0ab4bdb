"""Hugging Face datasets: ``map`` with ``num_proc``.

https://huggingface.co/docs/datasets/semantic_segmentation (Albumentations on PIL images of an `Image` column) and
https://huggingface.co/docs/datasets/image_process#map; the Arrow files that ``map`` writes are the dataset. An `Image`
may be given as encoded bytes; as a PIL image it would be stored as PNG.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from benchmarks.peers import work
from benchmarks.tight import QUALITY, tight

FEATURES = datasets.Features(
    {"key": datasets.Value("string"), "image": datasets.Image(), "mask": datasets.Image()},
)


def _saved(picture: Image.Image, **options) -> dict:
    file = io.BytesIO()
    picture.save(file, **options)
    return {"bytes": file.getvalue(), "path": None}


def usual(row: dict) -> dict:
    mask = work.draw_mask(json.loads(row["polygons"]), row["height"], row["width"])
    result = work.augmentation()(image=np.array(row["photo"].convert("RGB")), mask=mask)
    image = _saved(Image.fromarray(result["image"]), format="JPEG", quality=QUALITY)
    return {"key": row["key"], "image": image, "mask": _saved(Image.fromarray(result["mask"] * 255), format="PNG")}


def shared(row: dict) -> dict:
    jpeg, png = tight({**row, "polygons": json.loads(row["polygons"])})
    return {"key": row["key"], "image": {"bytes": jpeg, "path": None}, "mask": {"bytes": png, "path": None}}


def build(samples: list[dict], out: Path, processes: int, flavour: str) -> None:
    rows = [{**sample, "polygons": json.dumps(sample["polygons"])} for sample in samples]
    dataset = datasets.Dataset.from_list(rows)
    if flavour == "usual":
        dataset = dataset.cast_column("photo", datasets.Image())
    dataset.map(
        usual if flavour == "usual" else shared,
        num_proc=processes,
        remove_columns=dataset.column_names,
        features=FEATURES,
        cache_file_name=str(out / "train.arrow"),
    )


def read(out: Path) -> Iterator[work.Pair]:
    for file in sorted(out.glob("*.arrow")):
        dataset = datasets.Dataset.from_file(str(file))
        dataset = dataset.cast_column("image", datasets.Image(decode=False))
        for row in dataset.cast_column("mask", datasets.Image(decode=False)):
            yield row["image"]["bytes"], row["mask"]["bytes"]


if __name__ == "__main__":
    datasets.disable_progress_bars()
    work.main(build, read)
