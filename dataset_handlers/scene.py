"""A source picture with all that is known of it, before any augmentation."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .errors import BadSampleError
from .labels.shapes import Shape
from .photo import Photo


@dataclass(frozen=True)
class Instance:
    """One thing in a picture: where it is, and what."""

    shape: Shape
    category: str = ""


@dataclass(frozen=True)
class Scene:
    """A photo with its labels; all shapes are in pictures of the photo's size.

    Raises `BadSampleError` for a mask of another size.

    ``mask`` is the subject: what the model is to find. ``alpha`` is there where the raw data knows opacity;
    ``others`` is what is there besides the subject (negative clicks may land on it). ``surround`` is
    the colour beside the photo where that goes on as one; else it is mirrored there. ``findings`` counts what the
    gate reports of the raw files, by the names of `dataset_handlers.statistics`.
    """

    photo: Photo
    mask: Shape
    alpha: Shape | None = None
    instances: tuple[Instance, ...] = ()
    others: Shape | None = None
    cluster: int | None = None
    surround: tuple[int, int, int] | None = None
    findings: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (height, width), (mask_height, mask_width) = self.photo.size, self.mask.size
        if (height, width) != (mask_height, mask_width):
            raise BadSampleError(
                f"the photo has {width}×{height} pixels, its mask {mask_width}×{mask_height}; they must agree"
            )
