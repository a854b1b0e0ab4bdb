"""Fixtures for everybody: raw data, real and self-made, and real servers."""

import signal
from collections import Counter

import hypothesis
import pytest

from examples.demo_data import make_raw_data
from tests.support import PLUGINS, REAL_RAW, Server

# A shell that starts us in the background has SIGINT ignored, and so would all that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# What an example takes depends on what else the machine does; times belong into benchmarks.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(items):
    """Files of few tests first: those are the long ones, and none of them should be left for one process at the end."""
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: tests[item.path])


@pytest.fixture(scope="session")
def raw_root(tmp_path_factory):
    """Self-made raw data in the layouts of COCO and DUTS."""
    root = tmp_path_factory.mktemp("raw")
    make_raw_data(root, train=24, held_out=8)
    return root


@pytest.fixture(scope="session")
def real_raw():
    """Real COCO and DUTS photos, which are no part of the repository."""
    if not (REAL_RAW / "coco").is_dir():
        pytest.skip(f"the real photos are not at {REAL_RAW.name}; put COCO and DUTS at ../shared/data/raw to run this")
    return REAL_RAW


@pytest.fixture(scope="session")
def environments_dir(tmp_path_factory, worker_id):
    """Handler environments that all servers of all test processes share, so that each is installed once."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "environments"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def plugin_sources():
    """A source for each handler package in tests/plugins."""
    return {path.name: str(path) for path in sorted(PLUGINS.iterdir()) if (path / "pyproject.toml").is_file()}


@pytest.fixture
def make_server(raw_root, environments_dir, tmp_path):
    """Starts servers; all are stopped in the end."""
    started = []

    def make(name="server", **options):
        arguments = {"raw_root": raw_root, "data_dir": tmp_path / name, "environments_dir": environments_dir, **options}
        server = Server(**arguments).start()
        started.append(server)
        return server

    yield make
    for server in started:
        if server.process.poll() is None:
            server.stop()
        server.close_files()


@pytest.fixture(scope="module")
def limits():
    """Settings of a module's server; short limits, so that handlers that hang cost little."""
    return {"stall_timeout": 3.0, "plan_timeout": 8.0, "workers": 2, "retry_limit": 0}


@pytest.fixture(scope="module")
def server(raw_root, environments_dir, plugin_sources, limits, tmp_path_factory):
    """One server for a module, with all plugins."""
    running = Server(
        raw_root, tmp_path_factory.mktemp("server"), environments_dir, handlers=plugin_sources, settings=limits
    ).start()
    yield running
    assert running.stop() == 0
