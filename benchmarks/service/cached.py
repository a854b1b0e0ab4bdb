"""A cached request (POST → ready) against a bare view with one SQLite read."""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.service.place import VERSION, cpu_seconds, request_bytes, serving
from tests.support import Server

CONFIG = {"count": 24, "seed": 1}
CONNECTIONS = (1, 16)
BARE, FAST, OURS = "bare view, aiosqlite", "bare view, sqlite3 on the loop", "cached request"


def _load(port: int, connections: int, seconds: float, request: bytes) -> dict:
    command = ["taskset", "-c", "1", sys.executable, "-m", "benchmarks.service.load"]
    run = subprocess.run(
        [*command, str(port), str(connections), str(seconds)], input=request, capture_output=True, check=True
    )
    return json.loads(run.stdout)


def run(folder: Path, rounds: int, seconds: float) -> list[dict]:
    """Rows: who, connections, requests/s, latencies, CPU of the server for a request; medians of interleaved rounds."""
    with serving(folder) as server:
        return _measure(server, rounds, seconds)


def _measure(server: Server, rounds: int, seconds: float) -> list[dict]:
    made = server.make("tones", CONFIG, VERSION)
    assert made["kind"] == "ready", made
    with _bare(server, "aiosqlite") as bare, _bare(server, "sqlite3") as fast:
        seen = _compare(server, bare, fast, rounds, seconds)
    fields = ("per_second", "p50", "p95", "p99", "cpu_ms")
    return [
        {"who": name, "connections": connections}
        | {field: round(statistics.median(each[field] for each in runs), 3) for field in fields}
        for (name, connections), runs in seen.items()
    ]


@contextmanager
def _bare(server: Server, library: str) -> Iterator[tuple[int, int]]:
    """A bare view on the server's database; its process and port."""
    command = [sys.executable, "-m", "benchmarks.service.bare", str(server.data_dir / "server.db"), library]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.pid, int(process.stdout.readline().split(":")[-1].split("/")[0].split()[0])
        finally:
            process.terminate()


def _compare(
    server: Server, bare: tuple[int, int], fast: tuple[int, int], rounds: int, seconds: float
) -> dict[tuple[str, int], list[dict]]:
    port = int(server.url.rpartition(":")[2])
    body = {"dataset_name": "tones", "handler_version": VERSION, "dataset_config": CONFIG}
    contenders = {
        BARE: (*bare, request_bytes("/", body, bare[1])),
        FAST: (*fast, request_bytes("/", body, fast[1])),
        OURS: (server.process.pid, port, request_bytes("/api/v1/datasets", body, port)),
    }
    for pid, _, _ in contenders.values():
        subprocess.run(["taskset", "-a", "-p", "-c", "0", str(pid)], check=True, capture_output=True)
    seen: dict[tuple[str, int], list[dict]] = {}
    for turn in range(rounds + 1):
        for name, (pid, at, request) in contenders.items():
            for connections in CONNECTIONS:
                before = cpu_seconds(pid)
                told = _load(at, connections, seconds, request)
                told["cpu_ms"] = (cpu_seconds(pid) - before) / told["requests"] * 1000
                told["per_second"] = told["requests"] / told["seconds"]
                if turn:  # the first round warms up
                    seen.setdefault((name, connections), []).append(told)
    return seen


def report(rows: list[dict]) -> list[str]:
    """The table, and the ratio that counts."""
    lines = [
        "| | connections | requests/s (aim: 1000 or more) | p50 ms | p95 ms | p99 ms | server CPU ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        numbers = [row["connections"], f"{row['per_second']:.0f}", row["p50"], row["p95"], row["p99"], row["cpu_ms"]]
        lines.append(f"| {row['who']} | {' | '.join(map(str, numbers))} |")
    p50 = {(row["who"], row["connections"]): row["p50"] for row in rows}
    for who in (BARE, FAST):
        ratios = ", ".join(f"{p50[OURS, many] / p50[who, many]:.2f} with {many}" for many in CONNECTIONS)
        lines += ["", f"p50 of a cached request through that of the {who}, by connections (aim: 2 or less): {ratios}."]
    return lines
