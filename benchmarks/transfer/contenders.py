"""Who fetches an archive, one run of them, and rounds of all."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import REPOSITORY, events
from benchmarks.transfer.archive import Published

_PYTHON = [sys.executable, "-m"]


@dataclass(frozen=True)
class Contender:
    """A ``command`` that writes to an empty folder; ``size(output)`` sees what it did there, and returns how many bytes
    came.
    """

    name: str
    command: list[str]
    size: Callable[[str], int]


def ours(name: str, published: Published, folder: Path, url: str, *, asks: bool = False) -> Contender:
    """Our client, from a server of files at ``url``, or from the dataset server there if it ``asks`` that."""
    source = ["--request", published.request, "--server", url] if asks else ["--archive", published.told(url)]

    def size(output: str) -> int:
        published.check(Path(next(events(output, "done"))["path"]))
        return published.archive.bytes

    return Contender(name, [*_PYTHON, "benchmarks.transfer.ours", str(folder / "cache"), *source], size)


def curl(name: str, published: Published, folder: Path, url: str, then: str = "") -> Contender:
    """curl, and a command that comes after it, with the file as $1."""
    file = folder / published.file.name
    script = f'curl --silent --show-error --fail --output "$1" "$2" {then}'

    def size(_output: str) -> int:
        if file.stat().st_size != published.archive.bytes:
            raise SystemExit(f"curl fetched {file.stat().st_size} bytes")
        return published.archive.bytes

    return Contender(name, ["sh", "-c", script, "sh", str(file), f"{url}/{file.name}"], size)


def plain(name: str, published: Published, url: str, *options: str) -> Contender:
    """`benchmarks.transfer.plain`."""
    command = [*_PYTHON, "benchmarks.transfer.plain", f"{url}/{published.file.name}", *options]
    return Contender(name, command, lambda output: int(next(events(output, "done"))["bytes"]))


def once(contender: Contender, folder: Path, where: Sequence[str] = ()) -> dict[str, float]:
    """Seconds, bytes and their quotients of one run in an emptied ``folder``, whose command begins with ``where``; of
    a run that says so, from its event ``clock`` to ``done``.

    `benchmarks.measure` would wait for the servers, too.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    output = folder.with_name("output")
    started = time.monotonic()
    with output.open("wb") as out:
        process = subprocess.Popen([*where, *contender.command], cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
    ended, process.returncode = time.monotonic(), os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{contender.name} exited with {process.returncode}")
    told = output.read_text()
    first = next(events(told, "clock"), {"monotonic": started, "cpu": 0.0})
    last = next(events(told, "done"), {"monotonic": ended, "cpu": usage.ru_utime + usage.ru_stime})
    seconds, cpu = last["monotonic"] - first["monotonic"], last["cpu"] - first["cpu"]
    size = contender.size(told)
    return {"seconds": seconds, "bytes": size, "mb_s": size / 1e6 / seconds, "cpu_s_per_gb": cpu / size * 1e9}


def interleaved(
    everybody: Sequence[Contender], folder: Path, rounds: int, where: Sequence[str] = ()
) -> list[dict[str, object]]:
    """Rows, one for each contender: MB/s and CPU seconds per GB, medians of ``rounds``, and the runs. Commands begin
    with ``where``.
    """
    runs: list[list[dict[str, float]]] = [[] for _ in everybody]
    for number in range(rounds):
        for contender, seen in zip(everybody, runs, strict=True):
            seen.append(once(contender, folder, where))
            print(f"round {number + 1}: {contender.name}: {json.dumps(seen[-1])}", file=sys.stderr)
    shutil.rmtree(folder)
    return [
        {
            "name": contender.name,
            "mb_s": statistics.median(run["mb_s"] for run in seen),
            "cpu_s_per_gb": statistics.median(run["cpu_s_per_gb"] for run in seen),
            "runs": seen,
        }
        for contender, seen in zip(everybody, runs, strict=True)
    ]
