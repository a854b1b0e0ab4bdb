"""Subjects cut out of COCO or DUTS photos, placed on other backgrounds.

Raw folders: the subjects' as `coco` or `duts` describe them, and one of background photos (JPEG or PNG) that show no
subject. The mask is exact by construction: it is the subject's mask, warped by the very matrix that placed it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import cv2
import numpy as np
from pydantic import Field, model_validator

from .coco import coco_samples, load_coco
from .config import CategoryNames, FolderName, PhotoConfig, Share, Size
from .duts import duts_samples, load_duts
from .errors import BadSampleError, RawDataError
from .geometry import Geometry, compose, scaling, translation, warp
from .images import decode_photo
from .plan import Rejected, Sample, is_text
from .rng import rank
from .segmentation import Array, SegmentationHandler

_PHOTOS = {".jpg", ".jpeg", ".png"}


class CompositeConfig(PhotoConfig):
    """Options of the `composite` handler. ``image_size`` is the size of the canvas."""

    image_size: Size = Field((512, 512), description="[height, width] of the canvas in pixels.")
    subjects: Literal["coco", "duts"] = Field("coco", description="Whose photos the subjects are cut from.")
    subjects_folder: FolderName | None = Field(
        None, description="Raw folder of the subjects; null is the one named like `subjects`."
    )
    categories: CategoryNames = Field(("person",), description="COCO categories that count as subject; DUTS has none.")
    backgrounds_folder: FolderName = Field("backgrounds", description="Raw folder of the background photos.")
    subject_scale: tuple[Share, Share] = Field(
        (0.5, 0.9),
        description="Range of the subject's longer extent as a share of the canvas, drawn uniformly.",
    )
    feather: float = Field(
        1.0,
        ge=0,
        le=50,
        description="Softness of the subject's edge in pixels (sigma), inside the mask; 0 is hard.",
    )

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> Self:
        low, high = self.subject_scale
        if not 0 < low <= high:
            raise ValueError(f"subject_scale [{low:g}, {high:g}] is no range [low, high] above 0")
        return self

    def effective(self) -> dict[str, Any]:
        """The config that decides the bytes: the subjects' folder by name, categories only where there are any."""
        effective = super().effective()
        effective["subjects_folder"] = self.subjects_folder or self.subjects
        if self.subjects == "duts":
            effective["categories"] = list(type(self).model_fields["categories"].default)
        return effective


class CompositeHandler(SegmentationHandler):
    """Subjects of one raw dataset on the backgrounds of another."""

    Config: ClassVar[type[CompositeConfig]] = CompositeConfig
    options: CompositeConfig
    load_is_random = True

    def raw_data_path(self) -> Path:
        """The subjects' folder."""
        return Path(self.base_data_path) / (self.options.subjects_folder or self.options.subjects)

    def backgrounds_path(self) -> Path:
        """The backgrounds' folder."""
        return Path(self.base_data_path) / self.options.backgrounds_folder

    def samples(self) -> Iterator[Sample | Rejected]:
        """Every subject, with a background for each variation."""
        folder = self.backgrounds_path()
        backgrounds = []
        if folder.is_dir():
            names = (path.name for path in folder.iterdir() if path.suffix.lower() in _PHOTOS)
            backgrounds = sorted(filter(is_text, names))
        if not backgrounds:
            raise RawDataError(
                f"there is no photo in the raw folder '{folder.name}'; put background photos (.jpg, .png) there"
            )
        if self.options.subjects == "coco":
            found = coco_samples(self, self.raw_data_path(), self.options.categories, include_crowds=False)
        else:
            found = duts_samples(self.raw_data_path())
        for item in found:
            if isinstance(item, Sample):
                chosen = [backgrounds[index] for index in self._draw(item.key, len(backgrounds))]
                yield Sample(item.key, {**item.data, "backgrounds": chosen}, item.split)
            else:
                yield item

    def _draw(self, key: str, count: int) -> list[int]:
        """One of ``count`` for each variation."""
        draws = (rank(self.options.seed, key, f"background {n}") for n in range(self.options.variations_per_sample))
        return [int.from_bytes(draw, "little") % count for draw in draws]

    def load(self, sample: Sample, variation: int, random: np.random.Generator) -> tuple[Array, Array]:
        """One composite on a canvas of ``image_size``, and the mask of its subject."""
        load = load_coco if self.options.subjects == "coco" else load_duts
        photo, mask = load(self, self.raw_data_path(), sample.data)
        name = sample.data["backgrounds"][variation]
        background = decode_photo(self.read_raw(self.backgrounds_path() / name), name, upright=True)
        canvas = warp(background, cover(background.shape[:2], self.options.image_size))
        placed = place(mask, self.options.image_size, self.options.subject_scale, random)
        subject, subject_mask = (
            warp(photo, placed, border=cv2.BORDER_REPLICATE),
            warp(mask, placed, nearest=True, border=cv2.BORDER_CONSTANT),
        )
        if not subject_mask.any():
            raise BadSampleError("nothing is left of the subject at this scale")
        return blend(canvas, subject, subject_mask, self.options.feather), subject_mask


def cover(size: tuple[int, ...], canvas: tuple[int, int]) -> Geometry:
    """Scale a picture (height, width) so that it just covers ``canvas``, centred; what sticks out is cut off."""
    scale = max(canvas[0] / size[0], canvas[1] / size[1])
    shift = translation((canvas[1] - size[1] * scale) / 2, (canvas[0] - size[0] * scale) / 2)
    return Geometry(compose(shift, scaling(scale, scale)), canvas)


def place(mask: Array, canvas: tuple[int, int], scales: tuple[float, float], random: np.random.Generator) -> Geometry:
    """Scale the subject of ``mask`` and put it anywhere it lies wholly on ``canvas``.

    Its longer extent, relative to the canvas' height or width, is drawn from ``scales``. Raises `BadSampleError` for
    an empty mask.
    """
    x, y, width, height = cv2.boundingRect(mask)
    if not width or not height:
        raise BadSampleError("the mask is empty: there is no subject to cut out")
    share, u, v = random.random(3)
    wanted = scales[0] + (scales[1] - scales[0]) * share
    scale = wanted * min(canvas[0] / height, canvas[1] / width)
    left, top = u * (canvas[1] - width * scale), v * (canvas[0] - height * scale)
    return Geometry(compose(translation(left, top), scaling(scale, scale), translation(-x, -y)), canvas)


def blend(background: Array, subject: Array, mask: Array, feather: float) -> Array:
    """Lay ``subject`` over ``background``, all (H, W, …), where ``mask`` is 255.

    With ``feather`` (sigma, pixels) its opacity rises from the mask's edge inwards, so that nothing of the subject's
    old background shows: 0 outside the mask, near 0 on its edge, 1 about two sigma inside. Raises `BadSampleError` if
    that leaves less than half of the mask at half opacity or more. All in whole numbers: the same on any processor.
    """
    opacity = mask.astype(np.int32)
    if feather > 0:
        blurred = cv2.GaussianBlur(mask, (0, 0), feather).astype(np.int32)
        opacity = np.where(mask == 255, np.clip(2 * blurred - 255, 0, 255), 0)
        if 2 * np.count_nonzero(opacity >= 128) < np.count_nonzero(mask):
            raise BadSampleError(
                f"the subject is too small, or too thin, for a feather of {feather:g} pixels; lower it"
            )
    opacity = opacity[..., None]
    mixed = background * (255 - opacity) + subject * opacity
    return ((mixed + 127) // 255).astype(np.uint8)
