"""Raw data for every handler that is built in."""

import pytest

from examples.demo_data import EVERY, make_raw_data


@pytest.fixture(scope="session")
def raw_root(tmp_path_factory):
    """Self-made raw data in every folder that a built-in handler reads."""
    root = tmp_path_factory.mktemp("every") / "raw"
    make_raw_data(root, train=24, held_out=8, folders=EVERY, balls=True)
    return root


@pytest.fixture(scope="module")
def limits():
    """Settings of a module's server; handlers have time to import all they need on a busy machine."""
    return {"workers": 2, "retry_limit": 0}
