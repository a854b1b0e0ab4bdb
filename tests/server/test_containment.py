"""What a hostile handler tries, and what comes of it: a code, or a refusal; nothing is left, and the server goes on."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dataset_server import confinement
from dataset_server.confinement import Confinement, Limits, for_handlers, gaps, rules
from dataset_server.errors import HandlerFaultError
from dataset_server.processes import Pipe, Supervised, landlock_abi, run_tool
from dataset_server.runner import Allowance, refuse_links
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
        ("flood events", "handler_output_exceeded"),
        ("flood log", "handler_output_exceeded"),
    ],
)
def test_limits(attack, name, code):
    assert attack(name)["code"] == code


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
    code = "import os, time\nos.fork()\nos.setsid() if os.getpid() != os.getsid(0) else 0\nprint(1)\ntime.sleep(600)"
    command = [sys.executable, "-u", "-c", code]
    running = await Supervised.start(command, output, errors, env={})
    assert await output.reader.readline() + await output.reader.readline() == b"1\n1\n"
    running._process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        assert (await running.end()).status == -signal.SIGKILL
        assert await output.reader.read() == b""
    output.end()
    errors.end()


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
