"""A server with raw data, plugins and clients, set up for a case, and what must be true in its end."""

import hashlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from dataset_client import request_dataset
from dataset_client.protocol import canonical_json
from tests.support import PLUGINS, Server, connect, living_processes, wait_until

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


@dataclass
class WatchedServer(Server):
    """A server of which it is remembered what its database held when it was killed."""

    known: dict[str, tuple] = field(default_factory=dict)


@cache
def _shared() -> Path:
    """Raw data and environments that all cases share."""
    folder = Path(tempfile.mkdtemp(prefix="proofs-"))
    (folder / "raw").mkdir()
    return folder


def remove_shared() -> None:
    """Remove what `_shared` made."""
    shutil.rmtree(_shared(), ignore_errors=True)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_server(folder: Path, *, own_environments: bool = False, **settings: Any) -> WatchedServer:
    """A server on a fixed port, so that it comes back to where its clients look for it.

    Whatever it starts works in a folder below ``folder``.
    """
    plugins = {path.name: str(path) for path in sorted(PLUGINS.iterdir()) if (path / "pyproject.toml").is_file()}
    environments = folder / "environments" if own_environments else _shared() / "environments"
    temporary = folder / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    return WatchedServer(
        raw_root=_shared() / "raw",
        data_dir=folder / "data",
        environments_dir=environments,
        handlers=plugins,
        settings={"workers": 2, **settings},
        environment={"TMPDIR": str(temporary)},
        port=free_port(),
    )


@contextmanager
def running(server: WatchedServer) -> Iterator[WatchedServer]:
    """``server``, started; it ends with the context at the latest."""
    with ending(server):
        yield server.start()


@contextmanager
def ending(server: WatchedServer) -> Iterator[None]:
    """If ``server`` still runs at the context's end, it is killed."""
    try:
        yield
    finally:
        if server.process and server.process.poll() is None:
            server.process.kill()
            server.process.wait(20)
            server.close_files()


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
    folder = Path(tempfile.mkdtemp(prefix="undisturbed-", dir=_shared()))
    with running(make_server(folder, workers=1)) as server:
        made = server.make(name, json.loads(config), VERSION)
        assert made["kind"] == "ready", made
        assert server.stop() == 0
    return made


def kill(server: WatchedServer) -> None:
    """End the server at once, and see that its processes went with it; remember what it knew."""
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(20)
    server.close_files()
    check_no_process(server.data_dir.parent)
    server.known = rows_of(server)


def rows_of(server: Server) -> dict[str, tuple]:
    """When each request and each dataset was first asked for, and at which attempt it is."""
    with reading(server) as database:
        rows = [*database.execute("SELECT topic_id, created_at, attempt FROM topics")]
        rows += database.execute("SELECT dataset_id, created_at, attempt FROM datasets")
    return {row[0]: row[1:] for row in rows}


@contextmanager
def reading(server: Server) -> Iterator[sqlite3.Connection]:
    """The server's database; it cannot be written to."""
    with closing(sqlite3.connect(f"file:{server.data_dir}/server.db?mode=ro", uri=True, timeout=30)) as database:
        yield database


def reasons(server: Server) -> list[str]:
    """Why tries of builds failed that were followed by another."""
    with reading(server) as database:
        said = [json.loads(data) for (data,) in database.execute("SELECT data FROM events WHERE kind = 'state'")]
    return [data["reason"] for data in said if "reason" in data]


def processes_of(folder: Path) -> list[str]:
    """Living processes that have something of ``folder`` on their command line, or work below it."""
    found = []
    for process, line in living_processes():
        with suppress(OSError):
            place = os.readlink(f"/proc/{process}/cwd")
            if f"{folder}/" in line or f"{place}/".startswith(f"{folder}/"):
                found.append(f"{process} {line}")
    return found


def check_no_process(folder: Path) -> None:
    """Nothing that was started for ``folder`` runs any more."""
    assert wait_until(lambda: not processes_of(folder), 20), f"still runs: {processes_of(folder)}"


def check_end(server: WatchedServer, clients: list[Waiting], config: dict, *, name: str = "paced") -> None:
    """Every client has the right bytes; no dataset, no event is lost; nothing half-made and no process is left."""
    wanted = undisturbed(canonical_json(config), name)
    for client in clients:
        dataset = client.dataset(timeout=240)
        assert dataset.dataset_id == wanted["dataset_id"]
        assert dataset.path.name.endswith(wanted["archive"]["sha256"][:16]), "a client has another revision"
    listed = server.get("datasets").json()
    (made,) = [d for d in listed["datasets"] if d["dataset_id"] == wanted["dataset_id"]]
    assert made["state"] == "ready"
    assert made["archive"]["sha256"] == wanted["archive"]["sha256"]
    body = server.get(made["archive"]["url"]).content
    assert hashlib.sha256(body).hexdigest() == wanted["archive"]["sha256"], "the archive that is served is another"
    # What failed keeps its folder, for who tries it again.
    kept = {d["dataset_id"].removesuffix(".zip") for d in listed["datasets"] if d["state"] == "failed"}
    assert wait_until(lambda: set(os.listdir(server.data_dir / "work")) <= kept), "a build's folder is left"
    assert server.stop() == 0  # checks the events, too
    now = rows_of(server)
    assert {key: now.get(key) for key in server.known} == server.known, "what was asked for before the kill is lost"
    partial = [path.name for path in server.data_dir.rglob("*.partial") if not kept & set(path.parts)]
    assert not partial, f"left behind: {partial}"
    (archive,) = (server.data_dir / "archives").glob("*.zip")
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
    with closing(sqlite3.connect(server.data_dir / "server.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    check_no_process(server.data_dir.parent)
