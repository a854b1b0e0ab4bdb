"""A TCP proxy that cuts connections: in the part of an answer it is told to, or around what the server says."""

import contextlib
import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Where = Literal["header", "WebSocket", "body"]


@dataclass(frozen=True)
class Cuts:
    """Where connections are cut, and after how many bytes of that: the first cut, the second one …"""

    where: Where
    after: Sequence[int]


class Proxy:
    """Forwards ``port`` to ``target``; cuts connections as ``cuts`` says, and counts them in ``cut``.

    The first connections in which the server says ``word`` are cut as well, the first one before that, the second one
    after.
    """

    def __init__(self, target: int, cuts: Cuts | None = None, word: bytes | None = None) -> None:
        self._target = target
        self._cuts = cuts
        self._word = word
        self._sides = ["before", "after"] if word else []
        self.cut_around: list[str] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cut = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            threading.Thread(target=self._copy, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._copy, args=(server, client, True), daemon=True).start()

    def _cut_here(self, data: bytes, client: socket.socket) -> bool:
        """Whether that is the last the client hears; says it, or does not, whichever's turn it is."""
        with self._lock:
            if not self._sides or self._word not in data:
                return False
            side = self._sides.pop(0)
            self.cut_around.append(side)
        if side == "after":
            client.sendall(data)
        return True

    def _allowed(self, said: bytes, more: int) -> int:
        """How many of the last ``more`` bytes of what the server ``said`` on a connection may pass."""
        with self._lock:
            if self._cuts is None or self.cut == len(self._cuts.after):
                return more
            end = cut_at(said, self._cuts.where, self._cuts.after[self.cut])
            if end is None or not len(said) - more < end < len(said):
                return more
            self.cut += 1
            return more - (len(said) - end)

    def _copy(self, source: socket.socket, target: socket.socket, source_is_server: bool) -> None:
        said = bytearray()
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if source_is_server:
                    said += data
                    if self._cut_here(data, target):
                        break
                    if (allowed := self._allowed(said, len(data))) < len(data):
                        target.sendall(data[:allowed])
                        # A reset, as when a router forgets a connection.
                        target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def cut_at(said: bytes, where: Where, after: int) -> int | None:
    """Where to cut what a server ``said``: in its last answer, ``after`` bytes into the part that ``where`` names.

    None if that answer has no such part, or not yet.
    """
    start = said.rfind(b"HTTP/1.1 ")
    head = said.find(b"\r\n\r\n", start)
    if start < 0 or (where != "header" and head < 0):
        return None
    if where == "header":
        return start + after if head < 0 or start + after < head else None
    is_socket = said.startswith(b"HTTP/1.1 101", start)
    return head + 4 + after if is_socket == (where == "WebSocket") else None
