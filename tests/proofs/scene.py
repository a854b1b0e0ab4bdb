"""A server with raw data, plugins and clients, set up for a case, and what must be true in its end."""

import hashlib
import json
import signal
import socket
import sqlite3
import tempfile
import threading
import zipfile
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from dataset_client import request_dataset
from tests.support import PLUGINS, Server, connect, processes_mentioning, wait_until

VERSION = "1.0"


@dataclass
class Waiting:
    """A client in a thread of its own, which asks, waits, downloads and verifies, whatever happens to the server."""

    thread: threading.Thread
    result: list[Any] = field(default_factory=list)

    def dataset(self, timeout: float):
        """What it got; raises what it raised, or `TimeoutError`."""
        self.thread.join(timeout)
        if not self.result:
            raise TimeoutError(f"a client still waits after {timeout:g} s")
        if isinstance(self.result[0], BaseException):
            raise self.result[0]
        return self.result[0]


@cache
def _shared() -> Path:
    """Raw data and environments that all cases share."""
    folder = Path(tempfile.mkdtemp(prefix="proofs-"))
    (folder / "raw").mkdir()
    return folder


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_server(folder: Path, *, own_environments: bool = False, **settings: Any) -> Server:
    """A server on a fixed port, so that it comes back to where its clients look for it."""
    plugins = {path.name: str(path) for path in sorted(PLUGINS.iterdir()) if (path / "pyproject.toml").is_file()}
    environments = folder / "environments" if own_environments else _shared() / "environments"
    return Server(
        raw_root=_shared() / "raw",
        data_dir=folder / "data",
        environments_dir=environments,
        handlers=plugins,
        settings={"workers": 2, **settings},
        port=free_port(),
    )


def ask(server: Server, folder: Path, config: dict, *, name: str = "paced", number: int = 0) -> Waiting:
    """Start a client with a cache of its own."""

    def run() -> None:
        try:
            dataset = request_dataset(
                name,
                VERSION,
                config,
                server_url=server.url,
                cache_dir=folder / f"cache-{number}",
                progress=False,
                timeout=240,
            )
            dataset.verify()
            waiting.result.append(dataset)
        except BaseException as error:
            waiting.result.append(error)

    waiting = Waiting(threading.Thread(target=run, daemon=True))
    waiting.thread.start()
    return waiting


@contextmanager
def listening(server: Server, topic_id: str):
    """A socket on a topic, from its first event on."""
    url = f"{server.api.replace('http', 'ws', 1)}/notifications?topic={topic_id.replace('+', '%2B')}"
    with connect(url) as socket:
        yield socket


def wait_for(socket, wanted, timeout: float = 120) -> dict:
    """The first event for which ``wanted`` holds."""
    while True:
        event = json.loads(socket.recv(timeout=timeout))
        if wanted(event):
            return event


@cache
def undisturbed(config: str, name: str = "paced") -> dict:
    """The ready event of a config (as JSON) from a server that nothing happens to, with another number of workers."""
    folder = Path(tempfile.mkdtemp(prefix="undisturbed-"))
    server = make_server(folder, workers=1).start()
    try:
        made = server.make(name, json.loads(config), VERSION)
        assert made["kind"] == "ready", made
        return made
    finally:
        server.stop()


def kill(server: Server) -> None:
    """End the server at once, and see that its processes went with it."""
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(20)
    server.close_files()
    mine = str(server.data_dir.parent)
    assert wait_until(lambda: not processes_mentioning(mine), 20), f"outlived it: {processes_mentioning(mine)}"


def check_end(server: Server, clients: list[Waiting], config: dict, *, name: str = "paced") -> None:
    """Every client has the right bytes; no dataset, no event is lost; nothing half-made and no process is left."""
    wanted = undisturbed(json.dumps(config, sort_keys=True), name)
    for client in clients:
        dataset = client.dataset(timeout=240)
        assert dataset.dataset_id == wanted["dataset_id"]
    listed = server.get("datasets").json()
    (made,) = [d for d in listed["datasets"] if d["dataset_id"] == wanted["dataset_id"]]
    assert made["state"] == "ready"
    assert made["archive"]["sha256"] == wanted["archive"]["sha256"]
    body = server.get(made["archive"]["url"]).content
    assert hashlib.sha256(body).hexdigest() == wanted["archive"]["sha256"], "the archive that is served is another"
    assert wait_until(lambda: not list((server.data_dir / "work").iterdir())), "a build's folder is left"
    assert server.stop() == 0  # checks the events, too
    partial = [path.name for path in server.data_dir.rglob("*.partial")]
    assert not partial, f"left behind: {partial}"
    (archive,) = (server.data_dir / "archives").glob("*.zip")
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
    with closing(sqlite3.connect(server.data_dir / "server.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    mine = str(server.data_dir.parent)
    assert wait_until(lambda: not processes_mentioning(mine), 20), f"still runs: {processes_mentioning(mine)}"
