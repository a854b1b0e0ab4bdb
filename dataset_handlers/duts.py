"""DUTS photos with their saliency masks (Wang et al., "Learning to Detect Salient Objects", CVPR 2017).

Raw folder, as the publisher ships it (either half may be missing)::

    DUTS-TR/DUTS-TR-Image/*.jpg   DUTS-TR/DUTS-TR-Mask/*.png     split train
    DUTS-TE/DUTS-TE-Image/*.jpg   DUTS-TE/DUTS-TE-Mask/*.png     split test
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field

from .config import FolderName, PhotoConfig
from .errors import BadSampleError, RawDataError
from .images import decode_mask
from .labels.shapes import Matte, Raster
from .pairs import paired_samples
from .photo import Photo
from .plan import Rejected, Sample
from .sample_handler import SampleHandler
from .scene import Scene
from .segmentation import SegmentationHandler

_PARTS = {"DUTS-TR": "train", "DUTS-TE": "test"}

#: Most masks have grey edges; from this level on a pixel belongs to the subject.
THRESHOLD = 128


class DutsConfig(PhotoConfig):
    """Options of the `duts` handler."""

    raw_folder: FolderName = Field("duts", description="Folder below the raw root, in DUTS' layout.")
    mask_edges: Literal["threshold", "soft"] = Field(
        "threshold",
        description="What becomes of a mask's grey edges: a level of 128 or more is subject, or they stay grey levels.",
    )


class DutsHandler(SegmentationHandler):
    """Photo and saliency mask, in the publisher's train and test splits."""

    Config: ClassVar[type[DutsConfig]] = DutsConfig
    options: DutsConfig

    def raw_data_path(self) -> Path:
        """The DUTS folder."""
        return Path(self.base_data_path) / self.options.raw_folder

    def samples(self) -> Iterator[Sample | Rejected]:
        """Every photo that has a mask."""
        yield from duts_samples(self.raw_data_path())

    def load(self, sample: Sample, _variation: int, _random: np.random.Generator) -> Scene:
        """The photo and its mask."""
        reused = self.options.variations_per_sample > 1
        return load_duts(self, self.raw_data_path(), sample.data, self.options.mask_edges, reused=reused)


def duts_samples(root: Path) -> Iterator[Sample | Rejected]:
    """Samples ``<part>/<photo's stem>``; photos without mask and masks without photo are rejected.

    Raises `RawDataError` where neither half is there.
    """
    parts = [part for part in _PARTS if (root / part).is_dir()]
    if not parts:
        raise RawDataError(
            f"there is neither DUTS-TR nor DUTS-TE in the raw folder '{root.name}'; "
            "put DUTS there as its publisher ships it, or choose another raw_folder"
        )
    for part in parts:
        yield from paired_samples(root, f"{part}/{part}-Image", f"{part}/{part}-Mask", part, _PARTS[part])


def load_duts(
    handler: SampleHandler,
    root: Path,
    data: dict[str, Any],
    edges: Literal["threshold", "soft"] = "threshold",
    *,
    reused: bool = False,
) -> Scene:
    """The photo of a sample and its mask; raises `BadSampleError` for one of another size or without subject."""
    photo = Photo(handler.read_raw(root / data["photo"]), Path(data["photo"]).name, reused=reused)
    name = Path(data["mask"]).name
    grey = decode_mask(handler.read_raw(root / data["mask"]), name)
    subject = np.asarray(cv2.threshold(grey, THRESHOLD - 1, 255, cv2.THRESH_BINARY)[1], np.uint8)
    in_between = cv2.countNonZero(cv2.inRange(grey, 1, 254))
    findings = {"raw_masks": 1, "mask_pixels": grey.size, "grey_pixels": in_between, "grey_masks": int(in_between > 0)}
    scene = Scene(photo, Matte(grey) if edges == "soft" else Raster(subject), findings=findings)
    if not cv2.countNonZero(subject):
        raise BadSampleError(f"{name}: the mask is empty, there is no subject")
    return scene
