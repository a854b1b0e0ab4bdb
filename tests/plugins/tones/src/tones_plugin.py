"""A well-behaved handler without raw files: grey squares whose level the version decides."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from dataset_handlers import HandlerConfig, ImageFeature, Sample, SampleHandler, SampleRandom, TensorFeature

LEVEL = 10


class Config(HandlerConfig):
    """How many squares."""

    count: int = Field(24, ge=0, le=10_000, description="Squares to make.")
    brighter: float = Field(0.0, ge=0, le=100, description="Added to the level.")


class Handler(SampleHandler):
    """Squares of one grey."""

    Config = Config

    def raw_data_path(self) -> Path:
        """No raw data of its own: the raw root itself."""
        return Path(self.base_data_path)

    def features(self) -> Mapping[str, Any]:
        """A square and its number."""
        return {"image": ImageFeature((8, 8, 3), "png"), "number": TensorFeature()}

    def samples(self) -> Iterator[Sample]:
        """The numbers."""
        print("this line goes to the log, not between the events")
        for number in range(self.count):
            yield Sample(f"{number:05}", {"number": number})

    def examples(self, sample: Sample, rng: SampleRandom) -> Iterator[dict[str, Any]]:
        """One square."""
        noise = int(rng.variation(0).integers(3))
        level = np.uint8(LEVEL + self.brighter + noise)
        yield {"image": np.full((8, 8, 3), level), "number": sample.data["number"]}
