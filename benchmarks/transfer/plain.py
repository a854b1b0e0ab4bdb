"""Plain downloads to compare with.

    python -m benchmarks.transfer.plain URL --file FILE [--seconds N]    one stream of requests, written to a file
    python -m benchmarks.transfer.plain URL --streams N                  N connections, a part for each, dropped

The latter is what a network gives. Ends after ``--seconds`` at the latest; says how many bytes came.
"""

import argparse
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import requests

from benchmarks.transfer.moment import say

_BLOCK = 1 << 20


def to_file(url: str, file: Path, seconds: float) -> int:
    """One stream, as one writes it."""
    end = time.monotonic() + seconds
    with requests.get(url, stream=True, timeout=60) as answer, file.open("wb") as out:
        answer.raise_for_status()
        for block in answer.iter_content(_BLOCK):
            out.write(block)
            if time.monotonic() > end:
                break
        return out.tell()


def drop(url: str, start: int, stop: int) -> int:
    """The bytes from ``start`` to ``stop``, over a bare socket."""
    parts = urlsplit(url)
    buffer, got = bytearray(_BLOCK), bytearray()
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        head = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nRange: bytes={start}-{stop - 1}\r\n"
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
        while b"\r\n\r\n" not in got:
            got += connection.recv(_BLOCK)
        size = len(got) - got.index(b"\r\n\r\n") - 4
        while count := connection.recv_into(buffer):
            size += count
    if size != stop - start:
        raise SystemExit(f"{size} of {stop - start} bytes came")
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--file", type=Path)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--streams", type=int)
    options = parser.parse_args()
    if options.streams is None:
        say("clock")
        size = to_file(options.url, options.file, options.seconds)
    else:
        whole = int(requests.head(options.url, timeout=60).headers["Content-Length"])
        cuts = [whole * part // options.streams for part in range(options.streams + 1)]
        with ThreadPoolExecutor(options.streams) as pool:
            say("clock")
            size = sum(pool.map(drop, [options.url] * options.streams, cuts, cuts[1:]))
    say("done", bytes=size)


if __name__ == "__main__":
    main()
