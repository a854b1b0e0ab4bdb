"""One large archive over loopback, against curl: to memory, and to a disk."""

import tempfile
from pathlib import Path

from benchmarks.service.place import serving
from benchmarks.transfer.archive import publish
from benchmarks.transfer.contenders import curl, interleaved, ours, plain
from benchmarks.transfer.nginx import nginx

MEMORY = Path("/dev/shm")
CURL = "curl"
DURABLE = {"memory": CURL, "disk": "curl, then fsync"}


def run(scratch: Path, megabytes: int, rounds: int) -> dict:
    """Rows by the file system that is written to."""
    found = {}
    with serving(scratch / "server") as server:
        published = publish(server, megabytes)
        with nginx(scratch / "nginx", published.file.parent) as url:
            for name, parent in {"memory": MEMORY, "disk": scratch}.items():
                if not parent.is_dir():
                    continue
                with tempfile.TemporaryDirectory(dir=parent) as place:
                    folder = Path(place) / "target"
                    everybody = [
                        ours("ours, from nginx", published, folder, url),
                        ours("ours, asking the dataset server", published, folder, server.url, asks=True),
                        curl(CURL, published, folder, url),
                        curl("curl, then sha256sum", published, folder, url, '&& sha256sum "$1"'),
                        plain("one requests stream", published, url, "--file", str(folder / "file")),
                    ]
                    if name == "disk":
                        everybody.insert(3, curl(DURABLE[name], published, folder, url, '&& sync "$1"'))
                    found[name] = interleaved(everybody, folder, rounds)
    return {"bytes": published.archive.bytes, "rounds": rounds, "targets": found}


def report(found: dict) -> list[str]:
    """The tables."""
    told = (
        f"An archive of {found['bytes'] / 1e6:.0f} MB; medians of {found['rounds']} interleaved rounds. Ours keeps a "
        "journal of what has arrived, verifies every byte by sha256, has it all on the disk for good (fsync), and "
        "publishes it at once; so its match on a disk is curl with fsync. Imports are not counted."
    )
    lines = [told]
    for name, rows in found["targets"].items():
        match = next(row["mb_s"] for row in rows if row["name"] == DURABLE[name])
        lines += ["", f"To {'a file system in memory' if name == 'memory' else 'a disk'}:", ""]
        lines += [f"| | MB/s | lowest–highest | CPU s per GB | / {DURABLE[name]} (aim for ours: 0.9) |"]
        lines += ["|---|---|---|---|---|"]
        for row in rows:
            rates = sorted(run["mb_s"] for run in row["runs"])
            lines.append(
                f"| {row['name']} | {row['mb_s']:.0f} | {rates[0]:.0f}–{rates[-1]:.0f} | {row['cpu_s_per_gb']:.2f} "
                f"| {row['mb_s'] / match:.2f} |"
            )
    return lines
