"""Subjects cut out of their photos: RGBA pictures, split into a photo and its mask.

Raw folder::

    **/*.png, *.webp, *.tif, *.tiff    of any names; other files are passed over, and so are folders that are links

What is no cut-out is left out with its reason: no alpha channel, opaque or transparent everywhere, hardly anything
opaque, several frames, damaged. See `rgba` for what is read and how.

There is nothing behind a cut-out, so it is shown on a plain colour; `composite` lays it over photos.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from .augmentation import Share
from .config import FolderName, PhotoConfig
from .errors import BadSampleError, RawDataError
from .files import is_readable
from .images import Array
from .labels.shapes import Matte, Raster
from .photo import Photo
from .placement import Finish, cut_out, lay, place, seen_instances
from .plan import Rejected, Sample
from .rgba import Cutout, decode_cutout, plain
from .sample_handler import SampleHandler
from .scene import Instance, Scene
from .segmentation import SegmentationHandler
from .selection.clusters import appearance, assign_clusters, balance
from .selection.near_duplicates import SIDE, perceptual_hash
from .transforms.blending import over

_ENDINGS = {".png", ".webp", ".tif", ".tiff"}
#: What stands between the parts of a name, the first of which may be the category.
_SEPARATOR = "__"

Level = Annotated[int, Field(ge=0, le=255)]
Items = Annotated[int, Field(ge=1, le=16)]
#: As many variations of a sample have further items of their own; more would bloat the plan.
_FURNISHED_VARIATIONS = 4
#: Augmentations that draw more than their strength.
_PLACED = frozenset({"perspective", "noise", "dropout"})
CategoryFrom = Literal["folder", "name"]


class CutoutsConfig(PhotoConfig):
    """Options of the `cutouts` handler."""

    offered: ClassVar[frozenset[str]] = PhotoConfig.offered | {"alpha", "boxes", "category", "cluster"}

    raw_folder: FolderName = Field("cutouts", description="Folder below the raw root with RGBA pictures.")
    min_subject_pixels: int = Field(
        64, ge=1, description="Cut-outs with fewer pixels of at least half opacity are not used."
    )
    mask_edges: Literal["threshold", "soft"] = Field(
        "threshold",
        description="What becomes of partial opacity in the mask: a level of 128 or more is subject, or it stays grey.",
    )
    category_from: CategoryFrom | None = Field(
        None,
        description="What a cut-out's category is: the first 'folder' it is in, or its 'name' up to the first '__'; "
        "null: not known. Looked at for the attribute 'category' alone.",
    )
    background_color: tuple[Level, Level, Level] | None = Field(
        None,
        description="[red, green, blue] behind the cut-outs; null draws each uniformly from 0 to 255 for each example.",
    )
    items_per_picture: tuple[Items, Items] = Field(
        (1, 1),
        description="[least, most] cut-outs in a picture, drawn for each example. More than one are placed at "
        "random on a canvas of `image_size`; the sample's own is in front, the others are drawn from its split.",
    )
    item_scale: tuple[Share, Share] = Field(
        (0.3, 0.7),
        description="With several items: range of each one's longer extent as a share of the canvas, drawn uniformly.",
    )
    clusters: int | None = Field(
        None, ge=1, le=10_000, description="Number of clusters by appearance (PCA and k-means); null makes none."
    )
    balance: Share = Field(
        0.0,
        description="Clusters are filled up, by more variations of their samples, to this share of the largest one's "
        "samples in the split; 0 is off.",
    )

    @model_validator(mode="after")
    def _items_are_possible(self) -> Self:
        least, most = self.items_per_picture
        if least > most:
            raise ValueError(f"items_per_picture [{least}, {most}] is no range [least, most]")
        if most > 1 and self.image_size is None:
            raise ValueError("several items in a picture need a canvas; set image_size")
        low, high = self.item_scale
        if not 0 < low <= high:
            raise ValueError(f"item_scale [{low:g}, {high:g}] is no range [low, high] above 0")
        return self

    @model_validator(mode="after")
    def _attributes_are_known(self) -> Self:
        if self.clusters is None and "cluster" in self.input_attributes:
            raise ValueError("the attribute 'cluster' needs `clusters`, their number")
        if self.clusters is None and self.balance:
            raise ValueError("`balance` fills up clusters; set `clusters`, their number")
        if self.balance and not self._examples_differ():
            raise ValueError(
                "`balance` makes more examples of some samples, and nothing here tells these apart; set an "
                "augmentation that is drawn, such as flip_horizontal 0.5, or leave background_color out"
            )
        if self.category_from is None and "category" in self.input_attributes:
            raise ValueError("the attribute 'category' needs `category_from`: 'folder' or 'name'")
        return self

    def _examples_differ(self) -> bool:
        """Whether anything in the examples of one sample is drawn for each of them."""
        effective, with_photo = self.effective(), "image" in self.input_attributes
        return (
            self.items_per_picture != (1, 1)
            or "clicks" in self.input_attributes
            or (with_photo and self.background_color is None)
            or (effective["crop_size"] is not None and effective["crop_mode"] == "random")
            or any(0 < effective[name] < 1 for name in ("flip_horizontal", "flip_vertical", "equalize"))
            or effective["channel_shuffle"] > 0
            or any(
                effective[name] == [low, high] and (low < high or probability < 1 or name in _PLACED)
                for name, (low, high, probability) in self.active.items()
            )
        )

    def effective(self) -> dict[str, Any]:
        """The config that decides the bytes; an option without effect is as good as left out."""
        effective = super().effective()
        if "category" not in self.input_attributes:
            effective["category_from"] = None
        if "image" not in self.input_attributes:
            effective["background_color"] = None
        if self.items_per_picture == (1, 1):
            effective["item_scale"] = list(type(self).model_fields["item_scale"].default)
        return effective


class CutoutsHandler(SegmentationHandler):
    """Photo, mask and alpha of cut-outs, one or several to a picture."""

    Config: ClassVar[type[CutoutsConfig]] = CutoutsConfig
    options: CutoutsConfig
    load_is_random = True
    _own: tuple[str, Cutout] | None = None  # of the sample at hand, for all of its variations

    def raw_data_path(self) -> Path:
        """The folder of the pictures."""
        return Path(self.base_data_path) / self.options.raw_folder

    def samples(self) -> Iterator[Sample | Rejected]:
        """Every picture; where the plan hangs on what is in them, the bad ones are found here already."""
        options = self.options
        category_from = options.category_from if "category" in options.input_attributes else None
        found = cutout_samples(self.raw_data_path(), category_from)
        if options.clusters is None and options.items_per_picture == (1, 1):
            yield from found
            return
        samples, features = [], []
        for item in found:
            if isinstance(item, Rejected):
                yield item
                continue
            try:
                cutout = self._decoded(item.data)
                features.append(appearance(cutout.photo, cutout.alpha) if options.clusters else ())
                samples.append(item)
            except BadSampleError as error:
                yield Rejected(item.key, str(error))
        if not options.clusters or not samples:
            yield from samples
            return
        labels = assign_clusters(np.stack(features), options.clusters, options.seed).labels
        for sample, label in zip(samples, labels, strict=True):
            yield replace(sample, data={**sample.data, "cluster": label})

    def complete_samples(self, split: str, samples: list[Sample]) -> list[Sample]:  # noqa: ARG002 - one rule for all
        """How often each sample is taken, so that no cluster is small, and what else is in its pictures."""
        options = self.options
        times = [1] * len(samples)
        if options.balance:
            times = balance([sample.data["cluster"] for sample in samples], options.balance)
        completed = []
        for place_in_split, (sample, count) in enumerate(zip(samples, times, strict=True)):
            variations = count * options.variations_per_sample
            data = {**sample.data, "variations": variations} if count > 1 else sample.data
            if options.items_per_picture != (1, 1):
                data = {**data, "further": self._further(samples, place_in_split, variations)}
            completed.append(replace(sample, data=data))
        return completed

    def _further(self, samples: list[Sample], own: int, variations: int) -> list[dict[str, str]]:
        """What may be behind sample number ``own``: others of its split, or itself where it is alone there."""
        most = self.options.items_per_picture[1] - 1
        pool = min(len(samples) - 1, most * min(variations, _FURNISHED_VARIATIONS))
        # Samples are shuffled already: those that follow are as good as drawn.
        chosen = (samples[(own + step) % len(samples)].data for step in (range(1, pool + 1) if pool else (0,)))
        return [{"photo": data["photo"], "category": data["category"]} for data in chosen]

    def variations_of(self, sample: Sample) -> int:
        """More where a small cluster is to be filled up."""
        return int(sample.data.get("variations", self.options.variations_per_sample))

    def load(self, sample: Sample, variation: int, random: np.random.Generator) -> Scene:
        """The sample's cut-out on a plain colour, perhaps with others behind it."""
        options = self.options
        drawn = random.integers(0, 256, 3)  # in any case, so that whatever is drawn after it stays the same
        colour = options.background_color or drawn.tolist()
        cluster = sample.data.get("cluster")
        # One load is one example here; where examples say their cluster, they are counted by it anyway.
        uncounted = cluster is not None and "cluster" not in options.input_attributes
        findings = {f"cluster:{cluster}": 1} if uncounted else {}
        if variation == 0 or self._own is None or self._own[0] != sample.key:
            self._own = None  # before the next one is decoded: both may be large
            self._own = sample.key, self._decoded(sample.data)
        own = self._own[1]
        if "further" not in sample.data:
            picture = over(plain(own.alpha.shape, colour), own.photo, own.alpha)
            scene = _scene(picture, own, options.mask_edges, sample.data["category"])
        else:
            assert options.image_size is not None
            items = self._items(sample, own, random)
            scene = _arranged(items, plain(options.image_size, colour), options, random)
        return replace(scene, cluster=cluster, findings=findings, surround=tuple(colour))

    def fingerprint(self, sample: Sample) -> int | None:
        """See `cutout_fingerprint`."""
        return cutout_fingerprint(self, self.raw_data_path() / sample.data["photo"])

    def _items(self, sample: Sample, own: Cutout, random: np.random.Generator) -> Iterator[tuple[Cutout, str]]:
        """As many as drawn, each with its category and decoded when it is asked for; the sample's own is the last."""
        least, most = self.options.items_per_picture
        pool = sample.data["further"]
        first, share = random.random(2).tolist()
        for number in range(least - 1 + int(share * (most - least + 1))):
            data = pool[(int(first * len(pool)) + number) % len(pool)]
            yield self._decoded(data), data["category"]
        yield own, sample.data["category"]

    def _decoded(self, data: dict[str, Any]) -> Cutout:
        return _read(self, self.raw_data_path(), data, self.options.min_subject_pixels)


def cutout_fingerprint(handler: SampleHandler, path: Path) -> int | None:
    """The perceptual hash of a cut-out on mid-grey: the colours that it hides do not matter."""
    cutout = decode_cutout(handler.read_raw(path), path.name)
    shown = over(plain(cutout.alpha.shape, (128, 128, 128)), cutout.photo, cutout.alpha)
    return perceptual_hash(Photo.from_pixels(shown).thumbnail(SIDE))


def cutout_samples(root: Path, category_from: CategoryFrom | None = None) -> Iterator[Sample | Rejected]:
    """Samples by their path below ``root`` without its ending; those without category are rejected.

    Raises `RawDataError` where there is no picture at all.
    """
    files = sorted(
        Path(folder, name).relative_to(root).as_posix()
        for folder, _, names in os.walk(root)
        for name in names
        if PurePosixPath(name).suffix.lower() in _ENDINGS and is_readable(Path(folder, name))
    )
    if not files:
        raise RawDataError(
            f"there is no picture in the raw folder '{root.name}'; put cut-outs (.png, .webp, .tif) there, "
            "or choose another raw_folder"
        )
    for file in files:
        key = str(PurePosixPath(file).with_suffix(""))
        category = _category(PurePosixPath(key), category_from)
        if category is None:
            why = "it is in no folder" if category_from == "folder" else f"its name has no '{_SEPARATOR}'"
            yield Rejected(key, f"{file}: nothing says its category; {why}")
        else:
            yield Sample(key, {"photo": file, "category": category})


def _category(path: PurePosixPath, category_from: CategoryFrom | None) -> str | None:
    """The category of a file; None where it says none, empty where that is not asked for."""
    if category_from is None:
        return ""
    first, *rest = path.parts if category_from == "folder" else path.name.split(_SEPARATOR, 1)
    return first if first and rest else None


def _read(handler: SampleHandler, root: Path, data: dict[str, Any], min_subject_pixels: int) -> Cutout:
    path = root / data["photo"]
    return decode_cutout(handler.read_raw(path), path.name, min_subject_pixels)


def _arranged(
    items: Iterable[tuple[Cutout, str]], canvas: Array, options: CutoutsConfig, random: np.random.Generator
) -> Scene:
    """Cut-outs and their categories on a canvas, later ones in front; an instance is what is seen of one."""
    size = canvas.shape[0], canvas.shape[1]
    layers, seen = [], []
    for item, category in items:
        scene = _scene(item.photo, item, "soft", category)
        layer = cut_out(scene, place(scene.mask.box(), size, options.item_scale, random), Finish())
        layers.append(layer)
        # Of the cut-out itself, which may be large, nothing is kept.
        solid = Raster(layer.mask)
        seen.append(Scene(Photo.from_pixels(layer.colours), solid, instances=(Instance(solid, category),)))
    made = lay(canvas, layers, 0.0)
    mask = Matte(made.alpha) if options.mask_edges == "soft" else Raster(made.mask)
    instances = tuple(seen_instances(seen, layers, size))
    return Scene(Photo.from_pixels(made.photo), mask, alpha=Matte(made.alpha), instances=instances)


def _scene(picture: Array, cutout: Cutout, edges: Literal["threshold", "soft"], category: str) -> Scene:
    subject = Raster(cutout.subject)
    return Scene(
        Photo.from_pixels(picture),
        Matte(cutout.alpha) if edges == "soft" else subject,
        alpha=Matte(cutout.alpha),
        instances=(Instance(subject, category),),
    )
