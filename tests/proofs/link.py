"""A network between a client and a server that errs as it is told, and counts what comes through.

A `Link` copies bytes between its port and the server's. What the server says passes through a `Trouble`, chunk by
chunk.
"""

import contextlib
import random
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Protocol


class Cut(Exception):  # noqa: N818 - what happens, not an error of ours
    """The connection ends here, after ``last`` bytes more: by a reset, or as if all had been said."""

    def __init__(self, last: bytes = b"", *, by_reset: bool = False) -> None:
        super().__init__()
        self.last = last
        self.by_reset = by_reset


@dataclass
class Answers:
    """What a server says on a connection that asks for parts of archives: so far ``body`` bytes of them."""

    body: int = 0
    _left: int = 0
    _head: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> None:
        """Count what comes next."""
        while data:
            taken = min(self._left, len(data))
            self.body += taken
            self._left -= taken
            data = data[taken:]
            if not data:
                return
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            data = bytes(self._head[end + 4 :])
            length = re.search(rb"content-length: *(\d+)", self._head[:end].lower())
            self._left = int(length[1]) if length else 0
            self._head.clear()


@dataclass
class Heard:
    """A chunk: of which connection it is (0, 1, 2 …), whether that is one that asks for parts of archives, and how many
    bytes of archives came before it on all of those.
    """

    connection: int
    is_archive: bool
    before: int


class Trouble(Protocol):
    """What happens to what a server says; ``hits`` is how often something has."""

    hits: int

    def __call__(self, data: bytes, heard: Heard) -> bytes:
        """What arrives of a chunk; raises `Cut`."""


class Link:
    """Forwards ``port`` to the port ``target`` with ``trouble``. A context that closes it."""

    def __init__(self, target: int, trouble: Trouble | None = None) -> None:
        self.trouble = trouble
        self._target = target
        self._lock = threading.Lock()
        self._archives: dict[int, Answers] = {}
        self._connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Link":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def archive_bytes(self) -> int:
        """How many bytes of archives have come through, headers left out."""
        with self._lock:
            return self._sum()

    def _sum(self) -> int:
        return sum(answers.body for answers in self._archives.values())

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()  # nobody is there
                continue
            connection = _Connection(self, client, server, self._connections)
            self._connections += 1
            for copy in (connection.copy_questions, connection.copy_answers):
                threading.Thread(target=copy, daemon=True).start()

    def heard(self, connection: int) -> Heard:
        """Where the next chunk is that is heard on a connection."""
        with self._lock:
            return Heard(connection, connection in self._archives, self._sum())

    def count(self, connection: int, data: bytes) -> None:
        """Note what came through."""
        with self._lock:
            if connection in self._archives:
                self._archives[connection].feed(data)

    def asks_for_archive(self, connection: int) -> None:
        """Note that what comes on a connection is of an archive."""
        with self._lock:
            self._archives.setdefault(connection, Answers())


class _Connection:
    def __init__(self, link: Link, client: socket.socket, server: socket.socket, number: int) -> None:
        self._link = link
        self._client = client
        self._server = server
        self._number = number

    def copy_questions(self) -> None:
        """From the client to the server."""
        with contextlib.suppress(OSError):
            while data := self._client.recv(1 << 16):
                if re.match(rb"GET \S*/archive[ ?]", data):
                    self._link.asks_for_archive(self._number)
                self._server.sendall(data)
        self._end()

    def copy_answers(self) -> None:
        """From the server to the client, through the trouble."""
        with contextlib.suppress(OSError):
            while data := self._server.recv(1 << 14):
                try:
                    if self._link.trouble is not None:
                        data = self._link.trouble(data, self._link.heard(self._number))
                except Cut as cut:
                    self._link.count(self._number, cut.last)
                    self._client.sendall(cut.last)
                    if cut.by_reset:
                        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
                self._link.count(self._number, data)
                self._client.sendall(data)
        self._end()

    def _end(self) -> None:
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Corrupting:
    """Flips a bit of about one in ``every`` bytes: of archives, or of ``everything`` that a server says."""

    def __init__(self, every: int, seed: int = 0, *, everything: bool = False) -> None:
        self._draw = random.Random(seed)
        self._every = every
        self._everything = everything
        self._lock = threading.Lock()
        self._next = self._draw.randrange(every)
        self.hits = 0

    def __call__(self, data: bytes, heard: Heard) -> bytes:
        """The chunk, perhaps with other bits."""
        position = 0
        if not self._everything:
            head = data.find(b"\r\n\r\n") + 4 if data.startswith(b"HTTP/1.1 ") else 0
            position = head if heard.is_archive and head != 3 else len(data)
        changed = bytearray(data)
        with self._lock:
            while position + self._next < len(data):
                position += self._next
                changed[position] ^= 1 << self._draw.randrange(8)
                self.hits += 1
                self._next = 1 + self._draw.randrange(2 * self._every)
            self._next -= len(data) - position
        return bytes(changed)


class Delaying:
    """Each chunk comes up to ``seconds`` late."""

    def __init__(self, seconds: float, seed: int = 0) -> None:
        self._draw = random.Random(seed)
        self._seconds = seconds
        self.hits = 0

    def __call__(self, data: bytes, heard: Heard) -> bytes:
        """The chunk, late."""
        self.hits += 1
        time.sleep(self._draw.uniform(0, self._seconds))
        return data


class Ending:
    """Connections end, by a reset or as if all had been said, once a number of bytes of archives has come: ``after``
    one number, after the next one another.
    """

    def __init__(self, after: list[int], *, by_reset: bool = False) -> None:
        self._after = sorted(after, reverse=True)
        self._by_reset = by_reset
        self._lock = threading.Lock()
        self.hits = 0

    def __call__(self, data: bytes, heard: Heard) -> bytes:
        """The chunk, or the beginning of it."""
        with self._lock:
            if not heard.is_archive or not self._after or heard.before + len(data) <= self._after[-1]:
                return data
            place = self._after.pop()
            self.hits += 1
        raise Cut(data[: max(0, place - heard.before)], by_reset=self._by_reset)


class Dropping:
    """From a number of bytes of archives on nothing arrives any more on the connection that is at it, which stays open:
    as behind a router that has forgotten it. After the next number another one.
    """

    def __init__(self, after: list[int]) -> None:
        self._after = sorted(after, reverse=True)
        self._lost = set[int]()
        self._lock = threading.Lock()
        self.hits = 0

    def __call__(self, data: bytes, heard: Heard) -> bytes:
        """The chunk, or nothing."""
        with self._lock:
            if heard.connection in self._lost:
                return b""
            if heard.is_archive and self._after and heard.before + len(data) > self._after[-1]:
                self._after.pop()
                self.hits += 1
                self._lost.add(heard.connection)
                return b""
        return data
