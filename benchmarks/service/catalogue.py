"""A catalogue of 100,000 datasets: how long listing, filtering and looking up take."""

import contextlib
import json
import random
import sqlite3
import time
from pathlib import Path

import requests

from benchmarks.service.place import serving
from dataset_client.protocol import hash_dataset_name
from tests.support import Server

DATASETS = 100_000
NAMES = ("coco", "duts", "camvid", "composite", "cutouts", "mattes", "logos")


def fill(database: Path) -> list[str]:
    """Write the rows into the tables that a server has made; returns the ids."""
    draw = random.Random(1)
    ids = []
    with contextlib.closing(sqlite3.connect(database)) as db, db:
        for number in range(DATASETS):
            name = draw.choice(NAMES)
            config = json.dumps({"seed": number, "image_size": [320, 320], "categories": ["person"]})
            ids.append(hash_dataset_name(name, "0.1.0", config))
            state = draw.choices(("ready", "failed", "evicted"), (90, 5, 5))[0]
            size, sha = (draw.randrange(10**6, 10**10), draw.randbytes(32).hex()) if state == "ready" else (None, None)
            error = json.dumps({"code": "handler_failed", "message": "no"}) if state == "failed" else None
            row = (ids[-1], name, "0.1.0+abc", config, state, 1, error, size, sha, 1.6e9 + number, 1.6e9 + number + 60)
            db.execute(
                "INSERT INTO datasets (dataset_id, dataset_name, resolved_version, config, state, attempt, error, "
                "archive_bytes, archive_sha256, created_at, finished_at) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                row,
            )
    return ids


def run(folder: Path, repeats: int) -> list[dict]:
    """Rows: what was asked, p50 and p95 in milliseconds, as a client sees them."""
    with serving(folder) as server:
        pass  # it makes the tables
    ids = fill(server.data_dir / "server.db")
    with serving(folder) as server:
        return _measure(server, ids, repeats)


def _measure(server: Server, ids: list[str], repeats: int) -> list[dict]:
    draw = random.Random(2)
    asked = {
        "list, first page of 100": lambda: "datasets?limit=100",
        "list, a page in the middle": lambda: f"datasets?limit=100&offset={draw.randrange(DATASETS - 100)}",
        "filter by name": lambda: f"datasets?limit=100&name={draw.choice(NAMES)}",
        "filter by name and state": lambda: f"datasets?limit=100&name={draw.choice(NAMES)}&state=failed",
        "look up one": lambda: f"datasets/{draw.choice(ids)}",
    }
    seen: dict[str, list[float]] = {}
    with requests.Session() as session:
        for turn in range(repeats + 5):
            for what, path in asked.items():
                url = f"{server.api}/{path()}"
                before = time.perf_counter()
                answer = session.get(url, timeout=60)
                taken = time.perf_counter() - before
                assert answer.status_code == 200, answer.text
                if turn >= 5:
                    seen.setdefault(what, []).append(taken * 1000)
    rows = []
    for what, times in seen.items():
        times.sort()
        p50, p95 = (round(times[int(len(times) * share)], 1) for share in (0.5, 0.95))
        rows.append({"what": what, "p50_ms": p50, "p95_ms": p95})
    return rows


def report(rows: list[dict]) -> list[str]:
    """The table."""
    lines = ["| | p50 ms | p95 ms (aim: below 50) |", "|---|---|---|"]
    return lines + [f"| {row['what']} | {row['p50_ms']} | {row['p95_ms']} |" for row in rows]
