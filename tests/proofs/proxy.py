"""A TCP proxy that cuts connections: after so many bytes from the server, or around what it says."""

import contextlib
import socket
import struct
import threading


class Proxy:
    """Forwards ``port`` to ``target``; cuts the connections numbered in ``cuts`` after that many bytes of answer.

    The first connections in which the server says ``word`` are cut as well, the first one before that, the second one
    after.
    """

    def __init__(self, target: int, cuts: dict[int, int], word: bytes | None = None) -> None:
        self._target = target
        self._cuts = cuts
        self._word = word
        self._sides = ["before", "after"] if word else []
        self.cut_around: list[str] = []
        self._count = 0
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
            with self._lock:
                number, self._count = self._count, self._count + 1
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            threading.Thread(target=self._copy, args=(client, server, None, False), daemon=True).start()
            limit = self._cuts.get(number)
            threading.Thread(target=self._copy, args=(server, client, limit, True), daemon=True).start()

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

    def _copy(self, source: socket.socket, target: socket.socket, limit: int | None, source_is_server: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if source_is_server and self._cut_here(data, target):
                    break
                if limit is not None and passed + len(data) >= limit:
                    target.sendall(data[: limit - passed])
                    self.cut += 1
                    # A reset, as when a router forgets a connection.
                    target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
                target.sendall(data)
                passed += len(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
