"""What else happens to a server: workers, disks, the database, the clock, the network, and a second server."""

import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from dataset_client.protocol import canonical_json, hash_dataset_name
from tests.proofs.case import Case, NotHere
from tests.proofs.proxy import Cuts, Proxy, Where
from tests.proofs.scene import (
    VERSION,
    WatchedServer,
    ask,
    check_end,
    check_no_process,
    ending,
    kill,
    listening,
    make_server,
    reading,
    reasons,
    running,
    wait_for,
)
from tests.support import processes_mentioning, wait_until

CONFIG = {"count": 24, "bytes_each": 200_000, "each": 0.1, "examples_per_shard": 3}
TOPIC = hash_dataset_name("paced", VERSION, canonical_json(CONFIG))
QUICK = {"retry_seconds": 0.2, "stall_timeout": 4.0}
#: Where connections are cut, and the powers of ten between which the bytes lie that pass before.
CUTS: dict[Where, tuple[float, float]] = {"header": (1, 2.2), "WebSocket": (0, 3.3), "body": (0, 6.6)}


def cases(cuts: int) -> Iterator[Case]:
    """All of them; ``cuts`` is how many times the network is cut."""
    for number in range(5):
        yield Case("worker", f"killed {number}", partial(worker, signal.SIGKILL, number / 5))
        yield Case("worker", f"hung {number}", partial(worker, signal.SIGSTOP, number / 5))
    yield Case("worker", "out of memory", out_of_memory)
    for fault in ("fork", "escape", "orphan"):
        yield Case("handler", f"leaves processes behind: {fault}", partial(outlived, fault))
    for attack in ("truncated shard", "swapped shards"):
        yield Case("handler", f"returns {attack}", partial(returned, attack))
    for how in (truncate, swap, remove):
        yield Case("shards", f"{how.__name__}d before a restart", partial(spoiled_shard, how))
    yield Case("disk", "full while building", full_disk)
    for name, trouble in (("locked", locked), ("read-only", read_only)):
        for state in ("planning", "building", "publishing"):
            yield Case("database", f"{name} from '{state}' on", partial(database_trouble, trouble, state))
    yield Case("database", "corrupted", corrupted)
    for hours in (-48, 48):
        yield Case("clock", f"stepped by {hours} h", partial(clock, hours))
    for number in range(cuts):
        where = list(CUTS)[number % len(CUTS)]
        yield Case(f"network cut in a {where}", f"cut {number}", partial(cut_network, where, number))
    for number in range(4):
        yield Case("network", f"cut before and after the last event, {number}", partial(cut_last_event, number))
    for number in range(3):
        yield Case("two servers", f"start {number}", partial(second_server, number))
        yield Case("two servers", f"at once after a kill, {number}", two_at_once)


@contextmanager
def building(folder: Path, clients: int = 2, state: str = "building", **settings):
    """A server with waiting clients whose dataset is in ``state``; its end is checked."""
    with running(make_server(folder, **QUICK, **settings)) as server:
        with listening(server, TOPIC) as socket:
            waiting = [ask(server, folder, CONFIG, number=number) for number in range(clients)]
            wait_for(socket, lambda event: event["kind"] == "state" and event["data"]["state"] == state)
            yield server, socket
        check_end(server, waiting, CONFIG)


def handlers_of(server) -> list[int]:
    """Processes of the handler, the latest last."""
    work = str(server.data_dir / "work")
    return sorted(int(line.split()[0]) for line in processes_mentioning(work) if "build-" in line)


def worker(how: int, moment: float, folder: Path) -> None:
    """A pool worker is killed, or stands still for ever."""
    with building(folder) as (server, socket):
        wait_for(socket, lambda event: event["kind"] == "shard")
        time.sleep(moment)
        os.kill(handlers_of(server)[-1], how)
    assert reasons(server), "no try failed"


def out_of_memory(folder: Path) -> None:
    """Workers that want more memory than there is, once."""
    config = {"fault": "allocate", "times": 1}
    with running(make_server(folder, **QUICK, handler_memory=512 << 20)) as server:
        with listening(server, hash_dataset_name("faulty", VERSION, canonical_json(config))) as socket:
            client = ask(server, folder, config, name="faulty")
            wait_for(socket, lambda event: event["kind"] == "state" and "memory" in event["data"].get("reason", ""))
        check_end(server, [client], config, name="faulty")


def after_a_failure(server: WatchedServer, folder: Path) -> None:
    """Nothing that was started is left, and the next dataset is made."""
    check_no_process(server.data_dir / "work")
    check_end(server, [ask(server, folder, CONFIG)], CONFIG)


def outlived(fault: str, folder: Path) -> None:
    """A handler forks, and goes; what it left behind goes too."""
    with running(make_server(folder, **QUICK)) as server:
        failed = server.make("faulty", {"fault": fault}, VERSION)
        assert failed["kind"] == "failed", failed
        left = re.search(r"left child (\d+) behind", failed["message"])
        assert (left is not None) == (fault != "orphan"), failed
        if left:
            assert wait_until(lambda: not Path("/proc", left[1]).exists(), 20), f"process {left[1]} is left"
        after_a_failure(server, folder)


def returned(attack: str, folder: Path) -> None:
    """A handler announces shards, and spoils them before it is done: nothing of that is published."""
    with running(make_server(folder, **QUICK)) as server:
        failed = server.make("hostile", {"attack": attack}, "0.0.2")
        assert failed["kind"] == "failed", failed
        assert failed["code"] in ("shard_corrupt", "handler_protocol"), failed
        assert not list((server.data_dir / "archives").iterdir()), "it was published"
        after_a_failure(server, folder)


def sealed_files(server) -> list[Path]:
    """Shards on disk that are not published yet."""
    return sorted((server.data_dir / "work").glob("*/dataset/*.tfrecord-*"))


def truncate(files: list[Path]) -> None:
    """Half of a shard is gone."""
    os.truncate(files[0], files[0].stat().st_size // 2)


def swap(files: list[Path]) -> None:
    """Two shards have each other's contents."""
    first, second = (file.read_bytes() for file in files[:2])
    files[0].write_bytes(second)
    files[1].write_bytes(first)


def remove(files: list[Path]) -> None:
    """A shard is gone."""
    files[0].unlink()


def spoiled_shard(how: Callable[[list[Path]], None], folder: Path) -> None:
    """A sealed shard is spoiled while the server is down."""
    with building(folder) as (server, _):
        assert wait_until(lambda: len(sealed_files(server)) >= 3, 60)
        kill(server)
        how(sealed_files(server))
        server.start()


@contextmanager
def small_disk(folder: Path, size: str):
    """``folder`` as a file system of ``size``; ours to mount only as root."""
    folder.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "proof", str(folder)], check=False).returncode:
        raise NotHere("no right to mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def full_disk(folder: Path) -> None:
    """The disk fills up in the middle of a build, to its last byte, the database's too; later it has room again."""
    with small_disk(folder / "data", "64m"), building(folder) as (server, socket):
        wait_for(socket, lambda event: event["kind"] == "shard")
        filling = server.data_dir / "other-peoples-data"
        with filling.open("wb") as file:
            try:
                while True:
                    file.write(b"\0" * (1 << 18))
                    file.flush()
            except OSError:
                pass
        log = server.data_dir / "test-server.log"  # itself cut short by the full disk: what counts is what fails
        assert wait_until(lambda: not handlers_of(server), 60), log.read_text()[-2000:]
        filling.unlink()
        wait_for(socket, lambda event: event["kind"] == "state" and "reason" in event["data"])


def locked(server, seconds: float) -> None:
    """Somebody else holds the write lock."""
    with closing(sqlite3.connect(server.data_dir / "server.db", timeout=30)) as database:
        database.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        database.execute("ROLLBACK")


def read_only(server, seconds: float) -> None:
    """The database's files refuse to be written to, also through what is open, as on a file system after an error.

    A file system with open files cannot be mounted read-only on purpose; files can be made immutable.
    """
    files = sorted(str(path) for path in server.data_dir.glob("server.db*"))
    if subprocess.run(["chattr", "+i", *files], check=False, capture_output=True).returncode:
        subprocess.run(["chattr", "-i", *files], check=False, capture_output=True)
        raise NotHere("files cannot be made immutable here")
    try:
        time.sleep(seconds)
    finally:
        subprocess.run(["chattr", "-i", *files], check=True)


def database_trouble(trouble: Callable, state: str, folder: Path) -> None:
    """The database cannot be written to for longer than its time-out for locks and a lease last, and then it can."""
    words, seconds = {
        locked: ("database is locked", 35),
        read_only: ("readonly database|disk I/O error", 5),
    }[trouble]
    with building(folder, state=state) as (server, _):
        trouble(server, seconds)
    assert re.search(words, (server.data_dir / "test-server.log").read_text()), "the server met nothing of it"


def start(server) -> str:
    """Start a server; what it says if it does not, or nothing."""
    try:
        server.start()
    except AssertionError as refused:
        server.process.wait(20)
        server.close_files()
        return str(refused)
    return ""


def refused_start(server) -> str:
    """What a server says that must not start."""
    with ending(server):
        words = start(server)
        assert words, "a server started that must not"
        return words


def corrupted(folder: Path) -> None:
    """A spoiled database is refused, in words; its backup works."""
    with building(folder) as (server, socket):
        wait_for(socket, lambda event: event["kind"] == "shard")
        kill(server)
        file = server.data_dir / "server.db"
        for name in ("server.db", "server.db-wal", "server.db-shm"):
            if (server.data_dir / name).exists():
                shutil.copy(server.data_dir / name, folder / name)
        with closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with file.open("r+b") as spoiled:
            spoiled.seek(100)
            spoiled.write(random.Random(1).randbytes(file.stat().st_size - 100))
        words = refused_start(server)
        assert "cannot start" in words, words
        assert "restore" in words, words
        for name in ("server.db", "server.db-wal", "server.db-shm"):
            (server.data_dir / name).unlink(missing_ok=True)
            if (folder / name).exists():
                shutil.copy(folder / name, server.data_dir / name)
        server.start()


def clock(hours: int, folder: Path) -> None:
    """The wall clock jumps while a dataset is built (libfaketime; the monotonic clock goes on)."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        raise NotHere("libfaketime is not installed")
    stamp = folder / "clock"
    stamp.write_text("+0")
    server = make_server(folder, **QUICK)
    server.environment |= {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(stamp),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with running(server):
        with listening(server, TOPIC) as socket:
            clients = [ask(server, folder, CONFIG, number=number) for number in range(2)]
            wait_for(socket, lambda event: event["kind"] == "shard")
            stamp.write_text(f"{hours * 3600:+}")
        check_end(server, clients, CONFIG)
    with reading(server) as database:
        (spread,) = database.execute("SELECT max(created_at) - min(created_at) FROM events").fetchone()
    assert spread > (abs(hours) - 1) * 3600, "the server's clock did not jump"


@contextmanager
def through(server: WatchedServer, proxy: Proxy):
    """Who asks meanwhile does so through ``proxy``."""
    direct, server.url = server.url, f"http://127.0.0.1:{proxy.port}"
    try:
        yield
    finally:
        proxy.close()
        server.url = direct


def cut_network(where: Where, number: int, folder: Path) -> None:
    """Up to four connections are reset in the middle of their headers, their frames, or their bodies."""
    draw = random.Random(number)
    with running(make_server(folder, **QUICK)) as server:
        # The largest cuts fall into the archive (5 MB).
        proxy = Proxy(server.port, Cuts(where, [int(10 ** draw.uniform(*CUTS[where])) for _ in range(4)]))
        with through(server, proxy):
            clients = [ask(server, folder, CONFIG, number=client) for client in range(2)]
            for client in clients:
                client.dataset(240)
        assert proxy.cut, "nothing was cut"
        check_end(server, clients, CONFIG)


def cut_last_event(number: int, folder: Path) -> None:
    """One socket is cut right before the last event passes, another one right after."""
    with running(make_server(folder, **QUICK)) as server:
        proxy = Proxy(server.port, word=b'"kind":"ready"')
        with through(server, proxy):
            clients = [ask(server, folder, CONFIG, number=client) for client in range(2 + number)]
            for client in clients:
                client.dataset(240)
        assert proxy.cut_around == ["before", "after"], proxy.cut_around
        check_end(server, clients, CONFIG)


def second_server(number: int, folder: Path) -> None:
    """Others are started on the same folder by mistake; they say who is there, and go."""
    with building(folder):
        others = [make_server(folder) for _ in range(number + 1)]
        with ThreadPoolExecutor(len(others)) as pool:
            refused = list(pool.map(refused_start, others))
        assert all("served by process" in words for words in refused), refused


def two_at_once(folder: Path) -> None:
    """A server is killed, and two are started at once in its place: one serves, the other says so, and goes."""
    with building(folder) as (server, socket):
        wait_for(socket, lambda event: event["kind"] == "shard")
        kill(server)
        other = make_server(folder, **QUICK)
        other.port = server.port
        with ending(other), ThreadPoolExecutor(2) as pool:
            words = list(pool.map(start, (server, other)))
            winner = (server, other)[words.index("")]
            assert f"served by process {winner.process.pid}" in "".join(words), words
            if winner is other:
                server.process, server.log, other.process = other.process, other.log, server.process
