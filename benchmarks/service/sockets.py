"""Many subscribers: how soon after its commit the terminal event is with all of them, and what that costs in memory.

2,000 sockets on one topic; then 2,000 sockets on 200 topics, ten each, which mean one dataset by 200 spellings.
"""

import asyncio
import contextlib
import json
import sqlite3
import time
from pathlib import Path
from urllib.parse import quote

import aiohttp

from benchmarks.service.place import VERSION, allow_files, memory_mb, serving
from dataset_client.protocol import canonical_json, hash_dataset_name

SUBSCRIBERS = 2000


async def _follow(session: aiohttp.ClientSession, url: str, connected: asyncio.Semaphore) -> tuple[str, str, float]:
    """The topic, the kind of its terminal event, and when that came (seconds since the epoch)."""
    async with session.ws_connect(url, autoping=True) as socket:
        connected.release()
        async for message in socket:
            event = json.loads(message.data)
            if event["kind"] in ("ready", "failed", "cancelled"):
                return event["topic_id"], event["kind"], time.time()
    return "", "closed", time.time()


async def _post(session: aiohttp.ClientSession, url: str, config: dict) -> dict:
    body = {"dataset_name": "paced", "handler_version": VERSION, "dataset_config": config}
    async with session.post(url, json=body) as answer:
        assert answer.status in (200, 202), await answer.text()
        return await answer.json()


async def _run(server, topics: dict[str, dict], each: int) -> dict:
    connected = asyncio.Semaphore(0)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        # The build waits behind another until all have asked: 200 configs take longer to check than it takes.
        other = await _post(session, f"{server.api}/datasets", {"count": 5000, "each": 0.1})
        following = [
            asyncio.create_task(_follow(session, f"{server.api}/notifications?topic={quote(topic)}", connected))
            for topic in topics
            for _ in range(each)
        ]
        for _ in following:
            await connected.acquire()
        for config in topics.values():
            await _post(session, f"{server.api}/datasets", config)
        async with session.post(f"{server.api}/datasets/{quote(other['dataset_id'])}/cancel") as answer:
            assert answer.status == 200, await answer.text()
        ends = await asyncio.wait_for(asyncio.gather(*following), 300)
    with contextlib.closing(sqlite3.connect(server.data_dir / "server.db")) as database:
        committed = dict(database.execute("SELECT topic_id, created_at FROM events WHERE kind = 'ready'"))
    late = sorted(at - committed[topic_id] for topic_id, kind, at in ends if kind == "ready")
    return {
        "sockets": len(ends),
        "topics": len(topics),
        "delivered": len(late),
        "p50_seconds": round(late[len(late) // 2], 3),
        "p99_seconds": round(late[int(len(late) * 0.99)], 3),
        "last_seconds": round(late[-1], 3),
    }


def run(folder: Path) -> list[dict]:
    """One row for each of the two ways."""
    allow_files(3 * SUBSCRIBERS)
    rows = []
    for name, count in (("one topic", 1), ("200 topics", 200)):
        place = folder / name.replace(" ", "-")
        with serving(place, workers=1, connections_per_address=10 * SUBSCRIBERS) as server:
            made = server.make("paced", {"count": 1}, VERSION)
            assert made["kind"] == "ready", made
            before = memory_mb(server.process.pid, "VmRSS")
            config = {"count": 60, "each": 0.1, "examples_per_shard": 10}
            spellings = [{**config, "batch_size": number + 1} for number in range(count)]
            topics = {hash_dataset_name("paced", VERSION, canonical_json(each)): each for each in spellings}
            row = asyncio.run(_run(server, topics, SUBSCRIBERS // count))
            rows.append({"what": name, **row, "idle_mb": before, "peak_mb": memory_mb(server.process.pid)})
    return rows


def report(rows: list[dict]) -> list[str]:
    """The table."""
    heads = ["sockets", "on", "terminal events delivered (aim: all)", "p50 s", "p99 s (aim: below 1)", "last s"]
    heads += ["server MB idle", "peak (aim: below 300)"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        numbers = [row["delivered"], row["p50_seconds"], row["p99_seconds"], row["last_seconds"]]
        sizes = [f"{row['idle_mb']:.0f}", f"{row['peak_mb']:.0f}"]
        lines.append(f"| {row['sockets']} | {row['what']} | {' | '.join(map(str, [*numbers, *sizes]))} |")
    seconds = "Seconds count from just before the commit of the event, so they are a little more than from the commit."
    return [*lines, "", f"{seconds} The subscribers share the machine with the server."]
