"""``kill -9`` of the client wherever it may be, and a network and a server that err while it downloads.

Each case: a client asks, and something happens to it. Another call goes on from what the first one has left. It must
end with the right bytes, ask for nothing again that had arrived, and leave nothing behind. Half of the kills are before
a real server, which builds the dataset, half before the one that the client's tests have. A kill counts for what it
hit, which the client says as it dies (`killed`).
"""

import io
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from dataset_client.protocol import canonical_json
from tests.proofs.case import Case
from tests.proofs.killed import PACE, digest_of
from tests.proofs.link import Corrupting, Delaying, Dropping, Ending, Heard, Link, Trouble
from tests.proofs.scene import VERSION, check_end, kill, make_server, running, undisturbed
from tests.support import ROOT, Server

sys.path.insert(0, str(Path(__file__).parents[1] / "client" / "support"))

CONFIG: dict[str, Any] = {"count": 96, "bytes_each": 10_000, "each": 0.005, "examples_per_shard": 12}
#: A record of that dataset, and what is around it.
_RECORD = 10_200
#: Phase: its share of the kills.
PHASES = {
    "asking": 8,
    "waiting": 8,
    "claiming": 8,
    "reading the end": 8,
    "downloading": 40,
    "verifying": 10,
    "installing": 12,
    "noting": 6,
}
#: What an interruption may cost: what was asked for at the time, and the end of the archive if that was not kept yet.
IN_FLIGHT = PACE.connections * PACE.piece + 8192
_TRIES = 4
_measuring = threading.Lock()


@dataclass
class Scene:
    """A dataset that can be had at ``url``; ``sent`` says how many bytes of its archive, which has ``size``, went out.
    ``digest`` is of its files, once it is made.
    """

    url: str
    request: tuple[str, str, dict[str, Any]]
    size: int
    digest: Callable[[], str]
    sent: Callable[[], int]


def cases(points: int) -> Iterator[Case]:
    """``points`` kills, at least one in each phase, and half as many faults of the network and the server."""
    for phase, share in PHASES.items():
        count = max(1, round(points * share / sum(PHASES.values())))
        for number in range(count):
            behind = (real_server, server_of_tests)[number % 2]
            name = f"{phase} at {number / count:.1%}, {behind.__name__.replace('_', ' ')}"
            yield Case("kill -9 of the client", name, partial(run, behind, phase, number / count))
    for what in TROUBLES:
        for number in range(max(1, points // 20)):
            yield Case(f"network: {what}", f"{what} {number}", partial(run_network, what, number))
    for number in range(max(1, points // 10)):
        yield Case("server killed while it sends", f"after {number * 10} %", partial(run_restart, number / 10))


# -- kills of the client


def run(behind: Callable[[Path], AbstractContextManager[Scene]], phase: str, moment: float, folder: Path) -> str:
    """One kill and what follows; one that came too late is repeated earlier. Returns what it hit."""
    for turn in range(_TRIES):
        now = moment * (1 - turn / _TRIES)
        step = int(1000 * now) if phase == "downloading" else 1 + int(now * steps_of(behind)[phase])
        with behind(folder / str(turn)) as scene:
            first = ask(scene, folder / str(turn) / "cache", phase, step)
            if first.returncode == -9:
                assert f"killed while {phase}" in first.stderr, first.stderr[-2000:]
                check_next(scene, folder / str(turn) / "cache", IN_FLIGHT)
                return f"kill -9 while {phase}"
            assert "digest" in json.loads(finished(first).stdout), first.stdout
    raise AssertionError("no kill hit anything")


def check_next(scene: Scene, cache: Path, extra: int) -> None:
    """The next call ends with the right bytes, for at most ``extra`` bytes more than there are, and tidies up."""
    said = json.loads(finished(ask(scene, cache)).stdout)
    assert said.get("digest") == scene.digest(), said
    again = scene.sent() - scene.size
    assert -0.1 * scene.size < again <= extra, f"{again} bytes were fetched twice"  # headers and gaps need not come
    left = [str(path) for name in ("downloads", "tmp", "shards") for path in (cache / name).iterdir()]
    left += [str(path) for path in cache.glob("uses/*/*") if path.name != "last"]
    assert not left, f"left behind: {left}"
    kept = sorted(path.name.removesuffix(".json") for path in (cache / "datasets").iterdir())
    assert kept == [Path(said["path"]).name] * 2, kept
    assert len(list((cache / "topics").iterdir())) == 1


def ask(scene: Scene, cache: Path, phase: str = "", step: int = 0) -> subprocess.CompletedProcess[str]:
    """A client's call (`killed`), to its end."""
    name, version, config = scene.request
    arguments = [scene.url, str(cache), name, version, json.dumps(config), *([phase, str(step)] if phase else [])]
    command = [sys.executable, "-m", "tests.proofs.killed", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, cwd=ROOT)


def finished(call: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """A call that nothing was to happen to."""
    assert call.returncode == 0, call.stderr[-2000:]
    return call


def steps_of(behind: Callable[[Path], AbstractContextManager[Scene]]) -> dict[str, int]:
    """How many steps each phase has where nothing happens."""
    with _measuring:
        return _steps_of(behind)


@cache
def _steps_of(behind: Callable[[Path], AbstractContextManager[Scene]]) -> dict[str, int]:
    with TemporaryDirectory() as folder, behind(Path(folder)) as scene:
        said = json.loads(finished(ask(scene, Path(folder, "cache"))).stdout)
        assert said["digest"] == scene.digest()
        return dict(said["steps"])


@contextmanager
def real_server(folder: Path) -> Iterator[Scene]:
    """A server that builds the dataset when it is asked for; its end is checked."""
    with running(make_server(folder)) as server, Link(server.port) as link:
        yield scene_of(server, link, wanted())
        check_end(server, [], CONFIG)


def wanted() -> dict[str, Any]:
    """What a server that nothing happens to says of the dataset's archive."""
    archive: dict[str, Any] = undisturbed(canonical_json(CONFIG))["archive"]
    return archive


def scene_of(server: Server, link: Link, archive: dict[str, Any]) -> Scene:
    """The dataset of a real server, which will have this ``archive``, as it is had through ``link``."""

    def digest() -> str:
        return digest_of(unzipped(server.get(archive["url"]).content))

    return Scene(link.url, ("paced", VERSION, CONFIG), archive["bytes"], digest, lambda: link.archive_bytes)


@contextmanager
def server_of_tests(_: Path) -> Iterator[Scene]:
    """The server of the client's tests, which has the dataset as soon as it is asked for."""
    from client_archives import make_archive
    from client_server import DatasetServer, Topic

    from dataset_client.request import make_request

    archive = make_archive(splits={"train": 40, "val": 10}, shard_size=10)
    request = ("discs", "v1", {})
    server = DatasetServer()
    server.start()
    try:
        happens = [("state", {"state": "building"}), ("progress", {"done": 1, "total": 2}), ("ready", None)]
        server.topics[make_request(*request).topic_id] = Topic(archive=archive, on_ask=happens)
        digest = digest_of(unzipped(archive.data))
        yield Scene(server.url, request, len(archive.data), lambda: digest, lambda: server.sent)
    finally:
        server.close()


def unzipped(archive: bytes) -> dict[str, bytes]:
    """The files of an archive."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


# -- what else happens


def places(number: int, count: int) -> list[int]:
    """``count`` numbers of bytes at which something happens to an archive, others for each ``number``."""
    draw = Random(number)
    return [draw.randrange(int(0.95 * CONFIG["count"] * CONFIG["bytes_each"])) for _ in range(count)]


#: What the network does, by the number of the case; how many bytes each time may cost; and whether the call may fail.
TROUBLES: dict[str, tuple[Callable[[int], Trouble], int, bool]] = {
    "archives corrupted": (lambda number: Corrupting(150_000, number), 2 * _RECORD + 8192, False),
    "anything corrupted": (lambda number: Corrupting(60_000, number, everything=True), 2 * _RECORD + IN_FLIGHT, True),
    "delayed": (lambda number: Delaying(0.05, number), 0, False),
    "truncated": (lambda number: Ending(places(number, 5)), IN_FLIGHT, False),
    "reset": (lambda number: Ending(places(number, 5), by_reset=True), IN_FLIGHT, False),
    "dropped": (lambda number: Dropping(places(number, 2)), IN_FLIGHT, False),
}


def run_network(what: str, number: int, folder: Path) -> None:
    """A call through a network that errs, and another one through one that does not."""
    with running(make_server(folder)) as server:
        through(server, wanted(), what, number, folder / "cache")
        check_end(server, [], CONFIG)


def through(server: Server, archive: dict[str, Any], what: str, number: int, cache: Path) -> None:
    """Ask a server through one of the `TROUBLES`: the call ends with the dataset, or with an error that has a name."""
    make, each, may_fail = TROUBLES[what]
    trouble = make(number)
    with Link(int(server.url.rsplit(":", 1)[1]), trouble) as link:
        scene = scene_of(server, link, archive)
        said = json.loads(finished(ask(scene, cache)).stdout)
        assert trouble.hits, "nothing happened"
        if "error" not in said:
            assert said["digest"] == scene.digest()
        elif not may_fail:
            raise AssertionError(said)
        link.trouble = None
        check_next(scene, cache, each * trouble.hits)


class Reaching:
    """Says when so many bytes of archives have come."""

    def __init__(self, after: int) -> None:
        self._after = after
        self.reached = threading.Event()
        self.hits = 0

    def __call__(self, data: bytes, heard: Heard) -> bytes:
        """The chunk, as it is."""
        if heard.is_archive and heard.before + len(data) > self._after:
            self.reached.set()
        return data


def run_restart(share: float, folder: Path) -> None:
    """The server is killed when a share of the archive has come, and is started again: the same call goes on."""
    reaching = Reaching(int(share * CONFIG["count"] * CONFIG["bytes_each"]))
    server = make_server(folder / "server")
    with running(server), Link(server.port, reaching) as link, ThreadPoolExecutor(1) as pool:
        scene = scene_of(server, link, wanted())
        call = pool.submit(ask, scene, folder / "cache")
        assert reaching.reached.wait(120), "no byte came"
        kill(server)
        server.start()
        assert "digest" in json.loads(finished(call.result()).stdout)
        check_next(scene, folder / "cache", IN_FLIGHT)
        check_end(server, [], CONFIG)
