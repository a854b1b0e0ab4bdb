"""The client and the real server where sockets get through, and where they do not."""

import asyncio
import contextlib
import os
import re
import subprocess
import sys

import pytest
from aiohttp import ClientSession, web

from dataset_client import make_request, pull_dataset, request_datasets, request_datasets_async, watch
from tests.support import ROOT

VERSION = "0.1.0"
CONFIGS = [
    {"categories": ["figure"], "image_size": [64, 96], "crop_size": [48, 64], "splits": {"train": 1.0}, "seed": seed}
    for seed in (101, 102)
]


@contextlib.asynccontextmanager
async def proxy_without_sockets(target):
    """A proxy as many are: it passes on what it understands, and an upgrade is not among that."""
    refused = []

    async def forward(request):
        dropped = {"host", "connection", "upgrade", "content-length"}
        if "upgrade" in request.headers:
            refused.append(request.path)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in dropped}
        async with session.request(
            request.method, target + request.path_qs, headers=headers, data=await request.read(), allow_redirects=False
        ) as response:
            body = await response.read()
            kept = {name: value for name, value in response.headers.items() if name.lower() != "transfer-encoding"}
            return web.Response(status=response.status, headers=kept, body=body)

    async with ClientSession(auto_decompress=False) as session:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}", refused
        finally:
            await runner.cleanup()


def test_several_datasets_and_one_by_its_id(server, tmp_path):
    where = {"server_url": server.url, "progress": False, "timeout": 240}
    requests = [("coco", VERSION, config) for config in CONFIGS]
    one, two = request_datasets(requests, cache_dir=tmp_path / "a", **where)
    assert one.dataset_id != two.dataset_id
    pulled = pull_dataset(two.dataset_id, cache_dir=tmp_path / "b", **where)
    pulled.verify()
    assert pulled.path.name == two.path.name


async def test_a_watch_tells_what_the_server_has_stored(server, tmp_path):
    request = make_request("coco", VERSION, {**CONFIGS[0], "seed": 103})

    async def listen():
        return [event async for event in watch(request, server_url=server.url, timeout=240)]

    listening = asyncio.create_task(listen())
    await request_datasets_async([request], server_url=server.url, cache_dir=tmp_path, progress=False, timeout=240)
    heard = await listening
    numbers = [event.number for event in heard]
    assert numbers == sorted(set(numbers))
    assert heard[-1].kind == "ready"
    stored = await asyncio.to_thread(server.events, request.topic_id)
    lasting = {event["number"] for event in stored if event["kind"] != "progress"}
    assert lasting <= set(numbers)


@pytest.mark.parametrize("seed", [104])
async def test_behind_a_proxy_without_sockets_requests_are_polled(server, tmp_path, seed, capsys):
    request = make_request("coco", VERSION, {**CONFIGS[0], "seed": seed})
    async with proxy_without_sockets(server.url) as (url, refused):
        (dataset,) = await request_datasets_async([request], server_url=url, cache_dir=tmp_path, timeout=240)
        events = [event async for event in watch(request, server_url=url, timeout=240)]
    dataset.verify()
    assert events[-1].kind == "ready"
    assert len(refused) == 2
    assert capsys.readouterr().err.count("WebSockets do not get through") == 1


def test_the_examples_in_the_documentation_run(server, tmp_path):
    page = (ROOT / "docs" / "client.md").read_text()
    program = "".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    environment = {**os.environ, "DATASET_SERVER_URL": server.url, "DATASET_CACHE_DIR": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=240)
    assert run.returncode == 0, run.stderr
    assert "'train': " in run.stdout
    assert " ready " in run.stdout
