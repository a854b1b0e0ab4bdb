"""PyTorch's own ``DataLoader`` on a stream."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import warnings

import pytest

from dataset_client import errors, request_dataset
from tests.e2e.stream_support import COUNT, VERSION, gated_config
from tests.support import ROOT, Server

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs, at import
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'remote-dataset-pipeline[torch]'")

from torch.utils.data import DataLoader

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*fork.*:RuntimeWarning"),  # of JAX, if it is in the process
    pytest.mark.filterwarnings("ignore:.*worker processes in total.*:UserWarning"),
]


@pytest.fixture
def gate(raw_root, tmp_path):
    yield (gate := raw_root / f"gate-{tmp_path.name}")
    shutil.rmtree(gate)


@pytest.fixture(scope="module")
def server(raw_root, environments_dir, plugin_sources, tmp_path_factory):
    settings = {"workers": 2, "retry_limit": 0}
    folder = tmp_path_factory.mktemp("server")
    running = Server(raw_root, folder, environments_dir, handlers=plugin_sources, settings=settings).start()
    yield running
    assert running.stop() == 0


@pytest.fixture
def stream(server, gate, tmp_path):
    where = {"server_url": server.url, "cache_dir": tmp_path / "cache", "progress": False}
    with request_dataset("gated", VERSION, gated_config(gate), stream=True, **where) as stream:
        yield stream


def pixels(batches):
    found = {}
    for batch in batches:
        for number, image, mask in zip(batch["number"].tolist(), batch["image"], batch["mask"], strict=True):
            assert number not in found
            found[number] = image.tolist(), mask.tolist()
    return found


def test_the_first_epoch_is_streamed_and_the_others_are_ordinary(stream, gate):
    batches = stream.as_torch_dataset("train", batch_size=2, shuffle=True, seed=3)
    with pytest.raises(errors.InvalidSettingError, match="num_workers=0"):
        next(iter(DataLoader(batches, batch_size=None, num_workers=1)))
    with pytest.raises(errors.InvalidSettingError, match="num_workers=0"):
        pickle.dumps(batches)
    streamed = iter(DataLoader(batches, batch_size=None))
    begun = [next(streamed)]
    assert stream.whole is None
    (gate / "open").touch()
    first = pixels([*begun, *streamed])
    ordinary = stream.dataset(60).as_torch_dataset("train", batch_size=2, shuffle=True, seed=3)
    assert len(first) == COUNT
    assert first == pixels(DataLoader(ordinary, batch_size=None))
    for epoch in (1, 2):
        batches.set_epoch(epoch)
        ordinary.set_epoch(epoch)
        for workers in (0, 2):
            again = pixels(DataLoader(batches, batch_size=None, num_workers=workers))
            assert [*again] == [*pixels(DataLoader(ordinary, batch_size=None))]
    assert [*pixels(pickle.loads(pickle.dumps(batches)))] == [*again]


def test_pictures_have_their_channels_where_they_are_wanted(stream, gate):
    (gate / "open").touch()
    batch = next(iter(stream.as_torch_dataset("train", batch_size=2)))
    assert (batch["image"].shape, batch["mask"].shape) == ((2, 3, 8, 8), (2, 1, 8, 8))
    last = next(iter(stream.as_torch_dataset("train", batch_size=2, channels_first=False)))
    assert (last["image"].shape, last["image"].dtype) == ((2, 8, 8, 3), torch.uint8)
    last = pixels(stream.as_torch_dataset("train", batch_size=7, drop_last=True))
    assert len(last) == 7


RANK = """
import json, sys
from pathlib import Path

import torch.distributed as dist

from dataset_client import errors, request_dataset

rank, meeting, url, config, cache, gate = sys.argv[1:]
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=int(rank), world_size=2)
where = {"server_url": url, "cache_dir": cache, "progress": False}
with request_dataset("gated", "1.0", json.loads(config), stream=True, **where) as stream:
    batches = stream.as_torch_dataset("train", batch_size=2)
    try:
        next(iter(batches))
    except errors.InvalidSettingError as error:
        print(error)
    dist.barrier()
    Path(gate, "open").touch()
    stream.dataset(60)
    print(json.dumps([number for batch in batches for number in batch["number"].tolist()]))
dist.destroy_process_group()
"""


def test_ranks_wait_for_the_whole(server, gate, tmp_path):
    given = [str(tmp_path / "meeting"), server.url, json.dumps(gated_config(gate)), str(tmp_path / "cache"), str(gate)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), *given],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        for rank in range(2)
    ]
    shares = []
    for process in processes:
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        *refused, share = out.splitlines()
        assert refused == [
            "a dataset that is not whole yet is not shared among ranks",
            "Wait for it on every rank: stream.dataset().as_torch_dataset(…).",
        ]
        shares.append(json.loads(share))
    assert [len(share) for share in shares] == [COUNT // 2] * 2
    assert sorted(shares[0] + shares[1]) == list(range(COUNT))
