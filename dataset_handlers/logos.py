"""Logos, or objects, set on surfaces of photos: synthetic photos whose labels are exact.

Raw folders::

    logos/        RGBA pictures of any names, as `cutouts` describes them
    backgrounds/  photos (JPEG or PNG) without such logos
    depth/        maps of how far off everything in the backgrounds is, if there are any; see `dataset_handlers.depth`

A sample is a logo; each variation sets it on another background. Without a depth map the plane of a surface is drawn.
A background that cannot be read, or has no room, is replaced by another one; one whose depth map is missing,
damaged or of other proportions is used as if there were none. The statistics count all of these. No background is in
two splits, and the logos in a picture are of one split.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from .augmentation import Range, Share, SizeOption
from .backgrounds import draw_photos, photos_in, shared_backgrounds
from .config import FolderName, PhotoConfig
from .cutouts import cutout_fingerprint, cutout_samples
from .depth import decode_depth, depth_file, depth_through
from .errors import BadSampleError, RawDataError
from .images import Array
from .inscription import Depth, Logo, Projected, Style, Surfaces, lay, prepare_logo, project, working_size
from .labels.shapes import Matte, Raster
from .photo import Photo
from .plan import Rejected, Sample
from .rgba import decode_cutout
from .scene import Instance, Scene
from .segmentation import SegmentationHandler
from .transforms.geometry import Geometry, Size, compose, resizing, scaling

Count = Annotated[int, Field(ge=1, le=20)]

#: Backgrounds that a sample may turn to, besides its own, where one cannot be used.
_SPARE = 3
#: As many variations of a sample have partners of their own; more would bloat the plan.
_PARTNERED_VARIATIONS = 4
#: Logos that are kept ready.
_KEPT = 16


class LogosConfig(PhotoConfig):
    """Options of the `logos` handler. ``image_size`` is the size of the canvas."""

    offered: ClassVar[frozenset[str]] = PhotoConfig.offered | {"alpha", "boxes", "category"}

    image_size: SizeOption = Field((320, 320), description="[height, width] of the canvas in pixels.")
    raw_folder: FolderName = Field("logos", description="Folder below the raw root with RGBA pictures.")
    backgrounds_folder: FolderName = Field("backgrounds", description="Raw folder of the background photos.")
    depth_folder: FolderName | None = Field(
        None,
        description="Raw folder of depth maps, named like the backgrounds: .npy, or .png of 8 or 16 bits; larger is "
        "farther, 0 unknown. Planes of surfaces are then measured. null: they are drawn.",
    )
    category_from: Literal["stem", "prefix"] = Field(
        "stem",
        description="What a logo's category is: its file's name without the ending, or that up to the first '-' or "
        "'_'. Looked at for the attribute 'category' alone.",
    )
    logos_per_picture: tuple[Count, Count] = Field(
        (1, 1),
        description="[least, most] logos in a picture, drawn uniformly: the sample's own, and others of its split. "
        "None covers another; those for which no room is found are left out.",
    )
    logo_scale: tuple[Share, Share] = Field(
        (0.15, 0.4),
        description="Range of a logo's longer side, as it is seen, as a share of the canvas' shorter side. Where "
        "there is no room, smaller ones within the range are tried.",
    )
    logo_rotation: Range = Field(
        (-10.0, 10.0),
        description="Range in degrees by which a logo is turned on its surface, counter-clockwise; 0 is upright.",
        json_schema_extra={"unit": "degrees"},
    )
    max_tilt: float = Field(
        40.0,
        ge=0,
        le=75,
        description="Planes that are drawn are tilted by up to this, away from facing the camera, in degrees.",
        json_schema_extra={"unit": "degrees"},
    )
    logo_jitter: Share = Field(
        0.15,
        description="How far a logo's colours may change: contrast and saturation by this share either way, brightness "
        "by half of it, hue by 30 degrees times it; 0 is off.",
    )
    logo_blur: Range = Field(
        (0.3, 0.8),
        description="Range of the softness of a logo, its opacity included: a Gaussian's sigma in pixels.",
        json_schema_extra={"unit": "pixels"},
    )
    logo_noise: Range = Field(
        (0.0, 4.0),
        description="Range of the standard deviation of a logo's noise in levels of 255.",
        json_schema_extra={"unit": "levels"},
    )
    match_light: Share = Field(
        0.0, description="How far brightness, contrast and colour of a logo are drawn to its surroundings'; 0 is off."
    )
    blend: Literal["alpha", "poisson"] = Field(
        "alpha",
        description="How logos are laid on: by their opacity, or by the stronger of their gradients and the surface's "
        "(Poisson), which lends them its light and texture.",
    )

    @model_validator(mode="after")
    def _ranges_are_ranges(self) -> Self:
        least, most = self.logos_per_picture
        if least > most:
            raise ValueError(f"logos_per_picture [{least}, {most}] is no range [least, most]")
        for name, lowest, highest in (
            ("logo_scale", 0.02, 1),
            ("logo_rotation", -180, 180),
            ("logo_blur", 0, 5),
            ("logo_noise", 0, 50),
        ):
            low, high = getattr(self, name)
            if not lowest <= low <= high <= highest:
                raise ValueError(
                    f"{name} [{low:g}, {high:g}] is no range [low, high] within {lowest:g} and {highest:g}"
                )
        return self

    @property
    def style(self) -> Style:
        """How logos are set on surfaces."""
        return Style(
            scale=self.logo_scale,
            rotation=self.logo_rotation,
            max_tilt=self.max_tilt,
            blur=self.logo_blur,
            noise=self.logo_noise,
            jitter=self.logo_jitter,
            match_light=self.match_light,
            blend=self.blend,
        )

    def effective(self) -> dict[str, Any]:
        """The config that decides the bytes; an option without effect is as good as left out."""
        effective = super().effective()
        idle = []
        if "category" not in self.input_attributes:
            idle.append("category_from")
        if "image" not in self.input_attributes:
            idle += ["logo_jitter", "logo_noise", "match_light", "blend"]
        for name in idle:
            default = type(self).model_fields[name].default
            effective[name] = list(default) if isinstance(default, tuple) else default
        return effective


class LogosHandler(SegmentationHandler):
    """Logos on surfaces: photo, mask, alpha, boxes and categories."""

    Config: ClassVar[type[LogosConfig]] = LogosConfig
    options: LogosConfig
    load_is_random = True

    def __init__(self, config: dict[str, Any], base_data_path: str) -> None:
        """Check ``config``; see `SampleHandler`."""
        super().__init__(config, base_data_path)
        # By the sha256 of the file, the one used last at the end: the partners of a sample are the samples after it.
        self._kept: dict[str, Logo] = {}

    def raw_data_path(self) -> Path:
        """The folder of the logos."""
        return Path(self.base_data_path) / self.options.raw_folder

    def backgrounds_path(self) -> Path:
        """The folder of the backgrounds."""
        return Path(self.base_data_path) / self.options.backgrounds_folder

    def samples(self) -> Iterator[Sample | Rejected]:
        """Every logo; backgrounds and partners come with its split."""
        for item in cutout_samples(self.raw_data_path()):
            if isinstance(item, Sample) and "category" in self.options.input_attributes:
                category = _category(PurePosixPath(item.key).name, self.options.category_from)
                yield replace(item, data={**item.data, "category": category})
            else:
                yield item

    def complete_splits(self, by_split: Mapping[str, list[Sample]]) -> dict[str, list[Sample]]:
        """Each sample with its backgrounds and partners, of its own split both."""
        options = self.options
        if options.depth_folder and not (Path(self.base_data_path) / options.depth_folder).is_dir():
            raise RawDataError(
                f"there is no raw folder '{options.depth_folder}'; put depth maps of the backgrounds there, or leave "
                "depth_folder out"
            )
        root = self.backgrounds_path()
        shares = shared_backgrounds(self, root, photos_in(root), by_split)
        return {split: self._completed(samples, shares[split]) for split, samples in by_split.items()}

    def _completed(self, samples: list[Sample], backgrounds: list[str]) -> list[Sample]:
        options = self.options
        further = options.logos_per_picture[1] - 1
        completed = []
        for number, sample in enumerate(samples):
            chosen = draw_photos(backgrounds, options.seed, sample.key, options.variations_per_sample, _SPARE)
            data = {**sample.data, "backgrounds": chosen}
            if further:
                # Samples are shuffled already: those that follow are as good as drawn.
                pool = min(len(samples) - 1, further * min(options.variations_per_sample, _PARTNERED_VARIATIONS))
                steps = range(1, pool + 1) if pool else (0,)  # the only one of its split is its own partner
                data["partners"] = [samples[(number + step) % len(samples)].data for step in steps]
            completed.append(replace(sample, data=data))
        return completed

    def load(self, sample: Sample, variation: int, random: np.random.Generator) -> Scene:
        """One picture on a canvas of ``image_size``, and the labels of its logos."""
        # However often places are tried, what is drawn of `random` after this stays the same.
        random = np.random.Generator(np.random.PCG64(int(random.integers(2**63))))
        least, most = self.options.logos_per_picture
        count = least + int(random.random() * (most - least + 1))
        picture, surfaces, own = self._set_first(self._logo(sample.data), sample, variation, random)
        set_on = [(own, sample.data)]
        for logo, data in self._partners(sample, count - 1, random):
            try:
                set_on.append((project(logo, surfaces, self.options.style, random), data))
            except BadSampleError:  # no room left
                self.count({"logos_left_out": 1})
        return self._scene(picture, set_on, random)

    def _set_first(
        self, logo: Logo, sample: Sample, variation: int, random: np.random.Generator
    ) -> tuple[Array, Surfaces, Projected]:
        """The variation's background with the sample's own logo on a surface, or a spare one where it cannot be.

        Where none has an even surface with room, the logo is set anywhere on the first.
        """
        photos = sample.data["backgrounds"]
        reasons = []
        first = None
        for name in (photos[variation], *photos[self.options.variations_per_sample :]):
            try:
                picture, whole, depth = self._canvas(name)
            except BadSampleError as error:
                self.count({"unreadable_backgrounds": 1})
                reasons.append(str(error))
                continue
            first = first or (picture, whole)
            surfaces = Surfaces(picture, whole, depth, self.options.max_tilt, random)
            try:
                return picture, surfaces, project(logo, surfaces, self.options.style, random)
            except BadSampleError as error:
                self.count({"backgrounds_without_room": 1})
                reasons.append(f"{name}: {error}")
        if first is None:
            raise BadSampleError(f"none of {len(reasons)} backgrounds can be used; the first: {reasons[0]}")
        self.count({"logos_off_surfaces": 1})
        picture, whole = first
        surfaces = Surfaces(picture, whole, None, self.options.max_tilt, random, anywhere=True)
        return picture, surfaces, project(logo, surfaces, self.options.style, random)

    def _canvas(self, name: str) -> tuple[Array, tuple[float, float], Depth | None]:
        """A background covering the canvas, the size of all of it in pixels of the canvas, and its depth."""
        photo = Photo(self.read_raw(self.backgrounds_path() / name), name, upright=True)
        geometry = Geometry(resizing(photo.size, self.options.image_size, "cover"), self.options.image_size)
        scale = float(geometry.matrix[0, 0])
        whole = (photo.size[0] * scale, photo.size[1] * scale)
        return photo.warp(geometry), whole, self._depth(name, photo.size, geometry)

    def _depth(self, name: str, photo: Size, geometry: Geometry) -> Depth | None:
        if self.options.depth_folder is None:
            return None
        path = depth_file(Path(self.base_data_path) / self.options.depth_folder, name)
        if path is None:
            self.count({"missing_depth_maps": 1})
            return None
        try:
            depth = decode_depth(self.read_raw(path), path.name, photo)
        except BadSampleError:
            self.count({"unusable_depth_maps": 1})
            return None
        height, width = working_size(geometry.size)
        shrink = scaling(width / geometry.size[1], height / geometry.size[0])
        return depth_through(depth, photo, Geometry(compose(shrink, geometry.matrix), (height, width)))

    def _partners(
        self, sample: Sample, count: int, random: np.random.Generator
    ) -> Iterator[tuple[Logo, dict[str, Any]]]:
        """Other logos, as many as drawn, perhaps some of them twice; one that cannot be used is passed over."""
        if count < 1:
            return
        pool = sample.data["partners"]
        start = int(random.random() * len(pool))
        for number in range(count):
            data = pool[(start + number) % len(pool)]
            try:
                yield self._logo(data), data
            except BadSampleError:
                self.count({"unusable_partners": 1})

    def _logo(self, data: dict[str, Any]) -> Logo:
        path = self.raw_data_path() / data["photo"]
        content = self.read_raw(path)
        _, digest = self._read_files[-1]
        logo = self._kept.pop(digest, None)
        if logo is None:
            least, most = (share * min(self.options.image_size) for share in self.options.logo_scale)
            logo = prepare_logo(decode_cutout(content, path.name), (least, most))
        self._kept[digest] = logo
        if len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        return logo

    def _scene(
        self, picture: Array, set_on: list[tuple[Projected, dict[str, Any]]], random: np.random.Generator
    ) -> Scene:
        alpha, mask = np.zeros(picture.shape[:2], np.uint8), np.zeros(picture.shape[:2], np.uint8)
        instances = []
        for logo, data in set_on:
            own = logo.mask
            alpha |= logo.alpha  # there are no two in one pixel
            mask |= own
            instances.append(Instance(Raster(own), data["category"]))
            if "image" in self.options.input_attributes:
                picture = lay(picture, logo, self.options.style, random)
        return Scene(Photo.from_pixels(picture), Raster(mask), Matte(alpha), tuple(instances))

    def fingerprint(self, sample: Sample) -> int | None:
        """See `cutouts.cutout_fingerprint`."""
        return cutout_fingerprint(self, self.raw_data_path() / sample.data["photo"])


def _category(name: str, category_from: Literal["stem", "prefix"]) -> str:
    """A logo's category by its file's ``name`` without the ending."""
    return name if category_from == "stem" else (re.split("[-_]", name, maxsplit=1)[0] or name)
