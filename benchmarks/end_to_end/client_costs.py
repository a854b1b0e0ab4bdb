"""What the client costs before it does anything: seconds to import it, megabytes to install it."""

import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

from uv import find_uv_bin

from benchmarks.measure import REPOSITORY

PHOTOS = 0
_RUNS = 15
_TIMED = "import time; began = time.perf_counter(); import dataset_client; print(time.perf_counter() - began)"


def run(folder: Path, _raw: None, rounds: int) -> dict:
    """Import times of new processes, what takes longest in them, and the sizes of what is installed."""
    imports, processes, empty = [], [], []
    bytecode = folder / "bytecode"
    for _ in range(_RUNS * rounds // 3 + 1):
        imports.append(float(_python(bytecode, "-c", _TIMED).stdout))
        for code, times in (("import dataset_client", processes), ("pass", empty)):
            times.append(float(_python(bytecode, "-c", _CHILD, code).stdout))
    return {
        "imports": imports[1:],  # the first has compiled the bytecode
        "processes": processes[1:],
        "empty": empty[1:],
        "slowest": _slowest(bytecode),
        "installed": _installed(folder),
    }


_CHILD = """
import subprocess, sys, time
began = time.perf_counter()
subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
print(time.perf_counter() - began)
"""


def _python(bytecode: Path, *arguments: str) -> subprocess.CompletedProcess:
    """A run that keeps bytecode in a folder, whether or not its environment lets Python keep any beside the sources."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(bytecode)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY, env=environment)


def _slowest(bytecode: Path) -> dict[str, float]:
    """Milliseconds of the packages whose modules take longest by themselves, in sum."""
    own: dict[str, float] = {}
    for line in _python(bytecode, "-X", "importtime", "-c", "import dataset_client").stderr.splitlines():
        if match := re.fullmatch(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", line):
            package = match[2].partition(".")[0]
            own[package] = own.get(package, 0) + int(match[1]) / 1000
    return dict(sorted(own.items(), key=lambda item: -item[1])[:8])


def _installed(folder: Path) -> dict:
    """Megabytes of a base install from a wheel, without and with compiled bytecode, and those of its largest parts."""
    uv, source = find_uv_bin(), folder / "source"
    source.mkdir()
    tree = subprocess.run(["git", "archive", "HEAD"], cwd=REPOSITORY, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(source)], input=tree, check=True)
    build = [uv, "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable]
    subprocess.run([*build, "--out-dir", str(folder), str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    sizes = {}
    for name, more in (("bare", []), ("compiled", ["--compile-bytecode"])):
        target = folder / name
        install = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", str(target), *more]
        subprocess.run([*install, str(wheel)], check=True)
        sizes[name] = _megabytes(target)
    parts = {path.name: _megabytes(path) for path in (folder / "bare").iterdir() if path.is_dir()}
    sizes["largest"] = dict(sorted(parts.items(), key=lambda item: -item[1])[:6])
    return sizes


def _megabytes(folder: Path) -> float:
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 2)


def report(found: dict) -> list[str]:
    """Both tables."""
    rows = {
        "`import dataset_client`, within a process": found["imports"],
        "a process that imports it": found["processes"],
        "a process that does nothing": found["empty"],
    }
    lines = ["| | seconds, median | lowest | highest |", "|---|---|---|---|"]
    for name, times in rows.items():
        lines.append(f"| {name} | {statistics.median(times):.3f} | {min(times):.3f} | {max(times):.3f} |")

    def listed(parts: dict[str, float], unit: str) -> str:
        return ", ".join(f"{name} {value:.1f} {unit}" for name, value in parts.items())

    size = found["installed"]
    told = (
        f"A base install of the wheel into an empty folder has **{size['bare']:.1f} MB** (aim: less than 25), and with "
        f"compiled bytecode {size['compiled']:.1f} MB. The largest parts: {listed(size['largest'], 'MB')}."
    )
    return [
        *lines,
        "",
        f"Aim: less than 0.25 s. By package (`-X importtime`, which is slower): {listed(found['slowest'], 'ms')}.",
        "",
        told,
    ]
