"""The options every photo-and-mask handler understands, and the one way a config is checked.

A config is checked once, here: canonical JSON in, the *effective* config out (defaults filled in, reader-only options
removed), or every fault at once with its JSON pointer and a remedy.
"""

import difflib
import json
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .errors import ConfigRefusedError

MAX_SIDE = 16_384

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Size = tuple[Side, Side]
Share = Annotated[float, Field(ge=0, le=1)]
SplitName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
#: A folder directly below the raw root; never a path.
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Attribute = Literal["image", "mask", "source_id"]
#: Names of categories, of which neither order nor repetition means anything.
CategoryNames = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    Field(min_length=1),
    AfterValidator(lambda names: tuple(sorted(set(names)))),
]


class HandlerConfig(BaseModel):
    """Base of handler configs. Strict: ``"1"`` is no number and ``true`` is no 1. Unknown options are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    seed: int = Field(
        0, ge=0, le=2**53 - 1, description="Decides every random choice: selection, splits, augmentation."
    )
    limit: int | None = Field(None, ge=1, description="Use at most this many samples, drawn by `seed`; null uses all.")
    splits: dict[SplitName, Annotated[float, Field(gt=0, le=1)]] | None = Field(
        None,
        description="Fractions by split name, summing to 1, e.g. {'train': 0.9, 'validation': 0.1}; "
        "null keeps the publisher's own splits.",
    )
    variations_per_sample: int = Field(
        1, ge=1, le=10_000, description="Examples made of each sample, each with randomness of its own."
    )
    examples_per_shard: int = Field(256, ge=1, le=1_000_000, description="Upper bound of examples in a shard.")
    max_quarantined_share: Share = Field(
        0.1, description="The build fails when a larger share of samples than this is unusable."
    )
    batch_size: int = Field(
        32,
        ge=1,
        description="For the reader alone; changes no byte of the dataset.",
        json_schema_extra={"reader_only": True},
    )

    #: Options that readers use and builds ignore; they are no part of the effective config.
    reader_only: ClassVar[frozenset[str]] = frozenset({"batch_size"})

    @field_validator("splits")
    @classmethod
    def _fractions_sum_to_one(cls, splits: dict[str, float] | None) -> dict[str, float] | None:
        if splits is not None and not splits:
            raise ValueError("name at least one split, or leave the option out to keep the publisher's splits")
        if splits is not None and abs(sum(splits.values()) - 1) > 1e-6:
            raise ValueError(f"the fractions sum to {sum(splits.values()):g}; they must sum to 1")
        return splits

    def effective(self) -> dict[str, Any]:
        """The config that decides the bytes: every default spelt out, reader-only options removed."""
        return self.model_dump(mode="json", exclude=set(self.reader_only))


class PhotoConfig(HandlerConfig):
    """Options of handlers that write photos with masks."""

    input_attributes: tuple[Attribute, ...] = Field(
        ("image",),
        min_length=1,
        description="What each example offers as input besides its label: 'image', 'source_id' (the sample's key). "
        "The label 'mask' is always written.",
    )
    image_size: Size | None = Field(
        None, description="[height, width] in pixels every photo is stretched to; null keeps its own size."
    )
    crop_size: Size | None = Field(
        None, description="[height, width] in pixels of a window cut out after resizing; null cuts nothing."
    )
    random_crop_centered: bool = Field(
        False,
        description="Place the window at random around the subject's centre (within an eighth of the window's size) "
        "instead of anywhere.",
    )
    flip_horizontal: Share = Field(0.0, description="Probability of mirroring left and right.")
    flip_vertical: Share = Field(0.0, description="Probability of mirroring top and bottom.")
    rotation: tuple[float, float] = Field(
        (0.0, 0.0), description="Range in degrees, counter-clockwise, drawn uniformly; within -180 and 180."
    )
    exposure: tuple[float, float] = Field(
        (0.0, 0.0),
        description="Range in photographic stops (1 doubles the light), drawn uniformly; within -5 and 5.",
    )
    jpeg_quality: int = Field(95, ge=1, le=100, description="JPEG quality of the photos.")

    @field_validator("input_attributes")
    @classmethod
    def _as_a_set(cls, attributes: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(attributes) - {"mask"} or {"mask"}))  # the mask is there in any case

    @field_validator("rotation", "exposure")
    @classmethod
    def _ordered_range(cls, limits: tuple[float, float], info: Any) -> tuple[float, float]:
        bound = {"rotation": 180.0, "exposure": 5.0}[info.field_name]
        low, high = limits
        if not -bound <= low <= high <= bound:
            raise ValueError(f"[{low:g}, {high:g}] is no range [low, high] within -{bound:g} and {bound:g}")
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

    def effective(self) -> dict[str, Any]:
        """The config that decides the bytes; an option without effect is as good as left out."""
        centered = self.random_crop_centered and self.crop_size is not None
        return {**super().effective(), "random_crop_centered": centered}

    @property
    def output_size(self) -> tuple[int, int] | None:
        """``(height, width)`` of every example, or None where photos keep their own."""
        return self.crop_size or self.image_size


ConfigT = TypeVar("ConfigT", bound=HandlerConfig)

#: Faults that one refusal lists; whoever has more of them will ask again anyway.
_MOST_FAULTS = 20


def check_config(model: type[ConfigT], config: dict[str, Any]) -> ConfigT:
    """Check ``config`` against ``model``; raises `ConfigRefusedError` with every fault at once."""
    try:
        text = json.dumps(config)
    except RecursionError:
        raise ConfigRefusedError([{"path": "", "reason": "is nested too deeply"}]) from None
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        # A list whose items are at fault is told to be too short besides, for want of valid ones.
        all_found = error.errors()
        found = [
            item
            for item in all_found
            if item["type"] != "too_short" or not any(item["loc"] == other["loc"][:-1] for other in all_found)
        ]
        faults = [
            _fault([str(part) for part in item["loc"]], item["type"], item["msg"], list(model.model_fields))
            for item in found[:_MOST_FAULTS]
        ]
        if len(found) > _MOST_FAULTS:
            faults.append({"path": "", "reason": f"and {len(found) - _MOST_FAULTS} faults more"})
        raise ConfigRefusedError(faults) from error


def _fault(location: list[str], kind: str, message: str, options: list[str]) -> dict[str, str]:
    # "[key]" is pydantic's mark for a fault in a key.
    location = [part if len(part) <= 80 else f"{part[:79]}…" for part in location if part != "[key]"]
    path = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in location)
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(location[-1], options, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"the options are {', '.join(sorted(options))}"
        return {"path": path, "reason": f"no such option; {hint}"}
    return {"path": path, "reason": message.removeprefix("Value error, ")}


def describe_options(model: type[HandlerConfig]) -> dict[str, Any]:
    """The contract's ``config_options`` of a config model: type (JSON Schema), default and doc of each option."""
    schema = model.model_json_schema()
    options: dict[str, Any] = {}
    for name, described in schema["properties"].items():
        kind = {key: value for key, value in described.items() if key not in {"default", "description", "title"}}
        option: dict[str, Any] = {"type": kind, "doc": described.get("description", "")}
        field = model.model_fields[name]
        if not field.is_required():
            option["default"] = json.loads(json.dumps(field.get_default(call_default_factory=True)))
        if name in model.reader_only:
            option["reader_only"] = True
        options[name] = option
    return options
