"""CamVid street scenes with a class for each pixel (Brostow, Fauqueur, Cipolla, "Semantic object classes in video: a
high-definition ground truth database", Pattern Recognition Letters 30(2), 2009).

Raw folder in the layout of SegNet's tutorial, which most papers on CamVid use: 480×360, the 32 original classes merged
to 11 (Badrinarayanan, Kendall, Cipolla, "SegNet", PAMI 2017). Any of the parts may be missing::

    train/*.png   trainannot/*.png     split train         367 frames
    val/*.png     valannot/*.png       split validation    101
    test/*.png    testannot/*.png      split test          233

Annotations are grey PNGs whose levels are class numbers: 0 to 10 in the order of `CLASSES`, 11 for void.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from .config import FolderName, PhotoConfig
from .errors import BadSampleError, RawDataError
from .images import decode_labels
from .labels.shapes import VOID, LabelMap
from .pairs import paired_samples
from .photo import Photo
from .plan import Rejected, Sample
from .scene import Scene
from .segmentation import SegmentationHandler
from .statistics import count_classes

#: By number; the order is the publisher's, by which papers list their results.
CLASSES = (
    *("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian"),
    "Bicyclist",
)
#: The publisher's level for pixels without a class.
_RAW_VOID = 11

_SPLITS = {"train": "train", "val": "validation", "test": "test"}
#: Which levels an annotation may have, and what they are in a mask.
_KNOWN = np.isin(np.arange(256), (*range(len(CLASSES)), _RAW_VOID, VOID))
_LEVELS = np.where(np.arange(256) < len(CLASSES), np.arange(256), VOID).astype(np.uint8)


class CamvidConfig(PhotoConfig):
    """Options of the `camvid` handler."""

    offered: ClassVar[frozenset[str]] = frozenset({"image", "mask", "source_id"})  # there is no subject

    raw_folder: FolderName = Field("camvid", description="Folder below the raw root, in the layout of SegNet's CamVid.")

    @model_validator(mode="after")
    def _crops_need_no_subject(self) -> Self:
        if self.crop_mode == "subject" or self.random_crop_centered:
            raise ValueError(
                "every pixel has a class, there is no subject to crop about; use crop_mode 'random' or 'center', and "
                "leave out random_crop_centered"
            )
        return self


class CamvidHandler(SegmentationHandler):
    """Photo and a mask of class numbers 0 to 10, 255 where the class is void, in the publisher's splits."""

    Config: ClassVar[type[CamvidConfig]] = CamvidConfig
    options: CamvidConfig

    def raw_data_path(self) -> Path:
        """The CamVid folder."""
        return Path(self.base_data_path) / self.options.raw_folder

    def samples(self) -> Iterator[Sample | Rejected]:
        """Every frame that has an annotation, as ``<part>/<name>``; raises `RawDataError` where there is no part."""
        root = self.raw_data_path()
        parts = [part for part in _SPLITS if (root / part).is_dir()]
        if not parts:
            raise RawDataError(
                f"there is none of train, val and test in the raw folder '{root.name}'; put CamVid there as SegNet's "
                "tutorial ships it (train, trainannot, …), or choose another raw_folder"
            )
        for part in parts:
            yield from paired_samples(root, part, f"{part}annot", part, _SPLITS[part])

    def load(self, sample: Sample, _variation: int, _random: np.random.Generator) -> Scene:
        """The frame and its classes; raises `BadSampleError` for levels that are no class, or none but void."""
        root, data = self.raw_data_path(), sample.data
        reused = self.options.variations_per_sample > 1
        photo = Photo(self.read_raw(root / data["photo"]), Path(data["photo"]).name, reused=reused)
        name = Path(data["mask"]).name
        raw = decode_labels(self.read_raw(root / data["mask"]), name)
        present = np.bincount(raw.ravel(), minlength=256) > 0
        if unknown := np.flatnonzero(present & ~_KNOWN).tolist():
            raise BadSampleError(
                f"{name}: has levels that are no class: {', '.join(map(str, unknown[:10]))}; there are 0 to "
                f"{len(CLASSES) - 1}, and {_RAW_VOID} or {VOID} for void"
            )
        if not present[: len(CLASSES)].any():
            raise BadSampleError(f"{name}: all of it is void, there is no class to learn")
        return Scene(photo, LabelMap(_LEVELS[raw]))

    def label_names(self) -> dict[int, str]:
        """The classes by number."""
        return dict(enumerate(CLASSES))

    def counters(self, example: Any) -> dict[str, int]:
        """What the statistics sum up: pixels of each class, void apart; there is no subject to count."""
        return count_classes(example, VOID)
