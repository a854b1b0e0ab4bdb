"""A handler package that speaks the protocol and tries the attack that its config names, on each of ``targets``.

What came of it is the message of its last word, a line for each: ``PermissionError …`` where it was refused.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

command, request = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
config = request.get("config", {})
attack, target = config.get("attack"), ""


def say(**event: object) -> None:
    """Print one event."""
    print(json.dumps(event), flush=True)


def sleep_on() -> None:
    """Be hard to get rid of."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    with Path("daemons").open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(600)


def daemon() -> str:
    """Leave one process in a session of its own, and one whose parent is gone as well, with nothing open."""
    for forks in (1, 2):
        if os.fork() == 0:
            os.setsid()
            if forks == 2 and os.fork():
                os._exit(0)
            os.closerange(0, 64)
            sleep_on()
    while not Path("daemons").exists() or len(Path("daemons").read_text().split()) < 2:
        time.sleep(0.01)
    if config.get("stay"):
        time.sleep(600)
    return "left two processes"


def fork_many() -> str:
    """Five hundred processes."""
    for _ in range(500):
        if os.fork() == 0:
            time.sleep(600)
    time.sleep(600)
    return "all of them run"


def allocate() -> str:
    """A gigabyte, in two processes."""
    os.fork()
    kept = [b"x" * (1 << 20) for _ in range(512)]
    time.sleep(600)
    return f"{len(kept)} MiB"


def burn() -> str:
    """Two processes that are never done."""
    os.fork()
    while True:
        pass


def write_much() -> str:
    """A file of 64 MiB."""
    with Path("large").open("wb") as file:
        file.writelines(bytes(1 << 20) for _ in range(64))
    return "written"


def flood(stream: int) -> str:
    """Valid events, or lines of a log, without end."""
    lines = (b'{"event": "progress", "done": 1, "total": 2}' + b" " * 4000 + b"\n") * 100
    while True:
        os.write(stream, lines)


def publish_link() -> str:
    """Have the server publish a file that only the server can read."""
    folder = Path(request["work_dir"]) / "dataset"
    folder.mkdir()
    for name in ("features.json", "dataset_info.json", "lineage.jsonl"):
        (folder / name).symlink_to(target)
    (folder / "manifest.json").write_text(json.dumps({"config": {}, "environment": {}, "raw_data": {"sha256": ""}}))
    say(event="finished", files=sorted(path.name for path in folder.iterdir()))
    sys.exit(0)


def spoil_shards(*, swapped: bool) -> str:
    """Announce two shards, and spoil them when the server has heard of them: cut off, or each in the other's place."""
    folder = Path(request["work_dir"]) / "dataset"
    folder.mkdir()
    shards = [folder / f"hostile-train.tfrecord-{number:05}-of-00002" for number in range(2)]
    for number, shard in enumerate(shards):
        shard.write_bytes(bytes([number]) * 4096)
        sha256 = hashlib.sha256(shard.read_bytes()).hexdigest()
        say(event="shard", number=number, file=shard.name, split="train", examples=1, bytes=4096, sha256=sha256)
    time.sleep(1)  # the server looks at what is announced
    for number, shard in enumerate(shards):
        shard.write_bytes(bytes([1 - number]) * 4096 if swapped else b"")
    for name in ("features.json", "dataset_info.json", "lineage.jsonl"):
        (folder / name).write_text("{}")
    (folder / "manifest.json").write_text(json.dumps({"config": {}, "environment": {}, "raw_data": {"sha256": ""}}))
    say(event="finished", files=sorted(path.name for path in folder.iterdir()))
    sys.exit(0)


def touch() -> str:
    """Have a file's mode, times, owner or attributes changed."""
    before = os.stat(target)
    os.chmod(target, 0)
    os.utime(target, (1, 1))
    with open(target, "rb") as file:
        os.fchmod(file.fileno(), 0)
    after = os.stat(target)
    if (before.st_mode, before.st_mtime_ns) != (after.st_mode, after.st_mtime_ns):
        return "changed"
    os.chown(target, 1, 1)
    return "given away"


def hide_memory() -> str:
    """A gigabyte in a process whose main thread has ended, and which has no memory by its own entry in /proc."""

    def fill() -> None:
        kept = [b"x" * (1 << 20) for _ in range(1024)]
        time.sleep(600 if kept else 0)

    threading.Thread(target=fill).start()
    ctypes.CDLL(None).syscall(93 if os.uname().machine == "aarch64" else 60, 0)  # exit(2): of this thread alone
    return "it goes on"


def start_threads() -> str:
    """Ten thousand threads."""
    threading.stack_size(1 << 16)
    try:
        for _ in range(10_000):
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    except RuntimeError:
        return "no more can be started"
    time.sleep(600)
    return "all of them run"


def flee() -> str:
    """Processes in sessions of their own that go, each after it has begotten the next."""
    for _ in range(8):
        if os.fork() == 0:
            with contextlib.suppress(OSError):
                while True:
                    os.setsid()
                    if os.fork():
                        break
            os._exit(0)
    time.sleep(0.2)
    return "fled"


def replace_log() -> str:
    """Have the server write what is printed as errors into a file of its own; shown by the command after this one."""
    print("what the handler prints", file=sys.stderr, flush=True)
    return "printed"


def private_files() -> str:
    """Files of other processes that root may read anywhere, and what little the system needs to show."""
    seen = [name for name in ("environ", "mem", "maps", "cwd/server.db", "fd/0") if _opens(f"/proc/{target}/{name}")]
    return f"opened {seen}, and of its own {_opens('/proc/self/environ')}"


def _opens(path: str) -> bool:
    try:
        with open(path, "rb"):
            return True
    except OSError:
        return False


def kill(process: int) -> str:
    """End a process that is not ours."""
    os.kill(process, signal.SIGKILL)
    return "killed"


def trace() -> str:
    """Take hold of another process with ptrace(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, int(target), None, None) != 0:  # PTRACE_ATTACH
        raise OSError(ctypes.get_errno(), "ptrace")
    return "attached"


ATTACKS = {
    "read": lambda: f"read {len(Path(target).read_bytes())} bytes",
    "list": lambda: f"found {os.listdir(target)}",
    "write": lambda: f"wrote {Path(target).write_text('hostile')} bytes",
    "truncate": lambda: f"truncated {os.truncate(target, 0)}",
    "remove": lambda: f"removed {os.unlink(target)}",
    "rename": lambda: f"renamed {os.rename(target, target + '.gone')}",
    "link": lambda: f"linked {os.link(target, 'mine')}",
    "private files": private_files,
    "daemon": daemon,
    "fork": fork_many,
    "allocate": allocate,
    "burn": burn,
    "write much": write_much,
    "flood events": lambda: flood(1),
    "flood log": lambda: flood(2),
    "publish link": publish_link,
    "truncated shard": lambda: spoil_shards(swapped=False),
    "swapped shards": lambda: spoil_shards(swapped=True),
    "touch": touch,
    "hide memory": hide_memory,
    "threads": start_threads,
    "flee": flee,
    "replace log": replace_log,
    "connect": lambda: f"connected {socket.create_connection(('127.0.0.1', int(target)), 5)}",
    "bind": lambda: f"listens {socket.create_server(('127.0.0.1', 0))}",
    "kill": lambda: kill(int(target)),
    "kill parent": lambda: kill(os.getppid()),
    "trace": trace,
}

if command == "describe":
    say(event="described", handler_api=1, options={}, effective_config=config)
elif command == "plan":
    folder = Path(request["work_dir"]) / "plan"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text("{}")
    if attack == "replace log":
        Path("build.log").symlink_to(config["targets"][0])
    say(event="planned")
else:
    outcomes = []
    for target in config.get("targets", [""]):  # noqa: B007 - the attacks look at the global
        try:
            outcomes.append(ATTACKS[attack]())
        except OSError as error:
            outcomes.append(f"{type(error).__name__}: {error}")
    say(event="error", code="handler_failed", message="\n".join(outcomes))
