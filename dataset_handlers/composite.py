"""Subjects cut out of photos, placed on other backgrounds.

Raw folders: the subjects' as `coco`, `duts`, `cutouts` or `mattes` describe them, and the backgrounds': photos (JPEG or
PNG) that show no subject, or COCO, whose photos without the chosen categories are taken. The mask is exact by
construction (`dataset_handlers.placement`). No background is in two splits, and partners are of one split.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from .augmentation import Share, SizeOption
from .backgrounds import draw_photos, photos_in, photos_without, shared_backgrounds
from .coco import Selection, coco_samples, load_coco
from .config import CategoryNames, FolderName, PhotoConfig
from .cutouts import CategoryFrom, cutout_fingerprint, cutout_samples
from .duts import duts_samples, load_duts
from .errors import BadSampleError, RawDataError
from .labels.shapes import Matte, Raster
from .mattes import load_matte, matte_samples
from .photo import Photo
from .placement import Finish, Layer, cut_out, lay, place, seen_instances
from .plan import Rejected, Sample
from .rgba import decode_cutout, extended
from .scene import Instance, Scene
from .segmentation import Array, SegmentationHandler
from .transforms.geometry import Geometry, resizing

Count = Annotated[int, Field(ge=1, le=10)]

#: Further backgrounds, partners and places that a sample may turn to where one cannot be used.
_SPARE = 3
#: As many variations of a sample have partners of their own; more would bloat the plan.
_PARTNERED_VARIATIONS = 4


class CompositeConfig(PhotoConfig):
    """Options of the `composite` handler. ``image_size`` is the size of the canvas."""

    offered: ClassVar[frozenset[str]] = PhotoConfig.offered | {"alpha", "boxes", "category"}

    image_size: SizeOption = Field((512, 512), description="[height, width] of the canvas in pixels.")
    subjects: Literal["coco", "duts", "cutouts", "mattes"] = Field(
        "coco", description="Whose photos the subjects are cut from: those of the handler of this name."
    )
    subjects_folder: FolderName | None = Field(
        None, description="Raw folder of the subjects; null is the one named like `subjects`."
    )
    categories: CategoryNames = Field(
        ("person",), description="COCO categories that count as subject, and that no background of COCO shows."
    )
    single_instances: bool = Field(
        False, description="Of COCO: every instance is a subject by itself, instead of all of a photo together."
    )
    min_instance_area: float = Field(
        0.0, ge=0, description="Of COCO: instances of fewer square pixels are no subjects; small ones are blurred."
    )
    category_from: CategoryFrom | None = Field(
        None,
        description="Of cutouts: their category is the first 'folder' they are in, or their 'name' up to the first "
        "'__'. Looked at for the attribute 'category' alone.",
    )
    backgrounds: Literal["folder", "coco"] = Field(
        "folder",
        description="Background photos: all of a 'folder', or those of 'coco' where none of `categories` is "
        "annotated, which needs annotations of every photo.",
    )
    backgrounds_folder: FolderName | None = Field(
        None, description="Raw folder of the backgrounds; null is 'backgrounds', or 'coco' where they are from there."
    )
    subjects_per_picture: tuple[Count, Count] = Field(
        (1, 1),
        description="[least, most] subjects in a picture, drawn uniformly. A sample's own subject lies over its "
        "partners, subjects of other samples of its split.",
    )
    subject_scale: tuple[Share, Share] = Field(
        (0.5, 0.9),
        description="Range of the subject's longer extent as a share of the canvas, drawn uniformly.",
    )
    overhang: float = Field(
        0.0,
        ge=0,
        le=0.9,
        description="Share of a subject's height and width that may lie beyond the canvas' edge; 0 is none.",
    )
    feather: float = Field(
        1.0,
        ge=0,
        le=50,
        description="Softness of the subject's edge in pixels (sigma), inside the mask; 0 is hard. Subjects with an "
        "alpha of their own keep it instead.",
    )
    decontaminate: bool | None = Field(
        None,
        description="Whether the old background's colour is taken out of pixels that an alpha matte mixes it into. "
        "null: of 'mattes', photos that still show it; files of 'cutouts' hold the subject's colours alone.",
    )
    match_light: Share = Field(
        0.0, description="How far brightness, contrast and colour of a subject are drawn to the background's; 0 is off."
    )

    @model_validator(mode="after")
    def _options_go_together(self) -> Self:
        low, high = self.subject_scale
        if not 0 < low <= high:
            raise ValueError(f"subject_scale [{low:g}, {high:g}] is no range [low, high] above 0")
        least, most = self.subjects_per_picture
        if least > most:
            raise ValueError(f"subjects_per_picture [{least}, {most}] is no range [least, most]")
        if self.single_instances and self.subjects == "coco" and self.near_duplicates != "group":
            raise ValueError(
                f"near_duplicates '{self.near_duplicates}' does not go with single_instances, whose samples share "
                "photos; leave it at 'group'"
            )
        if "category" in self.input_attributes and self.subjects != "coco":
            if self.subjects != "cutouts":
                raise ValueError(f"subjects of '{self.subjects}' have no category")
            if self.category_from is None:
                raise ValueError("the attribute 'category' needs `category_from`: 'folder' or 'name'")
        return self

    @property
    def subjects_path(self) -> str:
        """The raw folder of the subjects."""
        return self.subjects_folder or self.subjects

    @property
    def backgrounds_path(self) -> str:
        """The raw folder of the backgrounds."""
        return self.backgrounds_folder or ("backgrounds" if self.backgrounds == "folder" else "coco")

    @property
    def finish(self) -> Finish:
        """What is done to subjects on their way into a picture."""
        soft = self.subjects == "mattes" if self.decontaminate is None else self.decontaminate
        return Finish(self.feather, soft, self.match_light)

    def effective(self) -> dict[str, Any]:
        """The config that decides the bytes: folders by name, defaults where an option has no effect."""
        effective = super().effective()
        effective["subjects_folder"] = self.subjects_path
        effective["backgrounds_folder"] = self.backgrounds_path
        effective["decontaminate"] = self.finish.decontaminate
        idle = ["feather"] if self.subjects in ("cutouts", "mattes") else ["decontaminate"]
        if self.subjects != "cutouts" or "category" not in self.input_attributes:
            idle.append("category_from")
        if "image" not in self.input_attributes and self.subjects in ("coco", "duts"):
            idle.append("match_light")  # an alpha is resampled with its colours, in a window that this widens
        if self.subjects != "coco":
            idle += ["single_instances", "min_instance_area"]
            if self.backgrounds != "coco":
                idle.append("categories")
        for name in idle:
            default = type(self).model_fields[name].default
            effective[name] = list(default) if isinstance(default, tuple) else default
        return effective


class CompositeHandler(SegmentationHandler):
    """Subjects of one raw dataset on the backgrounds of another."""

    Config: ClassVar[type[CompositeConfig]] = CompositeConfig
    options: CompositeConfig
    load_is_random = True

    def __init__(self, config: dict[str, Any], base_data_path: str) -> None:
        """Check ``config``; see `SampleHandler`."""
        super().__init__(config, base_data_path)
        self._own: tuple[str, Scene] | None = None  # subject of the sample at hand, for all of its variations

    def raw_data_path(self) -> Path:
        """The subjects' folder."""
        return Path(self.base_data_path) / self.options.subjects_path

    def backgrounds_path(self) -> Path:
        """The backgrounds' folder."""
        return Path(self.base_data_path) / self.options.backgrounds_path

    def samples(self) -> Iterator[Sample | Rejected]:
        """Every subject; backgrounds and partners come with its split."""
        options, root = self.options, self.raw_data_path()
        if options.subjects == "coco":
            selection = Selection(options.categories, include_crowds=False, min_instance_area=options.min_instance_area)
            for item in coco_samples(self, root, selection):
                yield from _apart(item) if options.single_instances and isinstance(item, Sample) else (item,)
        elif options.subjects == "duts":
            yield from duts_samples(root)
        elif options.subjects == "mattes":
            yield from matte_samples(root)
        else:
            category_from = options.category_from if "category" in options.input_attributes else None
            yield from cutout_samples(root, category_from)

    def complete_splits(self, by_split: Mapping[str, list[Sample]]) -> dict[str, list[Sample]]:
        """Each sample with its backgrounds and partners, of its own split both."""
        options = self.options
        if options.backgrounds == "coco":
            photos = photos_without(self, self.backgrounds_path(), options.categories)
        else:
            photos = photos_in(self.backgrounds_path())
        shares = shared_backgrounds(self, self.backgrounds_path(), photos, by_split)
        return {split: self._completed(split, samples, shares[split]) for split, samples in by_split.items()}

    def _completed(self, split: str, samples: list[Sample], backgrounds: list[str]) -> list[Sample]:
        options = self.options
        most = options.subjects_per_picture[1]
        if len(samples) < most:
            raise RawDataError(
                f"split '{split}' has {len(samples)} subjects, too few for {most} in a picture; lower "
                "subjects_per_picture or widen the selection"
            )
        completed = []
        for number, sample in enumerate(samples):
            chosen = draw_photos(backgrounds, options.seed, sample.key, options.variations_per_sample, _SPARE)
            data = {**sample.data, "backgrounds": chosen}
            if most > 1:
                # Samples are shuffled already: those that follow are as good as drawn.
                variations = min(options.variations_per_sample, _PARTNERED_VARIATIONS)
                pool = min(len(samples) - 1, (most - 1) * variations + _SPARE)
                data["partners"] = [samples[(number + step) % len(samples)].data for step in range(1, pool + 1)]
            completed.append(replace(sample, data=data))
        return completed

    def fingerprint(self, sample: Sample) -> int | None:
        """That of the subject's photo; of cut-outs, `cutouts.cutout_fingerprint`."""
        if self.options.subjects == "cutouts":
            return cutout_fingerprint(self, self.raw_data_path() / sample.data["photo"])
        return super().fingerprint(sample)

    def load(self, sample: Sample, variation: int, random: np.random.Generator) -> Scene:
        """One composite on a canvas of ``image_size``, and the mask of its subjects."""
        if variation == 0 or self._own is None or self._own[0] != sample.key:
            self._own = sample.key, self._subject(sample.data, reused=self.options.variations_per_sample > 1)
        own = self._own[1]
        placed = [(own, self._placed(own, random))]
        background = self._canvas(sample, variation)
        placed = [*self._partners(sample, random), *placed]
        layers = [layer for _, layer in placed]
        made = lay(background, layers, self.options.match_light)
        instances: tuple[Instance, ...] = ()
        if not {"boxes", "category"}.isdisjoint(self.options.input_attributes):
            instances = tuple(seen_instances([scene for scene, _ in placed], layers, self.options.image_size))
        return Scene(Photo.from_pixels(made.photo), Raster(made.mask), Matte(made.alpha), instances)

    def _subject(self, data: dict[str, Any], *, reused: bool = False) -> Scene:
        root = self.raw_data_path()
        if self.options.subjects == "coco":
            return load_coco(self, root, data, reused=reused)
        if self.options.subjects == "duts":
            return load_duts(self, root, data, reused=reused)
        if self.options.subjects == "mattes":
            return load_matte(self, root, data, reused=reused)
        cutout = decode_cutout(self.read_raw(root / data["photo"]), Path(data["photo"]).name)
        photo = extended(cutout) if self.options.finish.decontaminate else cutout.photo
        instance = Instance(Raster(cutout.subject), data["category"])
        return Scene(Photo.from_pixels(photo), instance.shape, alpha=Matte(cutout.alpha), instances=(instance,))

    def _placed(self, subject: Scene, random: np.random.Generator) -> Layer:
        options = self.options
        tries = _SPARE if options.overhang else 1  # all of it may be beyond the edge
        while True:
            where = place(subject.mask.box(), options.image_size, options.subject_scale, random, options.overhang)
            tries -= 1
            try:
                return cut_out(subject, where, options.finish)
            except BadSampleError:
                if not tries:
                    raise

    def _partners(self, sample: Sample, random: np.random.Generator) -> list[tuple[Scene, Layer]]:
        """Other subjects, as many as drawn; one that cannot be used is passed over."""
        least, most = self.options.subjects_per_picture
        if most == 1:
            return []
        wanted = least - 1 + int(random.random() * (most - least + 1))
        pool = sample.data["partners"]
        start = int(random.random() * len(pool))
        found: list[tuple[Scene, Layer]] = []
        for data in pool[start:] + pool[:start]:
            if len(found) == wanted:
                break
            try:
                scene = self._subject(data)
                found.append((scene, self._placed(scene, random)))
            except BadSampleError as error:
                self.count({"unusable_partners": 1})
                reason = str(error)
        if len(found) < least - 1:
            raise BadSampleError(f"of {len(pool)} partners, {len(found)} can be used, {least - 1} are needed: {reason}")
        return found

    def _canvas(self, sample: Sample, variation: int) -> Array:
        """The variation's background, covering the canvas, or a spare one where it cannot be read."""
        photos, size = sample.data["backgrounds"], self.options.image_size
        reasons = []
        for path in (photos[variation], *photos[self.options.variations_per_sample :]):
            try:
                photo = Photo(self.read_raw(self.backgrounds_path() / path), Path(path).name, upright=True)
                return photo.warp(Geometry(resizing(photo.size, size, "cover"), size))
            except BadSampleError as error:
                self.count({"unreadable_backgrounds": 1})
                reasons.append(str(error))
        raise BadSampleError(f"none of {len(reasons)} backgrounds can be read; the first: {reasons[0]}")


def _apart(sample: Sample) -> Iterator[Sample]:
    """A sample for each instance of a COCO photo, ``<its key>#<the annotation's id>``."""
    for item in sample.data["subjects"]:
        yield Sample(f"{sample.key}#{item['id']}", {**sample.data, "subjects": [item]}, sample.split)
