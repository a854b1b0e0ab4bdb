"""Environments: locked, made once, verified, made again, collected; and what cannot be installed says why."""

import asyncio
import json
import os
import shutil
import signal
import sys
import time

import pytest

from dataset_server.checks.handlers import environments as check_environments
from dataset_server.claim import identity
from dataset_server.environments import Environment, Environments
from dataset_server.environments.environment import damaged_files, fault_of, seal
from dataset_server.environments.installing import _shipped_lock
from dataset_server.environments.locks import entries, hash_from_folders, refuse_addresses, unhashed
from dataset_server.environments.unused import Seen, unused
from dataset_server.errors import EnvironmentFailedError
from dataset_server.installer_faults import disk_failed, installer_failed, recognise, told
from dataset_server.lease import _Watch, is_held, leased
from dataset_server.processes import Finished
from dataset_server.references import References
from tests.server.tiny_packages import another_server, settings, write_source, write_wheel
from tests.support import wait_until

HASH = "--hash=sha256:" + 64 * "0"


@pytest.fixture
def wheelhouse(tmp_path, monkeypatch):
    """A folder that is all of the package index there is."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    for name in ("UV_INDEX", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    return folder


def server(tmp_path, source, **more):
    """The environments of a server, and a function that makes the environment of a version of ``tiny``."""
    given = settings(tmp_path, str(source), **more)
    environments = Environments(given)
    environments.clean()
    references = References(given, environments.find)

    async def make(version="1.0"):
        return await environments.ensure(await references.resolve("tiny", given.sources["tiny"], version))

    return environments, make


# Pure decisions


def test_a_lock_is_read_entry_by_entry():
    text = f"# a comment\nnumpy==2.0 ; python_version > '3' \\\n    {HASH} \\\n    {HASH}\nold==1.0  # via x\n\n"
    lock = entries(text)
    assert lock == [f"numpy==2.0 ; python_version > '3' {HASH} {HASH}", "old==1.0"]
    assert unhashed(lock) == ["old==1.0"]
    refuse_addresses(lock)


@pytest.mark.parametrize(
    "entry",
    [
        "--index-url https://example.org/simple",
        "--find-links /tmp",
        "-e .",
        "-r other.txt",
        f"car @ https://example.org/car.whl {HASH}",
        "git+https://example.org/car",
        f"car>=1 {HASH}",
        f"car==1.* {HASH}",
        f"car==1.0 --index-url https://example.org {HASH}",
        "car==1.0 ; python_version > '3' --index-url https://example.org",
        f"car==1.0 ; python_version > '3' -r other.txt {HASH}",
        "./car",
    ],
)
def test_a_lock_names_no_address_and_no_option(entry):
    with pytest.raises(EnvironmentFailedError, match="only NAME==VERSION"):
        refuse_addresses([f"numpy==2.0 {HASH}", entry])


def test_hashes_of_local_folders(tmp_path):
    write_wheel(tmp_path, "tiny-handlers", "1.0")
    write_wheel(tmp_path, "tiny-handlers", "1.1")
    assert hash_from_folders("Tiny_Handlers==1.0.0", [tmp_path / "nowhere", tmp_path]).count("--hash=sha256:") == 1
    with pytest.raises(EnvironmentFailedError, match="no hash"):
        hash_from_folders("tiny-handlers==2.0", [tmp_path])


def test_who_is_unused():
    seen = [Seen("old", 0, False), Seen("busy", 0, True), Seen("new", 95, False), Seen("of tomorrow", 200, False)]
    assert unused(seen, now=100, keep_seconds=10) == ["old"]


@pytest.mark.parametrize(
    ("status", "said", "name", "retryable"),
    [
        (2, "error: Request failed\n  cause: client error (Connect)\n  cause: dns error", "no_network", True),
        (128, "fatal: unable to access 'https://x/': Could not resolve host: x", "no_network", True),
        (1, "error: Failed to install: numpy\n  cause: No space left on device (os error 28)", "disk_full", True),
        (124, "uv did not finish within 900 s", "timeout", True),
        (127, "git is not installed", "no_program", False),
        (
            1,
            "Because car was not found in the package registry and you require car, we can conclude",
            "no_package",
            False,
        ),
        (1, "Because you require a==1 and a==2, … requirements are unsatisfiable.", "unsatisfiable", False),
        (1, "Because the current Python version (3.11.7) does not satisfy Python>=3.99 and …", "python", False),
        (1, "error: Failed to download `car==1`\n  cause: Hash mismatch for `car==1`", "hash_mismatch", False),
        (2, "error: Hash-checking is required, but no trusted hash was provided for: `car`", "not_locked", False),
        (2, "error: Failed to build `/x`\n  cause: The build backend returned an error", "build", False),
        (128, "fatal: '/x' does not appear to be a git repository\nCould not read from remote", "no_repository", False),
        (128, "fatal: Authentication failed for 'https://x/'", "refused", False),
        (1, "something new", "unknown", False),
    ],
)
def test_what_failed_is_recognised(tmp_path, status, said, name, retryable):
    trouble = recognise(Finished(status, "", said))
    assert (trouble.name, trouble.retryable) == (name, retryable)
    fault = installer_failed("it fails", Finished(status, "", f"{said}\nhttps://me:secret@x/ {tmp_path}/a"), tmp_path)
    assert trouble.remedy in str(fault)
    assert fault.retryable is retryable
    assert "secret" not in fault.log
    assert str(tmp_path) not in fault.log


def test_what_clients_are_told_has_no_secrets(tmp_path):
    said = told(Finished(1, "", f"https://me:secret@x/ {tmp_path}/a"), tmp_path)
    assert "secret" not in said
    assert str(tmp_path) not in said


def test_a_full_disk_is_worth_another_try():
    assert disk_failed("it fails", OSError(28, "No space left on device")).retryable
    assert not disk_failed("it fails", OSError(13, "Permission denied")).retryable


# Leases


async def test_a_lease_is_held_by_one_at_a_time(tmp_path):
    path, inside, most = tmp_path / ".lease-x", 0, 0

    async def work():
        nonlocal inside, most
        async with leased(path):
            inside += 1
            most = max(most, inside)
            assert is_held(path)
            await asyncio.sleep(0.01)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(3)))
    assert most == 1
    assert not list(tmp_path.iterdir())


async def test_the_lease_of_a_process_that_is_gone_is_taken_over(tmp_path):
    path = tmp_path / ".lease-x"
    path.write_text(json.dumps({**identity(), "started": "1"}))
    async with asyncio.timeout(20), leased(path):
        assert json.loads(path.read_text()) == identity()


def test_a_lease_of_another_machine_counts_as_long_as_it_beats(tmp_path, monkeypatch):
    path, now = tmp_path / ".lease-x", 1000.0
    monkeypatch.setattr("dataset_server.lease.time.monotonic", lambda: now)
    path.write_text(json.dumps({**identity(), "host": "another machine"}))
    watch = _Watch(stale=60)
    assert not watch.is_dead(path)
    now += 59
    assert not watch.is_dead(path)
    os.utime(path, ns=(1, 1))  # whatever its clock says
    now += 59
    assert not watch.is_dead(path)
    now += 61
    assert watch.is_dead(path)
    path.unlink()
    assert not watch.is_dead(path), "given back"


def test_a_mark_of_another_machine_expires(tmp_path):
    path = tmp_path / ".use-x"
    path.write_text(json.dumps({**identity(), "host": "another machine"}))
    os.utime(path, (time.time() - 100, time.time() - 100))
    assert is_held(path)
    assert is_held(path, expires=1000)
    assert not is_held(path, expires=99)


# What is made


def rot(root):
    """Change a byte, and neither size nor time."""
    (file,) = root.glob("lib/*/site-packages/dataset_handlers/__main__.py")
    status, rotten = file.stat(), file.read_bytes().replace(b"json", b"jsan")
    file.unlink()  # its content may be shared with uv's cache
    file.write_bytes(rotten)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


async def test_all_that_is_installed_is_locked_by_hash(tmp_path, wheelhouse, monkeypatch):
    write_wheel(wheelhouse, "tiny-handlers", "1.0", requires=["need>=1"])
    need = write_wheel(wheelhouse, "need", "1.1", main=None)
    _, make = server(tmp_path, "tiny-handlers=={version}")
    environment = await make()
    compiled = {path.name.partition(".")[0] for path in environment.root.rglob("*.pyc")}
    assert "__main__" in compiled, "what a handler imports"
    assert "need" not in compiled, "what it does not"
    lock = (environment.root / "requirements.lock").read_text()
    assert [entry.partition(" ")[0] for entry in entries(lock)] == ["need==1.1", "tiny-handlers==1.0"]
    assert not unhashed(entries(lock))
    assert str(tmp_path) not in lock
    assert fault_of(environment.root) is None
    assert damaged_files(environment.root) == []
    rot(environment.root)
    assert fault_of(environment.root) is None
    assert [name.partition(":")[0].rpartition("/")[2] for name in damaged_files(environment.root)] == ["__main__.py"]
    (found,) = check_environments(environment.root.parent)
    assert (found.level, "__main__.py" in found.message) == ("failed", True)
    # Another server, the same folder: found, even though the dependency has a newer release and then another content.
    write_wheel(wheelhouse, "need", "1.2", main=None)
    _, make_again = server(tmp_path, "tiny-handlers=={version}")
    assert (await make_again()).key == environment.key
    # Made anew it is made of the very same packages, or not at all.
    shutil.rmtree(environment.root)
    _, make_third = server(tmp_path, "tiny-handlers=={version}")
    assert (await make_third()).key == environment.key
    shutil.rmtree(environment.root)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    need.unlink()
    write_wheel(wheelhouse, "need", "1.1", requires=["tiny-handlers"], main=None)
    with pytest.raises(EnvironmentFailedError, match="hash_mismatch"):
        await server(tmp_path, "tiny-handlers=={version}")[1]()
    assert sorted(path.name for path in (tmp_path / "data" / "environments").glob(".*")) == []


@pytest.mark.parametrize(
    ("harm", "harmful"),
    [
        (lambda root: (root / "bin" / "python").unlink(), True),
        (lambda root: (root / "handler.py").write_text("x = 1"), True),
        (lambda root: (root / "handler.py").unlink(), True),
        (lambda root: (root / "added.py").touch(), True),
        (lambda root: (root / "link").unlink() or (root / "link").symlink_to("/elsewhere"), True),
        (lambda root: (root / "sealed.json").write_text("{"), True),
        (lambda root: (root / "__pycache__").mkdir() or (root / "__pycache__" / "x.pyc").touch(), False),
        (lambda root: os.utime(root / "last-used"), False),
    ],
)
def test_what_has_changed_since_it_was_sealed(tmp_path, harm, harmful):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "handler.py").write_text("x = 0\n")
    (tmp_path / "link").symlink_to("/somewhere")
    seal(tmp_path, {})
    assert fault_of(tmp_path) is None
    harm(tmp_path)
    assert (fault_of(tmp_path) is not None) == harmful


async def test_an_environment_that_has_changed_is_made_again(tmp_path, wheelhouse, caplog):
    write_wheel(wheelhouse, "tiny-handlers", "1.0")
    _, make = server(tmp_path, "tiny-handlers=={version}")
    root = (await make()).root
    before = root.stat().st_ino
    next(root.glob("lib/*/site-packages/tiny_handlers.py")).unlink()
    with caplog.at_level("WARNING"):
        assert (await server(tmp_path, "tiny-handlers=={version}")[1]()).root == root
    assert "was made again: its files have changed" in caplog.text
    assert root.stat().st_ino != before
    assert fault_of(root) is None


async def test_a_shipped_lock_is_what_is_installed(tmp_path, wheelhouse):
    write_wheel(wheelhouse, "need", "1.0", main=None)
    write_wheel(wheelhouse, "need", "1.1", main=None)
    source = write_source(tmp_path / "source", requires=["need"])
    _, make = server(tmp_path, source, reference_seconds=0)
    assert "need==1.1" in (await make()).root.joinpath("requirements.lock").read_text()
    (source / "requirements.lock").write_text("need==1.0\n")
    lock = (await make()).root.joinpath("requirements.lock").read_text()
    assert "need==1.0 \\\n    --hash=sha256:" in lock, "pins alone are kept, and hashed"
    for wrong, name in (("", "not_locked"), (f"need==1.0 {HASH}\n", "hash_mismatch")):
        (source / "requirements.lock").write_text(wrong)
        with pytest.raises(EnvironmentFailedError, match=name):
            await make()
    (source / "requirements.lock").write_bytes(b"caf\xe9==1.0\n")
    with pytest.raises(EnvironmentFailedError, match="UTF-8"):
        await make()
    (source / "requirements.lock").write_text(f"--index-url http://127.0.0.1:9/\nneed==1.0 {HASH}\n")
    with pytest.raises(EnvironmentFailedError, match="only NAME==VERSION"):
        await make()


def test_a_shipped_lock_is_a_plain_file(tmp_path):
    lock, secret = tmp_path / "requirements.lock", tmp_path / "secret"
    assert _shipped_lock(tmp_path) is None
    secret.write_text("of the server")
    for make in (lambda: lock.symlink_to(secret), lock.mkdir, lambda: os.mkfifo(lock)):
        make()
        with pytest.raises(EnvironmentFailedError, match="plain file") as refused:
            _shipped_lock(tmp_path)
        assert "of the server" not in str(refused.value)
        lock.rmdir() if lock.is_dir() else lock.unlink()
    with lock.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(EnvironmentFailedError, match="plain file"):
        _shipped_lock(tmp_path)


async def test_what_cannot_be_installed_says_why(tmp_path, wheelhouse, monkeypatch):
    async def fault(**source) -> EnvironmentFailedError:
        folder = write_source(tmp_path / "source", **source)
        with pytest.raises(EnvironmentFailedError) as refused:
            await server(tmp_path, folder)[1]()
        assert str(tmp_path / "data") not in refused.value.log
        return refused.value

    built = await fault(before="raise RuntimeError('no compiler here')")
    assert "(build)" in str(built)
    assert "no compiler here" in built.log
    assert "(python)" in str(await fault(python=">=3.99", before="pass"))
    assert "(no_package)" in str(await fault(requires=["nobody-has-this"]))
    assert "is installed but does not run" in str(await fault(main="raise SystemExit('no handler')"))
    monkeypatch.delenv("UV_NO_INDEX")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    unreachable = await fault(requires=["nobody-has-this-either"])
    assert (unreachable.retryable, built.retryable) == (True, False)
    assert not list((tmp_path / "data" / "environments").glob(".*"))


# Once, whoever asks


async def test_two_processes_at_once_make_an_environment_once(tmp_path, wheelhouse):
    note = f"Path({str(tmp_path / 'built')!r}).open('a').write('x')"
    source = write_source(tmp_path / "source", before=note)
    servers = [another_server(tmp_path, str(source)) for _ in range(2)]
    said = await asyncio.gather(*(asyncio.to_thread(one.communicate, timeout=120) for one in servers))
    assert [one.returncode for one in servers] == [0, 0]
    assert said[0] == said[1]
    assert (tmp_path / "built").read_text() == "x"
    assert not list((tmp_path / "data" / "environments").glob(".*"))


def test_what_somebody_else_published_meanwhile_stays(tmp_path, caplog):
    environments, _ = server(tmp_path, "tiny-handlers=={version}")
    root, scratch = tmp_path / "data" / "environments", tmp_path / "scratch"
    published = Environment(32 * "a", root / (32 * "a"), "")

    def make(folder):
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").symlink_to(sys.executable)
        seal(folder, {})
        return folder.stat().st_ino

    first, second = make(scratch / "first"), make(scratch / "second")
    environments._publish(scratch / "first", published, scratch)
    environments._publish(scratch / "second", published, scratch)
    assert published.root.stat().st_ino == first
    (published.root / "bin" / "python").unlink()
    environments._publish(scratch / "second", published, scratch)
    assert published.root.stat().st_ino == second
    assert "was made again: its interpreter is gone" in caplog.text


async def test_a_killed_installation_leaves_nothing_that_counts(tmp_path, wheelhouse):
    started, go_on = tmp_path / "started", tmp_path / "go-on"
    wait = f"import time; Path({str(started)!r}).touch()\n    while not Path({str(go_on)!r}).exists(): time.sleep(0.02)"
    source = write_source(tmp_path / "source", before=wait)
    root = tmp_path / "data" / "environments"
    killed = another_server(tmp_path, str(source))
    assert await asyncio.to_thread(wait_until, started.exists, 60)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert list(root.glob(".partial-*"))
    assert not list(root.glob("version-*")) + list(root.glob("[0-9a-f]*"))
    go_on.touch()
    _, make = server(tmp_path, source)
    assert not list(root.glob(".partial-*")), "what was left was not removed"
    assert fault_of((await make()).root) is None


async def test_the_start_of_a_server_does_not_disturb_another(tmp_path, wheelhouse):
    go_on = tmp_path / "go-on"
    wait = f"import time\n    while not Path({str(go_on)!r}).exists(): time.sleep(0.02)"
    source = write_source(tmp_path / "source", before=wait)
    environments, make = server(tmp_path, source)
    making = asyncio.create_task(make())
    async with asyncio.timeout(60):
        while not list((tmp_path / "data" / "environments").glob(".partial-*/wheels-project")):
            await asyncio.sleep(0.02)
    server(tmp_path, source)
    go_on.touch()
    with environments.using(await making):
        (used,) = (tmp_path / "data" / "environments").glob(".use-*")
        server(tmp_path, source)
        assert used.exists()


# Until nobody needs it


async def test_what_is_unused_is_removed(tmp_path):
    environments, _ = server(tmp_path, "tiny-handlers=={version}", environments_unused_days=2)
    root, now, day = tmp_path / "data" / "environments", time.time(), 86400
    old, busy, new = [Environment(letter * 32, root / (letter * 32), "") for letter in "abc"]
    for environment, age in ((old, 3), (busy, 3), (new, 1)):
        environment.root.mkdir()
        (environment.root / "last-used").touch()
        os.utime(environment.root / "last-used", (now - age * day, now - age * day))
    mirror, index = root / f"mirror-{32 * 'd'}.git", root / f"version-{32 * 'e'}.json"
    mirror.mkdir()
    index.touch()
    with environments.using(busy):
        assert await environments.collect_unused() == [old.key]
        assert await environments.collect_unused() == []
    assert await environments.collect_unused() == [], "it was used just now"
    assert environments.collect(now + 1.5 * day) == [new.key]
    assert environments.collect(now + 3 * day) == [busy.key]
    assert list(root.iterdir()) == [index], "the lock stays, so that the same is made again"


def test_a_user_that_was_killed_uses_nothing(tmp_path):
    environments, _ = server(tmp_path, "tiny-handlers=={version}")
    root = tmp_path / "data" / "environments"
    (root / f".use-{32 * 'a'}-x").write_text(json.dumps({**identity(), "started": "1"}))
    (root / (32 * "a")).mkdir()
    assert environments.collect(time.time() + 31 * 86400) == [32 * "a"]
    server(tmp_path, "tiny-handlers=={version}")
    assert not list(root.iterdir())
