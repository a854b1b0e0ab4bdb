"""The transfer's benchmark runs whole, and its faulty proxy and its emulated link do what they say."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.transfer import link
from benchmarks.transfer.faulty import faulty
from benchmarks.transfer.link import Line, linked
from benchmarks.transfer.nginx import nginx
from tests.support import ROOT

NOISE = bytes(range(256)) * 40_000

needs_nginx = pytest.mark.skipif(
    shutil.which("nginx") is None or shutil.which("curl") is None, reason="nginx or curl is not installed"
)
needs_link = pytest.mark.skipif(bool(link.lacking()), reason=link.lacking())


@pytest.fixture
def served(tmp_path):
    """A folder with a file of noise."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "noise").write_bytes(NOISE)
    return root


@needs_nginx
@pytest.mark.parametrize("part", ["loopback", pytest.param("link", marks=needs_link), "faults"])
def test_a_quick_run_measures(part, environments_dir, tmp_path):
    command = [sys.executable, "-m", "benchmarks.transfer", "--quick", "--parts", part, "--results", str(tmp_path)]
    environment = {**os.environ, "BENCHMARK_ENVIRONMENTS_DIR": str(environments_dir)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    found = json.loads((tmp_path / "transfer.json").read_text())
    assert found[part]["quick"]
    table = (tmp_path / "transfer.md").read_text()
    assert "| ours" in table or part == "faults"
    if part == "faults":
        assert sum(found[part]["found"]["rows"][0].get(kind, 0) for kind in ("flipped", "cut", "refused")) > 0


@needs_nginx
def test_the_proxy_counts_what_it_does(served, tmp_path):
    with nginx(tmp_path / "nginx", served) as direct, faulty(direct, share=0.3, seed=1) as (url, counted):
        seen = dict.fromkeys(("refused", "cut", "flipped", "right"), 0)
        for _ in range(20):
            run = subprocess.run(["curl", "-sf", f"{url}/noise"], capture_output=True)
            if run.returncode == 22:
                seen["refused"] += 1
            elif run.returncode:
                seen["cut"] += 1
            else:
                differing = sum(a != b for a, b in zip(run.stdout, NOISE, strict=True)) if run.stdout != NOISE else 0
                seen["flipped" if differing else "right"] += 1
        assert counted["refused"] == seen["refused"]
        assert counted["cut"] == seen["cut"]
        assert counted["flipped"] >= seen["flipped"]
        assert min(seen["refused"], seen["cut"], counted["flipped"]) > 0


@needs_nginx
@needs_link
@pytest.mark.parametrize("loss", [0.0, 0.02])
def test_the_link_delays_loses_and_changes_nothing(served, tmp_path, loss):
    line = Line(loss=loss, delay_ms=20)
    with linked(line) as up, nginx(tmp_path / "nginx", served, up.address, up.server) as url:
        told = [*up.client, "curl", "-s", "-w", "%{time_connect}", "-o", str(tmp_path / "got"), f"{url}/noise"]
        connected = float(subprocess.run(told, check=True, capture_output=True).stdout)
    assert (tmp_path / "got").read_bytes() == NOISE
    assert connected >= 0.02
    share = up.counted["lost"] / (up.counted["lost"] + up.counted["passed"])
    assert loss / 2 <= share <= 2 * loss
    assert up.counted["passed"] * 1500 > len(NOISE)
    assert not [path for path in Path("/var/run/netns").iterdir() if path.name in (up.client[3], up.server[3])]
