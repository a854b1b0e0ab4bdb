"""The options every photo-and-mask handler understands, and the one way a config is checked.

A config is checked once, here: canonical JSON in, the *effective* config out (defaults filled in, reader-only options
removed), or every fault at once with its JSON pointer and a remedy.
"""

import difflib
import json
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .augmentation import AugmentationOptions, Share, without_idle_options
from .errors import ConfigRefusedError

SplitName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
#: A folder directly below the raw root; never a path.
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Attribute = Literal["image", "mask", "alpha", "trimap", "clicks", "boxes", "category", "cluster", "source_id"]
ClickStrategy = Literal["random", "band", "objects", "boundary"]
Width = Annotated[float, Field(ge=0, le=1000)]
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
    near_duplicates: Literal["group", "remove", "ignore"] = Field(
        "group",
        description="What becomes of samples that show the same photo (by perceptual hash): 'group' keeps them in one "
        "split where splits are drawn and reports them where the publisher parted them, 'remove' keeps one of each, "
        "'ignore' does not look.",
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
        return splits and dict(sorted(splits.items()))

    def effective(self) -> dict[str, Any]:
        """The config that decides the bytes: every default spelt out, reader-only options removed."""
        return self.model_dump(mode="json", exclude=set(self.reader_only))


class PhotoConfig(AugmentationOptions, HandlerConfig):
    """Options of handlers that write photos with masks."""

    #: What `input_attributes` may name; handlers that know more of their photos offer more.
    offered: ClassVar[frozenset[str]] = frozenset({"image", "mask", "trimap", "clicks", "source_id"})

    input_attributes: tuple[Attribute, ...] = Field(
        ("image",),
        min_length=1,
        description="What each example offers as input besides its label: 'image', 'alpha', 'trimap', 'clicks', "
        "'boxes', 'category', 'cluster', 'source_id' (the sample's key), as far as the handler knows them. The label "
        "'mask' is always written.",
    )
    image_encoding: Literal["jpeg", "png", "raw"] = Field(
        "jpeg", description="How photos are stored: lossy, lossless, or as bare levels (of a fixed size only)."
    )
    jpeg_quality: int = Field(95, ge=1, le=100, description="JPEG quality of the photos.")
    trimap_widths: tuple[Width, Width] = Field(
        (5.0, 5.0),
        description="[inside, outside]: how far from the subject's edge a trimap is unknown, in pixels of the example; "
        "so is opacity from 6 to 249.",
    )
    click_strategy: ClickStrategy = Field(
        "random",
        description="How negative clicks are simulated: in a 'band' around the subject, on other 'objects', along the "
        "'boundary', or by one of these at 'random' for each example.",
    )

    @field_validator("input_attributes")
    @classmethod
    def _as_a_set(cls, attributes: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in attributes if name not in cls.offered]:
            offered = ", ".join(f"'{name}'" for name in sorted(cls.offered))
            raise ValueError(f"these raw data have no {', '.join(map(repr, unknown))}; there are {offered}")
        return tuple(sorted(set(attributes) - {"mask"} or {"mask"}))  # the mask is there in any case

    @property
    def subject_level(self) -> int:
        """The lowest level of a mask that counts as subject: 128 where edges stay grey."""
        return 128 if getattr(self, "mask_edges", "threshold") == "soft" else 1

    @model_validator(mode="after")
    def _raw_has_a_size(self) -> Self:
        if self.image_encoding == "raw" and self.output_size is None:
            raise ValueError("image_encoding 'raw' needs examples of one size; set image_size or crop_size")
        return self

    def effective(self) -> dict[str, Any]:
        """The config that decides the bytes; an option without effect is as good as left out."""
        effective = without_idle_options(super().effective(), self, writes_photo="image" in self.input_attributes)
        defaults = type(self).model_fields
        written = set(self.input_attributes)
        if "image" not in written:
            effective["image_encoding"] = defaults["image_encoding"].default
        if "image" not in written or self.image_encoding != "jpeg":
            effective["jpeg_quality"] = defaults["jpeg_quality"].default
        if "trimap" not in written:
            effective["trimap_widths"] = list(defaults["trimap_widths"].default)
        if "clicks" not in written:
            effective["click_strategy"] = defaults["click_strategy"].default
        return effective


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
