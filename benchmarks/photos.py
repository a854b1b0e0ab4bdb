"""The photos of a benchmark: real ones of 640 × 480 with one person annotated each, repeated by links.

``prepare(raw_root, folder, count)`` looks through every COCO folder below ``raw_root`` (``*/annotations/
instances_<part>.json`` beside ``*/<part>/``), takes the photos of 640 × 480 or 480 × 640 that show a person drawn by
polygons, keeps the largest of these persons, and repeats photos by hard links until there are ``count``. It writes
into ``folder``

* ``raw/coco``, a raw root for our own handler: photos and an annotations file;
* ``samples.jsonl``, the same photos and polygons for the peers: ``key``, ``photo`` (a path), ``height``, ``width``,
  ``polygons``.
"""

import argparse
import json
import os
import shutil
from pathlib import Path

SIZES = {(480, 640), (640, 480)}
PART = "train2017"


def suitable(raw_root: Path) -> dict[str, dict]:
    """Photos by file name: path, size and the polygons of the largest person."""
    found: dict[str, dict] = {}
    for file in sorted(raw_root.glob("*/annotations/instances_*.json")):
        folder = file.parent.parent / file.stem.removeprefix("instances_")
        coco = json.loads(file.read_bytes())
        images = {image["id"]: image for image in coco["images"] if (image["height"], image["width"]) in SIZES}
        person = next((item["id"] for item in coco["categories"] if item["name"] == "person"), None)
        for item in sorted(coco["annotations"], key=lambda item: (-item["area"], item["id"])):
            image = images.get(item["image_id"])
            if image is None or item["category_id"] != person or not isinstance(item["segmentation"], list):
                continue
            photo = folder / Path(image["file_name"]).name
            if photo.name not in found and photo.is_file():
                size = {"height": image["height"], "width": image["width"]}
                found[photo.name] = {"photo": photo, **size, "polygons": item["segmentation"], "area": item["area"]}
    return dict(sorted(found.items()))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or no hard links there
        shutil.copyfile(source, target)


def prepare(raw_root: Path, folder: Path, count: int) -> dict[str, int]:
    """Write a set of ``count`` photos; says how many different ones it is made of."""
    chosen = list(suitable(raw_root).values())
    if not chosen:
        raise SystemExit(f"no photo of 640 × 480 with a person in the COCO folders of {raw_root}")
    photos = folder / "raw" / "coco" / PART
    photos.mkdir(parents=True)
    copies: list[Path] = []
    images, annotations, lines = [], [], []
    for number in range(count):
        photo = chosen[number % len(chosen)]
        target = photos / f"{number:012d}.jpg"
        # A file system allows only so many links to one file: each photo is copied once and again for every 10,000.
        if number % (len(chosen) * 10_000) < len(chosen):
            shutil.copyfile(photo["photo"], target)
            copies.append(target)
        else:
            _link(copies[-len(chosen) + number % len(chosen)], target)
        size = {"height": photo["height"], "width": photo["width"]}
        images.append({"id": number, "file_name": target.name, **size})
        x, y = photo["polygons"][0][0::2], photo["polygons"][0][1::2]
        annotations.append(
            {
                "id": number + 1,
                "image_id": number,
                "category_id": 1,
                "iscrowd": 0,
                "area": photo["area"],
                "bbox": [min(x), min(y), max(x) - min(x), max(y) - min(y)],
                "segmentation": photo["polygons"],
            }
        )
        lines.append(
            json.dumps({"key": target.stem, "photo": str(target.absolute()), **size, "polygons": photo["polygons"]})
        )
    person = {"id": 1, "name": "person", "supercategory": "person"}
    coco = {"images": images, "annotations": annotations, "categories": [person]}
    file = folder / "raw" / "coco" / "annotations" / f"instances_{PART}.json"
    file.parent.mkdir()
    file.write_text(json.dumps(coco))
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n")
    return {"photos": count, "different": len(chosen)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw-root", type=Path, required=True, help="a folder with COCO folders in it")
    parser.add_argument("--folder", type=Path, required=True, help="where the set goes; must not exist")
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    print(prepare(options.raw_root, options.folder, options.count))


if __name__ == "__main__":
    main()
