import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from client_archives import make_archive
from client_server import DatasetServer, Topic

from dataset_client.backoff import RetryPolicy
from dataset_client.progress import SilentReporter
from dataset_client.request import make_request
from dataset_client.settings import Settings

CONFIG = {"limit": 7, "batch_size": 2}


@pytest.fixture
def server():
    server = DatasetServer()
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def archive():
    return make_archive()


@pytest.fixture
def request_():
    return make_request("discs", "v1", CONFIG)


@pytest.fixture
def topic(server, archive, request_):
    """The request's topic on the server: not asked for yet; the first question starts and ends the build."""
    topic = Topic(
        archive=archive,
        on_ask=[
            ("state", {"state": "building"}),
            ("progress", {"done": 3, "total": 7, "rate": 1.0, "eta": 4.0}),
            ("ready", None),
        ],
    )
    server.topics[request_.topic_id] = topic
    return topic


@pytest.fixture
def settings(server, tmp_path):
    """Settings of a client with little patience, so that retries cost tests no time."""
    retry = RetryPolicy(first_delay_s=0.001, max_delay_s=0.01, first_contact_s=0.3, reconnect_s=5, max_retry_after_s=2)
    return Settings(server_url=server.url, cache_dir=tmp_path / "cache", retry=retry)


@pytest.fixture
def reporter():
    return SilentReporter()


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch, tmp_path):
    """No test reads the settings of whoever runs it, nor writes to his cache."""
    for name in ("URL", "TOKEN"):
        monkeypatch.delenv(f"DATASET_SERVER_{name}", raising=False)
    for name in ("CACHE_DIR", "CACHE_LIMIT", "CLIENT_CONFIG"):
        monkeypatch.delenv(f"DATASET_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home-config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home-cache"))
