"""Many processes on one machine, with one cache, before a real server."""

import json
import os
import re
import signal
import subprocess
import sys

from tests.proofs.link import Delaying, Link
from tests.support import ROOT, wait_until

VERSION = "1.0"
#: Has a process for each list of configs, which asks for these datasets one after another, and says what it got. They
#: are forked, so that all that they would import is imported once.
PROGRAM = """
import json, os, sys
import dataset_client.online
from dataset_client import request_dataset
from tests.proofs.killed import digest_of

def ask(configs):
    for config in configs:
        dataset = request_dataset("paced", "1.0", config, server_url=sys.argv[1], cache_dir=sys.argv[2], timeout=240)
        dataset.verify()
        digest = digest_of({path.name: path.read_bytes() for path in dataset.path.iterdir()})
        said = json.dumps([os.getpid(), config["seed"], dataset.dataset_id, str(dataset.path), digest])
        os.write(1, f"{said}\\n".encode())  # at once, as others write there too

for configs in json.loads(sys.argv[3]):
    if not os.fork():
        ask(configs)
        sys.exit()
ended = []
try:
    while True:
        ended.append(os.waitstatus_to_exitcode(os.wait()[1]))
except ChildProcessError:
    print(json.dumps(sorted(ended)))
"""


def start(link, cache, wanted):
    """As many processes as there are lists of configs in ``wanted``."""
    command = [sys.executable, "-c", PROGRAM, link.url, str(cache), json.dumps(wanted)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def said_by(program, ended):
    """What each of its processes got, after they have ended with these statuses: by the dataset's seed, the rest of
    what it said.
    """
    out, err = program.communicate(timeout=300)
    *lines, last = map(json.loads, out.splitlines())
    assert last == ended, err
    got = {}
    for pid, seed, *rest in lines:
        got.setdefault(pid, {})[seed] = tuple(rest)
    return [*got.values()]


def port_of(server):
    return int(server.url.rsplit(":", 1)[1])


def check_that_nothing_is_left(cache):
    left = [path for name in ("downloads", "tmp") for path in (cache / name).iterdir()]
    left += [path for path in cache.glob("uses/*/*") if path.name != "last"]
    assert left == []


def test_eight_processes_ask_for_three_datasets_and_each_is_built_and_fetched_once(server, tmp_path):
    configs = [{"count": 24, "bytes_each": 100_000, "seed": seed} for seed in (71, 72, 73)]
    with Link(port_of(server)) as link:
        program = start(link, tmp_path / "cache", [configs[n % 3 :] + configs[: n % 3] for n in range(8)])
        got = said_by(program, [0] * 8)
    assert got == [got[0]] * 8
    assert sorted(got[0]) == [71, 72, 73]
    sizes = 0
    for dataset_id, _, _ in got[0].values():
        made = server.get(f"datasets/{dataset_id}").json()
        assert made["attempt"] == 1
        sizes += made["archive"]["bytes"]
    assert 0.99 * sizes < link.archive_bytes <= sizes
    assert len(list((tmp_path / "cache" / "datasets").iterdir())) == 2 * 3
    check_that_nothing_is_left(tmp_path / "cache")


def test_one_of_eight_is_killed_while_it_downloads_and_another_goes_on_with_its_bytes(server, tmp_path):
    config = {"count": 24, "bytes_each": 1_000_000, "examples_per_shard": 3, "seed": 74}
    size = server.make("paced", config, VERSION)["archive"]["bytes"]
    with Link(port_of(server), Delaying(0.002)) as link:
        program = start(link, tmp_path / "cache", [[config]] * 8)
        assert wait_until(lambda: link.archive_bytes > size // 2, 240)
        (work,) = (tmp_path / "cache" / "downloads").glob("*/work.*")
        os.kill(int(re.search(r"-(\d+)-[0-9a-f]{12}$", work.name)[1]), signal.SIGKILL)
        got = said_by(program, [-signal.SIGKILL, *[0] * 7])
    assert got == [got[0]] * 7
    assert link.archive_bytes < 1.25 * size, "at most a block of each connection was lost"
    check_that_nothing_is_left(tmp_path / "cache")
