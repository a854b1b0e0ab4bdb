"""Raw data for tests of handlers, and an interpreter with a third party's handlers."""

import shutil
import site
import venv
from pathlib import Path

import pytest

from examples.demo_data import make_raw_data
from tests.handlers.support import REPOSITORY


@pytest.fixture(scope="session")
def raw_root(tmp_path_factory):
    """A small raw root of drawn subjects on photographs: 20 + 6 photos for each of coco and duts."""
    root = tmp_path_factory.mktemp("handlers") / "raw"
    make_raw_data(root, train=20, held_out=6, seed=3)
    return root


@pytest.fixture(scope="session")
def real_raw():
    """Real photos, which are no part of the repository."""
    root = REPOSITORY.parent / "shared" / "data" / "raw"
    if not root.is_dir():
        pytest.skip("there are no real photos at ../shared/data/raw beside the repository")
    return root


@pytest.fixture(scope="session")
def plugin_python(tmp_path_factory):
    """An interpreter that has what ours has, and a third party's package of handlers besides."""
    folder = tmp_path_factory.mktemp("plugin") / "venv"
    venv.create(folder, symlinks=True, with_pip=False)
    (packages,) = folder.glob("lib/python3*/site-packages")
    ours = [path for path in site.getsitepackages() if Path(path).is_dir()]
    lines = [f"import site; site.addsitedir({path!r})\n" for path in ours]  # their .pth files are read, too
    (packages / "ours.pth").write_text("".join(lines))
    shutil.copy(Path(__file__).with_name("third_party.py"), packages)
    about = packages / "third_party-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    names = ("Loud", "Slow", "Deadly", "Rotten", "Full", "Whole", "Number")
    lines = [f"{name.lower()} = third_party:{name}" for name in names]
    lines += ["absent = third_party:Absent", "helper = third_party:numbers"]
    (about / "entry_points.txt").write_text("\n".join(["[dataset_handlers]", *lines, ""]))
    return folder / "bin" / "python"
