"""A TCP proxy that cuts connections: after so many bytes from the server, by reset or in silence."""

import contextlib
import socket
import struct
import threading


class Proxy:
    """Forwards ``port`` to ``target``; cuts the connections numbered in ``cuts`` after that many bytes of answer."""

    def __init__(self, target: int, cuts: dict[int, int]) -> None:
        self._target = target
        self._cuts = cuts
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
            threading.Thread(target=self._copy, args=(client, server, None), daemon=True).start()
            threading.Thread(target=self._copy, args=(server, client, self._cuts.get(number)), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, limit: int | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
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
