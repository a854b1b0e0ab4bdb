"""The augmentations of photos with labels: their options, the random numbers behind them, and their order.

Geometry (resize, mirror, scale, shear, rotate, tilt, crop) is one matrix, applied to photo and labels alike. Light
(exposure, gamma, contrast, brightness) is one lookup table, for the photo alone; colour and effects follow it.
"""

import functools
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
from pydantic import BaseModel, Field, field_validator, model_validator

from .errors import BadSampleError
from .transforms import effects, photometry
from .transforms.geometry import Geometry, ResizeMode, Size, augmentation
from .transforms.photometry import Photo as Pixels

MAX_SIDE = 16_384

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
SizeOption = tuple[Side, Side]
Share = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]

#: Augmentations with a range of strength, each drawn uniformly from it and applied with a probability.
RangedName = Literal[
    "scale",
    "shear",
    "rotation",
    "perspective",
    "exposure",
    "gamma",
    "contrast",
    "brightness",
    "saturation",
    "hue",
    "clahe",
    "blur",
    "noise",
    "jpeg_artifacts",
    "dropout",
]
RANGED: tuple[str, ...] = get_args(RangedName)

#: Lowest and highest value of each range, and what leaves a photo as it is (None: nothing does).
_BOUNDS: Mapping[str, tuple[float, float, float | None]] = {
    "scale": (0.1, 10.0, 1.0),
    "shear": (-30.0, 30.0, 0.0),
    "rotation": (-180.0, 180.0, 0.0),
    "perspective": (0.0, 0.15, 0.0),  # up to here no output looks behind the horizon
    "exposure": (-5.0, 5.0, 0.0),
    "gamma": (0.1, 10.0, 1.0),
    "contrast": (0.0, 4.0, 1.0),
    "brightness": (-1.0, 1.0, 0.0),
    "saturation": (0.0, 4.0, 1.0),
    "hue": (-180.0, 180.0, 0.0),
    "clahe": (1.0, 40.0, None),
    "blur": (0.0, 20.0, 0.0),
    "noise": (0.0, 100.0, 0.0),
    "jpeg_artifacts": (1.0, 100.0, None),
    "dropout": (0.0, 1.0, 0.0),
}


def _ranged(name: str, default: Range | None, doc: str, unit: str = "factor") -> Any:
    lowest, highest, _ = _BOUNDS[name]
    doc = f"{doc} Within {lowest:g} and {highest:g}."
    return Field(
        default, description=doc, json_schema_extra={"range": {"minimum": lowest, "maximum": highest, "unit": unit}}
    )


#: What is done to the photo and to none of its labels.
_PHOTO_ONLY = frozenset({*RANGED, "equalize", "channel_shuffle"} - {"scale", "shear", "rotation", "perspective"})


class AugmentationOptions(BaseModel):
    """What is done to each example. A range ``[low, high]`` is drawn from uniformly."""

    image_size: SizeOption | None = Field(
        None, description="[height, width] in pixels every photo is brought to; null keeps its own size."
    )
    resize_mode: ResizeMode = Field(
        "stretch",
        description="How a photo is brought to `image_size`: 'stretch' ignores its proportions, 'fit' keeps them and "
        "leaves black beside it, 'cover' keeps them and lets it stick out.",
    )
    crop_size: SizeOption | None = Field(
        None, description="[height, width] in pixels of a window cut out after resizing; null cuts nothing."
    )
    crop_mode: Literal["random", "center", "subject"] = Field(
        "random",
        description="Where the window is: anywhere, in the middle, or with the subject's centre in its middle.",
    )
    random_crop_centered: bool = Field(
        False,
        description="With `crop_mode` 'random': place the window at random around the subject's centre (within an "
        "eighth of the window's size) instead of anywhere.",
    )
    flip_horizontal: Share = Field(0.0, description="Probability of mirroring left and right.")
    flip_vertical: Share = Field(0.0, description="Probability of mirroring top and bottom.")
    scale: Range = _ranged("scale", (1.0, 1.0), "Range of a factor about the centre; 2 shows all twice as large.")
    shear: Range = _ranged("shear", (0.0, 0.0), "Range in degrees by which upright lines are slanted.", "degrees")
    rotation: Range = _ranged("rotation", (0.0, 0.0), "Range in degrees, counter-clockwise.", "degrees")
    perspective: Range = _ranged(
        "perspective",
        (0.0, 0.0),
        "Range of how far each corner may move, as a share of the sides; where it goes is drawn as well.",
        "share of the sides",
    )
    exposure: Range = _ranged("exposure", (0.0, 0.0), "Range in photographic stops; 1 doubles the light.", "stops")
    gamma: Range = _ranged("gamma", (1.0, 1.0), "Range of an exponent on levels; above 1 darkens the middle.")
    contrast: Range = _ranged("contrast", (1.0, 1.0), "Range of a factor about mid-grey.")
    brightness: Range = _ranged("brightness", (0.0, 0.0), "Range of what is added, as a share of full white.", "share")
    saturation: Range = _ranged("saturation", (1.0, 1.0), "Range of a factor; 0 is grey.")
    hue: Range = _ranged("hue", (0.0, 0.0), "Range in degrees by which hues turn.", "degrees")
    clahe: Range | None = _ranged(
        "clahe",
        None,
        "Range of the clip limit of adaptive histogram equalisation: 2 is mild, 4 strong; null is off.",
        "times the mean of a histogram's bins",
    )
    equalize: Share = Field(0.0, description="Probability of equalising the histogram of luma.")
    channel_shuffle: Share = Field(0.0, description="Probability of shuffling red, green and blue.")
    blur: Range = _ranged("blur", (0.0, 0.0), "Range of a Gaussian's standard deviation in pixels.", "pixels")
    noise: Range = _ranged("noise", (0.0, 0.0), "Range of Gaussian noise's standard deviation in levels.", "levels")
    jpeg_artifacts: Range | None = _ranged(
        "jpeg_artifacts",
        None,
        "Range of the JPEG quality a photo is written in and read from again; null is off.",
        "JPEG quality",
    )
    dropout: Range = _ranged(
        "dropout",
        (0.0, 0.0),
        "Range of the sides of black rectangles, as shares of the photo's, in the photo alone.",
        "share of the sides",
    )
    dropout_count: int = Field(1, ge=1, le=100, description="Rectangles of `dropout` in a photo.")
    probabilities: dict[RangedName, Share] = Field(
        default_factory=dict,
        description="How probable an augmentation with a range is, by its name; 1 for those not named.",
    )

    @field_validator(*RANGED)
    @classmethod
    def _ordered_range(cls, limits: Range | None, info: Any) -> Range | None:
        if limits is None:
            return None
        lowest, highest, _ = _BOUNDS[info.field_name]
        low, high = limits
        if not lowest <= low <= high <= highest:
            raise ValueError(f"[{low:g}, {high:g}] is no range [low, high] within {lowest:g} and {highest:g}")
        return limits

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.image_size and self.crop_size:
            for side, crop, size in zip(("height", "width"), self.crop_size, self.image_size, strict=True):
                if crop > size:
                    raise ValueError(
                        f"crop_size {list(self.crop_size)} is larger than image_size {list(self.image_size)}: "
                        f"{side} {crop} > {size}; make the crop smaller or the image larger"
                    )
        return self

    @property
    def output_size(self) -> Size | None:
        """``(height, width)`` of every example, or None where photos keep their own."""
        return self.crop_size or self.image_size

    @functools.cached_property
    def active(self) -> Mapping[str, tuple[float, float, float]]:
        """Low, high and probability of each augmentation with a range that may change anything."""
        found = {}
        for name in RANGED:
            limits, neutral = getattr(self, name), _BOUNDS[name][2]
            probability = self.probabilities.get(name, 1.0)  # type: ignore[call-overload]
            if limits is not None and limits != (neutral, neutral) and probability > 0:
                found[name] = (*limits, probability)
        return found


def without_idle_options(
    effective: dict[str, Any], options: AugmentationOptions, *, writes_photo: bool
) -> dict[str, Any]:
    """``effective`` with the default in place of every option that changes nothing as the others stand."""
    unseen = () if writes_photo else _PHOTO_ONLY
    idle = [name for name in RANGED if name not in options.active or name in unseen]
    idle += [name for name in ("equalize", "channel_shuffle") if name in unseen]
    whole = options.crop_size is None or options.crop_size == options.image_size
    if whole:
        idle.append("crop_size")
    if options.image_size is None:
        idle.append("resize_mode")
    if whole:
        idle.append("crop_mode")
    if whole or options.crop_mode != "random":
        idle.append("random_crop_centered")
    if "dropout" in idle:
        idle.append("dropout_count")
    probabilities = {
        name: value for name, value in effective["probabilities"].items() if name not in idle and value < 1
    }
    defaults = {name: json.loads(json.dumps(AugmentationOptions.model_fields[name].default)) for name in idle}
    return {**effective, **defaults, "probabilities": probabilities}


#: A place in the draws for each use, twice: whether, and how much. New ones go to the end, so that what was drawn
#: for the others stays.
_USES = (
    *("flip_horizontal", "flip_vertical", "crop_x", "crop_y", "equalize", "channel_shuffle"),
    *(f"corner_{number}" for number in range(8)),
    *RANGED,
    "clicks",
)
_PLACES = {name: place for place, name in enumerate(_USES)}


class Draws:
    """The random numbers of one example, by use: switching one augmentation on leaves the others as they were."""

    def __init__(self, random: np.random.Generator) -> None:
        """Draw all numbers there may be use for."""
        self._numbers: list[list[float]] = random.random((len(_USES), 2)).tolist()

    def number(self, use: str) -> float:
        """A number in [0, 1)."""
        return self._numbers[_PLACES[use]][0]

    def happens(self, use: str, probability: float) -> bool:
        """True with a probability."""
        return self._numbers[_PLACES[use]][1] < probability

    def generator(self, use: str) -> np.random.Generator:
        """A generator for a use that needs more than two numbers."""
        return np.random.Generator(np.random.PCG64(int(self._numbers[_PLACES[use]][1] * 2**53)))


class Augmentation:
    """What is done to one example: strengths drawn once, then a geometry and a change of light."""

    def __init__(self, options: AugmentationOptions, draws: Draws) -> None:
        self._options, self._draws, self._active = options, draws, options.active

    def _strength(self, name: str) -> float | None:
        """The strength of an augmentation with a range; None where it is not to happen."""
        if name not in self._active:
            return None
        low, high, probability = self._active[name]
        return low + (high - low) * self._draws.number(name) if self._draws.happens(name, probability) else None

    def geometry(self, source_size: Size, subject_centre: tuple[float, float] | None) -> Geometry:
        """The matrix and size for a source photo (height, width).

        ``subject_centre`` (x, y) in its pixels is looked at if `needs_subject`. Raises `BadSampleError` for a photo
        that is smaller than the crop.
        """
        options, draws = self._options, self._draws
        tilt = self._strength("perspective")
        centre = subject_centre if self.needs_subject else None
        random = options.crop_mode == "random"
        try:
            geometry = augmentation(
                source_size,
                image_size=options.image_size,
                crop_size=options.crop_size,
                resize_mode=options.resize_mode,
                mirror=(
                    draws.happens("flip_horizontal", options.flip_horizontal),
                    draws.happens("flip_vertical", options.flip_vertical),
                ),
                scale=self._strength("scale") or 1.0,
                shear=self._strength("shear") or 0.0,
                degrees=self._strength("rotation") or 0.0,
                tilt=[tilt * (2 * draws.number(f"corner_{number}") - 1) for number in range(8)] if tilt else None,
                crop_position=(draws.number("crop_x"), draws.number("crop_y")) if random else (0.5, 0.5),
                crop_centre=centre,
            )
            geometry.check()
        except ValueError as error:
            raise BadSampleError(str(error)) from error
        return geometry

    @property
    def needs_subject(self) -> bool:
        """Whether `geometry` looks at where the subject is."""
        options = self._options
        return options.crop_size is not None and (
            options.crop_mode == "subject" or (options.crop_mode == "random" and options.random_crop_centered)
        )

    def light(self, photo: Pixels) -> Pixels:
        """Light, colour and effects on ``photo`` (H, W, 3) uint8, in the order of the options."""
        tones = {name: self._strength(name) for name in ("exposure", "gamma", "contrast", "brightness")}
        if given := {name: value for name, value in tones.items() if value is not None}:
            photo = photometry.apply_table(photo, photometry.tone_table(**given))
        if (factor := self._strength("saturation")) is not None:
            photo = photometry.adjust_saturation(photo, factor)
        if degrees := self._strength("hue"):
            photo = photometry.rotate_hue(photo, degrees)
        if (limit := self._strength("clahe")) is not None:
            photo = photometry.clahe(photo, limit)
        if self._draws.happens("equalize", self._options.equalize):
            photo = photometry.equalize(photo)
        if self._draws.happens("channel_shuffle", self._options.channel_shuffle):
            orders = ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
            photo = photometry.shuffle_channels(photo, orders[int(self._draws.number("channel_shuffle") * len(orders))])
        return self._effects(photo)

    def _effects(self, photo: Pixels) -> Pixels:
        if sigma := self._strength("blur"):
            photo = effects.blur(photo, sigma)
        if sigma := self._strength("noise"):
            photo = effects.add_noise(photo, sigma, self._draws.generator("noise"))
        if (quality := self._strength("jpeg_artifacts")) is not None:
            photo = effects.jpeg_artifacts(photo, round(quality))
        if side := self._strength("dropout"):
            random = self._draws.generator("dropout")
            photo = effects.drop_rectangles(photo, self._options.dropout_count, side, random)
        return photo
