"""A lean HTTP client that costs little beside the server it measures: prepared bytes out, answers counted.

    python -m benchmarks.service.load PORT CONNECTIONS SECONDS < request bytes

Each connection sends the request again when its answer is whole. Prints a JSON object: requests, seconds, and the
latencies' p50, p95 and p99 in milliseconds. Every answer must be a 200.
"""

import asyncio
import json
import sys
import time


async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    """One request and its whole answer."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"the server answered {head[:200]!r}")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    await reader.readexactly(length)


async def drive(port: int, connections: int, seconds: float, request: bytes) -> dict:
    """Load from ``connections`` at once for ``seconds``."""
    latencies: list[float] = []
    start = time.perf_counter()

    async def worker() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (before := time.perf_counter()) < start + seconds:
            await one(reader, writer, request)
            latencies.append(time.perf_counter() - before)
        writer.close()

    await asyncio.gather(*(worker() for _ in range(connections)))
    taken = time.perf_counter() - start
    latencies.sort()
    at = {f"p{share}": round(latencies[int(len(latencies) * share / 100)] * 1000, 3) for share in (50, 95, 99)}
    return {"requests": len(latencies), "seconds": round(taken, 3), **at}


def main() -> None:
    port, connections, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    print(json.dumps(asyncio.run(drive(port, connections, seconds, sys.stdin.buffer.read()))))


if __name__ == "__main__":
    main()
