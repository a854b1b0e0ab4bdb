"""The client behind a network that errs, and before a server that is killed.

More of it: ``python -m tests.proofs client``.
"""

import json
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.proofs import client
from tests.proofs.link import Link

VERSION = "1.0"


@pytest.mark.parametrize("what", client.TROUBLES)
def test_a_call_through_a_network_that_errs(server, tmp_path, what):
    made = server.make("paced", client.CONFIG, VERSION)
    client.through(server, made["archive"], what, 1, tmp_path / "cache")


def test_a_server_that_is_killed_while_it_sends(make_server, plugin_sources, tmp_path):
    server = make_server("killed", handlers=plugin_sources)
    port = int(server.url.rsplit(":", 1)[1])
    archive = server.make("paced", client.CONFIG, VERSION)["archive"]
    reaching = client.Reaching(archive["bytes"] // 2)
    with Link(port, reaching) as link, ThreadPoolExecutor(1) as pool:
        scene = client.scene_of(server, link, archive)
        call = pool.submit(client.ask, scene, tmp_path / "cache")
        assert reaching.reached.wait(120)
        server.stop(signal.SIGKILL)
        make_server("killed", handlers=plugin_sources, port=port)
        assert json.loads(client.finished(call.result()).stdout)["digest"] == scene.digest()
        client.check_next(scene, tmp_path / "cache", client.IN_FLIGHT)
