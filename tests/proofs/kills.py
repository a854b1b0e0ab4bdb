"""``kill -9`` of the server at points spread over everything a dataset goes through.

Three clients wait. The server is killed a moment after a phase has begun, comes back on the same folder and port, and
every client must end with the same bytes as from a server that nothing happened to. A kill counts for what it hit.
"""

import contextlib
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from dataset_client.protocol import canonical_json, hash_dataset_name
from tests.proofs.case import Case
from tests.proofs.scene import (
    VERSION,
    ask,
    check_end,
    kill,
    listening,
    make_server,
    reading,
    running,
    undisturbed,
    wait_for,
)
from tests.support import Server, wait_until

#: Enough shards for a build to be cut anywhere.
CONFIG = {"count": 24, "bytes_each": 200_000, "each": 0.05, "planning": 0.5, "examples_per_shard": 3}
#: Enough bytes for writing an archive and for downloading it to be cut anywhere, too.
LARGE = {"count": 24, "bytes_each": 2_000_000, "examples_per_shard": 3}

#: Phase: its share of the points, and about how many seconds it lasts; a download is cut by its bytes instead.
PHASES = {"install": (30, 3.0), "plan": (30, 0.9), "build": (80, 1.2), "publish": (30, 0.15), "download": (30, 0.0)}
_STATES = {"installing": "install", "planning": "plan", "building": "build", "publishing": "publish"}
_TRIES = 4


def cases(points: int) -> Iterator[Case]:
    """``points`` kills, spread over the phases as `PHASES` says, at least one each."""
    whole = sum(share for share, _ in PHASES.values())
    for phase, (share, _) in PHASES.items():
        count = max(1, round(points * share / whole))
        for number in range(count):
            yield Case(
                f"kill -9 during {phase}", f"{phase} at {number / count:.1%}", partial(run, phase, number / count)
            )


def run(phase: str, moment: float, folder: Path) -> str:
    """One kill and what follows; one that came too late is repeated earlier. Returns what the last one hit."""
    for turn in range(_TRIES):
        hit = run_once(phase, moment * (1 - turn / (_TRIES - 1)), folder / str(turn))
        if hit == phase:
            break
    assert hit, "no kill hit anything"
    return f"kill -9 during {hit}"


def run_once(phase: str, moment: float, folder: Path) -> str:
    """Kill the server when ``moment`` (0 to 1) of the phase is over. Returns the phase that was hit, if any."""
    config = LARGE if phase in ("publish", "download") else CONFIG
    topic = hash_dataset_name("paced", VERSION, canonical_json(config))
    with running(make_server(folder, own_environments=phase == "install")) as server:
        with listening(server, topic) as socket:
            clients = [ask(server, folder, config, number=number) for number in range(3)]
            if phase == "download":
                size = wait_for(socket, lambda event: event["kind"] == "ready")["data"]["archive"]["bytes"]
                enough = max(1, moment * size * 0.8)
                reached = wait_until(lambda: max(parts(folder), default=0) >= enough or any(c.result for c in clients))
                assert reached, "no client downloads"
            else:
                wait_for(socket, lambda event: _STATES.get(event.get("data", {}).get("state")) == phase)
                time.sleep(moment * PHASES[phase][1])
            kill(server)
        hit = what_was_hit(server, folder, config)
        server.start()
        check_end(server, clients, config)
    return hit


def what_was_hit(server: Server, folder: Path, config: dict) -> str:
    """The phase a dataset is in by what the dead server has left; empty between them and after the last one."""
    with reading(server) as database:
        (state,) = database.execute("SELECT state FROM topics").fetchone()
    if state == "installing":
        installed = [path.name for path in server.environments_dir.glob("*") if re.fullmatch("[0-9a-f]{32}", path.name)]
        return "reading the config" if installed else "install"
    if state == "ready":
        size = undisturbed(canonical_json(config))["archive"]["bytes"]
        return "download" if any(0 < part < size for part in parts(folder)) else ""
    return _STATES.get(state, state)


def parts(folder: Path) -> list[int]:
    """How far the clients' downloads are, in bytes."""
    sizes = []
    for work in folder.glob("cache-*/downloads/*/work.*/files"):
        with contextlib.suppress(FileNotFoundError):  # installed meanwhile
            # of files that are written in any order: what they have of the disk, not how long they are
            sizes.append(sum(path.stat().st_blocks for path in work.iterdir()) * 512)
    return sizes
