"""COCO photos with the instances of chosen categories as mask.

Raw folder, as the publisher ships it (any of the pairs)::

    annotations/instances_<part>.json    <part>/*.jpg        part: train2017, val2017, …

The publisher's splits: ``train…`` is train, ``val…`` is validation, ``test…`` is test. Masks are what pycocotools
draws, to the pixel, where no geometry is applied; through a geometry, polygons are moved by their vertices.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Self

import cv2
import numpy as np
from pydantic import AfterValidator, Field, model_validator

from .augmentation import Share, SizeOption
from .config import CategoryNames, FolderName, PhotoConfig
from .errors import BadSampleError, ConfigRefusedError, RawDataError
from .files import parse_large_json
from .labels.shapes import Classes, Polygons, Shape
from .photo import Photo
from .plan import Rejected, Sample
from .sample_handler import SampleHandler
from .scene import Instance, Scene
from .segmentation import SegmentationHandler
from .statistics import count_labels
from .transforms.geometry import Geometry

_SPLITS = {"train": "train", "val": "validation", "test": "test"}

#: How near, in pixels, a carried thing is to the subject that carries it.
_TOUCHING = 3


class CocoConfig(PhotoConfig):
    """Options of the `coco` handler."""

    offered: ClassVar[frozenset[str]] = PhotoConfig.offered | {"boxes", "category"}

    raw_folder: FolderName = Field("coco", description="Folder below the raw root, in COCO's layout.")
    categories: CategoryNames = Field(
        ("person",), description="COCO category names; the mask is the union of their instances."
    )
    mask_labels: Literal["subject", "categories"] = Field(
        "subject",
        description="What a mask's levels are: 255 on the union of all subjects, or each category's number, counted "
        "from 1 in alphabetical order; smaller instances lie over larger ones.",
    )
    include_crowds: bool = Field(
        True, description="Whether crowd regions (iscrowd) of the categories belong to the mask."
    )
    carried: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...], AfterValidator(lambda names: tuple(sorted(set(names))))
    ] = Field(
        (),
        description="Further categories, such as 'handbag' or 'dog', whose instances count as part of a subject that "
        "they touch.",
    )
    subject_count: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = Field(
        None, description="[least, most] instances in a photo, e.g. [1, 2]; a crowd is never counted as few. null: any."
    )
    subject_share: tuple[Share, Share] = Field(
        (0.0, 1.0), description="[least, most] share of the photo that all subjects together cover, e.g. [0.2, 0.7]."
    )
    min_instance_area: float = Field(0.0, ge=0, description="Instances of fewer square pixels are no subjects.")
    min_photo_size: SizeOption | None = Field(
        None, description="[height, width]: photos that are smaller are not used; null uses all."
    )

    @model_validator(mode="after")
    def _selection_is_possible(self) -> Self:
        for name in ("subject_count", "subject_share"):
            limits = getattr(self, name)
            if limits and limits[0] > limits[1]:
                raise ValueError(f"{name} [{limits[0]:g}, {limits[1]:g}] is no range [least, most]")
        if doubled := set(self.carried) & set(self.categories):
            raise ValueError(f"{', '.join(sorted(doubled))} is in `carried` and in `categories`; name it once")
        if self.mask_labels == "categories" and self.carried:
            raise ValueError("`carried` things have no number of their own; leave it out with mask_labels 'categories'")
        if self.mask_labels == "categories" and len(self.categories) > 255:
            raise ValueError("masks number at most 255 categories")
        return self


@dataclass(frozen=True)
class Selection:
    """Which instances are subjects, and which photos are taken; see `CocoConfig`."""

    categories: tuple[str, ...]
    include_crowds: bool = True
    carried: tuple[str, ...] = ()
    subject_count: tuple[int, int] | None = None
    subject_share: tuple[float, float] = (0.0, 1.0)
    min_instance_area: float = 0.0
    min_photo_size: tuple[int, int] | None = None
    keep_others: bool = False  # what else is in the photo, for clicks on it


class CocoHandler(SegmentationHandler):
    """Photo and subject mask by category, from COCO instance annotations."""

    Config: ClassVar[type[CocoConfig]] = CocoConfig
    options: CocoConfig

    def raw_data_path(self) -> Path:
        """The COCO folder."""
        return Path(self.base_data_path) / self.options.raw_folder

    def samples(self) -> Iterator[Sample | Rejected]:
        """Every photo with subjects as the options want them."""
        options = self.options
        clicks_on_others = "clicks" in options.input_attributes and options.click_strategy in {"objects", "random"}
        selection = Selection(
            categories=options.categories,
            include_crowds=options.include_crowds,
            carried=options.carried,
            subject_count=options.subject_count,
            subject_share=options.subject_share,
            min_instance_area=options.min_instance_area,
            min_photo_size=options.min_photo_size,
            keep_others=clicks_on_others,
        )
        yield from coco_samples(self, self.raw_data_path(), selection)

    def load(self, sample: Sample, _variation: int, _random: np.random.Generator) -> Scene:
        """The photo and its subjects."""
        reused = self.options.variations_per_sample > 1
        scene = load_coco(self, self.raw_data_path(), sample.data, reused=reused)
        if self.options.mask_labels == "subject":
            return scene
        numbers = {name: number for number, name in self.label_names().items()}
        labelled = sorted(
            ((numbers[item.category], item.shape) for item in scene.instances if item.category in numbers),
            key=lambda pair: -_box_area(pair[1]),
        )
        mask = Classes(tuple(labelled), scene.photo.size)
        return Scene(scene.photo, mask, instances=scene.instances, others=scene.others)

    def label_names(self) -> dict[int, str]:
        """Which category has which number, where masks hold numbers."""
        return dict(enumerate(self.options.categories, start=1)) if self.options.mask_labels == "categories" else {}

    def counters(self, example: Any) -> dict[str, int]:
        """What the statistics sum up."""
        labels = count_labels(example["mask"]) if self.options.mask_labels == "categories" else {}
        return {**super().counters(example), **labels}


def _box_area(shape: Shape) -> float:
    box = shape.box()
    return (box[2] - box[0]) * (box[3] - box[1]) if box else 0.0


def coco_samples(handler: SampleHandler, root: Path, selection: Selection) -> Iterator[Sample | Rejected]:
    """Samples ``<part>/<photo's stem>`` of the photos under ``root`` with subjects as ``selection`` wants them.

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
        names = {number: str(item.get("name")) for number, item in coco.cats.items()}
        _refuse_unknown(selection, set(names.values()), file.name)
        listed = Counter(image["id"] for image in coco.dataset["images"])
        for image_id, image in sorted(coco.imgs.items(), key=lambda item: str(item[0])):
            if listed[image_id] > 1:  # whose are the annotations?
                yield Rejected(f"{part}/{image_id}", f"{file.name}: {listed[image_id]} images have the id {image_id}")
                continue
            try:
                data = _select(_once(coco.imgToAnns.get(image_id, [])), names, image, part, selection)
                key = f"{part}/{PurePosixPath(image['file_name']).with_suffix('')}"
            except (KeyError, TypeError, ValueError, ArithmeticError) as error:
                yield Rejected(f"{part}/{image_id}", f"{file.name}: image {image_id} lacks {error}")
            except BadSampleError as error:
                yield Rejected(f"{part}/{image_id}", str(error))
            else:
                if data:
                    yield Sample(key, data, split)
        for image_id in sorted(coco.imgToAnns.keys() - coco.imgs.keys(), key=str):
            yield Rejected(f"{part}/{image_id}", f"{file.name}: annotations of image {image_id}, which is not listed")


def _has_shape(segmentation: Any) -> bool:
    """Whether there is anything to draw: runs, or a polygon of three points; what else is wrong shows when drawn."""
    if isinstance(segmentation, list):
        return any(not hasattr(polygon, "__len__") or len(polygon) >= 6 for polygon in segmentation)
    return bool(segmentation)


def _refuse_unknown(selection: Selection, known: set[str], file: str) -> None:
    faults = [
        {
            "path": f"/{option}",
            "reason": f"{file} has no category {', '.join(map(repr, unknown))}; it has {', '.join(sorted(known))}",
        }
        for option in ("categories", "carried")
        if (unknown := [name for name in getattr(selection, option) if name not in known])
    ]
    if faults:
        raise ConfigRefusedError(faults)


def _once(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``annotations`` without those that are listed again; two of one id that differ are two."""
    by_id: dict[Any, list[dict[str, Any]]] = {}
    for item in annotations:
        same_id = by_id.setdefault(item.get("id"), [])
        if item not in same_id:
            same_id.append(item)
    return [item for same_id in by_id.values() for item in same_id]


def _select(
    annotations: list[dict[str, Any]], names: dict[int, str], image: dict[str, Any], part: str, selection: Selection
) -> dict[str, Any] | None:
    """What a worker needs of a photo; None if it is not wanted. Raises whatever fits for what is not as published."""
    subjects: list[dict[str, Any]] = []
    shapeless: list[dict[str, Any]] = []
    carried: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for item in annotations:
        if not item.get("segmentation"):
            continue
        name = names.get(item.get("category_id", -1), "")
        kept = {"id": item["id"], "segmentation": item["segmentation"], "category": name}
        if name in selection.carried and not item.get("iscrowd"):
            carried.append(kept)
        elif (
            name not in selection.categories
            or (item.get("iscrowd") and not selection.include_crowds)
            or (selection.min_instance_area and item.get("area", 0) < selection.min_instance_area)
        ):
            others.append(kept)
        else:
            (subjects if _has_shape(item["segmentation"]) else shapeless).append(kept)
    subjects = subjects or shapeless  # drawn, it says what is wrong with it
    if not subjects:
        return None
    carried, others = ([item for item in items if _has_shape(item["segmentation"])] for items in (carried, others))
    photo = str(image["file_name"])
    # By its name alone: a raw folder may well be made of links to other disks.
    if photo.startswith("/") or ".." in photo.split("/"):
        raise BadSampleError(f"the annotations name a photo outside the raw folder: {photo}")
    height, width = size = int(image["height"]), int(image["width"])
    if height < 1 or width < 1:
        raise ValueError(f"a size: it is {width}×{height}")
    if selection.min_photo_size and (height < selection.min_photo_size[0] or width < selection.min_photo_size[1]):
        return None
    if selection.subject_count:
        crowded = any(
            item.get("iscrowd") and names.get(item.get("category_id", -1)) in selection.categories
            for item in annotations
        )
        least, most = selection.subject_count
        if crowded or not least <= len(subjects) <= most:
            return None
    touching = _touching(carried, subjects, size) if carried else []
    others += [item for item in carried if item not in touching]
    subjects += touching
    if selection.subject_share != (0.0, 1.0):
        union = Polygons(tuple(subjects), size)
        least_share, most_share = selection.subject_share
        if not least_share <= union.area() / (height * width) <= most_share:
            return None
    data: dict[str, Any] = {
        "photo": f"{part}/{photo}",
        "size": [height, width],
        "subjects": subjects,
    }
    if selection.keep_others and others:
        data["others"] = others
    return data


def _index(data: bytes, name: str) -> Any:
    """pycocotools' index of an annotation file."""
    from pycocotools.coco import COCO  # it brings an HTTP client, which no worker needs

    coco = COCO()
    try:
        coco.dataset = parse_large_json(data)
        with contextlib.redirect_stdout(None):  # it announces its progress there
            coco.createIndex()
        if not all(key in coco.dataset for key in ("images", "annotations", "categories")):
            raise RawDataError(f"{name} is no COCO instances file: it lacks images, annotations or categories")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RawDataError(f"{name} cannot be read as COCO annotations: {error!r}") from error
    return coco


def load_coco(handler: SampleHandler, root: Path, data: dict[str, Any], *, reused: bool = False) -> Scene:
    """The photo of a sample and its subjects; raises `BadSampleError` where they do not fit."""
    height, width = size = data["size"][0], data["size"][1]
    path = root / data["photo"]
    photo = Photo(handler.read_raw(path), path.name, reused=reused)
    if photo.size != size:
        raise BadSampleError(
            f"{path.name} has {photo.size[1]}×{photo.size[0]} pixels, its annotations are for {width}×{height}"
        )
    subjects = data["subjects"]
    instances = [Instance(Polygons((item,), size), item["category"]) for item in subjects]
    mask = Polygons(tuple(subjects), size)
    if mask.box() is None:
        raise BadSampleError(f"{path.name}: no subject is within the photo")
    others = Polygons(tuple(data["others"]), size) if "others" in data else None
    return Scene(photo, mask, instances=tuple(instances), others=others)


def _touching(
    carried: list[dict[str, Any]], subjects: list[dict[str, Any]], size: tuple[int, int]
) -> list[dict[str, Any]]:
    """Those of ``carried`` that are no farther than a few pixels from a subject."""
    identity = Geometry(np.eye(3), size)
    union = Polygons(tuple(subjects), size).draw(identity)
    reach = np.asarray(cv2.dilate(union, np.ones((2 * _TOUCHING + 1, 2 * _TOUCHING + 1), np.uint8)), np.uint8)
    return [item for item in carried if (Polygons((item,), size).draw(identity) & reach).any()]
