"""A handler that fails in the way its config says."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from dataset_handlers import BadSampleError, HandlerConfig, Sample, SampleHandler, SampleRandom, TensorFeature


class Config(HandlerConfig):
    """What goes wrong, and where."""

    fault: Literal[
        "none",
        "raise",
        "exit",
        "segfault",
        "killed",
        "hang",
        "fork",
        "escape",
        "orphan",
        "loud",
        "wrong_shape",
        "bad",
        "slow",
        "allocate",
    ] = "none"
    where: Literal["samples", "examples"] = "examples"
    count: int = Field(40, ge=0, description="Samples.")
    times: int = Field(0, ge=0, description="How often it goes wrong in one build's folder; 0 is always.")


class Handler(SampleHandler):
    """Does as it is told."""

    Config = Config

    def raw_data_path(self) -> Path:
        """The raw root itself."""
        return Path(self.base_data_path)

    def features(self) -> Mapping[str, Any]:
        """A number."""
        return {"number": TensorFeature()}

    def samples(self) -> Iterator[Sample]:
        """The numbers."""
        if self.where == "samples":
            self._fail()
        for number in range(self.count):
            yield Sample(f"{number:05}", {"number": number})

    def examples(self, sample: Sample, rng: SampleRandom) -> Iterator[dict[str, Any]]:
        """One number."""
        if self.where == "examples" and sample.data["number"] % 7 == 3:
            self._fail()
        if self.fault == "slow":
            time.sleep(0.1)
        yield {"number": [1, 2] if self.fault == "wrong_shape" else sample.data["number"]}

    def _fail(self) -> None:
        if self.times:
            with Path("faults").open("a") as file:
                if file.tell() >= self.times:
                    return
                file.write("x")
        if self.fault == "raise":
            raise KeyError("the handler's own mistake")
        if self.fault == "exit":
            sys.exit(3)
        if self.fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.fault == "hang":
            time.sleep(3600)
        if self.fault == "fork":
            child = os.fork()
            if child == 0:
                time.sleep(3600)
            raise KeyError(f"left child {child} behind")
        if self.fault == "escape":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True).pid
            raise KeyError(f"left child {child} behind, elsewhere")
        if self.fault == "orphan":
            if os.fork() == 0:
                time.sleep(3600)
            os._exit(3)
        if self.fault == "loud":
            for _ in range(20_000):
                print("x" * 200, file=sys.stderr)
        if self.fault == "allocate":
            kept = [b"x" * (1 << 20) for _ in range(1024)]
            time.sleep(2)  # long enough to be seen
            del kept
        if self.fault == "bad":
            raise BadSampleError("this one is bad by design")
