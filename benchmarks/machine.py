"""What a result was measured on."""

import json
import os
import platform
import subprocess
from pathlib import Path

OURS = ("numpy", "opencv-python-headless", "simplejpeg", "turbojpeg", "pycocotools", "google-crc32c")
PEERS = (
    *("webdataset", "mosaicml-streaming", "litdata", "datasets", "tensorflow-datasets", "tensorflow-cpu", "torch"),
    *("albumentations", "numpy", "opencv-python-headless", "simplejpeg", "pycocotools", "pillow"),
)
_VERSIONS = """\
import importlib.metadata, json, platform, sys
found = {"Python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def versions(python: str, names: tuple[str, ...]) -> dict[str, str]:
    """Versions of packages in the environment of an interpreter."""
    return json.loads(subprocess.run([python, "-c", _VERSIONS, *names], check=True, capture_output=True).stdout)


def _first(path: str, start: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(start)), "")


def describe(python: str, peers: str | None) -> dict:
    """Processor, cores, memory, system and package versions."""
    return {
        "processor": _first("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "mhz": _first("/proc/cpuinfo", "cpu MHz"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(int(_first("/proc/meminfo", "MemTotal").split()[0]) / 1e6),
        "system": f"{platform.system()} {platform.release()}",
        "ours": versions(python, OURS),
        "peers": versions(peers, PEERS) if peers else {},
    }


def sentence(machine: dict) -> str:
    """The machine in Markdown."""

    def listed(packages: dict[str, str]) -> str:
        return ", ".join(f"{name} {version}" for name, version in packages.items())

    mhz = machine["mhz"].split(".")[0]
    lines = [
        f"{machine['processor']}, {mhz} MHz, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}.",
        f"Ours and the limit: {listed(machine['ours'])}.",
    ]
    if machine["peers"]:
        lines.append(f"The peers: {listed(machine['peers'])}.")
    return "\n".join(lines)
