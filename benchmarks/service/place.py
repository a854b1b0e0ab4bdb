"""A real server with a dataset in it, for the measurements of this package."""

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import PLUGINS, Server

VERSION = "1.0"


def make_server(folder: Path, **settings) -> Server:
    """A server of its own data folder, with the plugins of the tests; in environments of its own, too, unless
    ``BENCHMARK_ENVIRONMENTS_DIR`` says where some are.
    """
    plugins = {path.name: str(path) for path in sorted(PLUGINS.iterdir()) if (path / "pyproject.toml").is_file()}
    (folder / "raw").mkdir(parents=True, exist_ok=True)
    return Server(
        raw_root=folder / "raw",
        data_dir=folder / "data",
        environments_dir=Path(os.environ.get("BENCHMARK_ENVIRONMENTS_DIR") or folder / "environments"),
        handlers=plugins,
        settings=settings,
    )


@contextmanager
def serving(folder: Path, **settings) -> Iterator[Server]:
    """Such a server, while the context lasts."""
    server = make_server(folder, **settings).start()
    try:
        yield server
    finally:
        server.stop()


def request_bytes(path: str, body: dict, port: int) -> bytes:
    """A POST as it goes over the wire."""
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text


def cpu_seconds(pid: int) -> float:
    """CPU time a process and its ended children have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int, which: str = "VmHWM") -> float:
    """The peak (VmHWM) or present (VmRSS) resident memory of a process."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) / 1024


def allow_files(count: int) -> None:
    """Let this process, and those it starts, have so many files and sockets open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))
