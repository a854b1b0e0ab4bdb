"""Handlers that break their contract, each in one way; `dataset-handlers check` must say which."""

import os
import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydantic import ConfigDict, Field

from dataset_handlers import BadSampleError, HandlerConfig, ImageFeature, Sample, SampleHandler, SampleRandom


class Config(HandlerConfig):
    """Height and width of examples."""

    side: int = Field(32, ge=8, description="Height and width of examples in pixels.")


class Sound(SampleHandler):
    """DUTS photos and masks as squares: what the others break."""

    Config = Config

    def raw_data_path(self) -> Path:
        """The training half of DUTS."""
        return Path(self.base_data_path) / "duts" / "DUTS-TR"

    def features(self) -> Mapping[str, Any]:
        """Photo and mask."""
        return {"image": ImageFeature((None, None, 3), "png"), "mask": ImageFeature((None, None, 1), "png")}

    def samples(self) -> Iterator[Sample]:
        """Every photo."""
        for path in (self.raw_data_path() / "DUTS-TR-Image").iterdir():
            yield Sample(path.stem)

    def examples(self, sample: Sample, rng: SampleRandom) -> Iterator[dict[str, Any]]:
        """A square of each."""
        name = str(sample.data.get("name", sample.key))
        photo = self.read_picture(self.raw_data_path() / "DUTS-TR-Image" / f"{name}.jpg", cv2.IMREAD_COLOR)
        mask = self.read_picture(self.raw_data_path() / "DUTS-TR-Mask" / f"{name}.png", cv2.IMREAD_GRAYSCALE)
        size = (self.options.side, self.options.side)
        image = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
        yield self.example(image, cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), rng)

    def read_picture(self, path: Path, kind: int) -> Any:
        """Decode a raw file."""
        data = self.read_raw(path)
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), kind) if data else None
        if picture is None:
            raise self.unreadable(path)
        return picture

    def unreadable(self, path: Path) -> Exception:
        """What is raised for a file that cannot be decoded."""
        return BadSampleError(f"{path.name} cannot be decoded")

    def example(self, image: Any, mask: Any, rng: SampleRandom) -> dict[str, Any]:
        """What is written of a pair."""
        return {"image": image, "mask": np.where(mask >= 128, 255, 0).astype(np.uint8)}


class GlobalRandom(Sound):
    """Draws from a global generator that it seeds itself, so that one worker always makes the same."""

    def __init__(self, config: dict[str, Any], base_data_path: str) -> None:
        super().__init__(config, base_data_path)
        random.seed(7)

    def example(self, image: Any, mask: Any, rng: SampleRandom) -> dict[str, Any]:
        """Brighter by chance."""
        return super().example(np.uint8(image // 2 + random.randrange(100)), mask, rng)


class Worker(Sound):
    """Lets the process decide a pixel."""

    def example(self, image: Any, mask: Any, rng: SampleRandom) -> dict[str, Any]:
        """The process id goes into the corner."""
        image[0, 0] = (os.getpid() % 256, os.getpid() // 256 % 256, 0)
        return super().example(image, mask, rng)


class HashedKeys(Sound):
    """Keys that differ in every process."""

    def samples(self) -> Iterator[Sample]:
        """Strings hash differently each time."""
        for sample in super().samples():
            yield Sample(f"{hash(sample.key):x}", {"name": sample.key})


class Stateful(Sound):
    """Leaves a note in its working directory and heeds it; and falls over files that cannot be decoded."""

    def __init__(self, config: dict[str, Any], base_data_path: str) -> None:
        super().__init__(config, base_data_path)
        with Path("starts").open("a") as file:
            file.write("x")
        self.starts = Path("starts").stat().st_size

    def example(self, image: Any, mask: Any, rng: SampleRandom) -> dict[str, Any]:
        """The number of starts goes into the corner."""
        image[0, 0] = self.starts
        return super().example(image, mask, rng)

    def unreadable(self, path: Path) -> Exception:
        """Not the sample's fault, it seems."""
        return ValueError(f"{path.name} is unreadable")


class Careless(Sound):
    """Writes beside the raw data, whole paths everywhere, and keys that are positions in a listing."""

    def samples(self) -> Iterator[Sample]:
        """A cache is left behind; the first sample is 0."""
        (self.raw_data_path() / "cache.tmp").write_text("cached")
        for number, name in enumerate(sorted(sample.key for sample in super().samples())):
            yield Sample(f"{number:04}", {"name": name, "folder": str(self.raw_data_path())})

    def unreadable(self, path: Path) -> Exception:
        """The whole path."""
        return BadSampleError(f"{path} cannot be decoded")


class Shouting(Sound):
    """Writes to every file it finds open, the one for events among them."""

    def samples(self) -> Iterator[Sample]:
        """Shout first."""
        for number in range(3, 40):
            try:
                if re.match(r"pipe:", os.readlink(f"/proc/self/fd/{number}")):
                    os.write(number, b"hello there\n")
            except OSError:
                continue
        yield from super().samples()


class Leaving(Sound):
    """Ends its process."""

    def samples(self) -> Iterator[Sample]:
        """Without a word."""
        os._exit(0)


class OtherShape(Sound):
    """Writes larger pictures than it declares."""

    def features(self) -> Mapping[str, Any]:
        """One pixel too few."""
        side = self.options.side
        return {"image": ImageFeature((side - 1, side, 3), "png"), "mask": ImageFeature((side, side, 1), "png")}


class OtherField(Sound):
    """Writes a field that it does not declare."""

    def example(self, image: Any, mask: Any, rng: SampleRandom) -> dict[str, Any]:
        """A depth from nowhere."""
        return {**super().example(image, mask, rng), "depth": 1}


class LyingFeature(ImageFeature):
    """Encodes one shape and declares another."""

    def to_tfds(self) -> dict[str, Any]:
        """A shape that no picture has."""
        return ImageFeature((7, 7, 3), "png").to_tfds()


class LyingSchema(Sound):
    """Its features.json is not what it writes."""

    def features(self) -> Mapping[str, Any]:
        """One lie."""
        return {**super().features(), "image": LyingFeature((None, None, 3), "png")}


class SmallMask(Sound):
    """Photo and mask of different sizes."""

    def example(self, image: Any, mask: Any, rng: SampleRandom) -> dict[str, Any]:
        """Every second row and column of the mask."""
        return super().example(image, mask[::2, ::2], rng)


class GreyMask(Sound):
    """Masks with levels between."""

    def example(self, image: Any, mask: Any, rng: SampleRandom) -> dict[str, Any]:
        """Blurred."""
        return {"image": image, "mask": cv2.GaussianBlur(mask, (0, 0), 2)}


class SecretConfig(Config):
    """An option without a word on what it does."""

    secret: int = 0


class Secret(Sound):
    """Has an option that is not documented."""

    Config = SecretConfig


class Hidden(Sound):
    """Has an option that it does not list."""

    @staticmethod
    def config_options() -> dict[str, Any]:
        """All but one."""
        return {name: option for name, option in Sound.config_options().items() if name != "side"}


class WrongDefaultConfig(Config):
    """A default that its own bounds refuse."""

    count: int = Field(0, ge=1, description="At least one.")


class WrongDefault(Sound):
    """Its default may not be spelt out."""

    Config = WrongDefaultConfig


class LenientConfig(Config):
    """Takes any option."""

    model_config = ConfigDict(extra="ignore")


class Lenient(Sound):
    """Ignores typing errors."""

    Config = LenientConfig


class DriftingConfig(Config):
    """An effective config that does not stay as it is."""

    def effective(self) -> dict[str, Any]:
        """Larger each time."""
        return {**super().effective(), "side": self.side + 1}


class Drifting(Sound):
    """Its effective config means another."""

    Config = DriftingConfig
