"""Photos with masks: what `coco`, `duts` and `composite` share, from decoded pixels to examples."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from .config import PhotoConfig
from .errors import BadSampleError
from .features import Feature, ImageFeature, TextFeature
from .geometry import augmentation, warp
from .photometry import expose
from .plan import Sample
from .rng import SampleRandom
from .sample_handler import SampleHandler

Array = npt.NDArray[np.uint8]


class SegmentationHandler(SampleHandler):
    """A handler of (photo, mask) pairs; subclasses list samples and `load` them.

    Examples hold ``image`` (H, W, 3) uint8 RGB as JPEG and ``mask`` (H, W, 1) uint8 as PNG, 255 on the subject and 0
    elsewhere, and the fields named by ``input_attributes``.
    """

    Config: ClassVar[type[PhotoConfig]] = PhotoConfig
    options: PhotoConfig

    @abstractmethod
    def load(self, sample: Sample, variation: int, random: np.random.Generator) -> tuple[Array, Array]:
        """The photo (H, W, 3) and its mask (H, W) of 0 and 255, of one size, before any augmentation.

        ``variation`` and ``random`` matter only where `load_is_random`. Raises `BadSampleError` for a sample that
        cannot be used.
        """

    #: Whether `load` differs by variation; if not, all variations share one load.
    load_is_random: ClassVar[bool] = False

    def features(self) -> Mapping[str, Feature]:
        """The fields ``input_attributes`` asks for, and the mask."""
        height, width = self.options.output_size or (None, None)
        fields: dict[str, Feature] = {"mask": ImageFeature((height, width, 1), "png")}
        if "image" in self.options.input_attributes:
            fields["image"] = ImageFeature((height, width, 3), "jpeg", self.options.jpeg_quality)
        if "source_id" in self.options.input_attributes:
            fields["source_id"] = TextFeature()
        return fields

    def examples(self, sample: Sample, rng: SampleRandom) -> Iterator[dict[str, Any]]:
        """One augmented pair for each variation."""
        fields = self.features()
        loaded: tuple[Array, Array] | None = None
        for number in range(self.options.variations_per_sample):
            random = rng.variation(number)
            if loaded is None or self.load_is_random:
                loaded = self.load(sample, number, random)
                if loaded[0].shape[:2] != loaded[1].shape[:2]:
                    raise BadSampleError(
                        f"the photo has {_size(loaded[0])} pixels, its mask {_size(loaded[1])}; they must agree"
                    )
            photo, mask = self.augment(*loaded, random)
            example = {"image": photo, "mask": mask, "source_id": sample.key}
            yield {name: example[name] for name in fields}

    def augment(self, photo: Array, mask: Array, random: np.random.Generator) -> tuple[Array, Array]:
        """Draw one geometry and one exposure, and apply them to a pair."""
        options = self.options
        # Always the same draws in the same order: switching one augmentation on leaves the others as they were.
        flip_x, flip_y, turn, light, crop_x, crop_y = random.random(6)
        try:
            geometry = augmentation(
                (photo.shape[0], photo.shape[1]),
                image_size=options.image_size,
                crop_size=options.crop_size,
                mirror=(bool(flip_x < options.flip_horizontal), bool(flip_y < options.flip_vertical)),
                degrees=_between(options.rotation, turn),
                crop_position=(crop_x, crop_y),
                subject_centre=subject_centre(mask) if options.random_crop_centered else None,
            )
        except ValueError as error:
            raise BadSampleError(str(error)) from error
        photo, mask = warp(photo, geometry), warp(mask, geometry, nearest=True)
        stops = _between(options.exposure, light)
        return (expose(photo, stops) if stops else photo), mask

    def counters(self, example: Mapping[str, Any]) -> dict[str, int]:
        """Pixels, and pixels on the subject."""
        mask = example["mask"]
        return {"pixels": int(mask.size), "subject_pixels": cv2.countNonZero(mask)}


def _between(limits: tuple[float, float], share: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * share


def _size(picture: Array) -> str:
    return f"{picture.shape[1]}×{picture.shape[0]}"


def subject_centre(mask: Array) -> tuple[float, float] | None:
    """Centre (x, y) of the subject's bounding box in continuous pixels; None for an empty mask."""
    x, y, width, height = cv2.boundingRect(mask)
    return (x + width / 2, y + height / 2) if width and height else None
