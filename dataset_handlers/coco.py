"""COCO photos with the union of their instances of chosen categories as mask.

Raw folder, as the publisher ships it (any of the pairs)::

    annotations/instances_<part>.json    <part>/*.jpg        part: train2017, val2017, …

The publisher's splits: ``train…`` is train, ``val…`` is validation, ``test…`` is test. Masks are what pycocotools
draws, to the pixel, where no geometry is applied.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pydantic import Field, field_validator

from .config import FolderName, PhotoConfig
from .errors import BadSampleError, ConfigRefusedError, RawDataError
from .images import decode_photo
from .plan import Rejected, Sample
from .segmentation import Array, SegmentationHandler

_SPLITS = {"train": "train", "val": "validation", "test": "test"}


class CocoConfig(PhotoConfig):
    """Options of the `coco` handler."""

    raw_folder: FolderName = Field("coco", description="Folder below the raw root, in COCO's layout.")
    categories: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        ("person",),
        min_length=1,
        description="COCO category names; the mask is the union of their instances.",
    )
    include_crowds: bool = Field(
        True, description="Whether crowd regions (iscrowd) of the categories belong to the mask."
    )

    @field_validator("categories")
    @classmethod
    def _as_a_set(cls, categories: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(categories)))


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

    Raises `RawDataError` where there are no annotations, `ConfigRefusedError` for a category they do not know.
    """
    files = sorted((root / "annotations").glob("instances_*.json"))
    if not files:
        raise RawDataError(
            f"there is no annotations/instances_*.json in the raw folder '{root.name}'; "
            "put COCO there as its publisher ships it, or choose another raw_folder"
        )
    for file in files:
        part = file.stem.removeprefix("instances_")
        name = re.match(r"[a-z]*", part)
        split = _SPLITS.get(name[0] if name else "", "train")
        coco = _index(handler.read_raw(file), file.name)
        known = {item["name"]: item["id"] for item in coco.dataset["categories"]}
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
                key = f"{part}/{Path(image['file_name']).stem}"
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
    if not path.resolve().is_relative_to(root.resolve()):
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
        segmentation = annotation["segmentation"]
        try:
            if isinstance(segmentation, list):
                polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
                if not polygons:
                    raise BadSampleError(f"annotation {annotation['id']} has no polygon of three points or more")
                codes += rle.frPyObjects(polygons, height, width)
            else:
                code = segmentation
                if list(code["size"]) != [height, width]:
                    raise BadSampleError(f"annotation {annotation['id']} is a mask of {code['size']}, not the photo's")
                codes.append(rle.frPyObjects(code, height, width) if isinstance(code["counts"], list) else code)
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise BadSampleError(f"annotation {annotation['id']} cannot be drawn: {error!r}") from error
    return np.asarray(rle.decode(rle.merge(codes)) * 255, np.uint8)
