"""A cached request (POST → ready) against a bare view with one SQLite read."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.service.place import VERSION, cpu_seconds, request_bytes, serving
from tests.support import Server

CONFIG = {"count": 24, "seed": 1}
CONNECTIONS = (1, 16)


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
    command = [sys.executable, "-m", "benchmarks.service.bare", str(server.data_dir / "server.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as bare:
        try:
            seen = _compare(server, bare, rounds, seconds)
        finally:
            bare.terminate()
    fields = ("per_second", "p50", "p95", "p99", "cpu_ms")
    return [
        {"who": name, "connections": connections}
        | {field: round(statistics.median(each[field] for each in runs), 3) for field in fields}
        for (name, connections), runs in seen.items()
    ]


def _compare(server: Server, bare: subprocess.Popen, rounds: int, seconds: float) -> dict[tuple[str, int], list[dict]]:
    bare_port = int(bare.stdout.readline().split(":")[-1].split("/")[0].split()[0])
    port = int(server.url.rpartition(":")[2])
    body = {"dataset_name": "tones", "handler_version": VERSION, "dataset_config": CONFIG}
    contenders = {
        "bare view, one SQLite read": (bare.pid, bare_port, request_bytes("/", body, bare_port)),
        "cached request": (server.process.pid, port, request_bytes("/api/v1/datasets", body, port)),
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
    ratios = []
    for connections in CONNECTIONS:
        bare, ours = (
            next(r for r in rows if r["connections"] == connections and n in r["who"]) for n in ("bare", "cached")
        )
        ratios.append(f"{ours['p50'] / bare['p50']:.2f} with {connections}")
    told = "p50 of a cached request through that of the bare view, by connections (aim: 2 or less)"
    return [*lines, "", f"{told}: {', '.join(ratios)}."]
