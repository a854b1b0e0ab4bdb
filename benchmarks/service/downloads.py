"""Downloads of an archive over loopback, against nginx with sendfile on the same file."""

import os
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.service.place import VERSION, memory_mb, serving
from tests.support import Server

CLIENTS = (1, 8, 64)
_NGINX = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


def fetch(port: int, path: str, wanted: int) -> None:
    """One download; the bytes are counted and dropped."""
    buffer = bytearray(1 << 20)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        got = connection.recv_into(buffer)
        head = bytes(buffer[:got])
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{path}: {head[:300]!r}")
        body = got - head.index(b"\r\n\r\n") - 4
        while count := connection.recv_into(buffer):
            body += count
    if body != wanted:
        raise RuntimeError(f"{path}: {body} of {wanted} bytes came")


def rate(port: int, path: str, size: int, clients: int) -> float:
    """MB/s over all clients together, each of which downloads once."""
    with ThreadPoolExecutor(clients) as pool:
        start = time.perf_counter()
        list(pool.map(lambda _: fetch(port, path, size), range(clients)))  # raises what one of them raised
        return clients * size / 1e6 / (time.perf_counter() - start)


@contextmanager
def nginx(place: Path, root: Path) -> Iterator[int]:
    """nginx, which serves the files of ``root``; its port."""
    place.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (place / "nginx.conf").write_text(_NGINX.format(folder=place, port=port, root=root))
    user = ["-g", "user root;"] if os.geteuid() == 0 else []
    process = subprocess.Popen(["nginx", "-p", str(place), "-c", str(place / "nginx.conf"), *user])
    try:
        while process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def run(folder: Path, megabytes: int, rounds: int) -> list[dict]:
    """Rows: clients, MB/s of each, their ratio, and the server's memory."""
    if shutil.which("nginx") is None:
        raise SystemExit("nginx is not installed; on Debian: apt-get install nginx-light")
    with serving(folder) as server:
        return _measure(server, folder, megabytes, rounds)


def _measure(server: Server, folder: Path, megabytes: int, rounds: int) -> list[dict]:
    made = server.make("paced", {"count": megabytes, "bytes_each": 1_000_000, "examples_per_shard": 100}, VERSION)
    assert made["kind"] == "ready", made
    size = made["archive"]["bytes"]
    (archive,) = (server.data_dir / "archives").glob("*.zip")
    seen: dict[tuple[str, int], list[float]] = {}
    memory: dict[int, float] = {}
    with nginx(folder / "nginx", archive.parent) as port:
        paths = {
            "nginx": (port, f"/{archive.name}"),
            "ours": (int(server.url.rpartition(":")[2]), f"/api/v1/{made['archive']['url']}"),
        }
        for turn in range(rounds + 1):
            for clients in CLIENTS:
                for name, (at, path) in paths.items():
                    speed = rate(at, path, size, clients)
                    if turn:
                        seen.setdefault((name, clients), []).append(speed)
                memory[clients] = memory_mb(server.process.pid, "VmRSS")
    rows = []
    for clients in CLIENTS:
        ours, theirs = (statistics.median(seen[name, clients]) for name in ("ours", "nginx"))
        row = {
            "clients": clients,
            "ours_mb_s": round(ours),
            "nginx_mb_s": round(theirs),
            "ratio": round(ours / theirs, 2),
        }
        rows.append({**row, "server_mb": round(memory[clients])})
    return rows


def report(rows: list[dict]) -> list[str]:
    """The table."""
    lines = [
        "| clients | ours MB/s | nginx sendfile MB/s | ratio (aim: 0.9 or more) | server MB |",
        "|---|---|---|---|---|",
    ]
    return lines + [f"| {' | '.join(str(value) for value in row.values())} |" for row in rows]
