"""A real server as a subprocess, and a plain client for what it says: shared by tests and the demo's own checks."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import requests
from websockets.sync import client

ROOT = Path(__file__).resolve().parent.parent
PLUGINS = ROOT / "tests" / "plugins"
REAL_RAW = ROOT.parent / "shared" / "data" / "raw"
VERSION = "0.1.0"

#: A socket, with patience for machines that have more to do.
connect = partial(client.connect, open_timeout=60)


@dataclass
class Server:
    """``dataset-server serve`` on a free loopback port."""

    raw_root: Path
    data_dir: Path
    environments_dir: Path
    handlers: dict[str, str] = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0
    folder: Path = ROOT
    shown_data_dir: str = ""
    process: subprocess.Popen | None = None
    url: str = ""

    def start(self) -> "Server":
        self.data_dir.mkdir(parents=True, exist_ok=True)
        config = self.data_dir / "test-settings.toml"
        lines = [f"{name} = {json.dumps(value)}" for name, value in self.settings.items()]
        for name, source in self.handlers.items():
            lines += [f"[handlers.{name}]", f"source = {json.dumps(source)}"]
        config.write_text("\n".join(lines))
        command = [sys.executable, "-m", "dataset_server", "serve", "--config", str(config), "--port", str(self.port)]
        command += ["--raw-root", str(self.raw_root), "--data-dir", self.shown_data_dir or str(self.data_dir)]
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DATASET_SERVER_ENVIRONMENTS_DIR": str(self.environments_dir),
            **self.environment,
        }
        self.log = (self.data_dir / "test-server.log").open("a")
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment, cwd=self.folder
        )
        line = self.process.stdout.readline()
        assert "listens on" in line, (self.data_dir / "test-server.log").read_text()
        self.url = line.split()[-1]
        return self

    @property
    def api(self) -> str:
        return f"{self.url}/api/v1"

    def stop(self, how: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        status = self.process.wait(60)
        self.check_events()
        self.close_files()
        return status

    def close_files(self) -> None:
        """Its output and its log; for a server that ended without `stop`."""
        self.process.stdout.close()
        self.log.close()

    def check_events(self) -> None:
        """Nothing that was said on a topic is lost, and each attempt that has ended says so once, in its last event."""
        with contextlib.closing(sqlite3.connect(self.data_dir / "server.db")) as database:
            topics = list(database.execute("SELECT topic_id, state, attempt, last_number FROM topics"))
            rows = list(database.execute("SELECT topic_id, number, attempt, kind FROM events ORDER BY number"))
        said: dict[str, list[tuple[int, int, str]]] = {}
        for topic_id, *event in rows:
            said.setdefault(topic_id, []).append(tuple(event))
        assert said.keys() <= {topic[0] for topic in topics}, "events of no topic"
        for topic_id, state, attempt, last_number in topics:
            assert not (faults := event_faults(said.get(topic_id, []), state, attempt, last_number)), (topic_id, faults)

    def post(self, name: str, config: dict, version: str = VERSION, **more) -> requests.Response:
        body = {"dataset_name": name, "handler_version": version, "dataset_config": config, **more}
        return requests.post(f"{self.api}/datasets", json=body, timeout=120)

    def get(self, path: str, **more) -> requests.Response:
        return requests.get(f"{self.api}/{path}", timeout=120, **more)

    def events(self, topic_id: str, attempt: int = 1, after: int = 0, timeout: float = 120) -> list[dict]:
        """Everything said on a topic up to the end of ``attempt``."""
        deadline, seen = time.monotonic() + timeout, []
        url = f"{self.api.replace('http', 'ws', 1)}/notifications?topic={topic_id.replace('+', '%2B')}&after={after}"
        with connect(url) as socket:
            while True:
                message = json.loads(socket.recv(timeout=deadline - time.monotonic()))
                if message["kind"] != "subscribed":
                    seen.append(message)
                    if message["kind"] in ("ready", "failed", "cancelled") and message["attempt"] >= attempt:
                        return seen

    def make(self, name: str, config: dict, version: str = VERSION) -> dict:
        """Ask, wait, and return the terminal event's data with its ``kind``; refusals come back as they are."""
        answer = self.post(name, config, version)
        if answer.status_code not in (200, 202):
            return {"kind": "refused", "status": answer.status_code, **answer.json()}
        body = answer.json()
        last = self.events(body["topic_id"], body["attempt"])[-1]
        return {"kind": last["kind"], **last["data"]}


def event_faults(said: list[tuple[int, int, str]], state: str, attempt: int, last_number: int) -> list[str]:
    """What is wrong with a topic's events: (number, attempt, kind), by number; its row is at ``attempt``.

    Of earlier attempts only their ends are kept, and of what is said of progress the latest.
    """
    faults = []
    if not said or said[-1][0] != last_number:
        faults.append(f"the last event is not number {last_number}")
    for each in range(1, attempt + 1):
        events = [(number, kind) for number, at, kind in said if at == each]
        ends = [kind in ("ready", "failed", "cancelled") for _, kind in events]
        if each < attempt or state in ("ready", "failed", "cancelled", "evicted"):
            if sum(ends) != 1 or not ends[-1]:
                faults.append(f"attempt {each} does not end once, with its last event")
        elif any(ends):
            faults.append(f"attempt {each} has not ended, but says so")
        if each == attempt and state != "evicted":
            latest = max((place for place, (_, kind) in enumerate(events) if kind == "progress"), default=0)
            numbers = [number for number, _ in events[latest:]]
            if numbers != list(range(last_number - len(numbers) + 1, last_number + 1)):
                faults.append(f"events are missing between {numbers}")
    if [at for _, at, _ in said] != sorted(at for _, at, _ in said) or any(at > attempt for _, at, _ in said):
        faults.append("attempts are mixed up")
    return [f"{fault}: {said}" for fault in faults]


def git(*arguments: str, cwd: Path) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    run = subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True, text=True)
    return run.stdout.strip()


def processes_mentioning(text: str) -> list[str]:
    """Living processes that mention ``text``, as "PID COMMAND-LINE"."""
    return [f"{process} {line}" for process, line in living_processes() if text in line]


def living_processes() -> Iterator[tuple[str, str]]:
    """Process id and command line of each process that is no zombie."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                    yield entry.name, line


def wait_until(condition, timeout: float = 20) -> bool:
    """Whether ``condition`` came true in time."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())
