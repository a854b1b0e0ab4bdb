"""What a hostile handler tries, and what comes of it: a code, or a refusal; nothing is left, and the server goes on."""

import asyncio
import errno
import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dataset_server import confinement, process_tree, processes, supervisor
from dataset_server.confinement import Confinement, Limits, for_handlers, gaps, linked_folders, rules
from dataset_server.errors import HandlerFaultError
from dataset_server.processes import Pipe, Report, Supervised, can_filter_calls, landlock_abi, run_tool, two_pipes
from dataset_server.runner import Allowance, _judge, refuse_links
from dataset_server.settings import load_settings
from tests.support import ROOT, Server, processes_mentioning, wait_until

needs_landlock = pytest.mark.skipif(landlock_abi() < confinement.OLDEST_ABI, reason="this kernel has no Landlock")
needs_scopes = pytest.mark.skipif(landlock_abi() < 6, reason="this kernel's Landlock knows no scopes")
needs_network_rules = pytest.mark.skipif(landlock_abi() < 4, reason="this kernel's Landlock knows no network")

SECRET = "a-secret-of-the-server-4711"
LIMITS = {
    "handler_memory": 512 << 20,
    "handler_processes": 40,
    "handler_file_size": 16 << 20,
    "workers": 2,
    "build_timeout": 60,
    "retry_limit": 0,
}


# The server


@pytest.fixture(scope="module")
def attacked(raw_root, environments_dir, plugin_sources, tmp_path_factory):
    """A server with low limits; in the end, it makes a dataset that is none of these attacks."""
    running = Server(
        raw_root,
        tmp_path_factory.mktemp("attacked"),
        environments_dir,
        handlers={name: plugin_sources[name] for name in ("hostile", "tones")},
        settings=LIMITS,
        environment={"A_SECRET": SECRET},
    ).start()
    other = running.data_dir / "work" / "another-build"
    other.mkdir()
    (other / "secret").write_text("not yours")
    foreign = environments_dir / "another-environment"
    foreign.mkdir(exist_ok=True)
    (foreign / "module.py").write_text("print('trusted')\n")
    yield running
    assert running.process.poll() is None
    assert (other / "secret").read_text() == "not yours"
    assert (foreign / "module.py").read_text() == "print('trusted')\n"
    ready = running.make("tones", {"seed": 4711}, version="1.0")
    assert ready["kind"] == "ready", ready
    assert running.stop() == 0


@pytest.fixture
def attack(attacked):
    """Has an attack tried; returns the ``failed`` event, when nothing of it is left."""

    def try_out(name, *targets, **more):
        config = {"attack": name, "targets": [str(target) for target in targets] or [""], **more}
        result = attacked.make("hostile", config, version="0.0.2")
        assert result["kind"] == "failed", result
        assert wait_until(lambda: not processes_mentioning(str(attacked.data_dir / "work")))
        assert attacked.get("datasets").status_code == 200
        return result

    return try_out


def refused(result) -> bool:
    """Landlock answers EACCES or EPERM, and to links from outside EXDEV, as if they led to another file system."""
    words = ("PermissionError", f"OSError: [Errno {errno.EXDEV}]")
    return result["code"] == "handler_failed" and all(line.startswith(words) for line in result["message"].splitlines())


@needs_landlock
@pytest.mark.parametrize("way", ["read", "write", "remove", "rename", "link"])
def test_what_is_the_servers_or_anothers_is_out_of_reach(attacked, attack, way):
    """The database, another build, another environment."""
    foreign = ["work/another-build/secret", "server.db"]
    targets = [attacked.data_dir / name for name in foreign]
    result = attack(way, *targets, attacked.environments_dir / "another-environment" / "module.py")
    assert refused(result), result
    assert len(result["message"].splitlines()) == 3


@needs_landlock
def test_folders_of_the_server_cannot_be_listed(attacked, attack):
    result = attack("list", *(attacked.data_dir / name for name in ("", "work", "archives", "work/another-build")))
    assert refused(result), result


@needs_landlock
def test_raw_data_can_be_read_but_not_written_to(attacked, attack):
    photo = next(path for path in sorted(attacked.raw_root.rglob("*.jpg")))
    before = photo.read_bytes()
    assert attack("read", photo)["message"] == f"read {len(before)} bytes"
    assert refused(attack("write", photo, photo.with_name("planted.jpg")))
    for way in ("truncate", "remove", "rename", "link"):
        assert refused(attack(way, photo)), way
    assert photo.read_bytes() == before
    assert not photo.with_name("planted.jpg").exists()


@needs_landlock
def test_the_environment_and_memory_of_the_server_are_not_readable(attacked, attack):
    pid = attacked.process.pid
    assert SECRET.encode() in Path(f"/proc/{pid}/environ").read_bytes()  # to whoever is not confined, and root
    assert attack("private files", pid)["message"] == "opened [], and of its own True"
    assert refused(attack("trace", pid))


@needs_scopes
def test_neither_the_server_nor_the_supervisor_can_be_killed(attacked, attack):
    assert refused(attack("kill", attacked.process.pid))
    assert refused(attack("kill parent"))


@needs_network_rules
def test_there_is_no_network(attacked, attack):
    port = attacked.url.rsplit(":", 1)[1]
    assert refused(attack("connect", port))
    assert refused(attack("bind"))


@pytest.mark.skipif(confinement.calls(filters=can_filter_calls()) is None, reason="no system calls are filtered here")
def test_modes_times_and_owners_of_what_can_be_read_stay(attacked, attack):
    photo = next(path for path in sorted(attacked.raw_root.rglob("*.jpg")))
    before = photo.stat()
    assert refused(attack("touch", photo))
    after = photo.stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_uid) == (before.st_mode, before.st_mtime_ns, before.st_uid)


def test_links_are_neither_published_nor_written_through(attacked, attack):
    victim = attacked.data_dir / "server.db"
    assert attack("publish link", victim)["code"] == "handler_protocol"
    plain = attacked.data_dir / "of-the-server"
    plain.write_text("as it was")
    assert attack("replace log", plain)["message"] == "printed"
    assert plain.read_text() == "as it was"


def test_children_in_sessions_of_their_own_end_with_the_build(attack):
    assert attack("daemon")["message"] == "left two processes"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("fork", "handler_processes_exceeded"),
        ("allocate", "handler_out_of_memory"),
        ("hide memory", "handler_out_of_memory"),
        ("flood events", "handler_output_exceeded"),
        ("flood log", "handler_output_exceeded"),
    ],
)
def test_limits(attack, name, code):
    assert attack(name)["code"] == code


def test_threads_are_limited(attack):
    """By the kernel where the server is not root, else by looking at them."""
    result = attack("threads")
    assert result["code"] == "handler_processes_exceeded" or result["message"] == "no more can be started", result


def test_who_begets_and_goes_does_not_get_away(attack):
    assert attack("flee")["message"] == "fled"


def test_a_file_that_grows_too_large(attack):
    """Python ignores SIGXFSZ and raises, so that it is the handler's word that tells."""
    result = attack("write much")
    assert result["code"] == "handler_file_too_large", result


def test_a_killed_server_leaves_no_process(make_server, plugin_sources):
    server = make_server("killed", handlers=plugin_sources)
    work = server.data_dir / "work"
    server.post("hostile", {"attack": "daemon", "stay": True}, version="0.0.2")
    assert wait_until(lambda: any(len(path.read_text().split()) == 2 for path in work.glob("*/daemons")), 60)
    assert len(processes_mentioning(str(work))) >= 3
    server.stop(signal.SIGKILL)
    assert wait_until(lambda: not processes_mentioning(str(work)))


# The supervisor


async def supervise(code: str, limits: Limits | None = None, **more):
    """Run Python ``code``; its output and the report."""
    output, errors = await Pipe.open(1 << 16), await Pipe.open(1 << 16)
    try:
        command = [sys.executable, "-I", "-S", "-c", code]
        running = await Supervised.start(command, output, errors, env={"PATH": "/usr/bin"}, limits=limits, **more)
        async with asyncio.timeout(60):
            said, _, report = await asyncio.gather(output.reader.read(), errors.reader.read(), running.report())
        return said.decode().strip(), report
    finally:
        output.end()
        errors.end()


@pytest.mark.parametrize(
    ("code", "status"),
    [("pass", 0), ("import os; os._exit(3)", 3), ("import os; os.kill(os.getpid(), 11)", -signal.SIGSEGV)],
)
async def test_the_status_is_the_programs_own(code, status):
    _, report = await supervise(code)
    assert (report.status, report.breach, report.not_started) == (status, None, None)


async def test_a_program_that_is_not_there():
    ended = await run_tool(["no-such-program-4711"], timeout=60)
    assert ended.status == 127
    assert "no-such-program-4711" in ended.errors


async def test_cpu_time_is_counted_over_the_tree():
    _, report = await supervise("import os\nos.fork()\nwhile True: pass", Limits(cpu_time=1))
    assert report.breach == "cpu_time" or report.status == -signal.SIGXCPU


async def test_cpu_time_of_children_that_nobody_waits_for_is_counted():
    """The kernel counts children nowhere whose parent ignores SIGCHLD."""
    code = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(8):
    if not os.fork():
        while time.process_time() < 0.6: pass
        os._exit(0)
    try: os.wait()
    except ChildProcessError: pass
"""
    _, report = await supervise(code, Limits(cpu_time=1))
    assert report.breach == "cpu_time", report


def test_the_cpu_time_of_those_who_have_gone(monkeypatch):
    """By number: when it started, its own ticks and those of its children; a second process gets the first's number."""
    monkeypatch.setattr(supervisor, "_TICKS", 1)
    monkeypatch.setattr(supervisor.resource, "getrusage", lambda _: SimpleNamespace(ru_utime=0, ru_stime=0))
    watch = supervisor._Watch(dict.fromkeys(Limits().to_json()))
    now = {}
    monkeypatch.setattr(supervisor, "ticks_of", lambda process: now.get(process, (b"", 0, 0)))

    def spent(there, looked_at):
        now.clear()
        now.update(there)
        return watch._cpu_time(looked_at)

    assert spent({1: (b"1", 5, 0), 2: (b"2", 7, 0)}, [1, 2]) == 12
    assert spent({1: (b"1", 5, 0), 2: (b"2", 8, 0)}, [1]) == 13, "missed, and counted all the same"
    assert spent({1: (b"1", 6, 0)}, [1, 2]) == 14
    assert spent({1: (b"1", 6, 8), 2: (b"9", 3, 0)}, [1]) == 14, "who waited for it knows no more, 2 is another's"
    assert spent({1: (b"1", 6, 20), 2: (b"9", 3, 0)}, [1, 2]) == 29
    assert spent({1: (b"1", 6, 20)}, [1]) == 26, "it is not told how much of that was seen"
    assert spent({}, [1]) == 17, "it has gone between two looks"
    assert not watch._seen


@pytest.mark.skipif(confinement.calls(filters=can_filter_calls()) is None, reason="no system calls are filtered here")
async def test_nothing_is_left_in_the_kernel():
    code = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for make in (lambda: libc.shmget(0, 4096, 0o1600), lambda: libc.semget(0, 1, 0o1600), lambda: libc.msgget(0, 0o1600),
             lambda: libc.mq_open(b"/test-of-a-dataset-server", 0o102, 0o600, None)):
    print(make(), ctypes.get_errno())
"""
    said, _ = await supervise(code, Limits(), calls=confinement.calls(filters=True))
    assert said.splitlines() == [f"-1 {errno.EPERM}"] * 4


@pytest.mark.skipif(confinement.calls(filters=can_filter_calls()) is None, reason="no system calls are filtered here")
async def test_the_supervisor_cannot_be_blinded():
    """Without open files it would see no process any more. A process may limit itself; a priority is as it was."""
    code = """
import os, resource, time
try:
    resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))
except PermissionError:
    print("refused")
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
print(resource.prlimit(0, resource.RLIMIT_NOFILE))
before = os.getpriority(os.PRIO_PROCESS, os.getppid())
os.setpriority(os.PRIO_PROCESS, os.getppid(), before + 5)
print(os.getpriority(os.PRIO_PROCESS, os.getppid()) - before, flush=True)
if not os.fork():
    os.setsid()
    if not os.fork():
        print(os.getpid(), flush=True)
        time.sleep(600)
else:
    time.sleep(1)
"""
    said, report = await supervise(code, Limits(processes=5), calls=confinement.calls(filters=True))
    refused, own, priority, left = said.splitlines()
    assert (refused, own, priority, report.status) == ("refused", "(60, 60)", "0", 0)
    assert not Path("/proc", left).exists()


async def test_memory_that_is_shared_counts_once():
    """Five processes hold the same 64 MiB: more than the limit by resident size, and less by what they take."""
    code = "import os, time\nkept = b'x' * (64 << 20)\nfor _ in range(4):\n  if not os.fork(): time.sleep(60)\n"
    _, report = await supervise(code + "time.sleep(1.5)", Limits(memory=200 << 20))
    assert (report.status, report.breach) == (0, None)
    code = "import os, time\nfor _ in range(4):\n  if not os.fork(): break\nkept = b'x' * (64 << 20)\ntime.sleep(60)"
    _, report = await supervise(code, Limits(memory=200 << 20))
    assert report.breach == "memory"


async def test_what_the_program_starts_with():
    code = (
        "import os, resource, signal\n"
        "print(os.getpid() == os.getsid(0), resource.getrlimit(resource.RLIMIT_CORE), os.listdir('/proc/self/fd'),"
        " signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, resource.getrlimit(resource.RLIMIT_FSIZE))"
    )
    said, _ = await supervise(code, Limits(file_size=1 << 20))
    assert said == "True (0, 0) ['0', '1', '2', '3'] True (1048576, 1048576)"


async def test_it_ends_the_tree_when_it_is_told_to_and_hears_nothing_else():
    output, errors = await Pipe.open(1 << 16), await Pipe.open(1 << 16)
    code = "import os, time\nos.fork()\nos.setsid() if os.getpid() != os.getsid(0) else 0\n"
    code += "os.write(1, b'1\\n')\ntime.sleep(600)"  # at once: print writes twice
    command = [sys.executable, "-u", "-c", code]
    running = await Supervised.start(command, output, errors, env={})
    assert await output.reader.readline() + await output.reader.readline() == b"1\n1\n"
    running._process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        assert (await running.end()).status == -signal.SIGKILL
        assert await output.reader.read() == b""
    output.end()
    errors.end()


async def begin(code: str) -> tuple[Supervised, int]:
    """A program that runs, and says its number first."""
    async with two_pipes(1 << 16) as (output, errors):
        command = [sys.executable, "-u", "-c", f"import os; print(os.getpid())\n{code}"]
        running = await Supervised.start(command, output, errors, env={})
        return running, int(await output.reader.readline())


async def cancel_often(task: asyncio.Task) -> None:
    """Cancel a task three times while it takes its end; raises `CancelledError` when that has come."""
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    await task


async def test_who_ends_a_program_and_is_cancelled_twice_stays_to_its_end():
    running, process = await begin("import time; time.sleep(600)")
    with pytest.raises(asyncio.CancelledError):
        await cancel_often(asyncio.create_task(running.end()))
    assert not Path(f"/proc/{process}").exists()


async def test_what_cannot_be_ended_is_left_to_the_supervisor(monkeypatch):
    running, process = await begin("import time; time.sleep(600)")
    monkeypatch.setattr(processes, "_ENDING_SECONDS", 0.0)
    running._process.send_signal(signal.SIGSTOP)
    assert (await running.end()).status is None
    assert (await running.end()).status is None
    running._process.send_signal(signal.SIGCONT)
    assert (await running.report()).status == -signal.SIGKILL
    assert not Path(f"/proc/{process}").exists()


async def test_a_tool_may_print_much_and_is_remembered_by_its_end(monkeypatch):
    monkeypatch.setattr(processes, "_MAX_OUTPUT", 1000)
    monkeypatch.setattr(processes, "_KEPT_ERRORS", 100)
    endless = await run_tool(["sh", "-c", "echo first >&2; yes"], timeout=60)
    assert (endless.status, endless.output) == (-signal.SIGKILL, "")
    assert "printed more than 1000 bytes" in endless.errors
    ended = await run_tool(["sh", "-c", "echo out; seq 100000 >&2; exit 3"], timeout=60)
    assert (ended.status, ended.output) == (3, "out\n")
    assert ended.errors.endswith("99999\n100000")
    assert len(ended.errors) <= 100


async def test_a_tool_that_takes_too_long_has_said_why():
    ended = await run_tool(["sh", "-c", "echo it waits for me >&2; sleep 600"], timeout=3)
    assert (ended.status, ended.tail) == (124, "it waits for me\nsh did not finish within 3 s")


async def test_pipes_are_closed_when_there_is_no_second_one(monkeypatch):
    before, opened = len(os.listdir("/proc/self/fd")), Pipe.open
    pipes = iter([opened(1 << 16)])

    async def open_one(limit):
        for pipe in pipes:
            return await pipe
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(Pipe, "open", open_one)
    with pytest.raises(OSError, match="too many"):
        await run_tool(["true"], timeout=60)
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_disk_keeps_what_shall_be_free(monkeypatch):
    nothing = dict.fromkeys(Limits().to_json())

    def breach(limit, start, now):
        free = iter([start, now])
        monkeypatch.setattr(supervisor, "_disk_free", lambda: next(free))
        return supervisor._Watch({**nothing, "disk_free": limit}).breach()

    assert breach(limit=100, start=1000, now=99) == "disk"
    assert breach(limit=100, start=1000, now=100) is None
    assert breach(limit=100, start=60, now=31) is None, "that the disk is full was not its doing"
    assert breach(limit=100, start=60, now=29) == "disk"


def test_shared_memory_that_nobody_uses_is_given_back():
    shared, before = Path("/dev/shm"), process_tree.shared_files()
    names = [shared / f"test-{os.getpid()}-{what}" for what in ("left", "open", "mapped")]
    for path in names:
        path.write_bytes(bytes(4096))
    try:
        with names[1].open("rb"), names[2].open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            file.close()
            process_tree.clear_shared(before)
            assert [path.exists() for path in names] == [False, True, True]
            mapped.close()
        process_tree.clear_shared(process_tree.shared_files())
        assert names[1].exists(), "it was there before"
    finally:
        for path in names:
            path.unlink(missing_ok=True)


def test_installers_do_not_outlive_a_killed_server(tmp_path):
    seconds = f"600{os.getpid()}"
    code = f"""
import asyncio
from dataset_server.processes import run_tool
asyncio.run(run_tool(["sh", "-c", "setsid sleep {seconds} & echo > started; sleep {seconds}"], timeout=600))
"""
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/bin:/usr/bin"}
    server = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    assert wait_until((tmp_path / "started").exists, 60)
    assert wait_until(lambda: len(processes_mentioning(f"sleep {seconds}")) == 4)  # with ours and the shell
    server.kill()
    server.wait()
    assert wait_until(lambda: not processes_mentioning(f"sleep {seconds}"))


# What is decided


def settings_of(tmp_path, **more):
    raw = tmp_path / "raw"
    raw.mkdir(exist_ok=True)
    return load_settings(raw_root=raw, data_dir=tmp_path / "data", **more)


def test_what_handlers_may_touch(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    limits = {"workers": 3, "handler_processes": 5, "handler_memory": "1GiB"}
    settings = settings_of(tmp_path, **limits, handler_reads=["/opt/models"])
    (settings.raw_root / "flowers").symlink_to(elsewhere)
    allowed = for_handlers(settings)
    assert allowed.reads == (settings.raw_root, elsewhere, Path("/opt/models"))
    assert (allowed.limits.processes, allowed.limits.memory) == (9, 1 << 30)
    assert allowed.limits.threads == 9 * 64
    settings.data_dir.mkdir()
    assert 0 < for_handlers(settings).limits.disk_free <= 2_000_000_000
    python, folder = tmp_path / "data" / "environments" / "key" / "bin" / "python", tmp_path / "data" / "work" / "it"
    python.parent.mkdir(parents=True)
    python.symlink_to("/usr/bin/python3")
    named = {Path(path): access for path, access in rules(allowed, python, folder, 7)["beneath"]}
    changing = ~(confinement.EXECUTE | confinement.READ_FILE | confinement.READ_DIR)
    below = {path: access for path, access in named.items() if path.is_relative_to(tmp_path)}
    assert set(below) == {settings.raw_root, elsewhere, python.parent.parent, folder}
    assert [path for path, access in below.items() if access & changing] == [folder]
    assert not below[folder] & (confinement.EXECUTE | confinement.MAKE_BLOCK | confinement.MAKE_CHAR)
    assert [path for path, access in named.items() if access & changing and path not in below] == [
        Path("/dev/null"),
        Path("/dev/zero"),
        Path("/dev/full"),
        Path("/dev/shm"),
    ]
    assert not {Path("/"), Path("/etc"), Path("/home"), Path("/root"), Path("/tmp"), Path("/run")} & set(named)


@pytest.mark.parametrize(
    ("abi", "newest", "network", "scoped"),
    [(2, 13, 0, 0), (3, 14, 0, 0), (4, 14, 3, 0), (5, 15, 3, 0), (6, 15, 3, 3), (9, 15, 3, 3)],
)
def test_rules_fit_the_kernel(tmp_path, abi, newest, network, scoped):
    made = rules(Confinement(Limits(), ()), Path(sys.executable), tmp_path, abi)
    assert (made["fs"], made["net"], made["scoped"]) == ((2 << newest) - 1, network, scoped)
    assert all(access & ~made["fs"] == 0 for _, access in made["beneath"])
    assert rules(Confinement(Limits(), (), network=True), Path(sys.executable), tmp_path, abi)["net"] == 0


@pytest.mark.parametrize("abi", [0, 1])
def test_without_landlock_there_are_no_rules_and_a_warning(tmp_path, abi):
    assert rules(Confinement(Limits(), ()), Path(sys.executable), tmp_path, abi) is None
    (gap,) = gaps(settings_of(tmp_path), abi)
    assert "Landlock" in gap


def test_a_data_folder_within_the_raw_data_is_warned_of(tmp_path):
    settings = settings_of(tmp_path)
    assert gaps(settings, 7) == []
    (first, second) = gaps(settings.model_copy(update={"data_dir": settings.raw_root / "data"}), 7)
    assert "data_dir" in first
    assert "environments" in second
    assert len(gaps(settings, 2)) == 3


def test_a_link_that_opens_the_servers_own_files_is_warned_of(tmp_path):
    settings = settings_of(tmp_path)
    (settings.raw_root / "all").symlink_to(tmp_path)
    assert [gap.partition(" ")[0] for gap in gaps(settings, 7)] == ["data_dir", "environments"]
    assert len(gaps(settings, 7, filters=False)) == 3


def test_links_that_lead_nowhere_lead_nowhere(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c").symlink_to("/")
    assert Path("/") in linked_folders(tmp_path)
    assert linked_folders(tmp_path / "not-mounted") == []


def test_a_signal_without_a_name():
    with pytest.raises(HandlerFaultError, match="was ended by signal 40 before"):
        _judge(None, Report(status=-40), "build")


@pytest.mark.parametrize("oom_kills", [0, 1])  # anywhere on the machine
@pytest.mark.parametrize(("breach", "code"), [("disk", "disk_full"), ("cpu_time", "handler_cpu_exceeded")])
def test_a_breach_has_its_code(breach, code, oom_kills):
    with pytest.raises(HandlerFaultError) as refused:
        _judge(None, Report(status=-9, breach=breach, oom_kills=oom_kills), "build")
    assert refused.value.code == code


async def test_output_is_bounded():
    allowance = Allowance("log", 1000, 1)
    await allowance.take(600)
    with pytest.raises(HandlerFaultError) as refused:
        await allowance.take(600_000)
    assert refused.value.code == "handler_output_exceeded"


def test_only_plain_files_are_published(tmp_path):
    (tmp_path / "dataset" / "below").mkdir(parents=True)
    (tmp_path / "dataset" / "below" / "a").write_text("a")
    (tmp_path / ".cache").symlink_to("dataset")  # nobody reads it
    refuse_links(tmp_path)
    for made in ("dataset/b", "dataset/below/b", "plan"):
        for make in (lambda path: path.symlink_to("a"), os.mkfifo, lambda path: path.symlink_to(tmp_path / "dataset")):
            make(tmp_path / made)
            with pytest.raises(HandlerFaultError):
                refuse_links(tmp_path)
            (tmp_path / made).unlink()
    (tmp_path / "sealed").write_text("a")
    with pytest.raises(HandlerFaultError):
        refuse_links(tmp_path)
