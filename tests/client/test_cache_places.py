"""The cache on file systems that allow less than a local disk: read-only ones, without links or locks, and NFS."""

import os
import shutil
import subprocess
import sys

import pytest
from client_archives import make_archive

from dataset_client import Dataset
from dataset_client.cache import Cache
from dataset_client.online import obtain
from dataset_client.uses import release

#: Asks, and prints where the dataset is, or what was wrong.
PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from dataset_client import DatasetClientError
from dataset_client.backoff import RetryPolicy
from dataset_client.online import obtain
from dataset_client.progress import SilentReporter
from dataset_client.request import make_request
from dataset_client.settings import Settings
from dataset_client.transfer import Pace

pace = Pace(tail=4096, piece=8192, block=1024, connections=2, begin=2)
settings = Settings(server_url=sys.argv[1], cache_dir=Path(sys.argv[2]), retry=RetryPolicy(first_delay_s=0.01))
try:
    request = make_request("discs", "v1", {"limit": 7, "batch_size": 2})
    print(asyncio.run(obtain(request, settings, SilentReporter(), pace)).path)
except DatasetClientError as error:
    print(error)
"""


def run(server, cache, program=PROGRAM, before=(), environment=None):
    command = [*before, sys.executable, "-c", program, server.url, str(cache)]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **(environment or {})}, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


# --- read-only

READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


@pytest.fixture
def read_only(tmp_path):
    """What makes the cache read-only for a program, as a mount is that others export: even for root."""
    before = ["unshare", "--mount", "sh", "-c", READ_ONLY]
    (tmp_path / "probe").mkdir()
    probe = [*before, str(tmp_path / "probe"), "touch", str(tmp_path / "probe" / "a")]
    if (
        not shutil.which("unshare")
        or "Read-only" not in subprocess.run(probe, stderr=-1, text=True, check=False).stderr
    ):
        pytest.skip("nothing can be mounted here (unshare --mount, as root)")
    return before


async def test_a_cache_that_cannot_be_written_serves_what_is_in_it(
    server, topic, settings, request_, reporter, read_only
):
    topic.is_ready, topic.attempt = True, 1
    cached = await obtain(request_, settings, reporter)
    release(cached.path)
    before = sorted(settings.cache_dir.rglob("*"))
    within = [*read_only, str(settings.cache_dir)]
    assert run(server, settings.cache_dir, before=within) == str(cached.path)
    topic.archive = make_archive(seed=100)
    refusal = run(server, settings.cache_dir, before=within)
    assert "Read-only" in refusal
    assert "cache_dir" in refusal
    assert sorted(settings.cache_dir.rglob("*")) == before


# --- without locks and links, and with renames that are answered twice

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

static int refuse(int why) { errno = why; return -1; }

int flock(int file, int how) { return refuse(ENOLCK); }

int lockf(int file, int how, off_t size) { return refuse(ENOLCK); }

static int locks(int what)
{
    return what == F_SETLK || what == F_SETLKW || what == F_GETLK
        || what == F_OFD_SETLK || what == F_OFD_SETLKW || what == F_OFD_GETLK;
}

#define FCNTL(name)                                                        \
    int name(int file, int what, ...)                                      \
    {                                                                      \
        static int (*real)(int, int, ...);                                 \
        va_list rest;                                                      \
        va_start(rest, what);                                              \
        void *argument = va_arg(rest, void *);                             \
        va_end(rest);                                                      \
        if (!real) real = (int (*)(int, int, ...))dlsym(RTLD_NEXT, #name); \
        return locks(what) ? refuse(ENOLCK) : real(file, what, argument);  \
    }
FCNTL(fcntl)
FCNTL(fcntl64)

int link(const char *from, const char *to) { return refuse(EPERM); }

/* As over NFS, where a request that was done is sent again because its answer is lost. */
int rename(const char *from, const char *to)
{
    static int (*real)(const char *, const char *);
    if (!real) real = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
    int result = real(from, to);
    return result ? result : refuse(ENOENT);
}
"""

#: That the shim does what it is for.
PROBE = """
import fcntl, os, sys
from pathlib import Path
folder = Path(sys.argv[2])
folder.mkdir()
(folder / "a").touch()
with (folder / "a").open("w") as file:
    for call in (lambda: fcntl.flock(file, fcntl.LOCK_EX), lambda: fcntl.lockf(file, fcntl.LOCK_EX),
                 lambda: os.link(folder / "a", folder / "c"), lambda: os.rename(folder / "a", folder / "b")):
        try:
            call()
        except OSError as error:
            print(type(error).__name__)
print(*os.listdir(folder))
"""


@pytest.fixture(scope="session")
def poor(tmp_path_factory):
    """An environment in which the C library refuses locks and links, and answers that each rename failed."""
    if shutil.which("cc") is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler, and Linux")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", "shim.so", "shim.c", "-ldl"], cwd=folder, check=True)
    return {"LD_PRELOAD": str(folder / "shim.so"), "PYTHONDONTWRITEBYTECODE": "1"}


async def test_a_cache_without_locks_and_links_on_nfs(server, topic, settings, poor, tmp_path):
    assert run(server, tmp_path / "probe", PROBE, environment=poor).split() == [
        "OSError", "OSError", "PermissionError", "FileNotFoundError", "b",
    ]  # fmt: skip
    topic.archive = make_archive(splits={"train": 24, "val": 2})
    paths = [run(server, settings.cache_dir, environment=poor)]
    topic.archive = make_archive(splits={"train": 24, "val": 4})
    server.sent = 0
    paths.append(run(server, settings.cache_dir, environment=poor))
    assert server.sent < len(topic.archive.data) // 2, "what has not changed was copied"
    cache = Cache(settings.cache_dir)
    assert sorted(paths) == sorted(map(str, cache.paths()))
    for path in cache.paths():
        Dataset.open(path).verify()
    assert list(cache.downloads.iterdir()) == list(cache.scratch.iterdir()) == []


def run_together(server, cache, environment, count):
    command = [sys.executable, "-c", PROGRAM, server.url, str(cache)]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
        for _ in range(count)
    ]
    return {process.communicate(timeout=60)[0].strip() for process in started}


def test_four_processes_there(server, topic, settings, poor):
    topic.is_ready, topic.attempt = True, 1
    (path,) = run_together(server, settings.cache_dir, poor, 4)
    assert path in map(str, Cache(settings.cache_dir).paths())
    assert server.sent <= len(topic.archive.data)
