"""The demo itself: from nothing to pictures, and Ctrl-C in the middle of it; and the gallery's pictures."""

import os
import re
import signal
import subprocess
import sys

import pytest

from dataset_handlers.registry import installed, load_handler
from examples.demo import MARKER, mark, prepare
from examples.gallery import PUBLISHED, SELF_MADE, Sheet, gallery
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


def test_the_gallery_shows_every_handler():
    page = (ROOT / "docs" / "handlers.md").read_text()
    pictures = gallery(SELF_MADE)
    assert set(pictures) == set(gallery(PUBLISHED)) == set(installed())
    for handler in pictures:
        assert f"(images/gallery-{handler}.jpg)" in page
        assert (ROOT / "docs" / "images" / f"gallery-{handler}.jpg").stat().st_size < 400_000


@pytest.mark.parametrize("subjects", [SELF_MADE, PUBLISHED], ids=["self-made", "published"])
def test_the_gallerys_configs_are_taken(subjects, tmp_path):
    for rows in gallery(subjects).values():
        for sheet in (sheet for row in rows for sheet in row):
            load_handler(sheet.handler)(dict(sheet.config), str(tmp_path))  # refuses what it does not know


def test_a_sheet_is_drawn(raw_root):
    config = {"image_size": [48, 64], "splits": {"train": 1.0}, "input_attributes": ["image", "alpha"]}
    drawn = Sheet("mattes", config, 2, 1, 2).draw(raw_root)
    assert drawn.width > 2 * 3 * 160


def test_a_demo_removes_what_demos_left_and_nothing_else(tmp_path):
    mark(tmp_path / "demo")
    (tmp_path / "demo" / "gallery").mkdir()
    prepare(tmp_path / "demo")
    assert [path.name for path in (tmp_path / "demo").iterdir()] == [MARKER]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("do not lose")
    mark(tmp_path / "own")
    with pytest.raises(SystemExit, match="something else"):
        prepare(tmp_path / "own")
    assert (tmp_path / "own" / "thesis.txt").exists()
