"""COCO photos with the union of their instances of chosen categories as mask.

Raw folder, as the publisher ships it (any of the pairs)::

    annotations/instances_<part>.json    <part>/*.jpg        part: train2017, val2017, …

The publisher's splits: ``train…`` is train, ``val…`` is validation, ``test…`` is test. Masks are what pycocotools
draws, to the pixel, where no geometry is applied.
"""

import contextlib
import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pydantic import Field

from .config import CategoryNames, FolderName, PhotoConfig
from .errors import BadSampleError, ConfigRefusedError, RawDataError
from .images import decode_photo
from .plan import Rejected, Sample
from .segmentation import Array, SegmentationHandler

_SPLITS = {"train": "train", "val": "validation", "test": "test"}

#: Polygons may leave the photo, but by no more than this many times its longer side.
_FAR = 16


class CocoConfig(PhotoConfig):
    """Options of the `coco` handler."""

    raw_folder: FolderName = Field("coco", description="Folder below the raw root, in COCO's layout.")
    categories: CategoryNames = Field(
        ("person",), description="COCO category names; the mask is the union of their instances."
    )
    include_crowds: bool = Field(
        True, description="Whether crowd regions (iscrowd) of the categories belong to the mask."
    )


class CocoHandler(SegmentationHandler):
    """Photo and subject mask by category, from COCO instance annotations."""

    Config: ClassVar[type[CocoConfig]] = CocoConfig
    options: CocoConfig

    def raw_data_path(self) -> Path:
        """The COCO folder."""
        return Path(self.base_data_path) / self.options.raw_folder

    def samples(self) -> Iterator[Sample | Rejected]:
        """Every photo with an instance of the categories."""
        yield from coco_samples(self, self.raw_data_path(), self.options.categories, self.options.include_crowds)

    def load(self, sample: Sample, _variation: int, _random: np.random.Generator) -> tuple[Array, Array]:
        """The photo and the union of its chosen instances."""
        return load_coco(self, self.raw_data_path(), sample.data)


def coco_samples(
    handler: SegmentationHandler, root: Path, categories: tuple[str, ...], include_crowds: bool
) -> Iterator[Sample | Rejected]:
    """Samples ``<part>/<photo's stem>`` of the photos under ``root`` that show any of ``categories``.

    A part whose photos are not here at all, such as train2017 where only val2017 was fetched, is passed over. Raises
    `RawDataError` where there are no annotations, `ConfigRefusedError` for a category they do not know.
    """
    found = sorted((root / "annotations").glob("instances_*.json"))
    files = [file for file in found if (root / file.stem.removeprefix("instances_")).is_dir()]
    if not files:
        raise RawDataError(
            f"there is no annotations/instances_<part>.json with a folder <part> in the raw folder '{root.name}'; "
            "put COCO there as its publisher ships it, or choose another raw_folder"
        )
    for file in files:
        part = file.stem.removeprefix("instances_")
        split = next((split for start, split in _SPLITS.items() if part.startswith(start)), "train")
        coco = _index(handler.read_raw(file), file.name)
        known = {str(item.get("name")): number for number, item in coco.cats.items()}
        if unknown := [category for category in categories if category not in known]:
            raise ConfigRefusedError(
                [
                    {
                        "path": "/categories",
                        "reason": f"{file.name} has no category {', '.join(map(repr, unknown))}; "
                        f"it has {', '.join(sorted(known))}",
                    }
                ]
            )
        chosen = {known[category] for category in categories}
        for image_id, image in sorted(coco.imgs.items()):
            annotations = [
                {"id": item["id"], "segmentation": item["segmentation"]}
                for item in coco.imgToAnns.get(image_id, [])
                if item.get("category_id") in chosen
                and item.get("segmentation")
                and (include_crowds or not item.get("iscrowd"))
            ]
            if not annotations:
                continue
            try:
                key = f"{part}/{PurePosixPath(image['file_name']).with_suffix('')}"
                data = {
                    "photo": f"{part}/{image['file_name']}",
                    "size": [int(image["height"]), int(image["width"])],
                    "annotations": annotations,
                }
            except (KeyError, TypeError, ValueError) as error:
                yield Rejected(f"{part}/{image_id}", f"{file.name}: image {image_id} lacks {error}")
            else:
                yield Sample(key, data, split)


def _index(data: bytes, name: str) -> Any:
    """pycocotools' index of an annotation file."""
    coco = COCO()
    try:
        coco.dataset = json.loads(data)
        with contextlib.redirect_stdout(None):  # it announces its progress there
            coco.createIndex()
        if not all(key in coco.dataset for key in ("images", "annotations", "categories")):
            raise RawDataError(f"{name} is no COCO instances file: it lacks images, annotations or categories")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RawDataError(f"{name} cannot be read as COCO annotations: {error!r}") from error
    return coco


def load_coco(handler: SegmentationHandler, root: Path, data: dict[str, Any]) -> tuple[Array, Array]:
    """The photo of a sample and the union of its instances; raises `BadSampleError` where they do not fit."""
    height, width = data["size"]
    path = root / data["photo"]
    # By its name alone: a raw folder may well be made of links to other disks.
    if ".." in path.parts[len(root.parts) :] or not path.is_relative_to(root):
        raise BadSampleError(f"the annotations name a photo outside the raw folder: {data['photo']}")
    photo = decode_photo(handler.read_raw(path), path.name)
    if photo.shape[:2] != (height, width):
        raise BadSampleError(
            f"{path.name} has {photo.shape[1]}×{photo.shape[0]} pixels, its annotations are for {width}×{height}"
        )
    return photo, draw_instances(data["annotations"], height, width)


def draw_instances(annotations: list[dict[str, Any]], height: int, width: int) -> Array:
    """The union of COCO segmentations (polygons, or RLE, compressed or not) as pycocotools draws it: 0 and 255.

    Raises `BadSampleError` naming an annotation that cannot be drawn at this size.
    """
    codes = []
    for annotation in annotations:
        try:
            codes.append(_encode(annotation["segmentation"], height, width))
        except Exception as error:  # the boundary: pycocotools raises whatever its C code stumbles over
            raise BadSampleError(f"annotation {annotation['id']} cannot be drawn: {error}") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools 2.0.11 converts arrays in NumPy 1's way
        return np.asarray(rle.decode(rle.merge(codes)) * 255, np.uint8)


def _encode(segmentation: Any, height: int, width: int) -> Any:
    """One segmentation as compressed RLE; raises whatever fits for one that cannot be drawn.

    What pycocotools does not check is checked here: coordinates that are no numbers or far away end it by a
    segmentation fault, runs that do not cover the picture make it hang or return uninitialised memory.
    """
    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
        if not polygons:
            raise ValueError("it has no polygon of three points or more")
        far = _FAR * max(height, width)
        if not all(math.isfinite(value) and abs(value) <= far for polygon in polygons for value in polygon):
            raise ValueError("a polygon has points that are no numbers or far outside the photo")
        return rle.merge(rle.frPyObjects(polygons, height, width))
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"it is a mask of {segmentation['size']}, the photo is [{height}, {width}]")
    counts = segmentation["counts"]
    runs = counts if isinstance(counts, list) else _runs(counts)
    if sum(runs) != height * width or min(runs) < 0:
        raise ValueError(f"its runs cover {sum(runs)} pixels, the photo has {height * width}")
    return rle.frPyObjects(segmentation, height, width) if isinstance(counts, list) else segmentation


def _runs(counts: str) -> list[int]:
    """The runs of a compressed RLE; raises `ValueError` for what is none.

    COCO's format (``rleToString`` in pycocotools' maskApi.c): five bits a character, offset 48, bit 5 says that
    more follow; two's complement; from the fourth on, runs are differences to the run before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts.encode("ascii"):
        bits = character - 48
        if not 0 <= bits < 64:
            raise ValueError("its runs hold a character that means nothing there")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("its last run is cut off")
    return runs
