"""The readers that are compared, as processes that live through a benchmark and read an epoch when told to."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import REPOSITORY, events

PEERS = {"tfdata": "tf.data", "webdataset": "WebDataset", "litdata": "LitData", "mosaicml": "MosaicML Streaming"}
#: What a reader gives, on how many cores. Arrays come from one process, as no peer gives them from several.
GROUPS = (("numpy", 1), ("torch", 1), ("torch", 2), ("tf", 1), ("tf", 2))


@dataclass(frozen=True)
class Contender:
    """One reader: its name, what it gives, how it decodes, on how many cores, and its command."""

    name: str
    form: str
    flavour: str
    cores: int
    command: tuple[str, ...]


def contenders(
    form: str, cores: int, dataset: Path, packed: Path, peers: str | None, torch: str | None
) -> list[Contender]:
    """Ours first, in as many ways as it has, then each peer with its usual decoder and with the fast, exact one."""
    workers = ("--workers", str(0 if cores == 1 else cores))
    python = torch if form == "torch" else sys.executable
    ways = {"processes": "torch", "threads": "threads"} if (form, cores) == ("torch", 2) else {"ours": form}
    own = ("-W", "ignore", "-m", "benchmarks.reading.ours")
    found = [
        Contender("ours", form, flavour, cores, (python, *own, way, str(dataset), *workers))
        for flavour, way in (ways.items() if python else ())
    ]
    for peer, name in PEERS.items() if peers else ():
        if (peer == "tfdata") != (form == "tf"):
            continue
        command = (peers, "-W", "ignore", "-m", "benchmarks.reading.peers", peer, "read", str(packed / peer), *workers)
        form_option = () if form == "tf" else ("--form", form)
        found += [
            Contender(name, form, flavour, cores, (*command, "--flavour", flavour, *form_option))
            for flavour in ("usual", "tight")
        ]
    return found


@contextmanager
def reader(contender: Contender, expected: int) -> Iterator[Callable[[], dict[str, float]]]:
    """The process of a contender, which has read one epoch to warm up; call what this gives to have one more read.

    A call gives photos/s, and milliseconds of CPU per photo, those of worker processes included. Raises `SystemExit`
    with what the process said if it fails, or if it reads another number of examples than ``expected``.
    """
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[: contender.cores]))
    command = ["taskset", "-c", cores, *contender.command]
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            command, cwd=REPOSITORY, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said
        ) as process,
    ):

        def answer() -> dict[str, float]:
            for line in process.stdout:
                for read in events(line, "read"):
                    if read["examples"] != expected:
                        raise SystemExit(f"{contender} read {read['examples']} of {expected} examples")
                    return {"rate": expected / read["seconds"], "cpu_ms": read["cpu"] / expected * 1000}
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} ended\n{said.read()[-3000:]}")

        def epoch() -> dict[str, float]:
            process.stdin.write("\n")
            process.stdin.flush()
            return answer()

        answer()
        yield epoch
