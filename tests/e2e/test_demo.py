"""The demo itself: from nothing to pictures, and Ctrl-C in the middle of it."""

import os
import re
import signal
import subprocess
import sys

from tests.support import ROOT, processes_mentioning, wait_until


def start_demo(output, environments_dir, *options):
    environment = {**os.environ, "DATASET_SERVER_ENVIRONMENTS_DIR": str(environments_dir), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "examples.demo", "--output", str(output), *options]
    # A session of its own is what a terminal's foreground job is: Ctrl-C reaches the demo and its server alike.
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def test_a_short_demo(tmp_path, environments_dir):
    output = tmp_path / "demo"
    with start_demo(output, environments_dir, "--epochs", "1") as demo:
        told = demo.communicate(timeout=300)[0]
    assert demo.returncode == 0, told
    before, after = map(float, re.search(r"(\d\.\d+) before, (\d\.\d+) after", told).groups())
    assert after > before + 0.05
    pictures = ["composite.png", "duts.png", "training/predictions.png", "training/history.png"]
    for picture in pictures:
        assert (output / picture).read_bytes().startswith(b"\x89PNG")
    assert not processes_mentioning(str(output))


def test_ctrl_c_leaves_no_process_behind(tmp_path, environments_dir):
    output = tmp_path / "demo"
    with start_demo(output, environments_dir) as demo:
        for line in demo.stdout:
            if "building" in line:
                break
        assert processes_mentioning(str(output)), "the server runs"
        os.killpg(demo.pid, signal.SIGINT)
        told = demo.communicate(timeout=60)[0]
    assert demo.returncode == 130, told
    assert wait_until(lambda: not processes_mentioning(str(output))), processes_mentioning(str(output))
