"""A client that ends itself by SIGKILL in the middle of something.

    python -m tests.proofs.killed URL CACHE NAME VERSION CONFIG [PHASE STEP]

It asks for a dataset, and verifies it. Its steps are the calls that its threads make of functions, Python's and C's, so
that whatever it does lies between two of them; of a download they are bytes of files that have arrived, in thousandths.
It is killed at step STEP of a PHASE, and says so before on stderr; if that never comes, or without a phase, it runs to
its end, and prints how many steps each phase had, where the dataset is, and a digest of all its files; or the error
that it ended with.
"""

import asyncio
import hashlib
import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

import dataset_client.notifications
import dataset_client.polling  # noqa: F401 - whatever a call would import is no step of it
from dataset_client import Dataset, DatasetClientError
from dataset_client.backoff import RetryPolicy
from dataset_client.online import obtain
from dataset_client.progress import SilentReporter
from dataset_client.request import make_request
from dataset_client.settings import Settings
from dataset_client.transfer import Pace

#: Small, so that little is in flight, and much lies between two kills.
PACE = Pace(tail=2048, piece=16384, block=4096, connections=3, begin=3)
#: The functions whose first call begins a phase.
BEGINS = {
    "obtain": "asking",
    "follow": "waiting",
    "fetch": "claiming",
    "_contents": "reading the end",
    "_fill": "downloading",
    "_install": "installing",
    "remember": "noting",
}
#: The phases in their order; files are verified while others are downloaded.
PHASES = (*list(BEGINS.values())[:5], "verifying", *list(BEGINS.values())[5:])
_OURS = os.sep + "dataset_client" + os.sep


class Steps:
    """Counts the steps of each phase, and kills at one of them."""

    def __init__(self, phase: str, step: int) -> None:
        self.counts = Counter[str]()
        self._at = phase, step
        self._phase = ""

    def profile(self, frame: FrameType, event: str, argument: object) -> None:
        """What `threading.setprofile` calls at each step."""
        if event not in ("call", "c_call"):
            return
        code = frame.f_code
        if event == "call" and code.co_name in BEGINS and _OURS in code.co_filename:
            begun = BEGINS[code.co_name]
            if not self._phase or PHASES.index(begun) > PHASES.index(self._phase):
                self._phase = begun
        phase = self._phase
        if phase == "downloading":
            if not _is_within(frame, "verify"):
                return
            phase = "verifying"
        what = code.co_qualname if event == "call" else getattr(argument, "__qualname__", "?")
        self.take(phase, what)

    def arrived(self, thousandths: int) -> None:
        """So much of a download is here."""
        if self._at[0] == "downloading" and thousandths >= self._at[1]:
            self._kill("downloading", f"{thousandths / 10} % are here")

    def take(self, phase: str, what: str) -> None:
        """A step."""
        self.counts[phase] += 1
        if (phase, self.counts[phase]) == self._at:
            self._kill(phase, what)

    def _kill(self, phase: str, what: str) -> None:
        os.write(2, f"killed while {phase}, at {what}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


def _is_within(frame: FrameType | None, name: str) -> bool:
    for _ in range(4):
        if frame is None:
            return False
        if frame.f_code.co_name == name and _OURS in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


class Reporter(SilentReporter):
    """Tells `Steps` what has arrived."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._total = 1

    def download_starts(self, name: str, *, total: int, done: int) -> None:
        """Nothing has arrived."""
        self._total = total

    def downloaded(self, size: int) -> None:
        """So much has."""
        self._steps.arrived(1000 * size // self._total)


def digest_of(files: Mapping[str, bytes]) -> str:
    """One sha256 for the contents of all files, by their names."""
    each = [(name, hashlib.sha256(files[name]).hexdigest()) for name in sorted(files)]
    return hashlib.sha256(repr(each).encode()).hexdigest()


def main(url: str, cache: str, name: str, version: str, config: str, phase: str = "", step: str = "0") -> None:
    """Run it."""
    request = make_request(name, version, json.loads(config))
    retry = RetryPolicy(first_delay_s=0.05, max_delay_s=1.0, first_contact_s=20.0)
    settings = Settings(server_url=url, cache_dir=Path(cache), retry=retry, read_timeout_s=2.0)
    steps = Steps(phase, int(step))
    threading.setprofile(steps.profile)
    sys.setprofile(steps.profile)
    try:
        cached = asyncio.run(obtain(request, settings, Reporter(steps), PACE))
    except DatasetClientError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
        return
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    Dataset(cached.path, cached.manifest, {}).verify()
    digest = digest_of({path.name: path.read_bytes() for path in cached.path.iterdir()})
    print(json.dumps({"steps": steps.counts, "path": str(cached.path), "digest": digest}))


if __name__ == "__main__":
    main(*sys.argv[1:])
