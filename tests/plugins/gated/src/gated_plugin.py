"""A handler that makes some examples and then waits at a gate: for tests of what happens in the middle of a build."""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from dataset_handlers import HandlerConfig, ImageFeature, Sample, SampleHandler, SampleRandom, TensorFeature


class Config(HandlerConfig):
    """Where the gate is, and how many pass while it is closed."""

    gate: str = Field("", description="A folder below the raw root: 'open', 'fail' and 'other' in it tell what to do.")
    free: int = Field(4, ge=0, description="Examples that are made while the gate is closed.")
    count: int = Field(12, ge=0, le=10_000, description="Samples.")
    side: int = Field(8, ge=1, le=2048, description="Side of a photo, in pixels of noise.")


class Handler(SampleHandler):
    """Photos of noise with masks."""

    Config = Config

    def raw_data_path(self) -> Path:
        """The raw root itself."""
        return Path(self.base_data_path)

    def features(self) -> Mapping[str, Any]:
        """A photo, its mask and its number."""
        side = self.options.side
        return {
            "image": ImageFeature((side, side, 3), "png"),
            "mask": ImageFeature((side, side, 1), "png"),
            "number": TensorFeature(),
        }

    def samples(self) -> Iterator[Sample]:
        """The numbers."""
        for number in range(self.options.count):
            yield Sample(f"{number:05}", {"number": number})

    def examples(self, sample: Sample, rng: SampleRandom) -> Iterator[dict[str, Any]]:
        """One photo, once it may pass."""
        gate = Path(self.base_data_path, self.options.gate)
        if not self._is_free():
            while gate.exists() and not (gate / "open").exists():  # who takes the gate away opens it
                time.sleep(0.02)
            if (gate / "fail").exists():
                print("what the handler said last")
                raise KeyError("the handler's own mistake")
        draw = rng.variation(0)
        side, other = self.options.side, np.uint8((gate / "other").exists())
        yield {
            "image": draw.integers(0, 255, (side, side, 3)).astype(np.uint8) + other,
            "mask": draw.integers(0, 2, (side, side, 1)).astype(np.uint8) * np.uint8(255),
            "number": sample.data["number"],
        }

    def _is_free(self) -> bool:
        """Take one of the free passes, if there is one left in the build's folder."""
        for number in range(self.options.free):
            try:
                os.close(os.open(f"pass-{number}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            return True
        return False
