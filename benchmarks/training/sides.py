"""The sides of a comparison as processes that live through it and take steps in turns."""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.measure import REPOSITORY, events
from benchmarks.training.works import WORKS, Work
from training.backend import configured_backend

#: What has TensorFlow on the CPU give the memory of tensors of 1 MiB or more back to the system, instead of keeping it.
GIVE_BACK = {"TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
#: How far the losses of the sides may be apart before the first step: further, and they are not the same model.
SAME_LOSS = 1e-3


@contextmanager
def side(command: list[str], threads: int, settings: dict[str, str]) -> Iterator[tuple[dict, Callable[[int], dict]]]:
    """What the process said when it was ready, and a function that has it take so many steps.

    ``settings`` are further variables of its environment.
    Raises `SystemExit` with what the process said if it fails.
    """
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "3", **settings}
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

    Ours is there twice on TensorFlow: as it is, and with `GIVE_BACK`. In each round each side takes ``steps`` steps,
    the first of one round is the last of the next. A ratio is the median of the rounds'. Raises `SystemExit` where the
    sides do not begin with the same loss and as many weights.
    """
    work: Work = WORKS[number]
    given = [str(number), *(("--size", str(size)) if size else ())]
    own = [sys.executable, "-W", "ignore", "-m", "benchmarks.training.keras_side", *given, "--jit", jit]
    commands: dict[str, tuple[list[str], dict[str, str]]] = {"keras": (own, {})}
    if configured_backend() == "tensorflow":
        commands["giving back"] = (own, GIVE_BACK)
    if torch:
        commands["torch"] = ([torch, "-W", "ignore", "-m", "benchmarks.training.torch_side", *given], {})
    row: dict = {"model": str(work), "size": size or work.size, "batch": work.batch, "sides": {}}
    with ExitStack() as stack:
        # One after the other: where several build at once, each takes the others' time.
        sides = {
            name: stack.enter_context(side(command, threads, settings))
            for name, (command, settings) in commands.items()
        }
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
        its = row["sides"]["torch"]
        for name in sides.keys() - {"torch"}:
            ours = row["sides"][name]
            ours["ratio"] = _ratio(ours["runs"], its["runs"])
            ours["cpu_ratio"] = ours["cpu"] / its["cpu"]
            ours["memory_ratio"] = (ours["peak_mb"] - ours["imported_mb"]) / (its["peak_mb"] - its["imported_mb"])
    return row


def _ratio(ours: list[list[float]], its: list[list[float]]) -> float:
    """Of the seconds of steps in each round: the median of the rounds' ratios."""
    return statistics.median(statistics.median(a) / statistics.median(b) for a, b in zip(ours, its, strict=True))


def _require_same(work: str, ready: dict[str, dict]) -> None:
    """All sides must have the same model."""
    losses = {name: said["loss"] for name, said in ready.items()}
    weights = {name: said["weights"] for name, said in ready.items()}
    if max(losses.values()) - min(losses.values()) > SAME_LOSS or len(set(weights.values())) > 1:
        raise SystemExit(f"{work} is not the same on all sides: losses {losses}, weights {weights}")
