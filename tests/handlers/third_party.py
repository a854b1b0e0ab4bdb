"""Handlers as a third party might write them; installed into an interpreter of their own by `plugin_python`."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dataset_handlers import (
    BadSampleError,
    DatasetHandler,
    HandlerConfig,
    Sample,
    SampleHandler,
    SampleRandom,
    TensorFeature,
)
from dataset_handlers.example_proto import encode_example
from dataset_handlers.tfrecord import frame


def numbers() -> list[int]:
    """No handler class."""
    return []


class Config(HandlerConfig):
    """How many numbers, and which is special."""

    count: int = 32
    special: int = 5
    pause: float = 0.0


class Number(SampleHandler):
    """Writes numbers."""

    Config = Config

    def raw_data_path(self) -> Path:
        """The raw root itself."""
        return Path(self.base_data_path)

    def features(self) -> Mapping[str, Any]:
        """A number, what its randomness gives, and some floats."""
        return {"number": TensorFeature(), "draw": TensorFeature(), "row": TensorFeature((3,), "float32")}

    def samples(self) -> Iterator[Sample]:
        """As many as asked for."""
        for number in range(self.count):
            yield Sample(f"{number:04}", {"number": number})

    def examples(self, sample: Sample, rng: SampleRandom) -> Iterator[dict[str, Any]]:
        """One for each variation."""
        number = sample.data["number"]
        self.prepare(number)
        for variation in range(self.variations_per_sample):
            draw = int(rng.variation(variation).integers(1 << 40))
            yield {"number": number, "draw": draw, "row": [number, 0.5, -1.0]}

    def prepare(self, number: int) -> None:
        """Subclasses misbehave here."""


class Loud(Number):
    """Prints wherever it can."""

    def samples(self) -> Iterator[Sample]:
        """Print, and flush."""
        print('{"event": "error", "code": "from_samples"}', flush=True)
        yield from super().samples()

    def prepare(self, number: int) -> None:
        """Print in three ways."""
        print('{"event": "shard", "number": 99}')
        os.write(1, b"straight to the descriptor\n")
        os.system("echo from a child")


class Slow(Number):
    """Takes its time."""

    def prepare(self, number: int) -> None:
        """Wait."""
        time.sleep(self.pause)


class Deadly(Number):
    """Its worker is killed at the special number."""

    def prepare(self, number: int) -> None:
        """Die as of the kernel's out-of-memory killer."""
        if number == self.special:
            os.kill(os.getpid(), signal.SIGKILL)


class Rotten(Number):
    """Numbers from the special one on cannot be used."""

    def prepare(self, number: int) -> None:
        """Refuse."""
        if number >= self.special:
            raise BadSampleError(f"{number} is rotten")


class Full(Number):
    """There is no space left at the special number."""

    def prepare(self, number: int) -> None:
        """Write where nothing can be written to."""
        if number == self.special:
            Path("/dev/full").write_bytes(b"a byte")


class Whole(DatasetHandler):
    """The whole contract, without `SampleHandler`."""

    @staticmethod
    def config_options() -> dict[str, Any]:
        """What goes wrong."""
        return {
            "fault": {"type": "string", "default": "none", "doc": "What goes wrong."},
            "count": {"type": "integer", "doc": "Numbers in each shard; required."},
            "batch_size": {"type": "integer", "default": 1, "doc": "For readers.", "reader_only": True},
        }

    def raw_data_path(self) -> Path:
        """The raw root itself."""
        return Path(self.base_data_path)

    def as_tfrecord(self) -> list[str]:
        """Two shards for training, one for testing."""
        print("a full-contract handler prints too", flush=True)
        if self.fault == "raise":
            raise ValueError("its own mistake")
        if self.fault == "full":
            Path("/dev/full").write_bytes(b"a byte")
        if self.fault == "exit":
            sys.exit(0)
        if self.fault == "nothing":
            return []
        names = ["a-train.tfrecord", "b-train.tfrecord", "c-test.tfrecord"]
        for name in names:
            records = [frame(encode_example({"number": [n], "name": [str(n).encode()]})) for n in range(self.count)]
            data = b"".join(records)
            if self.fault == "damaged" and name.startswith("b"):
                data = data[:-7] + bytes((data[-7] ^ 1,)) + data[-6:]
            if self.fault == "truncated" and name.startswith("b"):
                data = data[:-1]
            if self.fault == "no example" and name.startswith("b"):
                data = frame(b"these bytes are no Example")
            Path(name).write_bytes(data)
        return [*names, "d-test.tfrecord"] if self.fault == "missing" else names

    def tf_records_mapper(self, files: list[str]) -> Any:
        """Open the shards with TensorFlow."""
        import tensorflow as tf

        return tf.data.TFRecordDataset(files)
