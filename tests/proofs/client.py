"""``kill -9`` of the client at points spread over everything that a download goes through, and a network that errs.

Each case: a client downloads, is killed once a number of bytes has arrived, and another one goes on from what it left,
which must end in the right bytes. Nothing is built: the server of the tests of the client serves one archive.
"""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.proofs.case import Case

sys.path.insert(0, str(Path(__file__).parents[1] / "client" / "support"))

#: Downloads what is asked for, and is killed by itself after so many bytes of files have arrived, or never (-1).
_PROGRAM = """
import asyncio, os, signal, sys
from pathlib import Path
from dataset_client import Dataset
from dataset_client.backoff import RetryPolicy
from dataset_client.online import obtain
from dataset_client.progress import SilentReporter
from dataset_client.request import make_request
from dataset_client.settings import Settings
from dataset_client.transfer import Pace

url, cache, limit = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

class Killed(SilentReporter):
    def downloaded(self, size):
        if 0 <= limit <= size:
            os.kill(os.getpid(), signal.SIGKILL)

pace = Pace(tail=2048, piece=16384, block=4096, connections=3)
settings = Settings(server_url=url, cache_dir=cache, retry=RetryPolicy(first_delay_s=0.01))
cached = asyncio.run(obtain(make_request("discs", "v1", {}), settings, Killed(), pace))
Dataset(cached.path, cached.manifest, {}).verify()
"""

#: What an interruption may cost: the blocks that were in flight, and the end of the archive if that was not kept yet.
_IN_FLIGHT = 3 * 16384 + 2048


def cases(points: int) -> Iterator[Case]:
    """``points`` kills at even distances; what is no file of the dataset, 5 % of the archive at most, never counts."""
    for number in range(points):
        share = 0.95 * number / points
        yield Case("kill -9 of the client", f"after {share:.2%} of the bytes", partial(run, share))


def run(share: float, folder: Path) -> None:
    """Kill a client after a share of the bytes, let another one go on, and see what it got and what that cost."""
    from client_archives import make_archive
    from client_server import DatasetServer, Topic

    from dataset_client.request import make_request

    archive = make_archive(splits={"train": 40, "val": 10}, shard_size=10)
    server = DatasetServer()
    server.start()
    try:
        topic = make_request("discs", "v1", {}).topic_id
        server.topics[topic] = Topic(archive=archive, is_ready=True, attempt=1)
        arrived = int(share * len(archive.data))
        first = _client(server.url, folder / "cache", arrived)
        assert first.returncode == -9, f"was not killed: {first.stderr[-2000:]}"
        second = _client(server.url, folder / "cache", -1)
        assert second.returncode == 0, second.stderr[-2000:]
        extra = server.sent - len(archive.data)
        assert extra <= _IN_FLIGHT, f"{extra} bytes were fetched twice"
        left = [path.name for path in (folder / "cache" / "downloads").iterdir()]
        assert not left, f"left behind: {left}"
    finally:
        server.close()


def _client(url: str, cache: Path, limit: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _PROGRAM, url, str(cache), str(limit)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
