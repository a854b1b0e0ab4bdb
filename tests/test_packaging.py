"""What the two distributions contain, and that the lock files name no address."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from uv import find_uv_bin

from tests.support import ROOT


def build_wheel(folder, out) -> set[str]:
    """Names in the wheel of a copy of ``folder``."""
    copy = out / "copy"
    ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", ".*", "demo-output")
    shutil.copytree(folder, copy, ignore=ignored)
    command = [find_uv_bin(), "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable]
    subprocess.run([*command, "--out-dir", str(out), str(copy)], check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def sources(*packages: str) -> set[str]:
    found = {path.relative_to(ROOT).as_posix() for package in packages for path in (ROOT / package).rglob("*.py")}
    return {name for name in found if "/build/" not in name} | {f"{package}/py.typed" for package in packages}


def test_the_root_wheel_holds_three_packages(tmp_path):
    assert build_wheel(ROOT, tmp_path) == sources("dataset_client", "dataset_server", "training")


def test_the_handlers_wheel_is_the_folder(tmp_path):
    assert build_wheel(ROOT / "dataset_handlers", tmp_path) == sources("dataset_handlers")


@pytest.mark.parametrize("lock", ["requirements.lock", "dataset_handlers/requirements.lock"])
def test_lock_files_pin_by_hash_and_name_no_address(lock):
    text = (ROOT / lock).read_text()
    assert not re.search(r"https?:|file:|--index|--find-links|@ ", text)
    for block in re.split(r"\n(?=\S)", text.strip()):
        assert re.match(r"[a-z0-9][a-z0-9._-]*==[^ ]+", block), block
        assert "--hash=sha256:" in block, block


def test_both_locks_agree():
    def pins(lock: str) -> set[str]:
        return set(re.findall(r"^(\S+==\S+(?: ; [^\\]+)?) ", (ROOT / lock).read_text(), re.MULTILINE))

    assert pins("dataset_handlers/requirements.lock") <= pins("requirements.lock")


def test_entry_points_lead_somewhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name in project["scripts"]:
        run = subprocess.run([str(Path(sys.executable).with_name(name)), "--help"], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert "usage" in run.stdout.lower()
