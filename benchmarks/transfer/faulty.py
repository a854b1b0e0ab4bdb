"""A proxy before a server of files that does wrong at random: flips a byte, cuts a body, refuses with 5xx."""

import http.client
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

BLOCK = 1_000_000
_REFUSALS = (500, 502, 503)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, target: str, share: float, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target).netloc
        self.share = share
        self.random = random.Random(seed)
        self.counted = Counter[str]()
        self.lock = threading.Lock()

    def draw(self, kinds: tuple[str, ...]) -> str:
        """Which fault there is to be in this block or answer; "" for none."""
        with self.lock:
            if self.random.random() >= self.share:
                return ""
            kind = self.random.choice(kinds)
            self.counted[kind] += 1
            return kind

    def count(self, what: str, size: int) -> None:
        with self.lock:
            self.counted[what] += size

    def handle_error(self, request, client_address) -> None:
        """A client that goes is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """Forward a request, and an answer with what is wrong with it."""
        self.server.count("requests", 1)
        if self.server.draw(("refused",)):
            self.send_response(self.server.random.choice(_REFUSALS))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        connection = http.client.HTTPConnection(self.server.target)
        connection.request("GET", self.path, headers=dict(self.headers))
        with connection.getresponse() as answer:
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name not in ("Server", "Date", "Connection"):
                    self.send_header(name, value)
            self.end_headers()
            while (block := answer.read(BLOCK)) and self._send(bytearray(block)):
                pass
        connection.close()

    def _send(self, block: bytearray) -> bool:
        """A block of a body; False if that was cut."""
        kind = self.server.draw(("flipped", "cut"))
        place = self.server.random.randrange(len(block))
        if kind == "flipped":
            block[place] ^= 1 << self.server.random.randrange(8)
        elif kind == "cut":
            del block[place:]
            self.close_connection = True
        self.server.count("bytes", len(block))
        self.wfile.write(block)
        return kind != "cut"

    def log_message(self, format: str, *args) -> None:  # noqa: A002
        """Nothing."""


@contextmanager
def faulty(target: str, share: float, seed: int) -> Iterator[tuple[str, Counter[str]]]:
    """A proxy for the server at ``target``: its URL, and what it counts – ``bytes`` of bodies, ``requests``, and the
    faults by kind. So large a ``share`` of blocks of 1 MB, and of answers, has one.
    """
    server = _Server(target, share, seed)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.counted
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
