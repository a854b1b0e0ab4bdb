"""A handler that takes as long as it is told, and makes as many bytes: for proofs that interrupt it."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from dataset_handlers import HandlerConfig, Sample, SampleHandler, SampleRandom, TensorFeature


class Config(HandlerConfig):
    """How much, how slowly."""

    count: int = Field(24, ge=0, le=100_000, description="Samples.")
    bytes_each: int = Field(1000, ge=1, le=1 << 26, description="Bytes of noise in an example.")
    planning: float = Field(0.0, ge=0, le=60, description="Seconds that planning takes.")
    each: float = Field(0.0, ge=0, le=60, description="Seconds that a sample takes.")


class Handler(SampleHandler):
    """Noise."""

    Config = Config

    def raw_data_path(self) -> Path:
        """The raw root itself."""
        return Path(self.base_data_path)

    def features(self) -> Mapping[str, Any]:
        """Bytes and their number."""
        return {"noise": TensorFeature((self.options.bytes_each,), "uint8"), "number": TensorFeature()}

    def samples(self) -> Iterator[Sample]:
        """The numbers."""
        time.sleep(self.options.planning)
        for number in range(self.options.count):
            yield Sample(f"{number:05}", {"number": number})

    def examples(self, sample: Sample, rng: SampleRandom) -> Iterator[dict[str, Any]]:
        """One example of noise."""
        time.sleep(self.options.each)
        noise = np.frombuffer(rng.variation(0).bytes(self.options.bytes_each), np.uint8)
        yield {"noise": noise, "number": sample.data["number"]}
