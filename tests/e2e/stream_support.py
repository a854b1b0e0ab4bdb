"""For tests of streaming: a build that waits, and a network that counts and waits."""

import contextlib
import re
import socket
import threading
from pathlib import Path

VERSION = "1.0"
COUNT = 12
_REQUEST = re.compile(rb"(?:GET|POST) (\S+) HTTP/1\.1\r\n")


def gated_config(gate: Path, **more) -> dict:
    """A dataset of a shard for each example, of which four are made before the gate, in the raw root, is opened."""
    gate.mkdir(exist_ok=True)
    return {"gate": gate.name, "count": COUNT, "examples_per_shard": 1, "splits": {"train": 1.0}, **more}


def numbers(examples) -> list[int]:
    return [int(example["number"]) for example in examples]


class Gateway:
    """A TCP proxy that notes what is asked for, and lets through ``limit`` bytes of answers until it is opened.

    Without ``ranges`` the server never hears that a part was asked for, and so answers with all.
    """

    def __init__(self, target: int, limit: int | None = None, *, ranges: bool = True) -> None:
        self.asked: list[str] = []
        self.answered = 0
        self._target, self._limit, self._ranges = target, limit, ranges
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def open(self) -> None:
        with self._changed:
            self._limit = None
            self._changed.notify_all()

    def close(self) -> None:
        self.open()
        self._listener.close()

    def asked_for(self, part: str) -> list[str]:
        """The paths with this part that were asked for, in order."""
        return [path for path in self.asked if part in path]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    client.close()
                    continue
                threading.Thread(target=self._copy, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._copy, args=(server, client, True), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 14):
                with self._changed:
                    if is_answer:
                        self._changed.wait_for(lambda: self._limit is None or self.answered < self._limit)
                        self.answered += len(data)
                    else:
                        self.asked += [path.decode() for path in _REQUEST.findall(data)]
                        if not self._ranges:
                            data = data.replace(b"\r\nRange: ", b"\r\nNot-A-Range: ")
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
