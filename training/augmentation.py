"""Light augmentation while training: random windows, flips and changes of light, drawn anew in each epoch.

Heavier changes belong in the dataset's configuration, where they are made once. What is drawn for an example is a
function of (seed, epoch, the example's number): it does not depend on threads, ranks, or where a training was resumed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.errors import OptionsError

Array = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class Augmentation:
    """What may happen to an example; by default, nothing does. Raises `OptionsError`.

    ``flip`` and ``flip_vertical`` in [0, 1]: how often it is mirrored left to right, and upside down. ``crop``:
    (height, width) that the model trains on, cut out at random; None is the whole photo. ``scale``: [least, most]
    magnification of what is cut out, drawn uniformly; without ``crop`` at least 1; a window never reaches beyond the
    photo. ``brightness`` in [0, 1): levels are multiplied by a factor in 1 ± that; ``contrast`` in [0, 1): their
    distance from the photo's mean level is, before.
    """

    flip: float = 0.0
    flip_vertical: float = 0.0
    crop: tuple[int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    brightness: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "flip_vertical"):
            if not _is_number(value := getattr(self, name)) or not 0 <= value <= 1:
                raise OptionsError(f"augmentation.{name} is how often, in [0, 1], not {value!r}")
        for name in ("brightness", "contrast"):
            if not _is_number(value := getattr(self, name)) or not 0 <= value < 1:
                raise OptionsError(f"augmentation.{name} is in [0, 1), not {value!r}")
        if self.crop is not None:
            object.__setattr__(
                self, "crop", _pair(self.crop, "crop", "[height, width] in whole numbers, such as [224]*2")
            )
            if any(type(side) is not int or side < 1 for side in self.crop):
                raise OptionsError(f"augmentation.crop is [height, width] in whole numbers above 0, not {self.crop!r}")
        least, most = _pair(self.scale, "scale", "[least, most], such as [1.0, 1.5]")
        if not (_is_number(least) and _is_number(most)) or not 0 < least <= most < 100:
            raise OptionsError(f"augmentation.scale is [least, most] above 0 and below 100, not {self.scale!r}")
        if self.crop is None and least < 1:
            raise OptionsError(
                f"augmentation.scale below 1 would need pixels beyond the photo, it is {self.scale!r}: "
                "begin at 1, or set augmentation.crop to train on a part of the photo"
            )
        object.__setattr__(self, "scale", (float(least), float(most)))

    @classmethod
    def of(cls, value: "Augmentation | Mapping[str, Any]") -> "Augmentation":
        """From a mapping of its fields, such as a TOML table. Raises `OptionsError` for unknown ones."""
        if isinstance(value, Augmentation):
            return value
        if not isinstance(value, Mapping):
            raise OptionsError(f"augmentation is a table of options, not {value!r}")
        if unknown := sorted(set(value) - set(cls.__dataclass_fields__)):
            raise OptionsError(
                f"augmentation has no option {', '.join(unknown)}; it has: {', '.join(cls.__dataclass_fields__)}"
            )
        return cls(**value)

    def to_json(self) -> dict[str, Any]:
        """All options as JSON types."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    def size(self, photo: tuple[int, int]) -> tuple[int, int]:
        """Height and width of what comes out of photos of ``photo`` = (height, width)."""
        return self.crop or photo

    def apply(self, photo: Array, inputs: Array, mask: Array, smooth: bool, random: np.random.Generator) -> list[Array]:
        """A changed copy of ``photo`` (H, W, 3), ``inputs`` (H, W, C ≥ 0) and ``mask`` (H, W, 1), all uint8.

        ``smooth`` tells whether a mask's levels may be mixed where the window is resized; class numbers may not.
        Light changes the photo alone.
        """
        planes = [photo, inputs, mask]
        window = self._window(photo.shape[:2], random)
        size = self.size((photo.shape[0], photo.shape[1]))
        planes = [_cut(plane, window, size, smooth=smooth or index == 0) for index, plane in enumerate(planes)]
        # Always drawn, so that one option does not change what another draws.
        across, down = random.random() < self.flip, random.random() < self.flip_vertical
        contrast, brightness = random.uniform(-1, 1, 2) * (self.contrast, self.brightness)
        if across:
            planes = [plane[:, ::-1] for plane in planes]
        if down:
            planes = [plane[::-1] for plane in planes]
        if contrast or brightness:
            planes[0] = _light(planes[0], 1 + contrast, 1 + brightness)
        return [np.ascontiguousarray(plane) for plane in planes]

    def _window(self, photo: tuple[int, ...], random: np.random.Generator) -> tuple[int, int, int, int]:
        """Top, left, height and width of what is cut out, in whole pixels within the photo."""
        scale = random.uniform(*self.scale)
        height, width = self.size((photo[0], photo[1]))
        # One factor for both sides, so that nothing is distorted.
        scale = max(scale, height / photo[0], width / photo[1])
        sides = [
            min(limit, max(1, round(side / scale))) for side, limit in zip((height, width), photo[:2], strict=True)
        ]
        top, left = (int(random.integers(limit - side + 1)) for side, limit in zip(sides, photo[:2], strict=True))
        return top, left, sides[0], sides[1]


def _cut(plane: Array, window: tuple[int, int, int, int], size: tuple[int, int], *, smooth: bool) -> Array:
    """The window of a plane (H, W, C) at ``size``: bilinear where ``smooth``, else the nearest pixel."""
    top, left, height, width = window
    cut = plane[top : top + height, left : left + width]
    if cut.shape[:2] == size or not plane.shape[2]:
        return cut if plane.shape[2] else np.empty((*size, 0), np.uint8)
    from PIL import Image

    method = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    channels = [Image.fromarray(np.ascontiguousarray(cut[:, :, c])) for c in range(plane.shape[2])]
    return np.stack([np.asarray(channel.resize(size[::-1], method)) for channel in channels], axis=2)


def _light(photo: Array, contrast: float, brightness: float) -> Array:
    """Levels moved away from their mean by ``contrast``, then multiplied by ``brightness``: one table for all."""
    mean = float(photo[::4, ::4].mean())
    levels = (np.arange(256) - mean) * contrast + mean
    table = np.rint((levels * brightness).clip(0, 255)).astype(np.uint8)
    return np.asarray(table[photo], np.uint8)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _pair(value: Any, name: str, form: str) -> tuple[Any, Any]:
    if isinstance(value, str) or not isinstance(value, tuple | list) or len(value) != 2:
        raise OptionsError(f"augmentation.{name} is {form}, not {value!r}")
    return value[0], value[1]
