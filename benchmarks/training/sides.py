"""The two sides of a comparison as processes that live through it and take steps in turns."""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.measure import REPOSITORY, events
from benchmarks.training.works import WORKS, Work

#: How far the losses of the two sides may be apart before the first step: further, and they are not the same model.
SAME_LOSS = 1e-3


@contextmanager
def side(command: list[str], threads: int) -> Iterator[tuple[dict, Callable[[int], dict]]]:
    """What the process said when it was ready, and a function that has it take so many steps.

    Raises `SystemExit` with what the process said if it fails.
    """
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            ["taskset", "-c", cores, *command, "--threads", str(threads)],
            cwd=REPOSITORY,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
        ) as process,
    ):

        def answer(kind: str) -> dict:
            for line in process.stdout:
                for event in events(line, kind):
                    return event
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} ended\n{said.read()[-3000:]}")

        def steps(count: int) -> dict:
            process.stdin.write(f"{count}\n")
            process.stdin.flush()
            return answer("stepped")

        try:
            yield answer("ready"), steps
        finally:
            process.kill()


def compare(
    number: int, torch: str | None, *, size: int | None, rounds: int, steps: int, threads: int, jit: str
) -> dict:
    """One row: seconds and CPU seconds of a step, peak memory, of each side, and the ratios of ours to PyTorch's.

    In each round each side takes ``steps`` steps, ours first in every other one. A ratio is the median of the rounds'.
    Raises `SystemExit` where the sides do not begin with the same loss and as many weights.
    """
    work: Work = WORKS[number]
    given = [str(number), *(("--size", str(size)) if size else ())]
    commands = {"keras": [sys.executable, "-W", "ignore", "-m", "benchmarks.training.keras_side", *given, "--jit", jit]}
    if torch:
        commands["torch"] = [torch, "-W", "ignore", "-m", "benchmarks.training.torch_side", *given]
    row: dict = {"model": str(work), "size": size or work.size, "batch": work.batch, "sides": {}}
    with ExitStack() as stack:
        # One after the other: where two build at once, each takes the other's time.
        sides = {name: stack.enter_context(side(command, threads)) for name, command in commands.items()}
        _require_same(str(work), {name: ready for name, (ready, _) in sides.items()})
        runs: dict[str, list[dict]] = {name: [] for name in sides}
        for turn in range(rounds):
            for name in list(sides)[:: 1 if turn % 2 == 0 else -1]:
                runs[name].append(sides[name][1](steps))
    for name, (ready, _) in sides.items():
        row["weights"] = ready["weights"]
        row["sides"][name] = {
            "seconds": statistics.median(second for run in runs[name] for second in run["seconds"]),
            "cpu": statistics.median(run["cpu"] for run in runs[name]),
            "peak_mb": runs[name][-1]["peak_mb"],
            "imported_mb": ready["imported_mb"],
            "first_seconds": ready["first_seconds"],
            "runs": [run["seconds"] for run in runs[name]],
        }
    if torch:
        both = zip(runs["keras"], runs["torch"], strict=True)
        row["ratio"] = statistics.median(
            statistics.median(ours["seconds"]) / statistics.median(its["seconds"]) for ours, its in both
        )
        ours, its = row["sides"]["keras"], row["sides"]["torch"]
        row["cpu_ratio"] = ours["cpu"] / its["cpu"]
        row["memory_ratio"] = (ours["peak_mb"] - ours["imported_mb"]) / (its["peak_mb"] - its["imported_mb"])
    return row


def _require_same(work: str, ready: dict[str, dict]) -> None:
    """Both sides must have the same model."""
    losses = {name: said["loss"] for name, said in ready.items()}
    weights = {name: said["weights"] for name, said in ready.items()}
    if max(losses.values()) - min(losses.values()) > SAME_LOSS or len(set(weights.values())) > 1:
        raise SystemExit(f"{work} is not the same on both sides: losses {losses}, weights {weights}")
