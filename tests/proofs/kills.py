"""``kill -9`` of the server at points spread over everything a dataset goes through.

Three clients wait. The server is killed a moment after a phase has begun, comes back on the same folder and port, and
every client must end with the same bytes as from a server that nothing happened to.
"""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from dataset_client.protocol import canonical_json, hash_dataset_name
from tests.proofs.case import Case
from tests.proofs.scene import VERSION, ask, check_end, kill, listening, make_server, wait_for

#: Enough shards for a build to be cut anywhere, enough bytes for a download to be.
CONFIG = {"count": 24, "bytes_each": 400_000, "each": 0.05, "planning": 0.4, "examples_per_shard": 3}

#: Phase: its share of the points, and the seconds after its first sign within which the server is killed.
PHASES = {"install": (30, 4.0), "plan": (30, 1.5), "build": (80, 2.5), "publish": (30, 0.25), "download": (30, 0.5)}
_BEGINS = {"install": "installing", "plan": "planning", "build": "building", "publish": "publishing"}


def cases(points: int) -> Iterator[Case]:
    """``points`` kills, spread over the phases as `PHASES` says, at least one each."""
    whole = sum(share for share, _ in PHASES.values())
    for phase, (share, seconds) in PHASES.items():
        count = max(1, round(points * share / whole))
        for number in range(count):
            delay = seconds * number / count
            yield Case(f"kill -9 during {phase}", f"{delay:.3f} s in", partial(run, phase, delay))


def run(phase: str, delay: float, folder: Path) -> None:
    """One kill and what follows."""
    server = make_server(folder, own_environments=phase == "install").start()
    topic = hash_dataset_name("paced", VERSION, canonical_json(CONFIG))

    def begins(event: dict) -> bool:
        if phase == "download":
            return event["kind"] == "ready"
        return event["kind"] == "state" and event["data"]["state"] == _BEGINS[phase]

    with listening(server, topic) as socket:
        clients = [ask(server, folder, CONFIG, number=number) for number in range(3)]
        wait_for(socket, begins)
        time.sleep(delay)
        kill(server)
    server.start()
    check_end(server, clients, CONFIG)
