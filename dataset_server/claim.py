"""One server per data folder, without file locks (they lie on network file systems).

``server.claim`` names the process that serves the folder, by process id, its start time and the boot of its machine. It
appears by link, which fails if it is there; one whose process is gone is taken over.
"""

import contextlib
import json
import os
import socket
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path


class AlreadyServedError(Exception):
    """Another server works on this data folder."""


@contextlib.contextmanager
def claim(data_dir: Path) -> Iterator[None]:
    """Hold the folder while the context lasts; raises `AlreadyServedError`."""
    path = data_dir / "server.claim"
    ours = identity()
    partial = data_dir / f".server.claim.{uuid.uuid4().hex}.partial"
    partial.write_text(json.dumps(ours))
    try:
        while True:
            try:
                os.link(partial, path)
                break
            except FileExistsError:
                if holder := _living_holder(path):
                    raise AlreadyServedError(
                        f"{data_dir} is served by process {holder['pid']} on {holder['host']}; stop that first, use "
                        f"another data folder, or remove {path} if that machine no longer exists"
                    ) from None
                _take_away(path)
    finally:
        partial.unlink(missing_ok=True)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _take_away(path: Path) -> None:
    """Remove a dead claim, and put back one that somebody else made in its place meanwhile."""
    taken = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    with contextlib.suppress(FileNotFoundError):
        path.rename(taken)
        if _living_holder(taken):
            with contextlib.suppress(FileExistsError):
                os.link(taken, path)
    taken.unlink(missing_ok=True)


def identity() -> dict[str, object]:
    """What tells this process from all others, of any machine and any time."""
    return {"host": socket.gethostname(), "boot": _boot(), "pid": os.getpid(), "started": _started(os.getpid())}


def may_live(holder: Mapping[str, object]) -> bool:
    """Whether the process of that `identity` runs; true where it is another machine's, since who can tell.

    Raises `ValueError` or `KeyError` for what is no identity.
    """
    if holder["host"] != socket.gethostname():
        return True
    return holder["boot"] == _boot() and holder["started"] == _started(int(str(holder["pid"])))


def _living_holder(path: Path) -> dict[str, object] | None:
    try:
        holder: dict[str, object] = json.loads(path.read_text())
        return holder if may_live(holder) else None
    except (OSError, ValueError, KeyError):
        return None


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process started, in ticks since boot; empty if there is none, or nothing of it but its number."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if status[0] in "ZX" else status[19]
    except (OSError, IndexError):
        return ""
